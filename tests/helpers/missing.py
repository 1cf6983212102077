"""Skips for data that the repository does not hold, counted in the summary of a test run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NoReturn

import pytest

Data = Literal["official games", "official products", "recorded cases", "Chromium"]

_MARK = "outside the repository: "


def skip_without(what: Data, path: Path | str) -> NoReturn:
    """Skip a test for want of data.

    Args:
        what: which data.
        path: where they were looked for.
    """
    pytest.skip(f"{_MARK}{what}, not found at {path}")


def told_of(reasons: Iterable[str]) -> str:
    """Sum up in one line the skips of :func:`skip_without` among the reasons of all skips; '' if there are none."""
    counts = Counter(reason.partition(_MARK)[2].partition(",")[0] for reason in reasons if _MARK in reason)
    if not counts:
        return ""
    parts = ", ".join(f"{counts[what]} {what}" for what in sorted(counts))
    return f"{counts.total()} tests need data outside the repository and were skipped ({parts}): see CONTRIBUTING.md"
