"""Running means of numbers by name."""

from __future__ import annotations

from collections import defaultdict

from torch import Tensor

from hiper.processes import ALONE, Processes


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

    def means(self, processes: Processes = ALONE) -> dict[str, float]:
        """Return the mean of each name with at least one number, over the meters of all processes."""
        whole = Meter()
        for sums, counts in processes.gather((dict(self._sums), dict(self._counts))):
            for name, total in sums.items():
                whole._sums[name] += total
                whole._counts[name] += counts[name]
        return {name: total / whole._counts[name] for name, total in whole._sums.items() if whole._counts[name]}
