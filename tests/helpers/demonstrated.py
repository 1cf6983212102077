"""The turns of a demonstration as a prompt builder and an imitator see them."""

from __future__ import annotations

from typing import NamedTuple

from hiper.envs.base import Decision
from hiper.episode import Episode
from hiper.plan_execute.render import PromptContext
from hiper.rollout.collector import contexts_of


class DemonstratedTurn(NamedTuple):
    context: PromptContext
    decision: Decision
    target: bool
    """To be imitated: no lapse."""


def turns_of(episode: Episode) -> list[DemonstratedTurn]:
    return [
        DemonstratedTurn(context, Decision(turn.switch, turn.subgoal, turn.action), not turn.lapse)
        for turn, context in zip(episode.turns, contexts_of(episode), strict=True)
    ]
