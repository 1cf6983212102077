"""Importance weights: what an older policy sampled counts as if the present one had sampled it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hiper.learner.learner import Learner
from hiper.learner.losses import importance, policy_loss
from hiper.learner.optimizers import parameters_of
from hiper.rows import Row, TrainRow

MakeLearner = Callable[..., Learner]

ADVANTAGES = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)
OLDER = torch.tensor([0.3, -1.0, 0.8, 0.1], dtype=torch.float64)
"""The logits of the policy that samples one of four actions."""


def gradient(logits: Tensor, cap: float | None) -> Tensor:
    """The expected gradient of the loss at the present policy, when the older one samples. Every action is counted."""
    policy = logits.clone().requires_grad_(True)
    logprobs = torch.log_softmax(policy, -1)
    old, sampler = logprobs.detach(), torch.log_softmax(OLDER, -1)
    surrogate = policy_loss((logprobs - old).exp(), ADVANTAGES, clip=0.2, dual_clip=3.0)
    weight = torch.ones(4) if cap is None else importance(old, sampler, cap)
    (sampler.exp() * weight * surrogate).sum().backward()
    assert policy.grad is not None
    return policy.grad


def on_policy(logits: Tensor) -> Tensor:
    """The gradient of the expected loss -E[A], worked by hand for a softmax: -p (A - E[A])."""
    p = torch.softmax(logits, -1)
    return -p * (ADVANTAGES - (p * ADVANTAGES).sum())


@pytest.mark.parametrize("logits", [[0.0, 0.0, 0.0, 0.0], [1.0, -0.5, 0.2, -1.5], [0.3, -1.0, 0.8, 0.1]])
def test_the_gradient_has_the_expectation_of_samples_of_the_present_policy(logits: list[float]):
    present = torch.tensor(logits, dtype=torch.float64)
    torch.testing.assert_close(gradient(present, cap=1e6), on_policy(present))


def test_without_weights_the_expectation_is_wrong():
    present = torch.tensor([1.0, -0.5, 0.2, -1.5], dtype=torch.float64)
    assert (gradient(present, cap=None) - on_policy(present)).abs().max() > 0.1


def test_weights_of_equal_policies_are_one_and_others_are_cut():
    learner, sampler = torch.tensor([-1.0, -1.0, -4.0, -0.5]), torch.tensor([-1.0, -3.0, -1.0, -1.0])
    expected = [1.0, 2.0, np.exp(-3.0), np.exp(0.5)]  # the second one is e^2, beyond the cap
    torch.testing.assert_close(importance(learner, sampler, 2.0), torch.tensor(expected, dtype=torch.float32))


def rows_for(learner: Learner, tokens: range, sampler: dict[int, float]) -> list[TrainRow]:
    """One row for each token that may follow the same prompt, with an advantage of its own."""
    asked = [Row((3, 4, 5), (token,), None, (sampler[token],)) for token in tokens]
    return [
        TrainRow(
            scores=score,
            advantages=np.array([float(score.row.response_ids[0] % 5 - 2)], dtype=np.float32),
            mask=np.array([True]),
            targets=np.zeros_like(score.values),
            target_mask=np.zeros(score.values.shape, dtype=bool),
        )
        for score in learner.score(asked)
    ]


def logprobs_of(learner: Learner, tokens: range) -> dict[int, float]:
    rows = rows_for(learner, tokens, dict.fromkeys(tokens, 0.0))
    return {row.row.response_ids[0]: float(row.scores.logprobs[0]) for row in rows}


def expected_gradient(learner: Learner, rows: list[TrainRow], chances: np.ndarray[Any, Any]) -> Tensor:
    """The gradient of the learner's own loss, averaged over rows by their chances."""
    total = None
    for row, chance in zip(rows, chances, strict=True):
        gradients: list[Tensor] = []
        before = learner._clip_gradients

        def catch(gradients: list[Tensor] = gradients) -> list[Tensor]:
            gradients += [p.grad.clone().flatten() for p in parameters_of(learner._optimizer) if p.grad is not None]
            return [torch.tensor(0.0), torch.tensor(0.0)]

        learner._clip_gradients = catch  # type: ignore[method-assign]
        learner.update([row], seed=0, lr_scales=(0.0, 0.0))  # a step of size zero
        learner._clip_gradients = before  # type: ignore[method-assign]
        scaled = torch.cat(gradients).double() * float(chance)
        total = scaled if total is None else total + scaled
    assert total is not None
    return total


def test_the_learners_own_gradient_has_the_right_expectation(make_learner: MakeLearner):
    """Over all 40 tokens of a tiny language model that may come next, sampled by another policy."""
    settings = {"values": "none", "entropy_coef": 0.0, "weight_decay": 0.0, "lr": 0.0, "max_grad_norm": 1e9}
    learner, other = make_learner(**settings, importance_cap=1e9), make_learner(sizes={"seed": 7}, **settings)
    tokens = range(40)
    own, older = logprobs_of(learner, tokens), logprobs_of(other, tokens)
    p, m = np.exp([own[t] for t in tokens]), np.exp([older[t] for t in tokens])
    assert p.sum() == pytest.approx(1.0, abs=1e-5)
    assert np.abs(p - m).max() > 0.1
    truth = expected_gradient(learner, rows_for(learner, tokens, own), p)
    weighted = expected_gradient(learner, rows_for(learner, tokens, older), m)
    unweighted = expected_gradient(learner, rows_for(learner, tokens, own), m)
    assert truth.norm() > 0.1
    torch.testing.assert_close(weighted, truth, rtol=1e-4, atol=1e-4 * float(truth.abs().max()))
    assert (unweighted - truth).norm() > 0.1 * truth.norm()


def test_weights_are_told(make_learner: MakeLearner):
    learner = make_learner(values="none", lr=0.0, importance_cap=2.0)
    rows = rows_for(learner, range(40), dict.fromkeys(range(40), -3.0))
    metrics = learner.update(rows, seed=0)
    weight = np.minimum(np.exp([float(row.scores.logprobs[0]) + 3.0 for row in rows]), 2.0)
    assert metrics["update/importance"] == pytest.approx(weight.mean(), rel=1e-5)
    assert metrics["update/importance_capped"] == pytest.approx((weight >= 2.0).mean())
    assert "update/importance" not in make_learner(values="none").update(rows, seed=0)
