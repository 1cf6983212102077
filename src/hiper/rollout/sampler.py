"""Sampling: prompts as token ids in, responses as token ids and log-probabilities out.

:class:`Sampler` is the seam where an inference server can take the place of :class:`TransformersSampler`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel


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

    def sample(self, prompts: Sequence[Sequence[int]], params: SamplingParams, seed: int) -> list[Sample]:
        """One response per prompt, in order. The same arguments and weights give the same answer."""


class TransformersSampler:
    """Batched sampling with a key-value cache, in this process, on the model that is being trained.

    Prompts are sorted by length and cut into batches of at most ``max_batch_tokens`` (padding included).
    Rows that are finished leave the batch once they are half of it.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        eos_id: int,
        pad_id: int,
        max_batch_tokens: int = 65_536,
        autocast: torch.dtype | None = None,
    ) -> None:
        self.model = model
        self.autocast = autocast
        self.eos_id = eos_id
        self.pad_id = pad_id
        self.max_batch_tokens = max_batch_tokens

    @torch.no_grad()
    def sample(self, prompts: Sequence[Sequence[int]], params: SamplingParams, seed: int) -> list[Sample]:
        """See :class:`Sampler`."""
        was_training = self.model.training
        self.model.eval()
        generator = torch.Generator(self.model.device).manual_seed(seed)
        samples: list[Sample | None] = [None] * len(prompts)
        with torch.autocast(self.model.device.type, dtype=self.autocast, enabled=self.autocast is not None):
            for indices in self._batches(prompts, params.max_tokens):
                decoded = self._decode([prompts[i] for i in indices], params, generator)
                for i, sample in zip(indices, decoded, strict=True):
                    samples[i] = sample
        self.model.train(was_training)
        return [sample for sample in samples if sample is not None]

    def _batches(self, prompts: Sequence[Sequence[int]], max_tokens: int) -> list[list[int]]:
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        batches: list[list[int]] = []
        for i in order:
            if not batches or (len(batches[-1]) + 1) * (len(prompts[i]) + max_tokens) > self.max_batch_tokens:
                batches.append([])
            batches[-1].append(i)
        return batches

    def _decode(self, prompts: list[Sequence[int]], params: SamplingParams, generator: torch.Generator) -> list[Sample]:
        device = self.model.device
        width = max(map(len, prompts))
        ids = torch.tensor([[self.pad_id] * (width - len(p)) + list(p) for p in prompts], device=device)
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
        # Position ids come from the mask: with left padding the default would shift every prompt.
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        cache = DynamicCache(config=self.model.config)
        rows = torch.arange(len(prompts), device=device)  # which prompts are still in the batch
        done = torch.zeros(len(prompts), dtype=torch.bool, device=device)
        out_ids = torch.full((len(prompts), params.max_tokens), self.pad_id, device=device)
        out_logprobs = torch.zeros((len(prompts), params.max_tokens), device=device)
        lengths = torch.zeros(len(prompts), dtype=torch.long, device=device)
        for t in range(params.max_tokens):
            logits = self.model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits[:, -1]
            token, logprob = draw(logits, params.temperature, generator)
            live = ~done[rows]
            out_ids[rows[live], t] = token[live]
            out_logprobs[rows[live], t] = logprob[live]
            lengths[rows[live]] += 1
            done[rows] |= token == self.eos_id
            live = ~done[rows]
            if not live.any():
                break
            positions = positions[:, -1:] + 1
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
            if 2 * int(live.sum()) <= len(rows):
                keep = live.nonzero().squeeze(1)
                cache.batch_select_indices(keep)
                rows, token, positions, mask = rows[keep], token[keep], positions[keep], mask[keep]
            ids = token.unsqueeze(1)
        return [
            Sample(tuple(i[:n]), tuple(p[:n]), bool(d))
            for i, p, n, d in zip(out_ids.tolist(), out_logprobs.tolist(), lengths.tolist(), done.tolist(), strict=True)
        ]


def draw(logits: Tensor, temperature: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Sample a token per row of ``logits`` (N, V); returns token ids (N,) and their log-probabilities (N,)."""
    logprobs = scaled_logprobs(logits, temperature)
    if temperature == 0:
        token = logits.argmax(-1)
    else:
        token = torch.multinomial(logprobs.exp(), 1, generator=generator).squeeze(1)
    return token, logprobs.gather(1, token.unsqueeze(1)).squeeze(1)


def scaled_logprobs(logits: Tensor, temperature: float) -> Tensor:
    """Log-probabilities in float32 of the distribution sampled from; temperature 0 leaves the logits as they are."""
    return torch.log_softmax(logits.float() / (temperature or 1.0), dim=-1)
