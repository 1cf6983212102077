"""`hiper engine install`: vLLM in a Python environment of its own."""

from __future__ import annotations

from pathlib import Path

from hiper.display.console import Display
from hiper.rollout.engines.environment import default_folder, inspect
from hiper.rollout.engines.install import install


def install_engine(folder: Path | None, cpu: bool | None, display: Display) -> None:
    """Install vLLM, and say how to use it.

    Args:
        folder: The folder of the environment. None: the place where the sampler looks.
        cpu: Whether to install the build for CPUs. None: if the machine has no GPU.
        display: The display of progress.

    Raises:
        UserError: The folder holds something else, the disk is full, or pip failed.
    """
    place = default_folder() if folder is None else folder
    known = inspect(place)
    display.whole_line(f"folder     {place}")
    found = install(place, display.bar, cpu)
    build = "the build for CPUs" if found.cpu else "the build for GPUs"
    done = "is there already" if known == found else "is installed"
    display.note(f"vLLM {found.version} {done} ({build}). Use it with sampler.type=vllm")
