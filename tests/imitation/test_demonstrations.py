"""Demonstrations, on an environment small enough to follow by hand."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import pytest

from helpers.made import turns_of
from hiper.config import LAPSES, Lapse
from hiper.display.transcript import transcript
from hiper.envs import EndReason, Observation, Panel, Start, Step, Task, TextEnv
from hiper.envs.base import Decision, Expert
from hiper.episode import Episode, read_episodes, write_episodes
from hiper.errors import UserError
from hiper.imitation.demonstrations import demonstrate
from hiper.outcomes import summarize
from hiper.plan_execute.parse import parse_response

FAR = 6


class Errand(TextEnv):
    """Walk right to the key, walk back to the door."""

    name: ClassVar[str] = "errand"
    version: ClassVar[str] = "1"
    max_turns = 60
    hidden_actions = ("help",)

    def __init__(self, free_form: bool = False) -> None:
        self.panel = Panel.of("errand", [Task("a", "walk"), Task("b", "walk")])
        self.free_form = free_form

    def _reset(self, task_id: str, seed: int) -> Start:
        self.place, self.key = 1 + seed % 2, False
        return Start(f"fetch the key in {self.panel[task_id].id}", self.look())

    def look(self) -> Observation:
        actions = ["help", "left", "right", "wait"] + ["take"] * (self.place == FAR and not self.key)
        text = f"{'with' if self.key else 'without'} key at {self.place}"
        return Observation(text, None if self.free_form else tuple(sorted(actions)))

    def _step(self, action: str) -> Step:
        self.key |= action == "take" and self.place == FAR
        self.place = min(FAR, max(0, self.place + {"left": -1, "right": 1}.get(action, 0)))
        won = self.key and self.place == 0
        return Step.sparse(self.look(), EndReason.WON if won else None)

    def expert(self) -> Expert | None:
        return Walker()


class Walker:
    """Plays :class:`Errand` by what it reads, and checks that it is told everything."""

    def reset(self, start: Start) -> None:
        self.told = [start.observation]
        self.subgoal: str | None = None

    def act(self, observation: Observation) -> Decision:
        assert observation == self.told[-1]
        has_key, place = observation.text.startswith("with "), int(observation.text.split()[-1])
        subgoal = "leave" if has_key else "get key"
        action = "left" if has_key else "take" if place == FAR else "right"
        switch, self.subgoal = subgoal != self.subgoal, subgoal
        return Decision(switch, subgoal, action)

    def acted(self, action: str, observation: Observation) -> None:
        self.told.append(observation)


class Stumbler(Walker):
    """Knows how one goes wrong."""

    def slip(self, observation: Observation, rng: random.Random) -> Decision | None:
        return Decision(True, "hurry", "jump")


def test_a_flawless_episode() -> None:
    episode = demonstrate(Errand(), "a")
    assert [turn.decision for turn in turns_of(episode)] == [
        Decision(True, "get key", "right"),
        *[Decision(False, "get key", "right")] * 4,
        Decision(False, "get key", "take"),
        Decision(True, "leave", "left"),
        *[Decision(False, "leave", "left")] * 5,
    ]
    assert all(turn.target for turn in turns_of(episode))
    assert episode.won
    assert (episode.task_id, episode.seed) == ("a", 0)


def test_a_turn_holds_what_a_prompt_needs() -> None:
    first, second, third, *_ = (turn.context for turn in turns_of(demonstrate(Errand(), "a")))
    assert (first.goal, first.history, first.subgoal, first.turn) == ("fetch the key in a", (), None, 0)
    assert first.observation == "without key at 1"
    assert first.admissible == ("help", "left", "right", "wait")
    assert second.history == (("without key at 1", "right"),)
    assert third.history == (("without key at 1", "right"), ("without key at 2", "right"))
    assert (third.observation, third.subgoal, third.turn) == ("without key at 3", "get key", 2)


def test_the_seed_reaches_the_environment() -> None:
    assert turns_of(demonstrate(Errand(), "a", seed=1))[0].context.observation == "without key at 2"


def perturbed(count: int = 60, perturb: float = 0.3, env: TextEnv | None = None) -> list[Episode]:
    env = env or Errand()
    return [demonstrate(env, "a", seed, perturb=perturb, expert=Stumbler()) for seed in range(count)]


def test_equal_arguments_give_equal_episodes() -> None:
    assert perturbed() == perturbed()
    assert len({episode.turns for episode in perturbed()}) > 50


def test_lapses_come_as_often_as_asked_and_are_no_targets() -> None:
    turns = [turn for episode in perturbed(300) for turn in turns_of(episode)]
    assert sum(not turn.target for turn in turns) / len(turns) == pytest.approx(0.3, abs=0.03)
    for turn in turns:
        right = Stumbler()
        right.reset(Start("", Observation(turn.context.observation, turn.context.admissible)))
        decision = right.act(right.told[0])
        is_right = (decision.subgoal, decision.action) == (turn.decision.subgoal, turn.decision.action)
        assert turn.target == is_right


def test_lapses_are_of_all_kinds() -> None:
    lapses = [turn for episode in perturbed(100) for turn in turns_of(episode) if not turn.target]
    slips = [turn for turn in lapses if turn.decision.action == "jump"]
    stale = [turn for turn in lapses if turn.decision.subgoal == "get key" and "with key" in turn.context.observation]
    strays = [turn for turn in lapses if turn.decision.action == "wait"]
    assert min(map(len, (slips, stale, strays))) > 20
    assert all(turn.decision.action != "help" for turn in lapses)


def test_switch_is_relative_to_the_subgoal_that_was_followed() -> None:
    for episode in perturbed():
        for turn in turns_of(episode):
            assert turn.decision.switch == (turn.decision.subgoal != turn.context.subgoal)


def test_the_history_tells_what_was_played_and_the_expert_recovers() -> None:
    episodes = perturbed()
    assert all(episode.won for episode in episodes)
    for episode in episodes:
        for before, after in pairwise(turns_of(episode)):
            assert after.context.history == (
                *before.context.history,
                (before.context.observation, before.decision.action),
            )
            assert after.context.subgoal == before.decision.subgoal


def test_with_nothing_to_go_wrong_the_expert_is_followed() -> None:
    env = Errand(free_form=True)
    first = turns_of(demonstrate(env, "a", perturb=1.0))[0]  # no admissible actions, no slips, no earlier subgoals
    assert first.target
    assert first.decision.action == "right"


def test_forms_to_be_filled_in_are_not_played(monkeypatch: pytest.MonkeyPatch) -> None:
    look = Errand.look

    def look_with_forms(self: Errand) -> Observation:
        seen = look(self)
        return Observation(seen.text, (*(seen.admissible or ()), "say[<words>]", "look < there"))

    monkeypatch.setattr(Errand, "look", look_with_forms)
    actions = {turn.decision.action for episode in perturbed() for turn in turns_of(episode)}
    assert "look < there" in actions
    assert "say[<words>]" not in actions


def test_an_episode_may_end_by_the_clock() -> None:
    episode = demonstrate(Errand(), "a", perturb=1.0, expert=Stumbler())
    assert episode.end == EndReason.TURN_LIMIT
    assert len(episode.turns) == 60
    assert not any(turn.target for turn in turns_of(episode))


def test_an_environment_without_an_expert_has_no_demonstrations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Errand, "expert", lambda self: None)
    with pytest.raises(UserError, match="'errand' has no expert"):
        demonstrate(Errand(), "a")


@pytest.mark.parametrize("perturb", [-0.1, 1.5, float("nan")])
def test_perturb_must_be_a_probability(perturb: float) -> None:
    with pytest.raises(UserError, match="probability"):
        demonstrate(Errand(), "a", perturb=perturb)


@pytest.mark.parametrize("kind", LAPSES)
def test_only_the_kinds_of_lapses_asked_for_happen(kind: Lapse) -> None:
    episodes = [demonstrate(Errand(), "a", n, perturb=0.4, expert=Stumbler(), lapses=[kind]) for n in range(40)]
    lapses = [turn for episode in episodes for turn in turns_of(episode) if not turn.target]
    assert len(lapses) > 20
    for turn in lapses:
        right = Stumbler()
        right.reset(Start("", Observation(turn.context.observation, turn.context.admissible)))
        meant = right.act(right.told[0])
        same_subgoal, same_action = turn.decision.subgoal == meant.subgoal, turn.decision.action == meant.action
        slipped = (turn.decision.subgoal, turn.decision.action) == ("hurry", "jump")
        assert {"stray": same_subgoal and not same_action, "slip": slipped, "stale-subgoal": same_action}[kind]


def test_demonstrations_are_episodes_that_can_be_stored_and_reported(tmp_path: Path) -> None:
    episodes = [demonstrate(Errand(), "a", seed, perturb=0.3, expert=Stumbler()) for seed in range(6)]
    write_episodes(tmp_path / "demonstrations.jsonl.gz", episodes)
    read = list(read_episodes(tmp_path / "demonstrations.jsonl.gz"))
    assert read == episodes
    outcome = summarize(read)["all"]
    assert (outcome.episodes, outcome.won) == (6, 6)
    assert outcome.invalid["inadmissible_action"] > 0  # "jump" is no action there
    assert any("subgoal: get key" in line for line in transcript(read[0]))
    parsed = parse_response(read[0].turns[0].text, previous_subgoal=None, accepts=lambda action: True)
    assert parsed.decision == Decision(True, read[0].turns[0].subgoal, read[0].turns[0].action)
