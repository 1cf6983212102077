"""The contract's checker: the environments that ship pass it, and each way of breaking it is found."""

from __future__ import annotations

import math
import os
import random
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import hiper.envs
from hiper.envs import EndReason, Info, Observation, Panel, Start, Step, Task, TextEnv, check_env, silence
from hiper.envs.base import Decision
from hiper.envs.small.corridor import SPLITS, CorridorEnv, make, shortest
from hiper.episode import read_episodes, write_episodes
from hiper.errors import UserError
from hiper.imitation.demonstrations import demonstrate


def test_environments_that_ship_pass() -> None:
    for split in SPLITS:
        check_env(make(split), tasks=30)
    check_env(hiper.envs.make("alfworld", data="generated", games=12, size="tiny"), tasks=12)


class Broken(CorridorEnv):
    """A corridor; subclasses break one promise each."""

    def __init__(self) -> None:
        super().__init__(make().panel, 20)


class NoName(Broken):
    name = None  # type: ignore[assignment]


class NeverRefuses(Broken):
    def _reset(self, task_id: str, seed: int) -> Start:
        return super()._reset(task_id if task_id.startswith("corridor") else self.panel.tasks[0].id, seed)


class ListsTwice(Broken):
    def _admissible(self) -> tuple[str, ...]:
        return (*super()._admissible(), *super()._admissible())


class RefusesAdmissible(Broken):
    def accepts(self, action: str, observation: Observation) -> bool:
        return False


class TruncatesItself(Broken):
    def _step(self, action: str) -> Step:
        return replace(super()._step(action), truncated=True, terminated=False, info=Info(end=EndReason.TURN_LIMIT))


class TimeIsATermination(Broken):
    def _step(self, action: str) -> Step:
        return replace(super()._step(action), terminated=True, info=Info(end=EndReason.TURN_LIMIT))


class NoReason(Broken):
    def _step(self, action: str) -> Step:
        return replace(super()._step(action), info=Info())


class GoesOnAfterTheEnd(Broken):
    def _step(self, action: str) -> Step:
        return replace(super()._step(action), terminated=False)


class WinsWithoutSayingSo(Broken):
    def _step(self, action: str) -> Step:
        step = super()._step(action)
        won = step.info.end is not None
        return replace(step, info=Info(won=won, end=step.info.end))


class Endless(Broken):
    """Counts turns itself, and never stops."""

    def step(self, action: str) -> Step:
        return self._step(action)


class BeginsByItself(Broken):
    def reset(self, task_id: str, seed: int = 0) -> Start:
        return super().reset(task_id, seed)


class Forgetful(Broken):
    """Keeps state from one episode to the next."""

    played = 0

    def _reset(self, task_id: str, seed: int) -> Start:
        start = super()._reset(task_id, seed)
        self.played += 1
        return replace(start, observation=replace(start.observation, text=f"Episode {self.played}."))


class SharesState(Broken):
    """Changes one dictionary in place, which every spawned environment holds."""

    def __init__(self) -> None:
        super().__init__()
        self.state: dict[str, Any] = {}

    def _reset(self, task_id: str, seed: int) -> Start:
        self.state["turn"] = 0
        return super()._reset(task_id, seed)

    def _step(self, action: str) -> Step:
        self.state["turn"] += 1
        step = super()._step(action)
        return replace(step, observation=replace(step.observation, text=f"Turn {self.state['turn']}."))


class OneAtATime(Broken):
    """Says that it can be played in threads, and answers differently where it is."""

    concurrent = True

    def _step(self, action: str) -> Step:
        step = super()._step(action)
        thread = "main" if threading.current_thread() is threading.main_thread() else "other"
        return replace(step, observation=replace(step.observation, text=f"In the {thread} thread."))


class ClosesOnce(Broken):
    open = True

    def close(self) -> None:
        if not self.open:
            raise ValueError("I/O on a closed connection")
        self.open = False


