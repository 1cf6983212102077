"""Group-in-group policy optimisation (GiGPO): episodes are compared within their group, turns at equal observations.

Source: Feng, Xue, Liu, An, "Group-in-Group Policy Optimization for LLM Agent Training" (arXiv 2505.10978).

    A(t)   = A_E(t) + weight * A_S(t)
    A_E(t) = GRPO's advantage over turns (:mod:`hiper.advantages.grpo`)
    A_S(t) = (R(t) - mean) / (std + epsilon),    R(t) = sum_i gamma^i r_{t+i} + the penalty of turn t

The r_t are rewards without penalties. The anchor of a turn is the observation before it. Mean and standard deviation
of A_S run over all turns of the group that have the same anchor, in whatever episode. A turn whose anchor occurs once
has A_S = 0.

``similarity`` widens the anchors. Observations are taken in the order of episodes and turns. Each joins the first
anchor of its group that it resembles to that degree, or becomes a new anchor. The degree is ``difflib``'s
``SequenceMatcher(None, observation, anchor).ratio()``, as in the reference.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from typing import ClassVar, Self

import numpy as np

from hiper.advantages.checks import check_fractions, needed, on_grid
from hiper.advantages.estimator import Estimator
from hiper.advantages.groups import paid_and_penalty, statistics_within
from hiper.advantages.grpo import GRPO
from hiper.advantages.recurrence import returns_to_go
from hiper.advantages.types import Credit, Floats, Ints, Turns
from hiper.errors import UserError


@dataclass(frozen=True)
class GiGPO(Estimator):
    """Group-in-group policy optimisation. The module's docstring states the formula.

    Raises:
        UserError: A parameter is out of range.
    """

    type: ClassVar[str] = "gigpo"
    grouped: ClassVar[bool] = True

    gamma: float = 0.95
    """Discount per turn of the returns R(t)."""
    weight: float = 1.0
    """The weight of A_S beside A_E."""
    scale: bool = True
    """Divide both by their standard deviation (the reference's "mean_std_norm"); otherwise its "mean_norm"."""
    similarity: float | None = None
    """The least similarity of an observation to its anchor, from 0 to 1; None asks for equal observations."""

    def __post_init__(self) -> None:
        check_fractions(self, "gamma", *(() if self.similarity is None else ("similarity",)))
        if not 0.0 <= self.weight <= 1e6:
            raise UserError(f"weight is {self.weight}; it must be zero or positive, and at most a million")

    def unscaled(self) -> Self:
        """Return the same estimator without division by standard deviations."""
        return replace(self, scale=False)

    def __call__(self, turns: Turns) -> Credit:
        """Compute one advantage a turn, the same for all its decisions.

        Raises:
            ValueError: ``turns`` has no groups or no observations.
        """
        group_B = needed(turns.group_B, "group_B", "GiGPO")
        observation_BT = needed(turns.observation_BT, "observation_BT", "GiGPO")
        places = zip(group_B[np.nonzero(turns.mask_BT)[0]].tolist(), observation_BT[turns.mask_BT], strict=True)
        anchor_N = equal_anchors(places) if self.similarity is None else similar_anchors(places, self.similarity)
        step_BT = on_grid(self._step(turns, anchor_N), turns.mask_BT)
        return Credit.of_responses(turns, GRPO(scale=self.scale)(turns).low_BT + self.weight * step_BT)

    def _step(self, turns: Turns, anchor_N: Ints) -> Floats:
        """Return A_S (N,) of the turns played."""
        paid_BT, penalty_BT = paid_and_penalty(turns)
        return_N = (returns_to_go(paid_BT, self.gamma) + penalty_BT)[turns.mask_BT]
        anchor = statistics_within(return_N, anchor_N)
        step_N = return_N - anchor.mean_N
        return step_N / anchor.divisor_N if self.scale else step_N


def equal_anchors(places: Iterable[tuple[int, Hashable]]) -> Ints:
    """Number the anchors: equal pairs (group, observation) share a number."""
    known: dict[tuple[int, Hashable], int] = {}
    return np.array([known.setdefault(place, len(known)) for place in places], dtype=np.int64)


def similar_anchors(places: Iterable[tuple[int, str]], similarity: float) -> Ints:
    """Number the anchors: an observation shares the number of the first anchor of its group that it resembles."""
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
    """Whether ``text`` resembles the matcher's own text to that degree. The ratio is not symmetric.

    The ratio is slow, so its upper bounds are tried first.
    """
    matcher.set_seq1(text)
    return (
        matcher.real_quick_ratio() >= similarity
        and matcher.quick_ratio() >= similarity
        and matcher.ratio() >= similarity
    )
