"""What an agent decides each turn: keep or switch, a subgoal, an action."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Decision:
    """One turn's three decisions, in the order they are made."""

    switch: bool
    """True: the subgoal is replaced (SWITCH). False: the previous one is followed on (KEEP)."""
    subgoal: str
    """The subgoal followed from now on; a copy of the previous one when kept."""
    action: str
