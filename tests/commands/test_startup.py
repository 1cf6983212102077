"""Commands that need no model start without the libraries of models, and draw last."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "transformers", "tokenizers", "safetensors", "tensorboard", "matplotlib")
PROBE = f"""
import json, sys
from hiper import cli
sys.argv = ["hiper", *sys.argv[1:]]
try:
    cli.main()
except SystemExit as ended:
    code = ended.code
loaded = [name for name in {HEAVY} if name in sys.modules]
sys.stderr.write("\\n" + json.dumps([code or 0, loaded]))
"""
IMPORTS = f"""
import importlib, json, pkgutil, sys
import hiper
def names(package):
    yield package
    for found in pkgutil.walk_packages(importlib.import_module(package).__path__, package + "."):
        yield found.name
for package in sys.argv[1:]:
    for name in names(package):
        importlib.import_module(name)
print(json.dumps([name for name in {HEAVY} if name in sys.modules]))
"""
RUNS_NEED_TORCH = pytest.mark.xfail(strict=True, reason="hiper.runs.folder imports torch until it is split")
CONFIG_NEEDS_TOKENIZERS = pytest.mark.xfail(strict=True, reason="hiper.config imports tokenizers until it is split")


def loaded_by(*arguments: object) -> tuple[int, list[str]]:
    """The exit code of a command, and which heavy libraries it imported."""
    command = [sys.executable, "-c", PROBE, *map(str, arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"COLUMNS": "160"})
    code, loaded = json.loads(ended.stderr.splitlines()[-1])
    return code, loaded


@pytest.mark.parametrize("arguments", [("-h",), ("--version",), ("trian",), ("train", "--uot", "x"), ("study", "-h")])
def test_help_and_mistyped_commands_load_nothing(arguments: tuple[str, ...]):
    code, loaded = loaded_by(*arguments)
    assert (code in (0, 2), loaded) == (True, [])


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(("recipes",), marks=CONFIG_NEEDS_TOKENIZERS),
        pytest.param(("recipes", "boxs"), marks=CONFIG_NEEDS_TOKENIZERS),
        pytest.param(("tasks", "corridor"), marks=CONFIG_NEEDS_TOKENIZERS),
        pytest.param(("train", "quikstart"), marks=CONFIG_NEEDS_TOKENIZERS),
        pytest.param(("train", "quickstart", "learner.clop=1"), marks=CONFIG_NEEDS_TOKENIZERS),
        pytest.param(("study", "ablation"), marks=CONFIG_NEEDS_TOKENIZERS),
        pytest.param(("train", "--resume", "nowhere"), marks=RUNS_NEED_TORCH),
        pytest.param(("report", "nowhere"), marks=RUNS_NEED_TORCH),
        pytest.param(("eval", "nowhere"), marks=RUNS_NEED_TORCH),
        pytest.param(("compare", "nowhere"), marks=RUNS_NEED_TORCH),
        pytest.param(("credit", "nowhere"), marks=RUNS_NEED_TORCH),
        pytest.param(("verify", "--run", "nowhere"), marks=RUNS_NEED_TORCH),
    ],
    ids=" ".join,
)
def test_lists_and_mistakes_load_no_model_libraries(arguments: tuple[str, ...]):
    code, loaded = loaded_by(*arguments)
    assert code == (0 if arguments in (("recipes",), ("tasks", "corridor")) else 2)
    assert loaded == []


@RUNS_NEED_TORCH
@pytest.mark.parametrize("command", ["report", "compare"])
def test_reading_a_run_loads_matplotlib_alone(command: str, tiny_run: Path, tmp_path: Path):
    out = ("--out", tmp_path) if command == "compare" else ()
    assert loaded_by(command, tiny_run, *out) == (0, ["matplotlib"])


@pytest.mark.parametrize(
    "package",
    [
        "hiper.display",
        pytest.param("hiper.launch", marks=()),
        pytest.param("hiper.study", marks=RUNS_NEED_TORCH),
        pytest.param("hiper.analysis.comparison", marks=RUNS_NEED_TORCH),
        pytest.param("hiper.analysis.proofs", marks=RUNS_NEED_TORCH),
    ],
)
def test_importing_a_package_loads_no_model_libraries(package: str):
    command = [sys.executable, "-c", IMPORTS, package]
    assert json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout) == []


@RUNS_NEED_TORCH
def test_the_scheduler_of_studies_loads_no_model_libraries():
    command = [sys.executable, "-c", IMPORTS.replace("sys.argv[1:]", "()") + "\n", ""]
    script = command[2].replace("print(", "import hiper.commands.study\nprint(")
    ended = subprocess.run([*command[:2], script], capture_output=True, text=True, check=True)
    assert json.loads(ended.stdout) == []
