"""Sampling: prompts as token ids in, responses as token ids and log-probabilities out.

:class:`Sampler` is the seam where an inference server can take the place of :class:`TransformersSampler`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from transformers import PreTrainedModel

from hiper.errors import DivergedError
from hiper.models.batches import micro_batches
from hiper.models.logits import scaled_logprobs
from hiper.rollout.samplers import decoding
from hiper.validation import StrictModel


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How to sample."""

    temperature: float = 1.0
    """0 is greedy."""
    max_tokens: int = 512


@dataclass(frozen=True, slots=True)
class Sample:
    """One sampled response."""

    ids: tuple[int, ...]
    """With the end-of-sequence token, if it was reached."""
    logprobs: tuple[float, ...]
    """Of each token, under the distribution it was drawn from (at temperature 0: under the model's own)."""
    finished: bool
    """The end-of-sequence token was reached (False: cut off at ``max_tokens``)."""


class Sampler(Protocol):
    """Whatever turns prompts into responses."""

    def sample(self, prompts: Sequence[Sequence[int]], params: SamplingParams, seeds: Sequence[int]) -> list[Sample]:
        """One response per prompt, in order, each drawn with its own seed, whatever else is sampled beside it."""

    def weights_sha256(self) -> str | None:
        """Names the weights that are sampled from, for result cards; None where that cannot be told."""


class TransformersOptions(StrictModel):
    """The options of :class:`TransformersSampler` in the section ``sampler`` of the settings."""

    batch_tokens: int = Field(131_072, ge=1)
    """The maximum number of tokens in one generation batch, with padding and room for responses."""


class TransformersSampler:
    """Batched sampling with a key-value cache, in this process, on the model that is being trained.

    Prompts are sorted by length and cut into batches. Rows that are finished leave the batch once they are half of it.

    Args:
        model: any causal language model.
        eos_id: the token that ends a response, or all those that do.
        pad_id: token that fills batches.
        max_batch_tokens: most tokens of a batch, padding and room for responses included.
        autocast: number format of the forward passes, None for that of the parameters.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        eos_id: int | Collection[int],
        pad_id: int,
        max_batch_tokens: int = 65_536,
        autocast: torch.dtype | None = None,
    ) -> None:
        self.model = model
        self.autocast = autocast
        self.eos_ids = [eos_id] if isinstance(eos_id, int) else sorted(eos_id)
        self.pad_id = pad_id
        self.max_batch_tokens = max_batch_tokens

    @torch.no_grad()
    def sample(self, prompts: Sequence[Sequence[int]], params: SamplingParams, seeds: Sequence[int]) -> list[Sample]:
        """See :class:`Sampler`."""
        device, was_training = self.model.device, self.model.training
        samples: dict[int, Sample] = {}
        self.model.eval()
        with torch.autocast(device.type, dtype=self.autocast, enabled=self.autocast is not None):
            lengths = [len(prompt) + params.max_tokens for prompt in prompts]
            for indices in micro_batches(lengths, self.max_batch_tokens, most_padding=1.0):
                chosen = [prompts[i] for i in indices], params, [seeds[i] for i in indices]
                samples.update(zip(indices, self._decode(*chosen), strict=True))
        self.model.train(was_training)
        return [samples[i] for i in range(len(prompts))]

    def weights_sha256(self) -> str:
        """See :class:`Sampler`: over names and bytes of all parameters, tied ones once."""
        digest = hashlib.sha256()
        for name, parameter in sorted(self.model.named_parameters()):
            digest.update(name.encode())
            digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def _decode(self, prompts: Sequence[Sequence[int]], params: SamplingParams, seeds: Sequence[int]) -> list[Sample]:
        count, device = len(prompts), self.model.device
        eos_ids = torch.tensor(self.eos_ids, device=device)
        rows = torch.arange(count, device=device)  # which prompts are still in the batch
        done = torch.zeros(count, dtype=torch.bool, device=device)
        lengths = torch.zeros(count, dtype=torch.long, device=device)
        # What a finished row goes on to draw until it leaves the batch is cut off by its length.
        ids = torch.zeros((count, params.max_tokens), dtype=torch.long, device=device)
        logprobs = torch.zeros((count, params.max_tokens), device=device)
        chance_NT = uniforms(seeds, params.max_tokens).to(device)
        batch = decoding.begin(self.model, prompts, params.max_tokens, self.pad_id)
        logits = batch.prefill()
        for t in range(params.max_tokens):
            token, logprob = draw(logits, params.temperature, chance_NT[rows, t])
            ids[rows, t], logprobs[rows, t] = token, logprob
            lengths[rows] += ~done[rows]
            done[rows] |= torch.isin(token, eos_ids)
            live = (~done[rows]).nonzero().squeeze(1)
            if len(live) == 0 or t + 1 == params.max_tokens:
                break
            if 2 * len(live) <= len(rows):
                batch.keep(live)
                rows, token = rows[live], token[live]
            logits = batch.extend(token)
        return [
            Sample(tuple(i[:n]), tuple(p[:n]), bool(d))
            for i, p, n, d in zip(ids.tolist(), logprobs.tolist(), lengths.tolist(), done.tolist(), strict=True)
        ]


def uniforms(seeds: Sequence[int], count: int) -> Tensor:
    """Numbers (N, ``count``) drawn evenly from [0, 1), row n from seed n alone."""
    rows = [np.random.Generator(np.random.Philox(key=seed)).random(count) for seed in seeds]
    return torch.from_numpy(np.array(rows).reshape(len(seeds), count))


def draw(logits: Tensor, temperature: float, chance_N: Tensor) -> tuple[Tensor, Tensor]:
    """Sample a token per row of ``logits`` (N, V); returns token ids (N,) and their log-probabilities (N,).

    Args:
        logits: of the next token.
        temperature: 0 takes the likeliest token.
        chance_N: a number in [0, 1) per row, in double precision. The token drawn is the first whose cumulative
            probability exceeds it (inverse transform sampling), so a row's token depends on its own number alone.

    Raises:
        DivergedError: a row has no finite logit.
    """
    logprobs = scaled_logprobs(logits, temperature)
    if not bool(logprobs.isfinite().any(-1).all()):  # on a GPU, drawing from such would end the process
        raise DivergedError(
            "the policy gives no probabilities any more, its weights are beyond numbers; an earlier checkpoint may be "
            "sound"
        )
    if temperature == 0:
        token = logits.argmax(-1)
    else:
        cumulated = logprobs.double().exp().cumsum(-1)
        total = cumulated[:, -1]
        # Rounding must not reach the total itself, behind which there is no token.
        sought = torch.minimum(chance_N * total, torch.nextafter(total, torch.zeros_like(total)))
        token = torch.searchsorted(cumulated, sought.unsqueeze(1), right=True).squeeze(1)
    return token, logprobs.gather(1, token.unsqueeze(1)).squeeze(1)
