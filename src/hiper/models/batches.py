"""Sequences cut into batches by length, so that little is padding."""

from __future__ import annotations

from collections.abc import Sequence


def micro_batches(lengths: Sequence[int], max_tokens: int, most_padding: float = 0.1) -> list[list[int]]:
    """Indices of ``lengths`` grouped by length.

    Args:
        lengths: of the sequences.
        max_tokens: count * longest of a batch stays within it, unless it is a single sequence that is longer.
        most_padding: no batch has a larger share of padding.
    """
    batches: list[list[int]] = []
    tokens = 0  # of the last batch, without padding
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        padded = (len(batches[-1]) + 1) * lengths[i] if batches else 0
        if not batches or padded > max_tokens or padded - tokens - lengths[i] > most_padding * padded:
            batches.append([])
            tokens = 0
        batches[-1].append(i)
        tokens += lengths[i]
    return batches


def padding_share(lengths: Sequence[int], batches: Sequence[Sequence[int]]) -> float:
    """Share of the tokens in ``batches`` that is padding."""
    padded = sum(len(batch) * max(lengths[i] for i in batch) for batch in batches)
    return 1.0 - sum(lengths) / padded if padded else 0.0
