"""An episode as lines of text: each subgoal, and below it the actions it led to."""

from __future__ import annotations

import textwrap

from hiper.envs.base import EndReason
from hiper.episode import Episode, Turn
from hiper.plan_execute.parse import InvalidKind

ENDS = {EndReason.WON: "won", EndReason.LOST: "lost", EndReason.TURN_LIMIT: "out of turns"}
"""How an episode ended, in words."""
TROUBLES = {
    InvalidKind.CUT_OFF: "cut off",
    InvalidKind.REPEATED_BLOCK: "a block twice",
    InvalidKind.MISSING_BLOCK: "a block missing",
    InvalidKind.WRONG_ORDER: "blocks in another order",
    InvalidKind.EMPTY_BLOCK: "an empty block",
    InvalidKind.UNKNOWN_SWITCH: "neither KEEP nor SWITCH",
    InvalidKind.UNCLOSED_THINKING: "thinking that does not end",
    InvalidKind.INADMISSIBLE_ACTION: "not possible here",
}
"""Why a response is invalid, in words."""


def transcript(episode: Episode, width: int = 110) -> list[str]:
    """Return an episode as lines of at most ``width`` characters, of which 60 are needed."""
    turns = episode.turns
    column = min(max(len(_action(turn)) for turn in turns), width // 2)
    answers = [turn.observation for turn in turns[1:]] + [f"({ENDS[EndReason(episode.end)]})"]
    lines = [_cut(f"{episode.task_type}: {episode.goal}", width)]
    for number, (turn, answer) in enumerate(zip(turns, answers, strict=True), 1):
        if turn.boundary:
            lines.append(_cut(f"  subgoal: {turn.subgoal or '(none stated)'}", width))
        trouble = f"[{TROUBLES[InvalidKind(turn.invalid)]}] " if turn.invalid else ""
        played = f"  {number:4}  {_cut(_action(turn), column):{column}}  "
        lines.append(played + _cut(trouble + answer, width - len(played)))
    return lines


def _action(turn: Turn) -> str:
    return turn.action or "(nothing)"


def _cut(text: str, width: int) -> str:
    """Return a text on one line, cut at a word where it is too long, or within its only word."""
    line = " ".join(text.split())
    indent = len(text) - len(text.lstrip(" "))
    short = textwrap.shorten(line, width - indent, placeholder=" ...")
    return " " * indent + (short if short.strip() != "..." else f"{line[: width - indent - 3]}...")
