"""The sizes that memory and time depend on: those of a model, of its numbers, and of a run in one process."""

from __future__ import annotations

from dataclasses import dataclass

from hiper.advantages import head_names
from hiper.config import Config

FLOAT32, BFLOAT16 = 4, 2
QUANTISED = 0.5625
"""The bytes of a weight in 4-bit NormalFloat: half a byte, and a float32 scale for each 64 weights (Dettmers et al.
2023, arXiv 2305.14314)."""
MOMENTS = {"adamw": 8, "adamw_fused": 8, "adamw_8bit": 2}
"""The bytes of both moments of a float32 parameter, by ``learner.optimizer`` (Loshchilov and Hutter 2019; Dettmers et
al. 2022, arXiv 2110.02861)."""


@dataclass(frozen=True)
class Shape:
    """The sizes of a causal language model, as far as memory and time depend on them."""

    layers: int
    hidden: int
    queries: int
    """The width of all queries of a token: heads times their size."""
    keys: int
    """The width of all keys of a token: key-value heads times their size."""
    feed_forward: int
    vocab: int
    parameters: int
    """The number of all parameters. Tied ones count once."""
    backbone: int
    """The number of parameters without a language head of its own, which is what a critic copies."""
    matrices: int
    """The number of parameters in the linear maps of all layers."""
    largest: int
    """The number of parameters of the largest tensor."""
    adapter: int = 0
    """The number of parameters of one adapter of LoRA."""
    rank: int = 0
    """The rank of an adapter. 0: there is none."""
    shortcut: bool = False
    """Whether :mod:`hiper.models.llama` runs it."""
    kernel: bool = True
    """Whether attention runs in a kernel that keeps no scores (FlashAttention, Dao et al. 2022)."""
    heads: int = 1
    """The number of attention heads."""
    head_norms: bool = False
    """Whether queries and keys are normalised too."""

    @property
    def layer(self) -> float:
        """The number of parameters in the linear maps of one layer."""
        return self.matrices / self.layers


@dataclass(frozen=True)
class Formats:
    """The sizes in bytes of the numbers of a computation."""

    weight: int
    """A weight, and a residual."""
    computed: int
    """A number in a forward pass."""
    attention: int
    """A number in attention."""

    @property
    def casts(self) -> bool:
        """Whether forward passes cast the weights (autocast)."""
        return self.weight != self.computed


def formats_of(config: Config, shape: Shape, device: str, native: bool = True) -> Formats:
    """Return the number formats of a run.

    Args:
        config: The settings.
        shape: The model.
        device: ``cpu`` or ``cuda``.
        native: Whether the device has bfloat16 instructions, which ``compute_dtype: auto`` depends on.
    """
    weight = BFLOAT16 if config.model.param_dtype == "bfloat16" else FLOAT32
    compute = config.model.compute_dtype
    if compute == "auto":
        compute = "bfloat16" if native or weight == BFLOAT16 else "float32"
    computed = BFLOAT16 if compute == "bfloat16" else FLOAT32
    # The shortcut computes attention in float32 on CPUs (hiper.models.llama.ATTENTION).
    attention = FLOAT32 if device == "cpu" and shape.shortcut else computed
    return Formats(weight, computed, attention)


def heads_parameters(config: Config, shape: Shape) -> int:
    """Return the number of parameters of the value heads: a norm, a hidden layer and an output for each value."""
    values, h = len(head_names(config.advantages.critic)), shape.hidden
    return 2 * h + h * h + h + values * (h + 1) if values else 0


@dataclass(frozen=True)
class Sizes:
    """The sizes of a run that memory depends on, for one process."""

    config: Config
    shape: Shape
    device: str
    """``cpu`` or ``cuda``."""
    processes: int
    formats: Formats
    memory: float | None = None
    """The bytes of the device, of which an engine takes its share. None: it takes what it needs."""

    @property
    def own_critic(self) -> bool:
        """Whether the critic has a backbone of its own."""
        return self.config.model.critic == "own" and self.config.advantages.critic != "none"

    @property
    def row(self) -> int:
        """The tokens of the longest row."""
        return self.config.prompt.max_tokens + self.config.rollout.max_response_tokens

    @property
    def tokens(self) -> int:
        """The tokens of the largest micro-batch. A row that is longer than the setting has one of its own."""
        return max(self.config.learner.micro_batch_tokens, self.row)

    @property
    def read(self) -> int:
        """The positions of the largest micro-batch that are read: those of its responses."""
        return max(1, self.tokens * self.config.rollout.max_response_tokens // self.row)

    @property
    def trained(self) -> tuple[int, int]:
        """The numbers of trained parameters of the policy and of the critic."""
        adapters = self.shape.rank > 0
        policy = self.shape.adapter if adapters else self.shape.parameters
        critic = (self.shape.adapter if adapters else self.shape.backbone) if self.own_critic else 0
        return policy, critic + heads_parameters(self.config, self.shape)

    @property
    def trained_size(self) -> int:
        """The bytes of a trained parameter's weight. Adapters are float32."""
        return FLOAT32 if self.shape.rank else self.formats.weight

    @property
    def shards(self) -> int:
        """The number of processes that share weights, gradients and moments."""
        return self.processes if self.sharded else 1

    @property
    def sharded(self) -> bool:
        """Whether layers are gathered while they compute."""
        return self.config.learner.sharding == "fsdp"

    @property
    def weights(self) -> float:
        """The bytes of the policy's weights, and of its adapter."""
        shape, lora = self.shape, self.config.learner.lora
        size = float(self.formats.weight * shape.parameters + FLOAT32 * shape.adapter)
        if lora is not None and lora.quantize == "4bit":
            size += (QUANTISED - self.formats.weight) * shape.matrices
        return size

    @property
    def critic(self) -> float:
        """The bytes of the critic's weights: a backbone or an adapter, and the heads."""
        backbone = FLOAT32 * self.shape.adapter if self.shape.rank else self.formats.weight * self.shape.backbone
        return backbone * self.own_critic + FLOAT32 * heads_parameters(self.config, self.shape)

    @property
    def reference(self) -> float:
        """The bytes of the reference policy. With LoRA it is an adapter beside the same base."""
        whole = FLOAT32 * self.shape.adapter if self.shape.rank else self.formats.weight * self.shape.parameters
        return whole * bool(self.config.learner.kl_coef)

    @property
    def gradients(self) -> float:
        """The bytes of the gradients."""
        return float(self.trained_size * sum(self.trained))

    @property
    def moments(self) -> float:
        """The bytes of the optimizer's moments. They have the format of their parameters, or one byte each."""
        settings, in_format = self.config.learner, 2 * self.trained_size
        return float(min(MOMENTS[settings.optimizer], in_format) * sum(self.trained))

    @property
    def gathered(self) -> float:
        """The bytes of what sharding gathers for one model: two layers, and the embeddings, which are not in a layer.

        Two, because the next layer is gathered while one computes (FSDP, Zhao et al. 2023, arXiv 2304.11277).
        """
        if not self.sharded:
            return 0.0
        return float(self.formats.computed * (2 * self.shape.layer + self.shape.parameters - self.shape.matrices))

    def casts(self, updating: bool = False) -> float:
        """Return the bytes of the copies in the computed format that one model's pass keeps of its weights.

        Autocast keeps those of trained weights until the pass ends. Those of frozen weights are kept for the backward
        pass alone. Sharded weights are gathered in that format.
        """
        if not self.formats.casts or self.sharded or (self.shape.rank and not updating):
            return 0.0
        return float(self.formats.computed * (self.shape.matrices + self.shape.vocab * self.shape.hidden))
