"""Reading runs needs no torch: these modules start without the heavy libraries."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src"
HEAVY = {"torch", "transformers", "safetensors", "tensorboard", "matplotlib"}
PACKAGES = ("hiper.runs", "hiper.analysis.comparison", "hiper.study", "hiper.launch", "hiper.display")
LIGHT = (
    *("hiper.config", "hiper.envs", "hiper.episode", "hiper.outcomes", "hiper.analysis.report"),
    *(
        f"{package}.{file.stem}"
        for package in PACKAGES
        for file in sorted(SOURCE.joinpath(*package.split(".")).glob("*.py"))
        if file.stem != "__init__"
    ),
)

# Each module is imported in a fork of one light process, so that none sees what another loaded.
PROGRAM = """
import importlib, json, os, sys
for name in sys.argv[1:]:
    if (child := os.fork()) == 0:
        importlib.import_module(name)
        print(json.dumps([name, sorted({module.partition(".")[0] for module in sys.modules})]), flush=True)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        sys.exit(f"cannot import {name}")
"""


@pytest.fixture(scope="module")
def loaded() -> dict[str, set[str]]:
    """The top-level modules that are loaded after importing each module alone."""
    command = [sys.executable, "-c", PROGRAM, "json", "hiper.advantages", *LIGHT]
    path = {"PYTHONPATH": str(SOURCE)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=path)
    assert done.returncode == 0, done.stderr
    return {name: set(modules) for name, modules in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("name", LIGHT)
def test_it_starts_without_heavy_libraries(name: str, loaded: dict[str, set[str]]):
    assert loaded[name] & HEAVY == set()


def test_settings_need_no_tokenizers(loaded: dict[str, set[str]]):
    assert "tokenizers" not in loaded["hiper.config"]


def test_the_estimators_need_numpy_alone(loaded: dict[str, set[str]]):
    own = loaded["hiper.advantages"] - loaded["json"] - set(sys.stdlib_module_names)
    assert own == {"hiper", "numpy"}
