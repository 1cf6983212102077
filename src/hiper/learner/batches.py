"""Random mini-batches of rows, one for each optimizer step."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Protocol, TypeVar


class Sized(Protocol):
    """Anything with a length in tokens."""

    def __len__(self) -> int: ...


T = TypeVar("T", bound=Sized)


def minibatches(rows: Sequence[T], size: int, seed: int) -> Iterator[list[T]]:
    """Shuffle ``rows`` and cut them into equal parts of about ``size`` rows."""
    shuffled = list(rows)
    random.Random(seed).shuffle(shuffled)
    count = max(1, round(len(rows) / size))
    for i in range(count):
        yield shuffled[i * len(rows) // count : (i + 1) * len(rows) // count]