class ClosesForAll(Broken):
    """All that were spawned from one hold the same connection."""

    def __init__(self) -> None:
        super().__init__()
        self.connection = {"open": True}

    def _reset(self, task_id: str, seed: int) -> Start:
        if not self.connection["open"]:
            raise OSError("the connection is closed")
        return super()._reset(task_id, seed)

    def close(self) -> None:
        self.connection["open"] = False


class HidesAString(Broken):
    hidden_actions = "help"  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (NoName, "'name' must be a str"),
        (HidesAString, "'hidden_actions' must be a tuple of strings"),
        (NeverRefuses, "unknown id must raise UserError"),
        (ListsTwice, "listed twice"),
        (RefusesAdmissible, r"accepts\(\) must be true"),
        (TruncatesItself, "truncated at turn 1; leave truncation to the base"),
        (TimeIsATermination, "truncated exactly when turns run out"),
        (NoReason, "info.end must be given exactly at the last turn"),
        (GoesOnAfterTheEnd, "info.end must be given exactly at the last turn"),
        (WinsWithoutSayingSo, "info.won is True, but info.end is"),
        (Endless, "override _step, not step"),
        (BeginsByItself, "override _reset, not reset"),
        (Forgetful, "the same task, seed and actions"),
        (SharesState, "disturb each other; state"),
        (OneAtATime, "disturb each other in threads"),
        (ClosesOnce, "closing twice must do no harm"),
        (ClosesForAll, r"close\(\) must leave other spawned environments open"),
    ],
)
def test_broken_promises_are_found(kind: type[Broken], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_env(kind(), tasks=10)


def returning(**changes: Any) -> type[Broken]:
    """A corridor whose steps have other values: of a Step, or of its Info or Observation."""

    class Changed(Broken):
        def _step(self, action: str) -> Step:
            step = super()._step(action)
            own = {name: value for name, value in changes.items() if name in ("reward", "terminated", "truncated")}
            of_info = {name: value for name, value in changes.items() if name in ("won", "end", "score", "parts")}
            seen = {name: value for name, value in changes.items() if name in ("text", "admissible")}
            return replace(
                step, **own, info=replace(step.info, **of_info), observation=replace(step.observation, **seen)
            )

    return Changed


UNUSABLE = [
    (returning(reward=math.nan), "a reward must be a finite number of at most 1e\\+15, it is float: nan"),
    (returning(reward=-math.inf), "a reward must be a finite number"),
    (returning(reward=np.float32("inf")), "a reward must be a finite number"),
    (returning(reward=1e300), "a reward must be a finite number"),
    (returning(reward=10**400), "a reward must be a finite number"),
    (returning(reward="1"), "a reward must be a number, not str: '1'"),
    (returning(reward=None), "a reward must be a number, not NoneType"),
    (returning(reward=np.ones(2)), "a reward must be a number, not ndarray"),
    (returning(reward=1j), "a reward must be a number, not complex"),
    (returning(terminated=np.array([False])), "'terminated' of a Step must be True or False, not ndarray"),
    (returning(terminated=None), "'terminated' of a Step must be True or False"),
    (returning(truncated="no"), "'truncated' of a Step must be True or False"),
    (returning(won=2), "'won' of an Info must be True or False, not int: 2"),
    (returning(end="abandoned"), "'end' of an Info must be None or an EndReason, not str: 'abandoned'"),
    (returning(end=[]), "'end' of an Info must be None or an EndReason"),
    (returning(score=math.nan), "'score' of an Info must be a finite number"),
    (returning(score="high"), "'score' of an Info must be a number"),
    (returning(parts=None), "'parts' of an Info must be a mapping"),
    (returning(parts={"a": math.inf}), "part str: 'a' must be a finite number"),
    (returning(parts={1: 1.0}), "a part's name must be a str, not int"),
    (returning(text=b"bytes"), "an observation's text must be a str, not bytes"),
    (returning(text=None), "an observation's text must be a str, not NoneType"),
    (returning(admissible="go"), "admissible actions must be a tuple"),
    (returning(admissible=(1,)), "an admissible action must be a str, not int"),
    (returning(admissible=(b"go",)), "an admissible action must be a str, not bytes"),
    (returning(admissible=np.array(["go"])), "admissible actions must be a tuple"),
]


@pytest.mark.parametrize(("kind", "message"), UNUSABLE, ids=[message[:60] for _, message in UNUSABLE])
def test_what_cannot_be_trained_on_is_refused_by_name_in_the_check_and_in_play(
    kind: type[Broken], message: str
) -> None:
    task = make().panel.tasks[0].id
    with pytest.raises(UserError, match=f"environment 'corridor', task '.*': {message}"):
        check_env(kind())
    with pytest.raises(UserError, match=f"environment 'corridor', task '{task}': {message}"):
        demonstrate(kind(), task)


def test_scalars_of_numpy_and_torch_are_played_and_stored_as_numbers(tmp_path: Path) -> None:
    class Scalars(Broken):
        def _reset(self, task_id: str, seed: int) -> Start:
            start = super()._reset(task_id, seed)
            return Start(np.str_(start.goal), replace(start.observation, text=np.str_(start.observation.text)))

        def _step(self, action: str) -> Step:
            step = super()._step(action)
            values: dict[str, Any] = {"score": torch.tensor(0.5), "parts": {np.str_("a"): np.int64(1)}}
            info = Info(**values, won=np.bool_(step.info.won), end=step.info.end)  # type: ignore[arg-type]
            listed = [np.str_(action) for action in step.observation.admissible or ()]
            seen = Observation(np.str_(step.observation.text), listed)  # type: ignore[arg-type]
            return Step(seen, np.float32(step.reward), np.array(step.terminated), np.bool_(False), info)  # type: ignore[arg-type]

    check_env(Scalars())
    task = make().panel.tasks[0].id
    episode, plain = demonstrate(Scalars(), task), demonstrate(make(), task)
    assert episode == replace(plain, score=0.5, parts={"a": 1.0})
    write_episodes(tmp_path / "episodes", [episode])
    assert list(read_episodes(tmp_path / "episodes")) == [episode]


def doing(act: Callable[[Broken], Any]) -> type[Broken]:
    """A corridor that does something else in every turn."""

    class Meddling(Broken):
        def _step(self, action: str) -> Step:
            act(self)
            return super()._step(action)

    return Meddling


@pytest.fixture
def restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The working directory, the umask, handlers and generators are as before."""
    monkeypatch.chdir(Path.cwd())
    mask, handler, threads = os.umask(0o022), signal.getsignal(signal.SIGTERM), torch.get_num_threads()
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    yield
    os.umask(mask)
    signal.signal(signal.SIGTERM, handler)
    torch.set_num_threads(threads)
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])


def other_panel(env: Broken) -> None:
    env.panel = env.panel.subset(len(env.panel) - 1)


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda _: random.seed(7), "must not change the state of 'random'; draw from"),
        (lambda _: np.random.random(), "must not change the state of 'numpy.random'"),
        (lambda _: torch.manual_seed(7), "must not change the state of torch's generator"),
        (lambda _: torch.set_num_threads(torch.get_num_threads() + 1), "must not change the number of torch's threads"),
        (lambda _: os.chdir("/"), "must not change the working directory"),
        (lambda _: os.umask(0o077), "must not change the umask"),
        (lambda _: signal.signal(signal.SIGTERM, signal.SIG_IGN), "must not change the handlers of signals"),
        (lambda _: sys.stdout.write("ouch"), "must print nothing.* it printed str: 'ouch"),
        (other_panel, "the panel must not change"),
    ],
)
def test_episodes_change_nothing_outside(act: Callable[[Broken], Any], message: str) -> None:
    with pytest.raises(UserError, match=f"environment 'corridor': .*{message}"):
        check_env(doing(act)())


def test_a_call_that_does_not_return_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(silence, "SECONDS", 0.05)
    slept: list[bool] = []

    def sleep(_: Broken) -> None:
        if not slept:
            slept.append(True)
            time.sleep(0.5)

    check_env(doing(sleep)())
    assert re.search(
        r"environment 'corridor', task 'corridor/.*': (reset|step) has not returned", capsys.readouterr().err
    )


def fail(*_: object) -> Any:
    raise OSError("no answer" + "!" * 1000)


def leave(*_: object) -> Any:
    raise SystemExit(0)


class Mindless:
    """An expert of a user's own, with one method replaced."""

    def __init__(self, **methods: Any) -> None:
        for name in ("reset", "act", "acted"):
            setattr(self, name, methods.get(name, lambda *_: Decision(True, "win", "go left")))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"_reset": fail}, "reset raised OSError: no answer!+"),
        ({"_step": fail}, "step raised OSError: no answer!+"),
        ({"_step": leave}, "step raised SystemExit: 0"),
        ({"accepts": fail}, "accepts raised OSError: no answer!+"),
        ({"expert": fail}, "the expert raised OSError: no answer!+"),
        ({"expert": lambda _: Mindless(reset=fail)}, "the expert raised OSError: no answer!+"),
        ({"expert": lambda _: Mindless(act=fail)}, "the expert raised OSError: no answer!+"),
        ({"expert": lambda _: Mindless(acted=fail)}, "the expert raised OSError: no answer!+"),
        ({"expert": lambda _: object()}, "the expert raised AttributeError: "),
        ({"expert": lambda _: Mindless(act=lambda _: None)}, "the expert.* Decision, not NoneType: None"),
        ({"expert": lambda _: Mindless(act=lambda _: "go left")}, "the expert.* Decision, not str: 'go left'"),
        ({"expert": lambda _: Mindless(act=lambda _: Decision(True, "x", b"go"))}, "of a Decision must be a str"),  # type: ignore[arg-type]
        ({"spawn": fail}, "spawn raised OSError: no answer!+"),
        ({"close": fail}, "close raised OSError: no answer!+"),
        ({"_step": lambda *_: None}, "_step must return a Step, not NoneType: None"),
        ({"_reset": lambda *_: "a goal"}, "_reset must return a Start, not str: 'a goal'"),
    ],
)
def test_errors_inside_name_the_environment_the_task_and_the_place(changes: dict[str, Any], message: str) -> None:
    env = type("Failing", (Broken,), changes)()
    task = make().panel.tasks[0].id
    with pytest.raises(UserError, match=f"environment 'corridor', task '{task}': .*{message}") as told:
        demonstrate(env, task)
    assert len(str(told.value)) < 500
    assert told.value.__cause__ is not None
    if " raised " in message:
        assert re.search(r"\(/.*\.py, line \d+\)$", str(told.value))
    with pytest.raises(UserError, match="environment 'corridor'"):
        check_env(env)


