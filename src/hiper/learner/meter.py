"""Running means of numbers by name."""

from __future__ import annotations

from collections import defaultdict

from torch import Tensor


class Meter:
    """Sums and counts of numbers by name."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = defaultdict(float)
        self._counts: dict[str, int] = defaultdict(int)

    def add(self, name: str, value: float) -> None:
        """Add one number."""
        self._sums[name] += value
        self._counts[name] += 1

    def add_all(self, name: str, values: Tensor) -> float:
        """Add each entry of a tensor, and return their sum."""
        total = float(values.detach().sum())
        self._sums[name] += total
        self._counts[name] += values.numel()
        return total

    def means(self) -> dict[str, float]:
        """Return the mean of each name with at least one number."""
        return {name: total / self._counts[name] for name, total in self._sums.items() if self._counts[name]}
