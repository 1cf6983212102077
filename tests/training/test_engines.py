"""Whole runs whose samples come from an engine: they end like runs without one, whatever happens between."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from helpers.fake_engine import Answer, FakeEngine, serving
from hiper.config import Config
from hiper.display.console import Display
from hiper.envs.small.corridor import CorridorEnv
from hiper.episode import Episode, read_episodes
from hiper.errors import UserError
from hiper.evaluation.saved import SavedPolicy
from hiper.processes import ALONE
from hiper.rollout.collector import Timing
from hiper.rollout.players import Assignment
from hiper.runs.folder import Run
from hiper.training.ahead import Ahead, DroppedError
from hiper.training.checkpoints import AHEAD
from hiper.training.trainer import train

TINY: dict[str, Any] = {
    "name": "tiny",
    "env": {"name": "corridor", "cells": 3, "max_turns": 4},
    "prompt": {"template": "terse", "max_tokens": 90, "history_window": 1},
    "model": {
        "nano": {"layers": 2, "hidden": 32, "feed_forward": 32, "heads": 2, "kv_heads": 1, "max_positions": 128},
        "critic": "shared",
        "compute_dtype": "float32",
    },
    "warm_start": {"tasks": 12, "epochs": 20, "batch_turns": 16, "lr": 1e-2},
    "rollout": {"episodes": 8, "slots": 8, "max_response_tokens": 12},
    "learner": {"lr": 3e-3, "critic_lr": 1e-3, "minibatch_turns": 8, "kl_coef": 0.0},
    "evaluation": {"splits": ["held_out"], "every": 0, "tasks": 4, "final_tasks": 4},
    "training": {"iterations": 4, "checkpoint_every": 1, "keep_checkpoints": 9, "threads": 1},
}


def config(**changes: Mapping[str, Any]) -> Config:
    return Config.model_validate(
        {k: v | dict(changes.get(k, {})) if isinstance(v, dict) else v for k, v in (TINY | {"sampler": {}}).items()}
    )


def through(engine: FakeEngine, **changes: Mapping[str, Any]) -> Config:
    return config(sampler={"type": "vllm", "url": engine.url}, **changes)


def ahead(engine: FakeEngine, **changes: Mapping[str, Any]) -> Config:
    learner = {"importance_cap": 2.0} | dict(changes.pop("learner", {}))
    return through(engine, rollout={"ahead": 1} | dict(changes.pop("rollout", {})), learner=learner, **changes)


def quiet() -> Display:
    return Display("hiper train tiny", Console(file=StringIO()))


def trained(settings: Config, folder: Path) -> Run:
    run = Run.create(folder, settings)
    train(run, quiet())
    return run


def resumed(run: Run, settings: Config) -> Run:
    again = replace(Run.open(run.path), config=settings)
    train(again, quiet())
    return again


def weights(run: Run) -> dict[str, torch.Tensor]:
    newest = run.checkpoints[-1]
    return load_file(newest / "policy/model.safetensors") | load_file(newest / "heads.safetensors")


def episodes(run: Run, iteration: int) -> list[Episode]:
    return list(read_episodes(run.training_episodes(iteration)))


def played(run: Run) -> list[list[list[tuple[int, ...]]]]:
    """The responses of every turn of every episode of every iteration."""
    return [[[turn.response_ids for turn in episode.turns] for episode in episodes(run, i + 1)] for i in range(4)]


def versions(run: Run) -> list[set[int | None]]:
    return [{turn.policy_version for episode in episodes(run, i + 1) for turn in episode.turns} for i in range(4)]


def assert_equal_weights(one: Run, other: Run) -> None:
    assert all(torch.equal(tensor, weights(other)[name]) for name, tensor in weights(one).items())


@pytest.fixture(scope="module")
def engine() -> Iterator[FakeEngine]:
    with serving(FakeEngine()) as one:
        yield one


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return trained(config(), tmp_path_factory.mktemp("without") / "run")


@pytest.fixture(scope="module")
def with_engine(engine: FakeEngine, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return trained(through(engine), tmp_path_factory.mktemp("with") / "run")


@pytest.fixture(scope="module")
def one_ahead(engine: FakeEngine, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return trained(ahead(engine), tmp_path_factory.mktemp("ahead") / "run")


def test_a_run_through_an_engine_ends_like_one_without(without: Run, with_engine: Run):
    assert played(with_engine) == played(without)
    assert versions(with_engine) == versions(without) == [{0}, {1}, {2}, {3}]
    assert_equal_weights(with_engine, without)
    told = [record for record in with_engine.metrics() if "success/all" in record]
    assert max(record["mismatch/max_abs"] for record in told) < 1e-4
    assert all(record["engine/probe"] < 1e-5 for record in told)
    assert [record["engine/restarts"] for record in told] == [0.0] * 4
    assert not any("engine/probe" in record for record in without.metrics())


def test_a_run_goes_on_without_an_engine_or_with_another_one(engine: FakeEngine, without: Run, tmp_path: Path):
    run = trained(through(engine, training={"iterations": 1}), tmp_path / "run")
    resumed(run, config(training={"iterations": 2}))
    with serving(FakeEngine()) as other:
        last = resumed(run, through(other))
    assert played(last) == played(without)
    assert_equal_weights(last, without)


def test_an_engine_that_answers_nonsense_ends_the_run_which_resumes(engine: FakeEngine, without: Run, tmp_path: Path):
    turns = 0

    def spoil(answer: Answer) -> Answer:
        nonlocal turns
        turns += 1
        if turns == 70:
            answer["choices"][0]["logprobs"]["content"][0]["logprob"] = float("nan")
        return answer

    with serving(FakeEngine()) as bad:
        bad.faults = [spoil] * 10_000
        run = Run.create(tmp_path / "run", through(bad))
        with pytest.raises(UserError, match="NaN or out of range"):
            train(run, quiet())
    assert len(run.checkpoints) > 1
    last = resumed(run, through(engine))
    assert played(last) == played(without)  # no episode is lost, none counted twice
    assert_equal_weights(last, without)


def test_a_policy_is_evaluated_through_an_engine(engine: FakeEngine, without: Run):
    own = SavedPolicy.open(without.path).load(temperature=0.5)
    policy = SavedPolicy.open(without.path, overrides=["sampler.type=vllm", f"sampler.url={engine.url}"]).load(0.5)
    env = policy.env("held_out")
    for task in env.panel.tasks[:3]:
        one, other = own.play(env, task.id), policy.play(env, task.id)
        assert [turn.response_ids for turn in one.turns] == [turn.response_ids for turn in other.turns]
    policy.close()


# --- Sampling ahead --------------------------------------------------------------------------------------------------


def test_each_iteration_learns_from_samples_of_the_weights_before_the_last_update(one_ahead: Run, without: Run):
    assert versions(one_ahead) == [{0}, {0}, {1}, {2}]
    assert played(one_ahead)[0] == played(without)[0]
    assert played(one_ahead)[2:] != played(without)[2:]
    told = [record for record in one_ahead.metrics() if "success/all" in record]
    assert told[0]["update/importance"] == pytest.approx(1.0, abs=1e-5)
    assert max(abs(record["update/importance"] - 1.0) for record in told[1:]) > 1e-3
    assert told[0]["mismatch/max_abs"] < 1e-4 < told[1]["mismatch/max_abs"]


@pytest.mark.parametrize("done", [0, 1, 2, 3])
def test_a_run_ahead_resumes_from_any_checkpoint_as_if_nothing_had_been(
    engine: FakeEngine, one_ahead: Run, done: int, tmp_path: Path
):
    shutil.copytree(one_ahead.path, tmp_path / "run")
    run = Run.open(tmp_path / "run")
    for checkpoint in run.checkpoints[done + 1 :]:
        shutil.rmtree(checkpoint)
    assert (run.checkpoints[-1] / AHEAD).exists() == (done > 0)
    last = resumed(run, ahead(engine))
    assert played(last) == played(one_ahead)
    assert_equal_weights(last, one_ahead)


def test_a_run_ahead_is_stopped_anywhere_and_goes_on(
    engine: FakeEngine, one_ahead: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A thread is sampling when the stop comes. The settings of both runs are the same but for the stops."""
    run, steps, step = Run.create(tmp_path / "run", ahead(engine)), 0, CorridorEnv._step
    stops_at = [7, 41]

    def stepped(env: CorridorEnv, action: str) -> Any:
        nonlocal steps
        steps += threading.current_thread().name == "ahead"
        if steps in stops_at:
            stops_at.remove(steps)
            os.kill(os.getpid(), signal.SIGINT)
        return step(env, action)

    monkeypatch.setattr(CorridorEnv, "_step", stepped)
    stops = 0
    while True:
        try:
            train(Run.open(run.path) if stops else run, quiet())
        except KeyboardInterrupt:
            stops += 1
        else:
            break
    assert stops == 2
    assert played(run) == played(one_ahead)
    assert_equal_weights(run, one_ahead)
    assert "ahead" not in {thread.name for thread in threading.enumerate()}


