"""The contract's checker: the environments that ship pass it, and each way of breaking it is found."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import pytest

import hiper.envs
from hiper.envs import EndReason, Info, Observation, Panel, Start, Step, Task, TextEnv, check_env
from hiper.envs.small.corridor import SPLITS, CorridorEnv, make, shortest
from hiper.errors import UserError


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
