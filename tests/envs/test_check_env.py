"""The contract's checker: the environments that ship pass it, and each way of breaking it is found."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

import hiper.envs
from hiper.envs import EndReason, Info, Observation, Start, Step, check_env
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
    def reset(self, task_id: str, seed: int = 0) -> Start:
        return super().reset(task_id if task_id.startswith("corridor") else self.panel.tasks[0].id)


class ListsTwice(Broken):
    def _admissible(self) -> tuple[str, ...]:
        return (*super()._admissible(), *super()._admissible())


class RefusesAdmissible(Broken):
    def accepts(self, action: str, observation: Observation) -> bool:
        return False


class TimeIsATermination(Broken):
    def step(self, action: str) -> Step:
        step = super().step(action)
        return replace(step, terminated=step.terminated or step.truncated, truncated=False)


class NoReason(Broken):
    def step(self, action: str) -> Step:
        return replace(super().step(action), info=Info())


class WinsWithoutSayingSo(Broken):
    def step(self, action: str) -> Step:
        step = super().step(action)
        won = step.info.end is not None
        return replace(step, info=Info(won=won, end=step.info.end))


class Endless(Broken):
    def step(self, action: str) -> Step:
        self._turn = 0
        return super().step(action)


class GoesOnAfterTheEnd(Broken):
    def step(self, action: str) -> Step:
        if self._end:
            return Step(self._observe(""), 0.0, False, False, Info())
        return super().step(action)


class Forgetful(Broken):
    """Keeps state from one episode to the next."""

    played = 0

    def reset(self, task_id: str, seed: int = 0) -> Start:
        start = super().reset(task_id, seed)
        self.played += 1
        return replace(start, observation=replace(start.observation, text=f"Episode {self.played}."))


class SharesState(Broken):
    """Changes one dictionary in place, which every spawned environment holds."""

    def __init__(self) -> None:
        super().__init__()
        self.state: dict[str, Any] = {}

    def reset(self, task_id: str, seed: int = 0) -> Start:
        self.state["turn"] = 0
        return super().reset(task_id, seed)

    def step(self, action: str) -> Step:
        self.state["turn"] += 1
        step = super().step(action)
        return replace(step, observation=replace(step.observation, text=f"Turn {self.state['turn']}."))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (NoName, "'name' must be a str"),
        (NeverRefuses, "unknown id must raise UserError"),
        (ListsTwice, "listed twice"),
        (RefusesAdmissible, r"accepts\(\) must be true"),
        (TimeIsATermination, "truncated exactly when turns run out"),
        (NoReason, "info.end must be given exactly at the last turn"),
        (WinsWithoutSayingSo, "info.won is True, but info.end is"),
        (Endless, "goes on after max_turns"),
        (GoesOnAfterTheEnd, "a step after the end must raise RuntimeError"),
        (Forgetful, "the same task, seed and actions"),
        (SharesState, "disturb each other"),
    ],
)
def test_broken_promises_are_found(kind: type[Broken], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_env(kind(), tasks=10)


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
