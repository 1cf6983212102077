"""An episode as lines of text: each subgoal, and below it the actions it led to."""

from __future__ import annotations

import textwrap

from hiper.episode import Episode, Turn


def transcript(episode: Episode, width: int = 110) -> list[str]:
    """Return an episode as lines of at most about ``width`` characters."""
    turns = episode.turns
    actions = max(len(_action(turn)) for turn in turns)
    answers = [turn.observation for turn in turns[1:]] + [f"({episode.end})"]
    lines = [textwrap.shorten(f"{episode.task_type}: {episode.goal}", width)]
    for number, (turn, answer) in enumerate(zip(turns, answers, strict=True), 1):
        if turn.boundary:
            lines.append(f"  subgoal: {turn.subgoal or '(none stated)'}")
        played = f"  {number:4}  {_action(turn):{actions}}  "
        lines.append(played + textwrap.shorten(answer, max(20, width - len(played)), placeholder=" ..."))
    return lines


def _action(turn: Turn) -> str:
    action = turn.action or "(nothing)"
    return action if turn.invalid is None else f"{action} [{turn.invalid}]"
