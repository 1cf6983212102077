"""Turns, episodes, scores and result cards made by hand; the turns of a demonstration as an imitator sees them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from hiper.envs.base import Decision
from hiper.episode import Episode, Turn
from hiper.files import without_checksum
from hiper.outcomes import Outcome
from hiper.plan_execute.render import PromptContext
from hiper.rollout.collector import contexts_of
from hiper.rows import Row, Scores
from hiper.runs.cards import Card, CardEnvironment, CardPanel, CardSampling


def turn(switch: bool = True, **fields: Any) -> Turn:
    """Make a turn of ten tokens: two for the switch word, three for the subgoal, four for the action, one outside."""
    usual: dict[str, Any] = {
        "observation": "You see nothing.",
        "admissible": ("look",),
        "prompt_ids": (7, 8, 9),
        "response_ids": tuple(range(10, 20)),
        "logprobs": (-0.5,) * 10,
        "kinds": (1, 1, 2, 2, 2, 3, 3, 3, 3, 0),
        "low_index": 4,
        "text": "",
        "switch": switch,
        "boundary": switch,
        "subgoal": "find it",
        "action": "look",
        "invalid": None,
        "copy_differs": False,
        "reward": 0.0,
    }
    return Turn(**(usual | fields))


def episode(*turns: Turn, won: bool = True, task_type: str = "errand") -> Episode:
    """Make an episode of the turns given. An episode that was not won was truncated."""
    return Episode(
        "house/1", task_type, 0, "do it", turns, won, not won, won, "won" if won else "turn_limit", float(won)
    )


def scored(turn: Turn, low: float = 0.0, high: float = 0.0, switch: float = 0.0) -> Scores:
    """Make scores: every token has probability one half, and the values are those given."""
    row = Row(turn.prompt_ids, turn.response_ids, turn.low_index, turn.logprobs, turn.policy_version)
    logprobs = np.full(len(turn.response_ids), np.log(0.5), dtype=np.float32)
    return Scores(row, logprobs, np.array([low, high, switch], dtype=np.float32), None)


# --- Result cards for tests that care about their outcomes alone ------------------------------------------------------


def make_card(outcomes: Mapping[str, Outcome]) -> Card:
    return Card(
        hiper="0.1.0",
        date="2026-01-02T03:04:05+00:00",
        command="hiper train tiny",
        checkpoint="tiny, iteration 0",
        weights_sha256="1" * 64,
        environment=CardEnvironment("corridor", "1", 6, {"cells": 3}),
        panel=CardPanel("corridor/held_out", outcomes["all"].episodes, "0123456789abcdef" * 4, None),
        template="terse-1-05f21f0e",
        history_window=1,
        sampling=CardSampling(1.0, 24),
        seed=7,
        seconds=1.5,
        machine="x86_64, Python 3.11.7",
        outcomes=outcomes,
    )


def outcome(won_by_task: str) -> Outcome:
    won = won_by_task.count("1")
    share = won / len(won_by_task)
    return Outcome(len(won_by_task), won, won_by_task, share, (0.0, 1.0), share, 5.0, 0, {})


# --- The turns of a demonstration as a prompt builder and an imitator see them ----------------------------------------


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


def unstamped(text: str) -> dict[str, Any]:
    """The content of a card or of a line of metrics without its checksum, for tests that change it."""
    return without_checksum(json.loads(text))[0]


@dataclass
class Ended:
    """A process that is over."""

    code: int

    def poll(self) -> int:
        return self.code

    def send_signal(self, sig: int, /) -> None:
        raise AssertionError("it is over")
