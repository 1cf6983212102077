"""Losses, worked by hand."""

from __future__ import annotations

import math

import pytest
import torch

from hiper.learner.losses import k3, policy_loss, value_loss


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),
    [
        (1.0, 2.0, -2.0, -2.0),  # inside the range: -A * ratio
        (1.1, 2.0, -2.2, -2.0),
        (1.5, 2.0, -2.4, 0.0),  # beyond it on the good side: cut at 1.2
        (0.5, 2.0, -1.0, -2.0),  # beyond it on the bad side: not cut
        (0.9, -2.0, 1.8, 2.0),
        (0.5, -2.0, 1.6, 0.0),  # cut at 0.8
        (1.5, -2.0, 3.0, 2.0),
        (3.5, -2.0, 6.0, 0.0),  # dual clip: at most 3 * |A|
        (3.5, 2.0, -2.4, 0.0),
        (0.7, 0.0, 0.0, 0.0),
    ],
)
def test_clipped_surrogate(ratio: float, advantage: float, loss: float, slope: float):
    r = torch.tensor([ratio], requires_grad=True)
    got = policy_loss(r, torch.tensor([advantage]), clip=0.2, dual_clip=3.0)
    assert got.item() == pytest.approx(loss)
    got.sum().backward()
    assert r.grad is not None
    assert r.grad.item() == pytest.approx(slope)


def test_k3_by_hand():
    logprob, reference = torch.log(torch.tensor([0.5, 0.5, 0.25])), torch.log(torch.tensor([0.5, 0.25, 0.5]))
    assert k3(logprob, reference).tolist() == pytest.approx([0.0, 0.5 - 1 + 0.693147, 2 - 1 - 0.693147], abs=1e-5)


def test_k3_is_an_unbiased_estimate_and_its_slope_pulls_towards_the_reference():
    p, q = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.2, 0.5, 0.3])
    assert (p * k3(p.log(), q.log())).sum().item() == pytest.approx((p * (p / q).log()).sum().item(), abs=1e-6)
    logprob = torch.tensor([-1.0], requires_grad=True)
    k3(logprob, torch.tensor([-2.0])).sum().backward()
    assert logprob.grad is not None
    assert logprob.grad.item() > 0


def test_k3_of_a_token_pushed_far_down_is_capped_and_has_no_slope():
    logprob = torch.tensor([-500.0, -2.4, 0.0], requires_grad=True)
    estimates = k3(logprob, torch.tensor([0.0, 0.0, -500.0]))
    assert estimates.tolist() == pytest.approx([10.0, math.exp(2.4) - 3.4, 10.0], rel=1e-5)
    estimates.sum().backward()
    assert logprob.grad is not None
    assert logprob.grad.tolist() == pytest.approx([0.0, 1 - math.exp(2.4), 0.0], rel=1e-5)


@pytest.mark.parametrize(
    ("value", "old", "target", "clip", "loss", "slope"),
    [
        (1.0, 1.0, 3.0, None, 2.0, -2.0),
        (1.0, 1.0, 3.0, 0.5, 2.0, -2.0),
        (2.0, 1.0, 3.0, 0.5, 1.125, 0.0),  # moved far towards the target: the value near the old one, 1.5, counts
        (0.0, 1.0, 3.0, 0.5, 4.5, -3.0),  # moved away from it: the worse of both counts
        (2.0, 1.0, 3.0, None, 0.5, -1.0),
    ],
)
def test_value_loss(value: float, old: float, target: float, clip: float | None, loss: float, slope: float):
    v = torch.tensor([value], requires_grad=True)
    got = value_loss(v, torch.tensor([old]), torch.tensor([target]), clip)
    assert got.item() == pytest.approx(loss)
    got.sum().backward()
    assert v.grad is not None
    assert v.grad.item() == pytest.approx(slope)
