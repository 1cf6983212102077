"""Texts for people: lines wrapped at their words, and times."""

from __future__ import annotations

import textwrap


def wrapped(line: str, width: int, indent: int | None = None) -> list[str]:
    """Wrap a line at its words.

    Args:
        line: the line. Its own indentation stays.
        width: the most characters of a line. Longer words stay whole.
        indent: the blanks before further lines; None: two more than before the first.
    """
    if len(line) <= width:
        return [line]
    own = len(line) - len(line.lstrip(" "))
    further = " " * (own + 2 if indent is None else indent)
    return textwrap.wrap(
        line,
        width,
        subsequent_indent=further,
        break_long_words=False,
        break_on_hyphens=False,
        expand_tabs=False,
        replace_whitespace=False,
    )


def duration(seconds: float) -> str:
    """Write a time for people, in at most six characters: "0.4 s", "41 s", "12 min", "3.2 h", "75 h"."""
    if seconds < 99.5:
        return f"{seconds:.{int(seconds < 9.95)}f} s"
    if seconds < 99.5 * 60:
        return f"{seconds / 60:.0f} min"
    hours = seconds / 3600
    return f"{hours:.{int(hours < 9.95)}f} h"


def clock(seconds: float) -> str:
    """Write a time so far: "0:41", "12:05", "3:12:05"."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
