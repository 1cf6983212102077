"""Random draws that mean the same on every machine and Python version."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import TypeVar

T = TypeVar("T")


class Dice:
    """A source of draws from :meth:`random.Random.random` alone, the one method whose sequence Python guarantees."""

    def __init__(self, *seed: object) -> None:
        self._next = random.Random("/".join(map(str, seed))).random

    def between(self, low: int, high: int) -> int:
        """Draw an integer from ``low`` to ``high``, both included."""
        return low + int(self._next() * (high - low + 1))

    def chance(self, probability: float) -> bool:
        """Return True with ``probability``."""
        return self._next() < probability

    def pick(self, items: Sequence[T]) -> T:
        """Draw one of ``items``, all equally likely."""
        return items[self.between(0, len(items) - 1)]

    def weighted(self, weights: Mapping[T, int]) -> T:
        """Draw a key of ``weights`` in proportion to its weight. Some weight must be above zero."""
        mark = self.between(1, sum(weights.values()))
        for item, weight in weights.items():
            mark -= weight
            if mark <= 0:
                return item
        raise AssertionError("weights are empty or negative")