def test_episodes_are_replaced_by_present_weights(engine: FakeEngine, tmp_path: Path):
    groups = {"group_size": 2, "dynamic_sampling": 1}
    run = trained(ahead(engine, rollout=groups, training={"iterations": 2}), tmp_path / "run")
    (first, second) = ({t.policy_version for e in episodes(run, i) for t in e.turns} for i in (1, 2))
    assert (first, second) == ({0}, {0, 1})
    assert [r["group/replaced"] > 0 for r in run.metrics() if "group/replaced" in r] == [True, True]


def test_ahead_needs_weights_of_its_own_and_importance_weights(engine: FakeEngine, tmp_path: Path):
    with pytest.raises(ValueError, match=r"set learner\.importance_cap"):
        through(engine, rollout={"ahead": 1})
    settings = config(rollout={"ahead": 1}, learner={"importance_cap": 2.0})
    with pytest.raises(UserError, match=r"samples from the model in training: set sampler\.type=vllm"):
        trained(settings, tmp_path / "run")


def test_an_error_of_the_thread_reaches_the_one_who_waits_and_dropped_episodes_end():
    assigned = [Assignment("a", 0, 0)]

    def fail(share: Any, check: Any) -> Any:
        raise UserError("the engine is gone")

    one = Ahead(fail, ALONE, 0, None)
    one.start(1, assigned)
    with pytest.raises(UserError, match="the engine is gone"):
        one.finish()
    ended: list[type[BaseException]] = []

    def forever(share: Any, check: Any) -> Any:
        try:
            while True:
                check()
                time.sleep(0.005)
        except DroppedError as error:
            ended.append(type(error))
            raise

    other = Ahead(forever, ALONE, 0, None)
    other.start(1, assigned)
    assert other.take(1) is None
    other.close()
    assert ended == [DroppedError]


def test_episodes_of_a_checkpoint_are_taken_once():
    stored: list[Episode] = []
    one = Ahead(lambda share, check: ([], Timing(1.0, 2.0, 3.0)), ALONE, 5, stored)
    assert one.held(5) is stored
    assert one.held(4) is None
    assert one.take(4) is None
    assert one.take(5) == (stored, Timing(0.0, 0.0, 0.0))
    assert one.take(5) is None
    assert one.took(5)
    one.start(6, [])
    assert one.held(5) is stored  # an error in iteration 5 still saves them
    one.finish()
    assert (one.held(5), one.held(6)) == (None, [])
    assert one.take(6) == ([], Timing(1.0, 2.0, 3.0))
