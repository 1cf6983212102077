"""Batches of rows: random mini-batches, one for each optimizer step, cut into micro-batches of similar length."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeVar

T = TypeVar("T")


def minibatches(rows: Sequence[T], size: int, seed: int) -> Iterator[list[T]]:
    """Shuffle ``rows`` and cut them into equal parts of about ``size`` rows."""
    shuffled = list(rows)
    random.Random(seed).shuffle(shuffled)
    count = max(1, round(len(rows) / size))
    for i in range(count):
        yield shuffled[i * len(rows) // count : (i + 1) * len(rows) // count]


def micro_batches(lengths: Sequence[int], max_tokens: int, most_padding: float = 0.1) -> list[list[int]]:
    """Group the indices of ``lengths`` by length.

    Args:
        lengths: The lengths of the sequences in tokens.
        max_tokens: The most tokens of a batch, with padding. A longer sequence gets a batch of its own.
        most_padding: The largest share of padding in a batch, between 0 and 1.
    """
    batches: list[list[int]] = []
    tokens = 0  # tokens of the last batch, without padding
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        padded = (len(batches[-1]) + 1) * lengths[i] if batches else 0
        if not batches or padded > max_tokens or padded - tokens - lengths[i] > most_padding * padded:
            batches.append([])
            tokens = 0
        batches[-1].append(i)
        tokens += lengths[i]
    return batches


def owners(batches: Sequence[Sequence[int]], lengths: Sequence[int], count: int) -> list[int]:
    """Share batches out to ``count`` processes, about equally many padded tokens each; return the process of each."""
    costs = padded_tokens(batches, lengths)
    loads, owner = [0] * count, [0] * len(batches)
    for number in sorted(range(len(batches)), key=lambda number: -costs[number]):
        owner[number] = loads.index(min(loads))
        loads[owner[number]] += costs[number]
    return owner


def idle_share(batches: Sequence[Sequence[int]], lengths: Sequence[int], count: int) -> float:
    """Return the share of all processes' time in which they wait for the slowest, if batches are shared out whole."""
    loads = [0] * count
    for cost, rank in zip(padded_tokens(batches, lengths), owners(batches, lengths, count), strict=True):
        loads[rank] += cost
    return 1.0 - sum(loads) / (count * max(loads)) if any(loads) else 0.0


def padded_tokens(batches: Sequence[Sequence[int]], lengths: Sequence[int]) -> list[int]:
    """Return the number of tokens of each batch, with padding."""
    return [len(batch) * max(lengths[i] for i in batch) for batch in batches]


class Pass(NamedTuple):
    """One forward pass of a process, and a backward pass where weights are trained."""

    rows: Sequence[int]
    """The indices of the rows."""
    counts: bool = True
    """Whether the results count. False: the pass is made because the others make one."""


def in_step(batches: Sequence[Sequence[int]], lengths: Sequence[int], rank: int, count: int) -> list[Pass]:
    """Return a process's passes where ``count`` processes must make equally many.

    Neighbours, which are about equally long, are done at the same time. The largest batches are halved until each
    process has its own in every step. Where single rows are left over, the other processes repeat the shortest row.
    """
    shared = [list(batch) for batch in batches]
    while len(shared) % count:
        largest = max(range(len(shared)), key=lambda number: len(shared[number]))
        batch = shared[largest]
        if len(batch) == 1:
            break
        shared[largest : largest + 1] = [batch[: len(batch) // 2], batch[len(batch) // 2 :]]
    passes = [Pass(batch) for batch in shared]
    spare = Pass([min(range(len(lengths)), key=lengths.__getitem__)], counts=False) if lengths else Pass([])
    passes += [spare] * (-len(passes) % count)
    return passes[rank::count]


def padding_share(lengths: Sequence[int], batches: Sequence[Sequence[int]]) -> float:
    """Return the share of padding among the tokens of ``batches``."""
    padded = sum(padded_tokens(batches, lengths))
    return 1.0 - sum(lengths) / padded if padded else 0.0
