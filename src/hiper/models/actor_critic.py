"""Policy and critic as one module that returns token log-probabilities and values in one call.

Legend: N rows, L tokens of a row, M positions read in all rows, K response tokens of all rows, V vocabulary size, D
hidden size, H value heads, P places where the heads are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from hiper.advantages import Critic, head_names
from hiper.models import llama
from hiper.models.llama import packs
from hiper.models.lora import Adapters, role_of
from hiper.rows import Row

HEADS = head_names("decisions")
"""The value heads of a critic of decisions, in the order of the critic's outputs."""

MOST_LOGITS = 1 << 25
"""The most logits held in memory at once (128 MiB in float32)."""


@dataclass(frozen=True)
class RowBatch:
    """Rows padded at the end to a common length, with the positions to read.

    Reading begins at the last prompt token, because it predicts the first response token. It ends with the row.
    """

    input_ids_NL: Tensor
    length_N: Tensor
    """The length of each row."""
    row_M: Tensor
    """The row of each position read, in ascending order."""
    position_M: Tensor
    """The positions read, in ascending order within each row."""
    state_K: Tensor
    """The index into M of the position that predicts each response token, which is the one before it."""
    target_K: Tensor
    """The response tokens."""
    value_state_N3: Tensor
    """The index into M of the position where each head of :data:`HEADS` is read."""

    @classmethod
    def of(cls, rows: Sequence[Row], pad_id: int, device: torch.device) -> RowBatch:
        """Collate rows.

        Args:
            rows: One row at least.
            pad_id: The token that fills rows up to the common length.
            device: The device of the tensors.

        Raises:
            ValueError: A row has an empty prompt or response, or a value position outside its response.
        """
        lengths = [len(row.prompt_ids) + len(row.response_ids) for row in rows]
        width = max(lengths)
        ids: list[list[int]] = []
        row_M: list[int] = []
        position_M: list[int] = []
        state_K: list[int] = []
        target_K: list[int] = []
        value_states: list[tuple[int, int, int]] = []
        for n, row in enumerate(rows):
            prompt, response, before = len(row.prompt_ids), len(row.response_ids), len(row_M)
            if prompt == 0 or response == 0 or not 0 <= (row.low_index or 0) < response:
                raise ValueError(f"row {n}: {prompt} prompt and {response} response tokens, V_low at {row.low_index}")
            low = before if row.low_index is None else before + 1 + row.low_index
            ids.append([*row.prompt_ids, *row.response_ids, *[pad_id] * (width - prompt - response)])
            row_M += [n] * (response + 1)
            position_M += range(prompt - 1, prompt + response)
            state_K += range(before, before + response)
            target_K += row.response_ids
            value_states.append((low, before, before))
        arrays = (ids, lengths, row_M, position_M, state_K, target_K, value_states)
        return cls(*(torch.tensor(array, device=device) for array in arrays))


class Outputs(NamedTuple):
    """The results of a forward pass. FSDP finds the tensors of a tuple, and not those of a dataclass."""

    logprobs_K: Tensor
    """The log-probability of each response token."""
    entropy_K: Tensor
    """The entropy in nats of the distribution each token was drawn from."""
    values_PH: Tensor
    """The values, in the order of the critic's heads; (N, 0) without a critic."""


class ValueHeads(nn.Module):
    """Scalar value heads on one shared hidden layer.

    Values begin at zero, so an untrained critic adds no noise. Without heads the module has no parameters.

    Args:
        hidden: The size of the hidden states.
        names: The heads, in the order of the outputs.
    """

    def __init__(self, hidden: int, names: tuple[str, ...] = HEADS) -> None:
        super().__init__()
        self.names = names
        if not names:
            return
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # equal runs begin with equal heads, whatever was drawn before
            self.norm = nn.LayerNorm(hidden)
            self.up = nn.Linear(hidden, hidden)
            self.out = nn.Linear(hidden, len(names))
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, hidden_PHD: Tensor) -> Tensor:
        """Return the values (P, H). Head h reads column h of ``hidden_PHD``.

        Values are computed in float32. The steps of bfloat16 are too coarse: 1/16 between 8 and 16.
        """
        with torch.autocast(hidden_PHD.device.type, enabled=False):
            values_PHH = self.out(nn.functional.gelu(self.up(self.norm(hidden_PHD.float()))))
        return cast(Tensor, values_PHH.diagonal(dim1=1, dim2=2))


