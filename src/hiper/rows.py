"""The records between the learner and credit assignment: one row per turn, with numpy alone.

Legend: K response tokens of one row, H value heads of its critic.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


Told = Callable[[int], None]
"""A function that is told the number of rows that were done since the last call."""


def mute(count: int) -> None:
    """Do nothing with it."""


@dataclass(frozen=True, slots=True)
class Row:
    """One turn, as a model reads it."""

    prompt_ids: tuple[int, ...]
    """The tokens of the prompt."""
    response_ids: tuple[int, ...]
    """The tokens of the response."""
    low_index: int | None
    """The index of the response token where V_low is read. None: V_low is read before the first token.

    Invalid responses have None. V_low is the baseline of all their tokens, and a baseline must not depend on the
    action. After the response, V_low would already reflect the formatting error.
    """
    sampled_logprobs: tuple[float, ...] = ()
    """The sampler's log-probability of each response token. Demonstrations are not sampled, and have none."""
    version: int | None = None
    """The version of the weights that sampled the response. None: unknown."""
    critic_prompt_ids: tuple[int, ...] | None = None
    """The tokens that the critic reads as the prompt. None: those of the policy's prompt."""

    def __len__(self) -> int:
        """The number of tokens, in the longer reading."""
        return max(len(self.prompt_ids), len(self.critic_prompt_ids or ())) + len(self.response_ids)

    @property
    def for_critic(self) -> Row:
        """The row as the critic reads it."""
        return self if self.critic_prompt_ids is None else replace(self, prompt_ids=self.critic_prompt_ids)


@dataclass(frozen=True, slots=True)
class Scores:
    """A row, scored under the weights before the update."""

    row: Row
    """The row that was scored."""
    logprobs: Array
    """The log-probabilities (K,) of the response tokens in the learner's forward pass."""
    values: Array
    """The values (H,) in the order of the critic's heads; (K,) for a critic of tokens; (0,) without a critic."""
    reference: Array | None
    """The log-probabilities (K,) under the frozen reference policy. None: there is no reference policy."""
    entropy: Array | None = None
    """The entropies (K,) in nats of the distributions that the tokens were drawn from. None: not computed."""


@dataclass(frozen=True, slots=True)
class TrainRow:
    """A scored row with all inputs of the losses."""

    scores: Scores
    """The row and its scores before the update."""
    advantages: Array
    """The advantages (K,), one for each response token."""
    mask: NDArray[np.bool_]
    """Whether each response token (K,) has a policy loss."""
    targets: Array
    """The regression target of each value, in the shape of :attr:`Scores.values`."""
    target_mask: NDArray[np.bool_]
    """Whether each value is trained, in the same shape."""

    @property
    def row(self) -> Row:
        """The row itself."""
        return self.scores.row

    def __len__(self) -> int:
        return len(self.row)
