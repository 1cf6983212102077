"""The probe: does an engine compute what the learner computes?

Engines take weights in ways that can fail silently: a part stays as it was, a cache holds results of older weights, or
log-probabilities ignore the temperature. So after every load the engine continues a few fixed prompts, and the learner
computes the log-probabilities of the same tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from hiper.errors import DivergedError, UserError
from hiper.models.actor_critic import ActorCritic, RowBatch
from hiper.models.weights import PolicyWeights, evaluating
from hiper.rollout.engines.export import number_format
from hiper.rollout.samplers.base import Request, Sample, SamplingParams
from hiper.rows import Row
from hiper.seeding import derive_seed

ROWS, TOKENS = 4, 16
LONGEST_PROMPT = 300
"""Engines cache prompts in blocks, of 128 tokens on CPUs. A stale cache shows in prompts of more than one block."""
TEMPERATURE = 0.7
"""Not 1, so that an engine shows whether its log-probabilities heed the temperature."""

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.25, torch.float16: 0.25}
"""The mean difference of a token's log-probability that rounding explains, by number format.

Measured with vLLM 0.32 on a CPU: 2e-6 in float32 with two layers, 0.05 in bfloat16 with the 30 layers of SmolLM2-135M.
Scrambled weights make a difference of several nats.
"""


@dataclass(frozen=True)
class Finding:
    """What a probe found."""

    mean: float
    """The mean absolute difference of a token's log-probability, in nats."""
    largest: float
    """The largest one."""
    tolerance: float
    """The mean difference that rounding explains."""

    @property
    def agrees(self) -> bool:
        """Whether engine and learner compute the same."""
        return self.mean <= self.tolerance


def requests(words: int, positions: int | None, most_tokens: int | None = None) -> list[Request]:
    """Return the fixed requests of a probe.

    Args:
        words: The number of tokens that the model knows.
        positions: The most tokens of a prompt and its response. None: no limit is known.
        most_tokens: The same, as the engine was started.
    """
    room = min(limit for limit in (positions, most_tokens, LONGEST_PROMPT + TOKENS) if limit is not None)
    tokens = min(TOKENS, max(1, room // 2))
    numbers = np.random.Generator(np.random.Philox(key=derive_seed("probe")))
    lengths = [max(1, (room - tokens) * (row + 1) // ROWS) for row in range(ROWS)]
    params = SamplingParams(TEMPERATURE, tokens)
    return [
        Request(tuple(numbers.integers(0, words, length).tolist()), params, derive_seed("probe", row))
        for row, length in enumerate(lengths)
    ]


@torch.no_grad()
def compare(weights: PolicyWeights, asked: Sequence[Request], answers: Sequence[Sample]) -> Finding:
    """Compare an engine's log-probabilities with those of the learner's forward pass.

    Raises:
        DivergedError: The learner's are NaN or infinite.
    """
    rows = [Row(tuple(request.prompt), answer.ids, None) for request, answer in zip(asked, answers, strict=True)]
    model = weights.model
    batch = RowBatch.of(rows, 0, model.device)
    enabled = weights.autocast is not None
    with evaluating(model), torch.autocast(model.device.type, dtype=weights.autocast, enabled=enabled):
        whole = ActorCritic(model, None, critic="none", shortcut=weights.shortcut)
        own = whole(batch, TEMPERATURE).logprobs_K.float().cpu().numpy()
    if not np.isfinite(own).all():
        raise DivergedError(
            "the policy's probabilities are NaN: its weights hold NaN or infinity; an earlier checkpoint may be sound"
        )
    told = np.concatenate([answer.logprobs for answer in answers])
    difference = np.abs(own.astype(np.float64) - told)
    tolerance = TOLERANCE.get(number_format(weights), TOLERANCE[torch.bfloat16])
    return Finding(float(difference.mean()), float(difference.max()), tolerance)


def refusal(found: Finding, weights: PolicyWeights, where: str, advice: str) -> UserError:
    """Return the error for an engine that computes something else than the learner.

    Args:
        found: What the probe found.
        weights: The weights that were loaded.
        where: The engine, in words.
        advice: What to do about it.
    """
    shape = str(number_format(weights)).removeprefix("torch.")
    return UserError(
        f"{where} does not compute what the learner computes: after loading the weights, log-probabilities of fixed "
        f"rows differ by {found.mean:.3g} on average and {found.largest:.3g} at most, and rounding in {shape} explains "
        f"{found.tolerance:g}. Training would go on from samples of another policy, so it stops here. {advice}"
    )
