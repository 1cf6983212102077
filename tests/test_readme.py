"""The README's examples run, the folders it names exist, and what the pages beside it say can be done can be."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hiper import cli, envs
from hiper.advantages import ESTIMATORS
from hiper.config import load_config

ROOT = Path(__file__).parents[1]
Hiper = Callable[..., Any]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def example(heading: str) -> dict[str, Any]:
    """The names that the Python block below a heading defines."""
    block = README.partition(f"## {heading}\n")[2].partition("```python\n")[2].partition("```")[0]
    names: dict[str, Any] = {"__name__": "readme"}
    exec(block, names)
    return names


def test_only_the_estimator():
    credit = example("Only the estimator")["credit"]
    claimed = [float(number) for row in re.findall(r"\[\[([-\d., ]+)\]\]", README) for number in row.split(",")]
    computed = [*credit.low_BT[0], *credit.high_BT[0], *credit.switch_BT[0]]
    assert computed == pytest.approx(claimed[-9:])


def test_an_environment_of_your_own():
    env = example("An environment of your own")["Echo"]()
    start = env.reset(env.panel.tasks[0].id)
    assert env.step(start.goal.removeprefix("say ")).info.won


def test_an_environment_is_found_by_where_it_is():
    assert envs.make("hiper.envs.small.corridor:make", cells=3).name == "corridor"


def test_the_page_on_environments(hiper: Hiper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Its environment is sound, and its commands work; the trainings are made short."""
    page = (ROOT / "docs" / "environments.md").read_text(encoding="utf-8")
    (tmp_path / "couriers.py").write_text(page.partition("```python\n")[2].partition("```")[0])
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    commands = [shlex.split(line) for line in page.splitlines() if line.startswith(("python -c", "PYTHONPATH=. hiper"))]
    check, tasks, play, small, large = commands
    exec(check[2])
    listed = hiper(*tasks[2:])
    assert (listed.code, len(listed.out.splitlines())) == (0, 112)
    assert "won after" in hiper(*play[2:], "--auto").out
    short = ("warm_start.tasks=20", "rollout.episodes=8", "training.iterations=1", "evaluation.final_tasks=4")
    trained = hiper(*small[2:], *short, "warm_start.turns=200", "warm_start.imperfect.turns=100")
    assert trained.code == 0, trained.err
    assert "held_out: " in trained.out
    recipe, *settings = large[3:]
    config = load_config(recipe, settings)
    assert config.model.path is not None
    assert not config.warm_start.tasks
    assert envs.make(config.env.name, split="train", **config.env.options).panel.name == "courier/train"


def test_the_settings_on_the_page_about_credit():
    page = (ROOT / "docs" / "credit.md").read_text(encoding="utf-8").replace("\\\n", " ")
    commands = [shlex.split(line) for line in page.splitlines() if line.startswith("hiper train ")]
    settings = [(recipe, [word for word in rest if "=" in word]) for _, _, recipe, *rest in commands]
    chosen = [load_config(recipe, overrides).advantages.type for recipe, overrides in settings]
    assert chosen == ["turn-gae", "gigpo", "grpo", "hae"]
    table = page.partition("## The estimators")[2].partition("```")[0]
    assert re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE) == ["type", *ESTIMATORS]


def test_the_python_example(tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any):
    """It is run as it stands, but for a recipe that trains in seconds and fewer tasks."""
    monkeypatch.chdir(tmp_path)
    block = README.partition("The same from Python:")[2].partition("```python\n")[2].partition("```")[0]
    small = block.replace('"quickstart"', repr(str(tiny_recipe))).replace("tasks=100", "tasks=3")
    assert small.count("tiny.yaml") == small.count("tasks=3") == 1
    exec(small, {})
    assert "eval/held_out/success" in capsys.readouterr().out


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 150
    assert len(tree_of_folders().splitlines()) <= 25


def test_every_command_is_in_the_readme_and_on_its_page():
    commands = {name for info in cli.app.registered_commands if (name := info.name or callback_name(info))}
    page = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    for name in commands:
        assert re.search(rf"hiper {name}\b", page), name
    table = README.partition("## The command line")[2].partition("```")[0]
    assert commands - {"sft"} <= set(re.findall(r"hiper (\w+)", table))


def callback_name(info: Any) -> str:
    return str(info.callback.__name__)


def tree_of_folders() -> str:
    return README.partition("## Where things are\n")[2].partition("```\n")[2].partition("```")[0]


def test_the_tree_is_the_tree():
    package = ROOT / "src" / "hiper"
    inside = tree_of_folders().partition("tests/")[0].removeprefix("src/hiper/")
    folders = set(re.findall(r"\b(\w+)/", inside))
    for folder in folders:
        assert any(path.is_dir() for path in package.rglob(folder)), folder
    assert folders >= {path.name for path in package.iterdir() if path.is_dir() and path.name != "__pycache__"}
    for folder in ("tests", "tools", "benchmarks", "results"):
        assert f"{folder}/" in tree_of_folders()
        assert (ROOT / folder).is_dir()
