"""The exceptions whose message is meant for the person at the keyboard, and what such messages share."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(ValueError):
    """Something the user gave (a file, a key, a name) is wrong.

    The message names it, says what is wrong, and what to do. The command line
    prints it without a traceback and exits with code 2.
    """


class NoSplitError(UserError):
    """The data of an environment hold no split of that name."""


class DivergedError(UserError):
    """A policy's weights went beyond numbers."""


class UnwritableError(UserError):
    """The disk refuses a file: it is full, read-only, or the place is not one to write to."""


def suggestion(name: str, known: Iterable[str]) -> str:
    """What could have been meant by an unknown name: the nearest known one, or else any of them."""
    names = list(known)
    near = get_close_matches(name, names, n=1)
    return f"did you mean '{near[0]}'?" if near else f"known are {', '.join(names) or 'none'}"
