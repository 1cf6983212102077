"""Arrays in memory, or in a folder from which many processes map the same pages of memory, read-only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


def hold(folder: Path | None, name: str, values: NDArray[Any]) -> NDArray[Any]:
    """Keep ``values`` as ``name`` in ``folder``, if there is one, and return them."""
    if folder is not None:
        np.save(_file(folder, name), values)
    return values


def allocate(folder: Path | None, name: str, length: int, dtype: DTypeLike) -> NDArray[Any]:
    """Return an array to be filled, likewise. On disk it need never be in memory as a whole."""
    if folder is None or not length:
        return hold(folder, name, np.zeros(length, dtype))
    return np.lib.format.open_memmap(_file(folder, name), mode="w+", dtype=np.dtype(dtype), shape=(length,))


def mapped(folder: Path, name: str) -> NDArray[Any]:
    """Return the array kept as ``name`` in ``folder``.

    Raises:
        OSError, ValueError: there is no such array.
    """
    values: NDArray[Any] = np.load(_file(folder, name), mmap_mode="r")
    return values


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.npy"
