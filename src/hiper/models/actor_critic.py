"""Policy and critic as one module: token log-probabilities and three values per row, in one call.

A *row* is one turn: prompt and response. Legend: N rows, L tokens, K response tokens of all rows together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from hiper.rollout.sampler import scaled_logprobs

HEADS = ("low", "high", "switch")
"""The value heads, in the order of the critic's outputs."""


@dataclass(frozen=True, slots=True)
class Row:
    """One turn, as the models read it."""

    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    low_index: int | None
    """The response token at which V_low is read; None (an invalid response): its last token."""

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.response_ids)


@dataclass(frozen=True)
class RowBatch:
    """Rows padded at the end to a common length, with the places where something is read."""

    input_ids_NL: Tensor
    row_K: Tensor
    """Row of each response token, rows in order."""
    position_K: Tensor
    """The position that predicts each response token (one before it)."""
    target_K: Tensor
    value_position_N3: Tensor
    """Where each head of :data:`HEADS` is read."""

    @classmethod
    def of(cls, rows: Sequence[Row], pad_id: int, device: torch.device) -> RowBatch:
        """Collate rows.

        Raises:
            ValueError: a row has an empty prompt or response, or a value position outside its response.
        """
        width = max(map(len, rows))
        ids, row_K, position_K, target_K, value_positions = [], [], [], [], []
        for n, row in enumerate(rows):
            prompt, response = len(row.prompt_ids), len(row.response_ids)
            low = response - 1 if row.low_index is None else row.low_index
            if prompt == 0 or not 0 <= low < response:
                raise ValueError(f"row {n}: {prompt} prompt and {response} response tokens, V_low at {low}")
            ids.append([*row.prompt_ids, *row.response_ids, *[pad_id] * (width - len(row))])
            row_K += [n] * response
            position_K += range(prompt - 1, prompt - 1 + response)
            target_K += row.response_ids
            value_positions.append((prompt + low, prompt - 1, prompt - 1))
        return cls(*(torch.tensor(x, device=device) for x in (ids, row_K, position_K, target_K, value_positions)))

    def of_prompts(self, rows: Sequence[Row]) -> RowBatch:
        """The same rows, with their prompt tokens (but the first, which nothing predicts) as the targets."""
        device = self.input_ids_NL.device
        lengths = torch.tensor([len(row.prompt_ids) - 1 for row in rows], device=device)
        row_K = torch.arange(len(rows), device=device).repeat_interleave(lengths)
        first_K = (lengths.cumsum(0) - lengths).repeat_interleave(lengths)
        position_K = torch.arange(len(row_K), device=device) - first_K
        return replace(self, row_K=row_K, position_K=position_K, target_K=self.input_ids_NL[row_K, position_K + 1])


@dataclass(frozen=True)
class Outputs:
    """What a forward pass gives."""

    logprobs_K: Tensor
    entropy_K: Tensor
    values_N3: Tensor
    """In the order of :data:`HEADS`."""


class ValueHeads(nn.Module):
    """Three scalar heads. They begin at zero, so that an untrained critic adds no noise to advantages."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.out = nn.Linear(hidden, len(HEADS))
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, hidden_N3H: Tensor) -> Tensor:
        """Values (N, 3): head h reads position h."""
        values_N33 = self.out(self.norm(hidden_N3H.float()))
        return cast(Tensor, values_N33.diagonal(dim1=1, dim2=2))


class ActorCritic(nn.Module):
    """A causal language model, and a critic with a backbone of its own or the policy's.

    Args:
        policy: any causal LM of transformers.
        backbone: the critic's own backbone (a model without a language head), or None to share the policy's.
    """

    def __init__(self, policy: PreTrainedModel, backbone: PreTrainedModel | None) -> None:
        super().__init__()
        self.policy = policy
        self.backbone = backbone
        self.heads = ValueHeads(policy.config.get_text_config().hidden_size)

    def copy_backbone(self) -> None:
        """Give a critic's own backbone the policy's weights, as they are now."""
        if self.backbone is not None:
            self.backbone.load_state_dict(self.policy.get_decoder().state_dict())

    def forward(self, batch: RowBatch, temperature: float) -> Outputs:
        """Log-probabilities at ``temperature``, entropies, and values."""
        hidden_NLH = decode(self.policy.get_decoder(), batch)
        logprobs_KV = vocabulary_logprobs(self.policy, hidden_NLH, batch, temperature)
        logprobs_K = logprobs_KV.gather(1, batch.target_K.unsqueeze(1)).squeeze(1)
        entropy_K = -(logprobs_KV.exp() * logprobs_KV).sum(-1)
        if self.backbone is not None:
            hidden_NLH = decode(self.backbone, batch)
        rows_N1 = torch.arange(len(hidden_NLH), device=hidden_NLH.device).unsqueeze(1)
        return Outputs(logprobs_K, entropy_K, self.heads(hidden_NLH[rows_N1, batch.value_position_N3]))


def token_logprobs(policy: PreTrainedModel, batch: RowBatch, temperature: float) -> Tensor:
    """Log-probabilities (K,) of the response tokens under a policy alone."""
    logprobs_KV = vocabulary_logprobs(policy, decode(policy.get_decoder(), batch), batch, temperature)
    return logprobs_KV.gather(1, batch.target_K.unsqueeze(1)).squeeze(1)


def decode(decoder: nn.Module, batch: RowBatch) -> Tensor:
    """Last hidden states (N, L, H).

    Padding stands at the end, so causal attention alone keeps it from every real token: no mask is needed.
    """
    return cast(Tensor, decoder(input_ids=batch.input_ids_NL, use_cache=False).last_hidden_state)


def vocabulary_logprobs(policy: PreTrainedModel, hidden_NLH: Tensor, batch: RowBatch, temperature: float) -> Tensor:
    """Log-probabilities (K, V) at the places that predict response tokens; no other logits are computed."""
    head = cast(nn.Module, policy.get_output_embeddings())
    return scaled_logprobs(head(hidden_NLH[batch.row_K, batch.position_K]), temperature)