@dataclass(frozen=True, slots=True)
class Description:
    """A short description of policy and critic for people."""

    policy_parameters: int
    """The number of the policy's parameters."""
    trained: int
    """The number of those that are trained."""
    critic: str
    """The backbone that the critic reads, in words."""
    device: str
    """The device of all parameters."""

    def __str__(self) -> str:
        trained = "" if self.trained == self.policy_parameters else f", {self.trained:,} trained"
        return f"{self.policy_parameters:,} parameters{trained}, {self.critic}, {self.device}"


class ActorCritic(nn.Module):
    """A causal language model with a critic. The critic reads its own backbone or the policy's; it may also be absent.

    Args:
        policy: Any causal language model of transformers.
        backbone: The critic's own backbone, a model without a language head. None: the critic reads the policy's.
        detached: Whether value losses stop at the policy's hidden states and do not train the policy.
        critic: The kind of values that the critic estimates.
        shortcut: Whether :mod:`hiper.models.llama` may run the models it supports. It does not call each layer's
            ``forward``. Turn it off for wrapped modules, such as sharded ones, whose wrappers must see every call.
        adapters: The adapters of LoRA on the policy's model. None: the whole model is trained.
    """

    def __init__(
        self,
        policy: PreTrainedModel,
        backbone: PreTrainedModel | None,
        detached: bool = False,
        critic: Critic = "decisions",
        shortcut: bool = True,
        adapters: Adapters | None = None,
    ) -> None:
        super().__init__()
        self.shortcut = shortcut
        self.adapters = adapters
        self.policy = policy
        self.backbone = backbone
        self.detached = detached
        self.critic = critic
        self.heads = ValueHeads(_width(policy), head_names(critic))

    @property
    def own_backbone(self) -> bool:
        """Whether the critic has a backbone of its own: a model, or an adapter."""
        return self.backbone is not None or (self.adapters is not None and "critic" in self.adapters.roles)

    def policy_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that the policy's losses train."""
        return [*self.policy.parameters()] if self.adapters is None else self.adapters.parameters("policy")

    def critic_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that only the value losses train."""
        if self.adapters is not None:
            return [*self.heads.parameters(), *self.adapters.parameters("critic")]
        return [*self.heads.parameters(), *(self.backbone.parameters() if self.backbone is not None else ())]

    def describe(self) -> Description:
        """Describe policy and critic for people."""
        named = self.policy.named_parameters()
        backbone = "its own backbone" if self.own_backbone else "the policy's backbone"
        return Description(
            policy_parameters=sum(p.numel() for name, p in named if role_of(name) in (None, "policy")),
            trained=sum(p.numel() for p in self.policy_parameters()),
            critic=f"critic on {backbone}" if self.heads.names else "no critic",
            device=str(next(self.parameters()).device),
        )

    def copy_backbone(self) -> None:
        """Copy the policy's current weights into the critic's own backbone, if it has one."""
        if self.backbone is not None:
            self.backbone.load_state_dict(self.policy.get_decoder().state_dict())
        elif self.adapters is not None and self.own_backbone:
            self.adapters.copy("policy", "critic")

    def forward(
        self, batch: RowBatch, temperature: float, critic_batch: RowBatch | None = None, *, values: bool = True
    ) -> Outputs:
        """Return log-probabilities and entropies at ``temperature``, and values.

        Args:
            batch: The rows as the policy reads them.
            temperature: The sampling temperature.
            critic_batch: The same rows as the critic reads them; its backbone must be its own. None: ``batch``.
            values: Whether the critic computes values.
        """
        assert critic_batch is None or self.own_backbone
        decoder = self.policy.get_decoder()
        ids_NL, length_N = batch.input_ids_NL, batch.length_N
        states_MD = hidden_states(decoder, ids_NL, batch.row_M, batch.position_M, self.shortcut, length_N)
        scores = token_scores(self.policy, states_MD[batch.state_K], batch.target_K, temperature)
        if not self.heads.names or not values:
            return Outputs(*scores, states_MD.new_zeros(len(batch.input_ids_NL), 0))
        return Outputs(*scores, self.heads(self._critic_states(critic_batch or batch, states_MD)))

    def _critic_states(self, batch: RowBatch, states_MD: Tensor) -> Tensor:
        """Return the hidden states (P, H, D) that the heads read."""
        places_PH = batch.value_state_N3
        if self.critic == "token":
            places_PH = batch.state_K.unsqueeze(1)
        elif self.critic == "turn":
            places_PH = places_PH[:, HEADS.index("high"), None]
        if self.own_backbone:
            places = places_PH.flatten()
            row_M, position_M = batch.row_M[places], batch.position_M[places]
            decoder = self.policy.get_decoder() if self.backbone is None else self.backbone
            with self.adapters.using("critic") if self.adapters else nullcontext():
                ids_NL, length_N = batch.input_ids_NL, batch.length_N
                states_MD = hidden_states(decoder, ids_NL, row_M, position_M, self.shortcut, length_N)
            return states_MD.view(*places_PH.shape, -1)
        states_PHD = states_MD[places_PH]
        return states_PHD.detach() if self.detached else states_PHD


def _width(policy: PreTrainedModel) -> int:
    """Return the size of the last hidden states. It is not ``hidden_size`` where a model projects them (OPT-350m)."""
    width = getattr(policy.get_output_embeddings(), "in_features", None)
    return int(width or policy.config.get_text_config().hidden_size)


def hidden_states(
    decoder: PreTrainedModel,
    ids_NL: Tensor,
    row_M: Tensor,
    position_M: Tensor,
    shortcut: bool = True,
    length_N: Tensor | None = None,
) -> Tensor:
    """Return the last layer's hidden states (M, D) at the given positions.

    No mask is needed. Padding stands at the end, so causal attention hides it from every real token. Packed rows have
    none: they are one row to the decoder, whose positions begin anew with each of them.

    Args:
        decoder: A model without its language head.
        ids_NL: The rows, padded at the end.
        row_M: The row of each position, in ascending order.
        position_M: The positions to read.
        shortcut: See :class:`ActorCritic`.
        length_N: The length of each row, with which rows can be packed. None: they are not.
    """
    if length_N is not None and packs(decoder):
        within_NL = torch.arange(ids_NL.shape[1], device=ids_NL.device).expand_as(ids_NL)
        real_NL = within_NL < length_N.unsqueeze(1)
        packed = decoder(
            input_ids=ids_NL[real_NL].unsqueeze(0), position_ids=within_NL[real_NL].unsqueeze(0), use_cache=False
        )
        first_N = length_N.cumsum(0) - length_N
        return cast(Tensor, packed.last_hidden_state[0, first_N[row_M] + position_M])
    if shortcut and llama.understands(decoder):
        return llama.read(decoder, ids_NL, row_M, position_M)
    return cast(Tensor, decoder(input_ids=ids_NL, use_cache=False).last_hidden_state[row_M, position_M])


def scaled_logprobs(logits: Tensor, temperature: float) -> Tensor:
    """Return log-probabilities in float32 at ``temperature``; 0 leaves the logits as they are.

    Sampler and learner both call this, so both mean the same distribution.
    """
    return torch.log_softmax(logits.float() / (temperature or 1.0), dim=-1)


def token_scores(
    policy: PreTrainedModel, hidden_KD: Tensor, target_K: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """Return the log-probability (K,) of each target, and the entropy (K,) of its distribution.

    Beyond :data:`MOST_LOGITS`, logits are computed in pieces. They are computed again for the gradient, not stored.
    """
    head = cast(nn.Module, policy.get_output_embeddings())

    def score(hidden_KD: Tensor, target_K: Tensor) -> tuple[Tensor, Tensor]:
        logprobs_KV = scaled_logprobs(head(hidden_KD), temperature)
        entropy_K = -(logprobs_KV.exp() * logprobs_KV).sum(-1)
        return logprobs_KV.gather(1, target_K.unsqueeze(1)).squeeze(1), entropy_K

    size = max(1, MOST_LOGITS // policy.config.get_text_config().vocab_size)
    if len(target_K) <= size:
        return score(hidden_KD, target_K)
    pieces = zip(hidden_KD.split(size), target_K.split(size), strict=True)
    scored = [checkpoint(score, hidden, target, use_reentrant=False) for hidden, target in pieces]
    logprobs, entropies = zip(*scored, strict=True)
    return torch.cat(logprobs), torch.cat(entropies)
