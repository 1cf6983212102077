"""The devices that a run may have: named ones such as ``4x24GB``, and this machine's own with their free memory."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from hiper.errors import UserError

PEAKS = {24: (165e12, 1.0e12), 48: (362e12, 0.86e12), 80: (989e12, 3.35e12), 141: (989e12, 4.8e12)}
"""Dense bfloat16 operations and bytes of memory a second of a usual GPU, by its gigabytes. From the data sheets of
NVIDIA's RTX 4090, L40S, H100 SXM and H200 SXM."""
CPU_PEAK = (0.1e12, 0.05e12)
"""The same for a core of a CPU. It is an assumption: cores differ by a factor of ten."""


@dataclass(frozen=True)
class Device:
    """What each process of a run computes on."""

    kind: str
    """``cpu`` or ``cuda``."""
    count: int
    """The number of devices, one for each process."""
    memory: float | None
    """The bytes of one device. Of a CPU: of the machine, which all processes share. None: it is not known."""
    name: str

    @property
    def for_each(self) -> float | None:
        """The bytes for each process."""
        return None if self.memory is None else self.memory / (self.count if self.kind == "cpu" else 1)

    @property
    def peaks(self) -> tuple[float, float]:
        """Operations a second and bytes a second; those of the largest known GPU that is not larger."""
        if self.kind == "cpu":
            return CPU_PEAK
        size = (self.memory or 0) / 1e9
        return PEAKS[max((known for known in PEAKS if known <= size + 1), default=min(PEAKS))]


def gigabytes(size: float) -> str:
    """Write bytes for people, in units of 10^9 or 10^6 bytes."""
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.0f} MB"


def named_device(text: str, processes: int | None = None) -> Device:
    """Read a device such as ``1x80GB``, ``4x24GB``, ``80GB`` or ``cpu``. A gigabyte is 10^9 bytes here.

    Raises:
        UserError: The text is of another form.
    """
    if text.strip().lower() == "cpu":
        return replace_count(this_machine("cpu"), processes)
    found = re.fullmatch(r"(?:(\d{1,5})\s*x\s*)?(\d{1,6}(?:\.\d+)?)\s*gi?b?", text.strip().lower())
    count = int(found[1] or processes or 1) if found else 0
    if found is None or count < 1 or float(found[2]) <= 0:
        raise UserError(f"--gpus {text!r}: give a number of GPUs and their memory, such as 1x80GB or 4x24GB, or cpu")
    if processes is not None and processes != count:
        raise UserError(f"--gpus {text} names {count} GPUs, and --processes {processes}: each process needs one")
    size = float(found[2]) * 1e9
    return Device("cuda", count, size, f"{count} x {float(found[2]):g} GB")


def replace_count(device: Device, processes: int | None) -> Device:
    """Return the device for another number of processes."""
    return Device(device.kind, processes or 1, device.memory, device.name)


def this_machine(name: str = "auto", index: int = 0) -> Device:
    """Return the device of this machine that ``training.device`` names, with its free memory.

    Args:
        name: The name of the device.
        index: The number of the GPU, where the name leaves it open.
    """
    if name.startswith("cuda") or (name == "auto" and torch.cuda.is_available()):
        number = int(name.partition(":")[2] or index)
        free, _ = torch.cuda.mem_get_info(number)
        return Device("cuda", 1, float(free), f"cuda:{number} ({torch.cuda.get_device_name(number)})")
    if name in ("auto", "cpu"):
        return Device("cpu", 1, available_memory(), "the CPU's memory")
    return Device(name.partition(":")[0], 1, None, name)


def available_memory() -> float | None:
    """Return the bytes that processes can still get on this machine, swap included. None: it is not known.

    A container may have less than the machine: the limits of its control groups count too, in both of their versions.
    """
    left = []
    with suppress(OSError, ValueError, KeyError):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
        left.append(float(sizes["MemAvailable"] + sizes.get("SwapFree", 0)))
    left += [limit - used for limit, used in _group_limits()]
    if not left and hasattr(os, "sysconf"):
        with suppress(OSError, ValueError):
            left.append(float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")))
    return min(left, default=None)


def _group_limits(
    root: Path = Path("/sys/fs/cgroup"), groups: Path = Path("/proc/self/cgroup")
) -> Iterator[tuple[float, float]]:
    """Yield the limit and the use of each control group that holds this process. Files in the cache are not in use."""
    with suppress(OSError, ValueError):
        for line in groups.read_text(encoding="utf-8").splitlines():
            _, controllers, place = line.split(":", 2)
            if controllers not in ("", "memory"):
                continue
            base = root if controllers == "" else root / "memory"
            limit, used = (
                ("memory.max", "memory.current")
                if controllers == ""
                else (
                    "memory.limit_in_bytes",
                    "memory.usage_in_bytes",
                )
            )
            inner = base / place.strip("/")
            for folder in (inner, *inner.parents):
                if (folder / limit).is_file() and (text := (folder / limit).read_text().strip()) != "max":
                    yield float(text), float((folder / used).read_text()) - _cached(folder / "memory.stat")
                if folder == base:
                    break


def _cached(file: Path) -> float:
    with suppress(OSError, ValueError, KeyError):
        stat = dict(line.split() for line in file.read_text().splitlines())
        return float(stat.get("total_inactive_file", stat.get("inactive_file", 0)))
    return 0.0
