"""What crosses between the learner and credit assignment: one row per turn, numpy alone.

Legend: K response tokens of one row, H value heads of its critic.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Row:
    """One turn, as a model reads it."""

    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    low_index: int | None
    """The response token at which V_low is read. None for an invalid response: V_low is read before the first token.

    All tokens of an invalid response answer to V_low, and a baseline must not depend on the action. Read after the
    response, it would already reflect the formatting error.
    """
    sampled_logprobs: tuple[float, ...] = ()
    """The sampler's log-probability of each response token; empty where nothing was sampled (demonstrations)."""
    version: int | None = None
    """The version of the weights that sampled the response; None where that is unknown."""

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.response_ids)


@dataclass(frozen=True, slots=True)
class Scores:
    """A row under the weights that are about to be updated."""

    row: Row
    """What was scored."""
    logprobs: Array
    """(K,) log-probabilities of the response tokens under the learner's forward pass."""
    values: Array
    """(H,) values in the order of the critic's heads; (K,) for a critic of tokens; (0,) without a critic."""
    reference: Array | None
    """(K,) log-probabilities under the frozen reference policy; None without one."""


@dataclass(frozen=True, slots=True)
class TrainRow:
    """A scored row with all that the losses need."""

    scores: Scores
    advantages: Array
    """(K,) one per response token."""
    mask: NDArray[np.bool_]
    """(K,) the token has a policy loss."""
    targets: Array
    """A regression target for each value."""
    target_mask: NDArray[np.bool_]
    """The value is trained."""

    @property
    def row(self) -> Row:
        """The row itself."""
        return self.scores.row

    def __len__(self) -> int:
        return len(self.row)
