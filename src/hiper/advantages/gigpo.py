"""Group-in-group policy optimisation (GiGPO): episodes are compared in their group, turns where they meet.

Source: Feng, Xue, Liu, An, "Group-in-Group Policy Optimization for LLM Agent Training" (arXiv 2505.10978).

    A(t)   = A_E(t) + weight * A_S(t)
    A_E(t) = GRPO's advantage over turns (:mod:`hiper.advantages.grpo`)
    A_S(t) = (R(t) - mean) / (std + epsilon),    R(t) = sum_i gamma^i r_{t+i} + what the form of turn t cost

Mean and standard deviation of A_S run over the turns of the group that begin from the same anchor, the observation
before the turn, in whatever episode and as often as it occurs. A turn whose anchor occurs once has A_S = 0.

``similarity`` widens the anchors: in the order of episodes and turns, an observation joins the first anchor of its
group that it resembles to that degree (``difflib``'s ``SequenceMatcher(None, observation, anchor).ratio()``, as in the
reference), or becomes a new one.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import ClassVar, Literal

import numpy as np

from hiper.advantages.checks import needed
from hiper.advantages.groups import on_grid, paid_and_penalty, spread_within
from hiper.advantages.grpo import GRPO
from hiper.advantages.parameters import check_fractions
from hiper.advantages.recurrence import returns_to_go
from hiper.advantages.types import Credit, Critic, Floats, Ints, Turns
from hiper.errors import UserError


@dataclass(frozen=True)
class GiGPO:
    """See the module.

    Raises:
        UserError: a parameter is out of range.
    """

    critic: ClassVar[Critic] = "none"
    grouped: ClassVar[bool] = True

    type: Literal["gigpo"] = field(default="gigpo", kw_only=True)
    gamma: float = 0.95
    """Discount per turn of the returns that turns are compared by."""
    weight: float = 1.0
    """Of the comparison of turns, beside that of episodes."""
    scale: bool = True
    """Divide both by their standard deviation ("mean_std_norm"); False: "mean_norm"."""
    similarity: float | None = None
    """None: anchors are equal observations."""

    def __post_init__(self) -> None:
        check_fractions(self, "gamma", *(() if self.similarity is None else ("similarity",)))
        if not 0.0 <= self.weight < np.inf:
            raise UserError(f"weight is {self.weight}; it must be zero or positive")

    def __call__(self, turns: Turns) -> Credit:
        """The same advantage for all decisions of a turn.

        Raises:
            ValueError: ``turns`` has no groups or no observations.
        """
        group_B = needed(turns.group_B, "group_B", "GiGPO")
        observation_BT = needed(turns.observation_BT, "observation_BT", "GiGPO")
        places = zip(group_B[np.nonzero(turns.mask_BT)[0]].tolist(), observation_BT[turns.mask_BT], strict=True)
        anchor_N = equal_anchors(places) if self.similarity is None else similar_anchors(places, self.similarity)
        step_BT = on_grid(self._step(turns, anchor_N), turns)
        return Credit.of_responses(turns, GRPO(scale=self.scale)(turns).low_BT + self.weight * step_BT)

    def _step(self, turns: Turns, anchor_N: Ints) -> Floats:
        paid_BT, penalty_BT = paid_and_penalty(turns)
        return_N = (returns_to_go(paid_BT, self.gamma) + penalty_BT)[turns.mask_BT]
        spread = spread_within(return_N, anchor_N)
        step_N = return_N - spread.mean_N
        return step_N / spread.divisor_N if self.scale else step_N


def equal_anchors(places: Iterable[tuple[int, Hashable]]) -> Ints:
    """A number for each (group, observation); equal ones share it."""
    known: dict[tuple[int, Hashable], int] = {}
    return np.array([known.setdefault(place, len(known)) for place in places], dtype=np.int64)


def similar_anchors(places: Iterable[tuple[int, str]], similarity: float) -> Ints:
    """Likewise, but an observation shares the number of the first of its group that it resembles."""
    known: dict[tuple[int, str], int] = {}
    first_of: dict[int, list[tuple[SequenceMatcher[str], int]]] = {}
    anchors = []
    for group, text in places:
        if (group, text) not in known:
            firsts = first_of.setdefault(group, [])
            number = next((n for first, n in firsts if _resembles(text, first, similarity)), None)
            if number is None:
                number = len(known)
                firsts.append((SequenceMatcher(None, b=text), number))
            known[group, text] = number
        anchors.append(known[group, text])
    return np.array(anchors, dtype=np.int64)


def _resembles(text: str, matcher: SequenceMatcher[str], similarity: float) -> bool:
    """To the text that the matcher compares with, in this order, as the ratio is not symmetric; bounds come first, as
    it is slow."""
    matcher.set_seq1(text)
    return (
        matcher.real_quick_ratio() >= similarity
        and matcher.quick_ratio() >= similarity
        and matcher.ratio() >= similarity
    )
