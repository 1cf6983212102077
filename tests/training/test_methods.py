"""Every estimator trains, end to end: a tiny run from one warm start, stopped and gone on with."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from hiper.advantages import ESTIMATORS, TokenKind, head_names
from hiper.config import Config, load_config
from hiper.display.console import Display
from hiper.envs.small.corridor import make
from hiper.episode import Episode, read_episodes
from hiper.errors import UserError
from hiper.rollout.groups import groups_without_spread
from hiper.rollout.tasks import assignments_of, replacements_for
from hiper.runs.folder import Run
from hiper.training.build import build
from hiper.training.trainer import train

Settings = Callable[..., Config]


FLOAT = "model.compute_dtype=float32"
"""In bfloat16, which some CPUs choose, generation and training round differently."""


@pytest.fixture(scope="module")
def settings(tiny_recipe: Path, tiny_run: Path) -> Settings:
    """The tiny recipe from its warm start, in groups of four."""

    def changed(*overrides: str) -> Config:
        usual = [f"model.path={tiny_run / 'warm-start'}", "warm_start.tasks=0", "rollout.group_size=4"]
        return load_config(tiny_recipe, [*usual, "evaluation.every=0", "learner.minibatch_turns=32", FLOAT, *overrides])

    return changed


def trained(config: Config, path: Path, display: Display | None = None) -> Run:
    run = Run.create(path, config)
    train(run, display or Display(console=Console(file=StringIO())))
    return run


def stored(run: Run, iteration: int) -> list[Episode]:
    return list(read_episodes(run.training_episodes(iteration)))


@pytest.mark.parametrize("name", ESTIMATORS)
def test_it_trains_with_the_critic_it_needs(settings: Settings, tiny_run: Path, name: str, tmp_path: Path):
    shown = StringIO()
    heads = set(head_names(ESTIMATORS[name].critic))
    config = settings(f"advantages={{type: {name}}}", "model.critic=own")
    run = trained(config, tmp_path / "run", Display(console=Console(file=shown, width=200)))

    newest = run.checkpoints[-1]
    assert (newest / "heads.safetensors").exists() == (newest / "critic.safetensors").exists() == bool(heads)
    assert ("no critic" in shown.getvalue()) == (not heads)
    before = load_file(tiny_run / "warm-start" / "model.safetensors")
    after = load_file(newest / "policy" / "model.safetensors")
    assert any(not torch.equal(before[key], after[key]) for key in before)

    records = [record for record in run.metrics() if "policy/loss" in record]
    assert len(records) == 2
    for record in records:
        trained_heads = {key.removeprefix("critic/loss_") for key in record if key.startswith("critic/loss_")}
        assert trained_heads == heads
        assert ("critic/grad_norm" in record) == bool(heads)
        assert record["mismatch/max_abs"] < 1e-3
        assert record["update/skipped_steps"] == 0.0

    for episode in stored(run, 2):
        assert episode.credit is not None
        series = episode.credit.series
        assert {key.removeprefix("value/") for key in series if key.startswith("value/")} == heads
        tokens = sum(len(turn.response_ids) for turn in episode.turns)
        for key, numbers in series.items():
            assert len(numbers) == (tokens if key.endswith("/token") else len(episode.turns)), key


@pytest.mark.parametrize("name", ["token-gae", "grpo"])
def test_going_on_is_the_uninterrupted_run(settings: Settings, name: str, tmp_path: Path):
    class PowerCut(BaseException):
        pass

    class Cutting(Display):
        def note(self, *lines: str) -> None:
            if lines[-1].lstrip().startswith("2/2  "):
                raise PowerCut

    config = settings(f"advantages={{type: {name}}}", "rollout.dynamic_sampling=2")
    whole = trained(config, tmp_path / "whole")
    with pytest.raises(PowerCut):
        trained(config, tmp_path / "cut", Cutting(console=Console(file=StringIO())))
    cut = Run.open(tmp_path / "cut")
    assert cut.checkpoints[-1].name == "iter-00001"
    train(cut, Display(console=Console(file=StringIO())))
    one, other = (load_file(run.checkpoints[-1] / "policy" / "model.safetensors") for run in (whole, cut))
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert stored(whole, 2) == stored(cut, 2)


def test_dynamic_sampling_learns_from_groups_with_spread(settings: Settings, tmp_path: Path):
    plain = trained(settings("advantages={type: grpo}"), tmp_path / "plain")
    dynamic = trained(settings("advantages={type: grpo}", "rollout.dynamic_sampling=3"), tmp_path / "dynamic")
    before, after = (run.metrics()[1] for run in (plain, dynamic))
    assert before["group/replaced"] == 0
    assert after["group/replaced"] > 0
    assert after["group/without_spread"] <= before["group/without_spread"]
    episodes = stored(dynamic, 1)
    replaced = [episode for episode in episodes if episode.credit is None]
    assert groups_without_spread(replaced, 4) == list(range(len(replaced) // 4))
    learned = [episode for episode in episodes if episode.credit is not None]
    assert len(learned) == 16
    assert len(episodes) == after["group/episodes_played"] == 16 + 4 * after["group/replaced"]
    # The first round is the round that there is without dynamic sampling.
    assert [e.task_id for e in stored(plain, 1)] == [a.task_id for a in assignments_of(dynamic.config, panel(), 0)]
    assert {e.task_id for e in stored(plain, 1)} <= {e.task_id for e in episodes}


def panel() -> Any:
    return make("train", 3).panel


def test_replacements_are_tasks_not_played_yet(settings: Settings):
    config, panel = settings("advantages={type: grpo}"), make("train", 3).panel.subset(9)
    first = assignments_of(config, panel, 5)
    further = replacements_for(config, panel, 5, 1, first)
    assert {a.task_id for a in first} | {a.task_id for a in further} == {t.id for t in panel}
    assert not {a.task_id for a in first} & {a.task_id for a in further}
    groups = [further[i : i + 4] for i in range(0, len(further), 4)]
    assert [len({(a.task_id, a.seed) for a in group}) for group in groups] == [1] * (9 - 4)
    assert len({a.sampling_seed for a in (*first, *further)}) == len(first) + len(further)
    assert further == replacements_for(config, panel, 5, 1, first)
    assert further != replacements_for(config, panel, 6, 1, first)
    assert replacements_for(config, panel, 5, 2, [*first, *further]) == []


def test_an_agent_without_plans_trains(tiny_recipe: Path, tmp_path: Path):
    """The ablation of plan and execution: actions alone, judged turn by turn."""
    overrides = ["prompt.template=terse-act", "advantages={type: turn-gae}", "shaping.keep_penalty=0"]
    run = trained(load_config(tiny_recipe, overrides), tmp_path / "run")
    episodes = stored(run, 2)
    assert not any(turn.subgoal or turn.switch for episode in episodes for turn in episode.turns)
    assert {kind for e in episodes for t in e.turns if t.format_valid for kind in t.kinds} == {TokenKind.ACTION}
    records = [record for record in run.metrics() if "policy/loss" in record]
    assert records[-1]["success/all"] > 0.4  # the warm start taught it to act
    assert records[-1]["invalid/all"] < 0.5  # an untrained one says nothing valid
    assert "plan/never_switched" not in records[-1]
    assert "plan/repeated_actions" in records[-1]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["shaping.keep_penalty=0"], r"'hae' credits switches and subgoals, and template 'terse-act' asks for actions"),
        (["advantages={type: turn-gae}"], r"'terse-act' asks for no plans, .*shaping\.keep_penalty to 0"),
    ],
)
def test_credit_for_plans_needs_plans(tiny_recipe: Path, overrides: list[str], message: str):
    with pytest.raises(UserError, match=message):
        build(load_config(tiny_recipe, ["prompt.template=terse-act", *overrides]))
