"""HiPER from Python: what the README shows, in a few lines each."""

from __future__ import annotations

import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import hiper
from hiper.config import load_config
from hiper.display.console import Display
from hiper.errors import UserError
from hiper.evaluation.saved import SavedPolicy
from hiper.plan_execute.render import Template
from hiper.runs.policies import PolicyFolder


@pytest.fixture(scope="module")
def display() -> Display:
    return Display(console=Console(file=StringIO()))


@pytest.fixture(scope="module")
def run(tiny_recipe: Path, tmp_path_factory: pytest.TempPathFactory, display: Display) -> hiper.Run:
    return hiper.train(tiny_recipe, "seed=3", out=tmp_path_factory.mktemp("api") / "run", display=display)


def test_a_run_is_trained_and_read(run: hiper.Run):
    read = hiper.open_run(run.path)
    assert read.finished
    assert read.config.seed == 3
    assert 0.0 <= read.metrics()[-1]["eval/held_out/success"] <= 1.0
    episode = next(read.episodes(1))
    assert episode.credit is not None
    assert len(episode.credit.series["advantage/low"]) == len(episode.turns)
    assert read.evaluations()["held_out"][-1].overall.episodes > 0


def test_a_finished_run_is_resumed_without_doing_anything(run: hiper.Run, display: Display):
    before = (run.path / "metrics.jsonl").read_bytes()
    assert hiper.resume(run.path, display).finished
    assert (run.path / "metrics.jsonl").read_bytes() == before


def test_a_policy_is_loaded_plays_and_is_evaluated(run: hiper.Run, tmp_path: Path, display: Display):
    policy = hiper.load_policy(run.path, temperature=0.0)
    env = policy.env("held_out")
    episode = policy.play(env, env.panel.tasks[0].id, seed=5)
    assert episode == policy.play(env, env.panel.tasks[0].id, seed=5)
    assert episode.turns[0].policy_version == 0
    found = hiper.evaluate(policy, tasks=3, out=tmp_path, display=display)["held_out"]
    assert len(found.evaluation.episodes) == found.card.panel.tasks == 3
    assert found.card.weights_sha256 == policy.weights.sha256()
    assert (tmp_path / "held_out.json").exists()
    again = hiper.evaluate(run.path, splits=["held_out"], tasks=3, display=display)["held_out"]
    assert again.card.sampling.temperature == run.config.evaluation.temperature
    with pytest.raises(UserError, match=r"\.json exists already, with another panel; choose another folder"):
        hiper.evaluate(policy, tasks=2, out=tmp_path, display=display)


def test_an_evaluation_that_is_done_already_is_not_played_again(run: hiper.Run, tmp_path: Path, display: Display):
    def evaluated(**options: Any) -> Any:
        return hiper.evaluate(run.path, splits=["held_out"], tasks=3, out=tmp_path, display=display, **options)

    first = evaluated()["held_out"]
    written = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    second = evaluated()["held_out"]
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == written
    assert second.card == first.card
    assert second.evaluation.episodes == first.evaluation.episodes
    assert second.evaluation.panel == first.evaluation.panel
    with pytest.raises(UserError, match=r"held_out\.json exists already, with another seed"):
        evaluated(seed=7)
    (tmp_path / "held_out.json").unlink()  # a kill between the episodes and the card
    assert evaluated()["held_out"].card.outcomes == first.card.outcomes


def test_the_expert_is_cloned(tiny_recipe: Path, tmp_path: Path, display: Display):
    folder = hiper.clone_expert(tiny_recipe, "warm_start.epochs=1", out=tmp_path / "clone", display=display)
    assert hiper.load_policy(folder).path == folder
    with pytest.raises(UserError, match="exists already"):
        hiper.clone_expert(tiny_recipe, out=folder, display=display)
    with pytest.raises(UserError, match=r"warm_start\.tasks is 0"):
        hiper.clone_expert(tiny_recipe, "warm_start.tasks=0", out=tmp_path / "none", display=display)


def test_settings_go_with_a_recipes_name(tiny_recipe: Path, display: Display):
    with pytest.raises(UserError, match="'seed=1' need a recipe's name"):
        hiper.train(load_config(tiny_recipe), "seed=1", display=display)


def test_every_public_name_is_there():
    for name in hiper.__all__:
        assert getattr(hiper, name) is not None
    assert {hiper.HAE, hiper.GRPO} <= set(hiper.ESTIMATORS.values())
    assert set(hiper.__all__) <= set(dir(hiper))
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        hiper.trian  # noqa: B018


def test_the_public_face_costs_nothing_until_it_is_used():
    code = (
        "import sys, hiper; assert not {'torch', 'transformers', 'numpy'} & sys.modules.keys();"
        "hiper.HAE; assert not {'torch', 'pydantic'} & sys.modules.keys();"
        "hiper.open_run, hiper.train, hiper.Config; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "setting",
    ["learner.lr=2", "learner={lr: 2}", "advantages.gamma=1", "rollout.temperature=2", "training.iterations=3"],
)
def test_settings_of_training_are_refused_where_a_policy_only_plays(setting: str, tmp_path: Path):
    PolicyFolder(tmp_path).write(load_config("quickstart"), Template.load("terse").to_yaml())
    assert SavedPolicy.open(tmp_path, overrides=["evaluation.temperature=0"]).config.evaluation.temperature == 0
    with pytest.raises(UserError, match="has no effect here: a policy that is trained already only plays"):
        SavedPolicy.open(tmp_path, overrides=[setting])
