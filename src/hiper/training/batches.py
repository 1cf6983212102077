"""Rows cut into batches: mini-batches at random, micro-batches by length so that little is padding."""

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


def micro_batches(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Indices of ``lengths`` grouped by length, so that count * longest stays within ``max_tokens``.

    A single row that is longer than ``max_tokens`` is a batch of its own.
    """
    batches: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        if not batches or (len(batches[-1]) + 1) * lengths[i] > max_tokens:
            batches.append([])
        batches[-1].append(i)
    return batches


def padding_share(lengths: Sequence[int], batches: Sequence[Sequence[int]]) -> float:
    """Share of the tokens in ``batches`` that is padding."""
    padded = sum(len(batch) * max(lengths[i] for i in batch) for batch in batches)
    return 1.0 - sum(lengths) / padded if padded else 0.0
