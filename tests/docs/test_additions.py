"""What CONTRIBUTING says that an addition touches: outside the project nothing, inside it one list each."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import house
from hiper import envs
from hiper.advantages import ESTIMATORS
from hiper.advantages.registry import SHIPPED
from hiper.envs import registry
from hiper.rollout import samplers
from hiper.runs import trackers
from hiper.runs.folder import Run

ROOT = Path(__file__).parents[2]
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
Hiper = Callable[..., Any]

MODULE = """
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from hiper.advantages import Credit, Estimator, Turns
from hiper.envs.small.corridor import make
from hiper.rollout.samplers.base import Request, Sampler
from hiper.rollout.samplers.transformers import TransformersOptions, TransformersSampler

loaded, closed, seeds = [], [], []


@dataclass(frozen=True)
class Returns(Estimator):
    gamma: float = 0.9

    def __call__(self, turns: Turns) -> Credit:
        return_BT, after_B = np.zeros_like(turns.reward_BT), np.zeros(len(turns.reward_BT))
        for t in reversed(range(turns.reward_BT.shape[1])):
            after_B = return_BT[:, t] = turns.reward_BT[:, t] + self.gamma * after_B
        return Credit.of_responses(turns, return_BT)


def long_corridor(split: str = "train", cells: int = 4):
    return make(split, cells=cells, max_turns=6)


class Tracker:
    def __init__(self, run, after):
        self.file = run.path / "tracked.txt"

    def log(self, iteration, metrics):
        with self.file.open("a") as file:
            file.write(f"{iteration} {len(metrics)}\\n")

    def close(self):
        with self.file.open("a") as file:
            file.write("closed\\n")


class Options(TransformersOptions):
    wish: str = ""


class Counting(TransformersSampler):
    options = Options

    def __init__(self, tokenizer, options):
        super().__init__(tokenizer, options)
        self.wish = options.wish

    def load(self, weights, version):
        loaded.append((self.wish, version))
        super().load(weights, version)

    def submit(self, request):
        seeds.append(request.seed)
        return super().submit(request)

    def close(self):
        closed.append(self.wish)
        super().close()
"""
TEMPLATE = """
extends: terse
name: mine
version: 7
when_empty: {subgoal: nothing}
"""


@pytest.fixture
def beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the five additions in it, as the current one and on Python's path."""
    (tmp_path / "my_things.py").write_text(MODULE)
    (tmp_path / "mine.yaml").write_text(TEMPLATE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("my_things", None)


def test_all_five_work_from_outside_the_project(hiper: Hiper, beside: Path, tiny_recipe: Path, tiny_run: Path):
    """One run trains with an estimator, an environment, a sampler, a template and a tracker beside the project."""
    additions = (
        "advantages={type: my_things:Returns, gamma: 0.5}",
        "env={name: my_things:long_corridor, cells: 4}",
        "sampler={type: my_things:Counting, wish: luck}",
        "prompt.template=mine.yaml",
        "training.trackers=[my_things:Tracker]",
    )
    short = ("warm_start.tasks=0", "evaluation.every=0", "evaluation.final_tasks=2", "training.iterations=1")
    done = hiper("train", tiny_recipe, *additions, *short, f"model.path={tiny_run / 'warm-start'}", "--out", "run")
    assert done.code == 0, done.err

    import my_things  # type: ignore[import-not-found]

    run = Run.open(beside / "run")
    assert run.finished
    assert run.config.advantages == my_things.Returns(gamma=0.5)
    assert (set(my_things.loaded), my_things.loaded[-1]) == ({("luck", 0), ("luck", 1)}, ("luck", 1))
    assert my_things.closed == ["luck"]
    tracked = (beside / "run" / "tracked.txt").read_text().splitlines()
    assert tracked[-1] == "closed"
    assert any(line.startswith("1 ") for line in tracked)
    turns = [turn for episode in run.episodes(1) for turn in episode.turns]
    assert {turn.policy_version for turn in turns} == {0}
    assert len(my_things.seeds) > len(turns)
    card = run.evaluations()["held_out"][-1].card
    assert card.template.startswith("mine")
    assert card.panel.name == "corridor-4/held_out[2]"
    # A policy brings its template along: the file beside the project is no longer needed.
    (beside / "mine.yaml").unlink()
    played = hiper("eval", "run", "--episodes", "2", "--out", "again")
    assert played.code == 0, played.err


def test_a_wrong_option_of_a_sampler_is_refused(hiper: Hiper, beside: Path, tiny_recipe: Path):
    refused = hiper("train", tiny_recipe, "sampler={type: my_things:Counting, wihs: luck}", "--out", "run")
    assert refused.code == 2
    assert "wihs" in refused.err


def told(heading: str) -> str:
    """The list of CONTRIBUTING below a heading."""
    return CONTRIBUTING.partition(f"### {heading}\n")[2].partition("\n##")[0]


def test_the_lists_of_the_project_are_where_contributing_says():
    assert "`SHIPPED` of `src/hiper/advantages/registry.py`" in told("An estimator")
    assert set(SHIPPED) <= {f"{kind.__module__}:{kind.__name__}" for kind in ESTIMATORS.values()}
    assert "`_factories` of `src/hiper/envs/registry.py`" in told("An environment").replace("\n", " ")
    assert {"alfworld", "boxes", "corridor", "webshop"} <= registry._factories.keys() == set(envs.registry.names())
    assert "`SAMPLERS` of `src/hiper/rollout/samplers/__init__.py`" in told("A sampler")
    assert "transformers" in samplers.SAMPLERS
    assert "`src/hiper/runs/trackers.py`" in told("A tracker")
    assert "tensorboard" in trackers.TRACKERS


def test_no_other_module_knows_one_of_them():
    here = house.House(ROOT)
    assert set(here.files_of_an_estimator) <= {"hiper", "hiper.advantages", "hiper.advantages.registry"}
    for package in ("small.corridor", "small.boxes", "alfworld", "webshop"):
        place = f"hiper.envs.{package}"
        assert here.naming(re.escape(place), own=place) == ["hiper.envs.registry"], package
    assert here.naming("TransformersSampler", own="hiper.rollout.samplers.transformers") == ["hiper.rollout.samplers"]


def test_the_files_that_contributing_names_exist():
    for name in re.findall(r"`((?:src|tests|tools|docs)/[\w./]+)`", CONTRIBUTING):
        assert (ROOT / name).exists(), name
