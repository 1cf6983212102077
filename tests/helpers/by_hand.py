"""Turns, episodes and scores made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np

from hiper.episode import Episode, Turn
from hiper.rows import Row, Scores


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
