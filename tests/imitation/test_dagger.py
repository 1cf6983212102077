"""DAgger: the policy's moves are played, and the expert's answers are the rows."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from hiper.config import load_config
from hiper.envs.base import Decision, Observation, Start, TextEnv
from hiper.envs.small.corridor import CorridorEnv
from hiper.episode import Episode
from hiper.errors import UserError
from hiper.imitation.dagger import corrected_rows
from hiper.plan_execute.render import PromptContext
from hiper.plan_execute.tokenizer import encode_response
from hiper.rollout.collector import contexts_of
from hiper.rollout.players import Accepts, Assignment, Move, answered
from hiper.rows import Row
from hiper.training.build import Parts, build


class Walker:
    """A policy that takes the same steps again and again."""

    def __init__(self, steps: tuple[str, ...]) -> None:
        self._steps = steps

    def begin(self, start: Start) -> None: ...

    def ask(self, context: PromptContext) -> Future[Any]:
        return answered()

    def decide(self, context: PromptContext, accepts: Accepts, answer: Any) -> Move:
        action = self._steps[context.turn % len(self._steps)]
        return Move.of(Decision(False, "walk", action), context, accepts)

    def saw(self, action: str, observation: Observation) -> None: ...


class Walkers:
    def __init__(self, *steps: str) -> None:
        self._steps = steps

    def seat(self, env: TextEnv, assignment: Assignment) -> Walker:
        return Walker(self._steps)

    def run(self) -> None: ...


@pytest.fixture
def parts(tiny_recipe: Path) -> Parts:
    return build(load_config(tiny_recipe))


def rows_and_episodes(parts: Parts, *steps: str, slots: int = 4) -> tuple[list[Row], list[Episode]]:
    episodes: list[Episode] = []
    tasks = [task.id for task in parts.env.panel][:3]
    players = Walkers(*steps)
    rows = corrected_rows(
        parts.env,
        tasks,
        players,
        parts.prompts,
        parts.tokenizer,
        slots=slots,
        seed=1,
        on_episode=episodes.append,
    )
    return rows, sorted(episodes, key=lambda episode: tasks.index(episode.task_id))


@pytest.mark.parametrize(("steps", "repeats"), [(("go left", "go right"), False), (("go left",), True)])
def test_rows_hold_the_answer_of_an_expert_that_saw_the_same_episode(
    parts: Parts, steps: tuple[str, ...], repeats: bool
):
    rows, episodes = rows_and_episodes(parts, *steps)
    expected: dict[tuple[int, tuple[int, ...]], tuple[int, ...]] = {}
    for number, episode in enumerate(episodes):
        assert {turn.action for turn in episode.turns} <= set(steps), "the advice is never played"
        expert = parts.env.expert()
        assert expert is not None
        contexts = list(contexts_of(episode))
        expert.reset(Start(episode.goal, Observation(contexts[0].observation, contexts[0].admissible)))
        for turn, context in enumerate(contexts):
            if turn:
                seen = Observation(context.observation, context.admissible)
                expert.acted(episode.turns[turn - 1].action, seen)
            advised = expert.act(Observation(context.observation, context.admissible))
            switch = advised.subgoal != (context.subgoal or "")
            template = parts.prompts.template
            said = template.phrase(Decision(switch, advised.subgoal, advised.action), context)
            answer = encode_response(parts.tokenizer, said, template.form)
            expected[number, tuple(parts.prompts.build(context).ids)] = tuple(answer)
    assert rows == [Row(prompt, answer, None) for (_, prompt), answer in expected.items()]
    # At the wall every prompt is the same. It counts once.
    assert (len(rows) < sum(len(episode.turns) for episode in episodes)) == repeats


def test_how_many_play_at_once_changes_nothing(parts: Parts):
    assert rows_and_episodes(parts, "go right", slots=1)[0] == rows_and_episodes(parts, "go right", slots=3)[0]


def test_an_environment_without_an_expert_is_refused(parts: Parts, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(CorridorEnv, "expert", lambda self: None)
    with pytest.raises(UserError, match="has no expert, so it has no demonstrations"):
        rows_and_episodes(parts, "go left")
