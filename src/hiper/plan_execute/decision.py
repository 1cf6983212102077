"""What an agent decides each turn: keep or switch, a subgoal, an action."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from hiper.envs.base import Observation, Start


@dataclass(frozen=True, slots=True)
class Decision:
    """One turn's three decisions, in the order they are made."""

    switch: bool
    """True: the subgoal is replaced (SWITCH). False: the previous one is followed on (KEEP)."""
    subgoal: str
    """The subgoal followed from now on; a copy of the previous one when kept."""
    action: str


class Expert(Protocol):
    """A scripted player that sees what an agent sees, and nothing more."""

    def reset(self, start: Start) -> None:
        """Forget the last episode and read the new task."""

    def act(self, observation: Observation) -> Decision:
        """Decide on the next turn.

        It must cope with a world that did not follow its last decision: demonstrations replace some of its
        actions by others to show recovery, telling it so through :meth:`acted`.
        """

    def acted(self, action: str, observation: Observation) -> None:
        """``action`` (its own or another) was played and ``observation`` came back."""
