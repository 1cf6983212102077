"""Commands that need no model start without the libraries of models, and draw last."""

from __future__ import annotations

import json
import os
import shutil
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
        ("recipes",),
        ("recipes", "boxs"),
        ("tasks", "corridor"),
        ("train", "quikstart"),
        ("train", "quickstart", "learner.clop=1"),
        ("study", "ablation"),
        ("train", "--resume", "nowhere"),
        ("report", "nowhere"),
        ("eval", "nowhere"),
        ("compare", "nowhere"),
        ("credit", "nowhere"),
        ("view", "nowhere"),
        ("verify", "--run", "nowhere"),
    ],
    ids=" ".join,
)
def test_lists_and_mistakes_load_no_model_libraries(arguments: tuple[str, ...]):
    code, loaded = loaded_by(*arguments)
    assert code == (0 if arguments in (("recipes",), ("tasks", "corridor")) else 2)
    assert loaded == []


@pytest.mark.parametrize("command", ["report", "compare"])
def test_reading_a_run_loads_matplotlib_alone(command: str, tiny_run: Path, tmp_path: Path):
    out = ("--out", tmp_path) if command == "compare" else ()
    assert loaded_by(command, tiny_run, *out) == (0, ["matplotlib"])


FIRST = f"""
import io, json, sys
from hiper import cli
class First(io.StringIO):
    def write(self, text):
        if text.strip():
            loaded = [name for name in {HEAVY} if name in sys.modules]
            sys.__stderr__.write("\\n" + json.dumps([text, loaded]) + "\\n")
            sys.__stderr__.flush()
            import os
            os._exit(0)
sys.stdout = First()
sys.argv = ["hiper", *sys.argv[1:]]
cli.main()
"""
"""Ends with the first output of a command: what it is, and which heavy libraries were loaded by then."""


@pytest.mark.parametrize(
    "arguments",
    [
        ("train", "{recipe}", "--out", "{out}"),
        ("train", "--resume", "{unfinished}"),
        ("sft", "{recipe}", "--out", "{out}"),
        ("eval", "{run}", "--out", "{out}"),
        ("play", "corridor", "--agent", "{run}"),
        ("credit", "{run}", "--out", "{out}"),
    ],
    ids=" ".join,
)
def test_what_needs_torch_says_something_before_it(
    arguments: tuple[str, ...], tiny_recipe: Path, tiny_run: Path, tmp_path: Path
):
    unfinished = shutil.copytree(tiny_run, tmp_path / "unfinished")
    shutil.rmtree(unfinished / "checkpoints" / "iter-00002")
    places = {"recipe": tiny_recipe, "run": tiny_run, "out": tmp_path / "out", "unfinished": unfinished}
    command = [sys.executable, "-c", FIRST, *(argument.format(**places) for argument in arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    said, loaded = json.loads(ended.stderr.splitlines()[-1])
    assert len(said) > 5
    assert loaded == []


@pytest.mark.parametrize(
    "package",
    [
        "hiper.display",
        "hiper.launch",
        "hiper.study",
        "hiper.analysis.comparison",
        "hiper.analysis.proofs",
    ],
)
def test_importing_a_package_loads_no_model_libraries(package: str):
    command = [sys.executable, "-c", IMPORTS, package]
    assert json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout) == []


def test_the_scheduler_of_studies_loads_no_model_libraries():
    script = f"import json, sys, hiper.commands.study; print(json.dumps([n for n in {HEAVY} if n in sys.modules]))"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(ended.stdout) == []


# --- Reading runs needs no torch: these modules start without the heavy libraries -------------------------------------


SOURCE = Path(__file__).parents[2] / "src"
HEAVY_FOR_READERS = {"torch", "transformers", "safetensors", "tensorboard", "matplotlib"}
PACKAGES = ("hiper.runs", "hiper.analysis.comparison", "hiper.study", "hiper.launch", "hiper.display", "hiper.viewer")
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
    assert loaded[name] & HEAVY_FOR_READERS == set()


def test_settings_need_no_tokenizers(loaded: dict[str, set[str]]):
    assert "tokenizers" not in loaded["hiper.config"]


def test_the_estimators_need_numpy_alone(loaded: dict[str, set[str]]):
    own = loaded["hiper.advantages"] - loaded["json"] - set(sys.stdlib_module_names)
    assert own == {"hiper", "numpy"}


# --- Credit assignment needs numpy and the standard library, nothing else ---------------------------------------------


BLOCKED = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in {*sys.stdlib_module_names, "numpy", "hiper"}:
            raise ImportError(f"{name} is imported")

sys.meta_path.insert(0, Block())
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", BLOCKED + code], capture_output=True, text=True, check=False)


def test_advantages_need_numpy_alone() -> None:
    code = """
import hiper.advantages as a
for kind in a.ESTIMATORS.values():
    a.check_estimator(kind())
above = {name for name in sys.modules if name.startswith("hiper.") and not name.startswith("hiper.advantages")}
assert above == {"hiper.errors", "hiper.plugins"}, above
"""
    done = run(code)
    assert done.returncode == 0, done.stderr


def test_the_block_blocks() -> None:
    done = run("import pydantic")
    assert done.returncode == 1
    assert "pydantic is imported" in done.stderr