def test_one_that_can_be_played_in_threads_passes() -> None:
    env = make()
    env.concurrent = True
    check_env(env)


class Still(TextEnv):
    """Nothing happens; "win" wins, "fail" raises."""

    name, version, max_turns = "still", "1", 3
    panel = Panel.of("still", [Task("one", "only")])
    closed = 0

    def _reset(self, task_id: str, seed: int) -> Start:
        return Start(f"wait in {self.panel[task_id].id}", Observation("Nothing."))

    def _step(self, action: str) -> Step:
        if action == "fail":
            raise OSError("no answer")
        info = Info(won=action == "win", end=EndReason.WON if action == "win" else None, score=0.5, parts={"x": 1.0})
        return Step(Observation("Nothing."), 0.25, terminated=info.won, truncated=False, info=info)

    def close(self) -> None:
        self.closed += 1


class TestTheBaseClass:
    def test_truncates_at_max_turns_and_keeps_the_rest_of_the_step(self) -> None:
        env = Still()
        env.reset("one")
        first, second, third = (env.step("wait") for _ in range(3))
        assert first == second == Step(Observation("Nothing."), 0.25, False, False, Info(score=0.5, parts={"x": 1.0}))
        assert third == replace(first, truncated=True, info=replace(first.info, end=EndReason.TURN_LIMIT))

    def test_a_win_at_the_last_turn_is_a_win(self) -> None:
        env = Still()
        env.reset("one")
        env.step("wait")
        env.step("wait")
        step = env.step("win")
        assert (step.terminated, step.truncated, step.info.end) == (True, False, EndReason.WON)

    @pytest.mark.parametrize("actions", [["wait"] * 3, ["win"], ["wait", "win"]])
    def test_no_step_after_the_end(self, actions: list[str]) -> None:
        env = Still()
        env.reset("one")
        for action in actions:
            env.step(action)
        with pytest.raises(RuntimeError, match="the episode is over or was never begun: call reset first"):
            env.step("wait")
        env.reset("one")
        env.step("wait")

    def test_no_step_before_the_first_reset(self) -> None:
        with pytest.raises(RuntimeError, match="call reset first"):
            Still().step("wait")

    def test_a_failed_reset_leaves_no_episode_running(self) -> None:
        env = Still()
        env.reset("one")
        with pytest.raises(UserError):
            env.reset("two")
        with pytest.raises(RuntimeError, match="call reset first"):
            env.step("wait")

    def test_a_failed_step_ends_the_episode(self) -> None:
        env = Still()
        env.reset("one")
        with pytest.raises(OSError, match="no answer"):
            env.step("fail")
        with pytest.raises(RuntimeError, match="call reset first"):
            env.step("wait")

    def test_spawned_environments_count_for_themselves(self) -> None:
        env = Still()
        env.reset("one")
        other = env.spawn()
        for _ in range(3):
            env.step("wait")
        other.reset("one")
        assert not any(other.step("wait").truncated for _ in range(2))
        assert other.step("wait").truncated

    def test_is_closed_at_the_end_of_a_with_block(self) -> None:
        env = Still()
        with env as entered:
            assert entered is env
            before = env.closed
        assert (before, env.closed) == (0, 1)


