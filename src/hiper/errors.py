"""Errors whose messages are written for the user."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches


class UserError(ValueError):
    """Something that the user gave is wrong: a file, a key, a name.

    The message says what is wrong, where, and what to do. The command line prints it without a traceback and exits
    with code :attr:`exit_code`. Characters that cannot be shown, such as control characters, are written as escapes.
    """

    exit_code = 2

    def __str__(self) -> str:
        return printable(super().__str__())


class NoSplitError(UserError):
    """The data of an environment have no split of this name."""


class DivergedError(UserError):
    """A policy's weights became infinite or NaN."""


class LostProcessError(UserError):
    """Another process of the run is gone. Its own message says why."""

    exit_code = 3


class UnwritableError(UserError):
    """A file cannot be written: the disk is full or read-only, or the path is not writable."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the memory of the machine or of a GPU is used up. Torch has errors of its own."""
    told = str(error).lower()
    kind = type(error).__name__
    return (
        isinstance(error, MemoryError)
        or kind == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and ("out of memory" in told or "can't allocate memory" in told))
    )


OUT_OF_MEMORY = (
    "lower learner.micro_batch_tokens if it was scoring, updating or imitating, rollout.slots or sampler.batch_tokens "
    "if it was playing episodes; or set model.gradient_checkpointing=true, model.critic=shared, or take a smaller model"
)
"""What to do about it."""


def printable(text: str) -> str:
    """The text with escapes in place of all characters that cannot be shown, other than line breaks."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


SHOWN_CHARACTERS = 100
"""Messages quote what the user gave up to this length."""


def shortened(given: object, limit: int = SHOWN_CHARACTERS) -> str:
    """The text of what the user gave, for a message: on one line, and at most ``limit`` characters of it."""
    text = str(given)
    return " ".join(text.splitlines()) if len(text) <= limit else f"{' '.join(text[:limit].splitlines())}..."


def first_line(error: BaseException) -> str:
    """The beginning of an error's text, in one line of at most 200 characters. Its kind, if it has no text."""
    return shortened((str(error).strip() or type(error).__name__).splitlines()[0], 200)


def unreadable(error: BaseException) -> str:
    """Say in words why the content of a file cannot be read, from the error of a parser or of what came after it."""
    if isinstance(error, UnicodeDecodeError):
        return "it is no UTF-8 text"
    if isinstance(error, RecursionError):
        return "it is nested too deep"
    if isinstance(error, KeyError):
        return f"it lacks {shortened(error)}"
    if isinstance(error, TypeError) and (keys := re.findall(r"argument.*?'(.*?)'", str(error))):
        return f"'{shortened(keys[0])}' is missing, or is no key of it"
    if isinstance(error, TypeError | AttributeError | LookupError):
        return "its content is of another form"
    return shortened(getattr(error, "strerror", None) or error, 300)


def suggestion(name: str, known: Iterable[str], listed: Iterable[str] | None = None) -> str:
    """Say what an unknown name could mean: the nearest known name, or else the list of all.

    Args:
        name: the unknown name.
        known: the names that it may mean.
        listed: the names to list if none is near; None: all known ones.
    """
    names = list(known)
    near = get_close_matches(name, names, n=1)
    return f"did you mean '{near[0]}'?" if near else f"known are {', '.join(listed or names) or 'none'}"
