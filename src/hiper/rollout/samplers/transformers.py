"""Sampling through transformers in this process, with a key-value cache.

Legend: N rows, T tokens of a response, V vocabulary size.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import Future
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from hiper.errors import DivergedError, UserError
from hiper.models.actor_critic import scaled_logprobs
from hiper.models.batches import micro_batches
from hiper.models.weights import PolicyWeights, evaluating, stop_ids
from hiper.rollout.samplers import decoding
from hiper.rollout.samplers.base import Request, Sample, SamplingParams
from hiper.rollout.samplers.constraints import Constraint, TokenRules
from hiper.validation import StrictModel

log = logging.getLogger(__name__)


class TransformersOptions(StrictModel):
    """The options of :class:`TransformersSampler`, in the section ``sampler`` of the settings."""

    batch_tokens: int = Field(131_072, ge=1)
    """The most tokens of one generation batch, with padding and room for responses."""
    copy_weights: bool = False
    """If true, sample from a whole copy of the policy in each process, in the number format of forward passes.

    Sharded weights (``learner.sharding: fsdp``) are sampled so, or by an engine.
    """


class _Submitted(NamedTuple):
    order: int
    request: Request
    future: Future[Sample]


class TransformersSampler:
    """The simplest sampler. It uses the loaded model in place, which may be the model in training.

    Requests are sorted by length and cut into batches. Each call of :meth:`run` samples one batch. Finished rows leave
    the batch once they are half of it.

    Args:
        tokenizer: The tokenizer of the model. It gives the padding and the tokens that end a response.
        options: The options; see :class:`TransformersOptions`.
    """

    options = TransformersOptions

    def __init__(self, tokenizer: PreTrainedTokenizerBase, options: TransformersOptions) -> None:
        self._tokenizer = tokenizer
        self.batch_tokens, self._copies = options.batch_tokens, options.copy_weights
        self._weights: PolicyWeights | None = None
        self._version: int | None = None
        self._way: decoding.Way = "select"
        self._rules: TokenRules | None = None
        self._submitted: list[_Submitted] = []
        self._batches: list[list[_Submitted]] = []
        """The batches of earlier requests. They are sampled before newer requests."""

    def load(self, weights: PolicyWeights, version: int) -> None:
        """See :class:`Sampler`. A model that was not loaded before is checked; see :func:`decoding.choose_way`.

        Raises:
            UserError: The weights are sharded, or the model cannot be sampled.
        """
        if self._copies:
            weights = weights.copied(into=self._weights)
        elif weights.sharded:
            raise UserError(
                "sampler.type 'transformers' cannot sample from sharded weights (learner.sharding=fsdp): use an engine "
                "(sampler.type=vllm), or, if a whole policy fits beside its share on each GPU, set "
                "sampler.copy_weights=true"
            )
        if self._weights is None or weights.model is not self._weights.model:
            with evaluating(weights.model):
                self._way = decoding.choose_way(weights.model, self._tokenizer.pad_token_id, weights.shortcut)
            if self._way == "full":
                log.warning(
                    "'%s' (%s) has no cache that agrees with passes over whole rows: it is sampled without one, slowly",
                    weights.model.name_or_path,
                    weights.model.config.model_type,
                )
        self._weights, self._version = weights, version
        self._stop_ids = stop_ids(weights.model, self._tokenizer)

    def submit(self, request: Request) -> Future[Sample]:
        """See :class:`Sampler`."""
        self._submitted.append(_Submitted(len(self._submitted), request, Future()))
        return self._submitted[-1].future

    def run(self) -> None:
        """See :class:`Sampler`."""
        if not self._batches:
            self._batches = self._cut(self._submitted)
            self._submitted = []
        while self._batches:
            batch = [item for item in self._batches.pop(0) if item.future.set_running_or_notify_cancel()]
            if batch:
                self._sample(batch)
                return

    def close(self) -> None:
        """See :class:`Sampler`."""
        for item in (*chain(*self._batches), *self._submitted):
            item.future.cancel()
        self._batches, self._submitted, self._weights = [], [], None

    def _cut(self, submitted: Sequence[_Submitted]) -> list[list[_Submitted]]:
        """Cut requests into batches of similar lengths, of equal parameters, and all with a pattern or none."""
        alike: dict[tuple[SamplingParams, bool], list[_Submitted]] = {}
        for item in submitted:
            alike.setdefault((item.request.params, item.request.pattern is None), []).append(item)
        batches = []
        for (params, _), items in alike.items():
            lengths = [len(item.request.prompt) + params.max_tokens for item in items]
            for indices in micro_batches(lengths, self.batch_tokens, most_padding=1.0):
                batches.append([items[i] for i in indices])
        return batches

    def _sample(self, batch: Sequence[_Submitted]) -> None:
        """Sample a batch. Results are set in the order of submission. An error goes to every request of the batch."""
        try:
            samples = self._sample_batch([item.request for item in batch])
        except Exception as error:
            for item in batch:
                item.future.set_exception(error)
            return
        for item, sample in sorted(zip(batch, samples, strict=True), key=lambda pair: pair[0].order):
            item.future.set_result(sample)

    def _constraints(self, requests: Sequence[Request], words: int) -> list[Constraint]:
        """Return the constraint of each request; empty: responses are free."""
        patterns = [request.pattern for request in requests if request.pattern is not None]
        if not patterns:
            return []
        assert len(patterns) == len(requests)
        if self._rules is None:
            self._rules = TokenRules(self._tokenizer, words, self._stop_ids)
        return [self._rules.begin(pattern) for pattern in patterns]

    @torch.no_grad()
    def _sample_batch(self, requests: Sequence[Request]) -> list[Sample]:
        if self._weights is None:
            raise RuntimeError("a sampler needs weights: call load() first")
        model, autocast = self._weights.model, self._weights.autocast
        with evaluating(model), torch.autocast(model.device.type, dtype=autocast, enabled=autocast is not None):
            return self._decode(self._weights, requests)

    def _decode(self, weights: PolicyWeights, requests: Sequence[Request]) -> list[Sample]:
        model, params, prompts = weights.model, requests[0].params, [request.prompt for request in requests]
        count, device = len(prompts), model.device
        eos_ids = torch.tensor(self._stop_ids, device=device)
        rows = torch.arange(count, device=device)  # the prompts that are still in the batch
        done = torch.zeros(count, dtype=torch.bool, device=device)
        lengths = torch.zeros(count, dtype=torch.long, device=device)
        # A finished row still draws tokens until it leaves the batch. Its length cuts them off.
        ids = torch.zeros((count, params.max_tokens), dtype=torch.long, device=device)
        logprobs = torch.zeros((count, params.max_tokens), device=device)
        chance_NT = uniforms([request.seed for request in requests], params.max_tokens).to(device)
        pad_id = self._tokenizer.pad_token_id
        batch = decoding.begin(model, prompts, params.max_tokens, pad_id, weights.shortcut, self._way)
        logits = batch.prefill()
        constraints = self._constraints(requests, logits.shape[-1])
        for t in range(params.max_tokens):
            if constraints:
                logits = constrained(logits, [constraints[row] for row in rows.tolist()], done[rows].tolist())
            token, logprob = draw(logits, params.temperature, chance_NT[rows, t])
            for row, drawn in zip(rows.tolist(), token.tolist(), strict=True) if constraints else ():
                if not done[row]:
                    constraints[row].take(drawn)
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
            Sample(tuple(i[:n]), tuple(p[:n]), bool(d), self._version)
            for i, p, n, d in zip(ids.tolist(), logprobs.tolist(), lengths.tolist(), done.tolist(), strict=True)
        ]


def constrained(logits: Tensor, constraints: Sequence[Constraint], done: Sequence[bool]) -> Tensor:
    """Return the logits (N, V) with minus infinity for every token that a row's constraint does not allow.

    Rows that are done keep their logits.
    """
    allowed = [
        np.ones(logits.shape[-1], bool) if end else c.allowed() for c, end in zip(constraints, done, strict=True)
    ]
    return logits.masked_fill(~torch.from_numpy(np.array(allowed)).to(logits.device), float("-inf"))


def uniforms(seeds: Sequence[int], count: int) -> Tensor:
    """Draw uniform numbers (N, ``count``) from [0, 1). Row n depends on seed n alone."""
    rows = [np.random.Generator(np.random.Philox(key=seed)).random(count) for seed in seeds]
    return torch.from_numpy(np.array(rows).reshape(len(seeds), count))


def draw(logits: Tensor, temperature: float, chance_N: Tensor) -> tuple[Tensor, Tensor]:
    """Sample a token for each row by inverse transform sampling.

    The token is the first whose cumulative probability exceeds the row's number. So it depends on that row alone.

    Args:
        logits: The logits (N, V) of the next token.
        temperature: The sampling temperature. 0 takes the most probable token.
        chance_N: A number in [0, 1) for each row, in double precision.

    Returns:
        Token ids (N,) and their log-probabilities (N,).

    Raises:
        DivergedError: A row has no finite logit.
    """
    logprobs = scaled_logprobs(logits, temperature)
    if not bool(logprobs.isfinite().any(-1).all()):  # on a GPU, drawing from NaN would end the process
        raise DivergedError(
            "the policy's probabilities are NaN: its weights hold NaN or infinity; an earlier checkpoint may be sound"
        )
    if temperature == 0:
        token = logits.argmax(-1)
    else:
        cumulated = logprobs.double().exp().cumsum(-1)
        total = cumulated[:, -1]
        # Rounding must not reach the total, because no token lies beyond it.
        sought = torch.minimum(chance_N * total, torch.nextafter(total, torch.zeros_like(total)))
        token = torch.searchsorted(cumulated, sought.unsqueeze(1), right=True).squeeze(1)
    return token, logprobs.gather(1, token.unsqueeze(1)).squeeze(1)
