"""`hiper doctor`: what this machine has, what works and what is missing, in one table.

Only torch is imported. Of all other packages the installed version is read.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import shutil
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import typer

from hiper import __version__
from hiper.display.console import Display
from hiper.display.tables import Table
from hiper.errors import UserError, first_line

State = Literal["ok", "missing", "problem"]

REQUIRED = ("transformers", "tokenizers", "numpy", "safetensors")
"""Packages without which nothing trains."""
OPTIONAL = {
    "peft": ("LoRA", "pip install 'hiper[lora]'"),
    "bitsandbytes": ("8-bit optimizer and 4-bit models", "pip install 'hiper[bitsandbytes]'"),
    "ray": ("--launcher ray", "pip install 'hiper[ray]'"),
    "starlette": ("the viewer", "pip install 'hiper[viewer]'"),
    "spacy": ("titles of WebShop's products", "pip install 'hiper[webshop]'"),
    "textworld": ("the comparison with TextWorld", "pip install 'hiper[textworld]'"),
}
"""Packages that something needs: what, and how to get it."""
OLDEST_PYTHON = (3, 11)
LEAST_OPEN_FILES = 1_024
"""Episodes, data and processes keep files open."""
LEAST_SHARED_MEMORY = 1_000_000_000
"""Processes of one machine exchange tensors through it."""
LEAST_DISK = 5_000_000_000
HUB = ("huggingface.co", 443)
HUB_SECONDS = 1.0


@dataclass(frozen=True)
class Line:
    """One row of the table."""

    what: str
    state: State
    found: str
    advice: str = ""
    """What to do, where something is missing or wrong."""
    broken: bool = False
    """Whether hiper cannot work like this."""


def examine() -> list[Line]:
    """Look at the machine. An examination that fails becomes a line of its own."""
    parts: tuple[tuple[str, Callable[[], Iterator[Line]]], ...] = (
        ("Python", _python),
        ("torch", _torch),
        ("GPU", _gpus),
        ("CPU", _cpu),
        ("memory", _memory),
        ("disk", _disk),
        ("packages", _packages),
        ("engine", _engine),
        ("data", _data),
        ("hub", _hub),
        ("limits", _limits),
    )
    lines: list[Line] = []
    for what, examination in parts:
        try:
            lines += examination()
        except Exception as error:  # whatever is wrong with the machine is what is to be shown
            lines.append(Line(what, "problem", first_line(error) or type(error).__name__, "see the message"))
    return lines


def show(lines: list[Line], display: Display, as_json: bool = False) -> None:
    """Show the table, or write it as JSON to standard output."""
    if as_json:
        typer.echo(json.dumps([asdict(line) for line in lines], indent=1, ensure_ascii=False))
        return
    rows = [(line.what, line.state, line.found, line.advice) for line in lines]
    display.table(Table("this machine", ("", "state", "found", "what to do"), rows, left=4))
    if broken := [line.what for line in lines if line.broken]:
        display.note(f"hiper cannot work here before this is mended: {', '.join(broken)}")


def _python() -> Iterator[Line]:
    new = sys.version_info >= OLDEST_PYTHON
    oldest = ".".join(map(str, OLDEST_PYTHON))
    yield Line(
        "Python",
        "ok" if new else "problem",
        f"{platform.python_version()}, {sys.executable}",
        "" if new else f"install Python {oldest} or later",
        broken=not new,
    )
    yield Line("hiper", "ok", f"{__version__}, {Path(__file__).parents[1]}")


def _torch() -> Iterator[Line]:
    try:
        import torch
    except (ImportError, OSError) as error:  # a library of a broken build is an OSError
        yield Line("torch", "problem", first_line(error), "install torch anew: pytorch.org/get-started", broken=True)
        return
    if torch.version.cuda:
        build = f"built for CUDA {torch.version.cuda}"
    elif getattr(torch.version, "hip", None):
        build = f"built for ROCm {torch.version.hip}"
    else:
        build = "built for CPUs"
    yield Line("torch", "ok", f"{torch.__version__}, {build}")


def _gpus() -> Iterator[Line]:
    import torch

    if not torch.cuda.is_available():
        driver = Path("/proc/driver/nvidia/version").exists()
        advice = "this build of torch does not see the GPU: install one for the driver's CUDA" if driver else ""
        yield Line("GPU", "problem" if driver else "missing", "none that torch can use", advice)
        return
    for number in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(number)
        half = "bfloat16" if torch.cuda.is_bf16_supported() else "no bfloat16"
        few = free < 0.9 * total
        yield Line(
            f"cuda:{number}",
            "ok",
            f"{torch.cuda.get_device_name(number)}, {total / 1e9:.0f} GB, {free / 1e9:.0f} GB free, {half}",
            "another process uses its memory" if few else "",
        )
    if torch.cuda.device_count() > 1:
        there = torch.distributed.is_available() and torch.distributed.is_nccl_available()
        yield Line("NCCL", "ok" if there else "missing", "there" if there else "none", "" if there else "one GPU only")


def _cpu() -> Iterator[Line]:
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    fast = bool(torch.cpu.get_capabilities().get("avx512_bf16"))
    yield Line("CPU", "ok", f"{cores} cores, {'with' if fast else 'without'} bfloat16 instructions (avx512_bf16)")


def _memory() -> Iterator[Line]:
    from hiper.training.estimate.devices import available_memory

    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    free = available_memory()
    found = f"{total / 1e9:.1f} GB" + ("" if free is None else f", {free / 1e9:.1f} GB available to this process")
    few = free is not None and free < 2e9
    yield Line("memory", "problem" if few else "ok", found, "end other programs; training needs 2 GB" if few else "")
    if Path("/dev/shm").is_dir():
        shared = shutil.disk_usage("/dev/shm").free
        small = shared < LEAST_SHARED_MEMORY
        advice = "several processes need more; for containers: --shm-size=8g" if small else ""
        yield Line("shared memory", "problem" if small else "ok", f"{shared / 1e9:.1f} GB free", advice)


def _disk() -> Iterator[Line]:
    free = shutil.disk_usage(".").free
    few = free < LEAST_DISK
    advice = "free some space; `hiper check` says what a run takes" if few else ""
    yield Line("disk", "problem" if few else "ok", f"{free / 1e9:.0f} GB free here", advice)


def _packages() -> Iterator[Line]:
    for name in REQUIRED:
        there = _version(name)
        yield Line(
            name,
            "ok" if there else "problem",
            there or "not installed",
            "" if there else "pip install hiper",
            broken=there is None,
        )
    for name, (use, remedy) in OPTIONAL.items():
        there = _version(name)
        yield Line(name, "ok" if there else "missing", there or "not installed", "" if there else f"{use}: {remedy}")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _engine() -> Iterator[Line]:
    from hiper.rollout.engines.environment import check_version, engine_folder, inspect

    folder = engine_folder(None)
    found = inspect(folder)
    if found is None:
        yield Line("vllm", "missing", f"none in {folder}", "a faster sampler: hiper engine install")
        return
    what = f"{found.version}, for {'CPUs' if found.cpu else 'GPUs'}, in {folder}"
    try:
        check_version(found.version, str(folder))
    except UserError as error:
        yield Line("vllm", "problem", what, str(error))
    else:
        yield Line("vllm", "ok", what)


def _data() -> Iterator[Line]:
    from hiper.envs.registry import names_with_data, official_data

    for name in names_with_data():
        place = official_data(name).folder()
        there = place.is_dir() and any(place.iterdir())
        advice = "" if there else f"for the official tasks: hiper data {name}"
        yield Line(f"data of {name}", "ok" if there else "missing", str(place) if there else "none", advice)


def _hub() -> Iterator[Line]:
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        yield Line("hub of models", "ok", "not asked: HF_HUB_OFFLINE is set")
        return
    reasons: list[str] = []
    # Looking up a name has no time limit of its own.
    asking = threading.Thread(target=lambda: reasons.append(_ask_hub()), daemon=True)
    asking.start()
    asking.join(HUB_SECONDS)
    reason = reasons[0] if reasons else "no answer within a second"
    if reason:
        advice = "offline, give the folder of a model (model.path=FOLDER), and set HF_HUB_OFFLINE=1"
        yield Line("hub of models", "missing", f"{HUB[0]}: {reason}", advice)
    else:
        yield Line("hub of models", "ok", f"{HUB[0]} answers")


def _ask_hub() -> str:
    """Return why the hub cannot be reached; nothing if it can."""
    try:
        with socket.create_connection(HUB, timeout=HUB_SECONDS):
            return ""
    except OSError as error:
        return first_line(error) or "no answer"


def _limits() -> Iterator[Line]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = soft != resource.RLIM_INFINITY and soft < LEAST_OPEN_FILES
    advice = f"raise it: ulimit -n {min(hard, 65_536) if hard > 0 else 65_536}" if few else ""
    shown = "unlimited" if soft == resource.RLIM_INFINITY else f"{soft:,}"
    yield Line("open files", "problem" if few else "ok", f"at most {shown}", advice)
