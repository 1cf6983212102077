"""The losses of proximal policy optimisation, as pure functions over flat arrays of tokens or turns.

Schulman et al. 2017 (arXiv 1707.06347); dual clip: Ye et al. 2020 (arXiv 1912.09729); k3: Schulman, "Approximating KL
Divergence" (2020).
"""

from __future__ import annotations

import torch
from torch import Tensor

K3_CAP = 10.0


def policy_loss(ratio: Tensor, advantage: Tensor, clip: float, dual_clip: float) -> Tensor:
    """Clipped surrogate loss of each token.

    max(-A * ratio, -A * clamp(ratio, 1 - clip, 1 + clip)), and for A < 0 at most -A * dual_clip.
    """
    loss = torch.maximum(-advantage * ratio, -advantage * ratio.clamp(1 - clip, 1 + clip))
    return torch.where(advantage < 0, torch.minimum(loss, -advantage * dual_clip), loss)


def k3(logprob: Tensor, reference_logprob: Tensor) -> Tensor:
    """The k3 estimate of KL(policy || reference) at each token: exp(d) - d - 1 with d = log ref - log policy.

    Non-negative, and unbiased for tokens drawn from the policy; but capped at 10, as in verl, beyond which there is no
    gradient. An update pushes single tokens far down, whose estimate grows as 1 / probability: one of them would
    outweigh all the others.
    """
    difference = (reference_logprob - logprob).clamp(-20, 20)
    return (difference.exp() - difference - 1).clamp(max=K3_CAP)


def value_loss(value: Tensor, old_value: Tensor, target: Tensor, clip: float | None) -> Tensor:
    """Half the squared error of each value; with ``clip``, the larger of it and that of the value kept near the old."""
    error = (value - target).square()
    if clip is not None:
        near = old_value + (value - old_value).clamp(-clip, clip)
        error = torch.maximum(error, (near - target).square())
    return 0.5 * error
