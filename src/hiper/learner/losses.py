"""The losses of proximal policy optimization, as pure functions over flat arrays of tokens or turns.

Sources: PPO, Schulman et al. 2017 (arXiv 1707.06347); dual clip, Ye et al. 2020 (arXiv 1912.09729); k3, Schulman,
"Approximating KL Divergence" (2020).
"""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hiper.processes import ALONE, Processes
from hiper.rows import Array
from hiper.runs import metrics as names

K3_CAP = 10.0
"""The largest k3 estimate of one token, as in verl."""


def policy_loss(ratio: Tensor, advantage: Tensor, clip: float, dual_clip: float) -> Tensor:
    """Return the clipped surrogate loss of each token.

    The loss is max(-A * ratio, -A * clamp(ratio, 1 - clip, 1 + clip)). For A < 0 it is at most -A * dual_clip.
    """
    loss = torch.maximum(-advantage * ratio, -advantage * ratio.clamp(1 - clip, 1 + clip))
    return torch.where(advantage < 0, torch.minimum(loss, -advantage * dual_clip), loss)


def importance(learner_logprob: Tensor, sampler_logprob: Tensor, cap: float) -> Tensor:
    """Return the truncated importance weight of each token: min(p_learner / p_sampler, cap).

    Samples of a policy m count as samples of a policy p when each is weighted by p / m. The cap bounds the variance,
    and tokens beyond it count too little. The probabilities are those of single tokens, given what came before. That
    earlier tokens were drawn from m as well is not corrected.

    Sources: Ionides 2008, "Truncated Importance Sampling"; Hilton et al. 2021 (arXiv 2110.00641), whose decoupled loss
    keeps the weight apart from the clipped ratio.
    """
    return (learner_logprob - sampler_logprob).clamp(-20, 20).exp().clamp(max=cap)


def k3(logprob: Tensor, reference_logprob: Tensor) -> Tensor:
    """Return the k3 estimate of KL(policy || reference) at each token: exp(d) - d - 1 with d = log ref - log policy.

    The estimate is non-negative, and unbiased for tokens drawn from the policy. It is capped at :data:`K3_CAP`; beyond
    the cap there is no gradient. An update can push single tokens far down, and their estimates grow as
    1 / probability. Without the cap, one such token would outweigh all others.
    """
    difference = (reference_logprob - logprob).clamp(-20, 20)
    return (difference.exp() - difference - 1).clamp(max=K3_CAP)


def value_loss(value: Tensor, old_value: Tensor, target: Tensor, clip: float | None) -> Tensor:
    """Return half the squared error of each value.

    With ``clip``, the error is the larger of two: the value's own, and that of the value clipped to within ``clip`` of
    the old value.
    """
    error = (value - target).square()
    if clip is not None:
        near = old_value + (value - old_value).clamp(-clip, clip)
        error = torch.maximum(error, (near - target).square())
    return 0.5 * error


class Counts(NamedTuple):
    """The denominators of the means in a mini-batch's loss."""

    credited: int
    """The number of tokens with an advantage."""
    said: int
    """The number of response tokens."""
    places_H: NDArray[np.int64]
    """The number of trained values, by head."""


def given(reference: Array | None) -> Array:
    """Return the reference's log-probabilities, which the KL term needs."""
    if reference is None:
        raise ValueError("kl_coef is not zero, but the rows were scored without a reference policy")
    return reference


class Meter:
    """Sums and counts of numbers by name."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = defaultdict(float)
        self._counts: dict[str, int] = defaultdict(int)

    def add(self, name: str, value: float) -> None:
        """Add one number."""
        self._sums[name] += value
        self._counts[name] += 1

    def add_all(self, name: str, values: Tensor) -> float:
        """Add each entry of a tensor, and return their sum."""
        total = float(values.detach().sum())
        self._sums[name] += total
        self._counts[name] += values.numel()
        return total

    def add_importance(self, weight_K: Tensor, cap: float) -> None:
        """Add importance weights, and which of them are at their cap."""
        self.add_all(names.IMPORTANCE.name, weight_K)
        self.add_all(names.IMPORTANCE_CAPPED.name, (weight_K >= cap).float())

    def means(self, processes: Processes = ALONE) -> dict[str, float]:
        """Return the mean of each name with at least one number, over the meters of all processes."""
        whole = Meter()
        for sums, counts in processes.gather((dict(self._sums), dict(self._counts))):
            for name, total in sums.items():
                whole._sums[name] += total
                whole._counts[name] += counts[name]
        return {name: total / whole._counts[name] for name, total in whole._sums.items() if whole._counts[name]}