class TestCorridor:
    def test_the_expert_wins_everywhere_and_never_before_the_shortest_way(self) -> None:
        env = make()
        expert = env.expert()
        for task in env.panel:
            start = env.reset(task.id)
            expert.reset(start)
            observation, turns, info = start.observation, 0, Info()
            while info.end is None:
                decision = expert.act(observation)
                step = env.step(decision.action)
                expert.acted(decision.action, step.observation)
                observation, info, turns = step.observation, step.info, turns + 1
            assert info.end is EndReason.WON
            assert turns >= shortest(task.id)

    def test_a_locked_door_needs_the_key(self) -> None:
        env = make()
        task = next(t for t in env.panel if t.type == "locked" and "start2-key0-door3" in t.id)
        start = env.reset(task.id)
        assert start.goal == "fetch the key and open the door."
        assert start.observation == Observation(
            "You are in cell 3 of 5. You see nothing here.", ("go left", "go right")
        )
        for action in ("go left", "go left", "take key", "go right", "go right", "go right"):
            assert not env.step(action).terminated
        step = env.step("open door")
        assert (step.terminated, step.reward, step.info.won) == (True, 1.0, True)
        assert step.observation.text.startswith("The door opens.")
        assert shortest(task.id) == 7

    def test_a_locked_door_ends_the_episode(self) -> None:
        env = make()
        task = next(t for t in env.panel if t.type == "locked" and "start2-key0-door3" in t.id)
        env.reset(task.id)
        env.step("go right")
        step = env.step("open door")
        assert (step.terminated, step.truncated, step.reward) == (True, False, 0.0)
        assert step.info.end is EndReason.LOST

    def test_splits_are_disjoint(self) -> None:
        layouts = [{task.id.split("/")[2] for task in make(split).panel} for split in SPLITS]
        assert not layouts[0] & layouts[1]
        assert len(layouts[0]) + len(layouts[1]) == 2 * 5 * 20

    def test_bad_options(self) -> None:
        with pytest.raises(UserError, match="no split 'test'; there are train, held_out"):
            make("test")
        with pytest.raises(UserError, match="at least 3 cells"):
            make(cells=2)
