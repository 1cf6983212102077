"""Errors whose messages are written for the user."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(ValueError):
    """Something that the user gave is wrong: a file, a key, a name.

    The message says what is wrong, where, and what to do. The command line prints it without a traceback and exits
    with code :attr:`exit_code`.
    """

    exit_code = 2


class NoSplitError(UserError):
    """The data of an environment have no split of this name."""


class DivergedError(UserError):
    """A policy's weights became infinite or NaN."""


class LostProcessError(UserError):
    """Another process of the run is gone. Its own message says why."""

    exit_code = 3


class UnwritableError(UserError):
    """A file cannot be written: the disk is full or read-only, or the path is not writable."""


SHOWN_CHARACTERS = 100
"""Messages quote what the user gave up to this length."""


def shortened(given: object, limit: int = SHOWN_CHARACTERS) -> str:
    """The text of what the user gave, for a message: on one line, and at most ``limit`` characters of it."""
    text = str(given)
    return " ".join(text.splitlines()) if len(text) <= limit else f"{' '.join(text[:limit].splitlines())}..."


def first_line(error: BaseException) -> str:
    """The beginning of an error's text, in one line of at most 200 characters. Its kind, if it has no text."""
    return shortened((str(error).strip() or type(error).__name__).splitlines()[0], 200)


def suggestion(name: str, known: Iterable[str]) -> str:
    """Say what an unknown name could mean: the nearest known name, or else the list of all."""
    names = list(known)
    near = get_close_matches(name, names, n=1)
    return f"did you mean '{near[0]}'?" if near else f"known are {', '.join(names) or 'none'}"
