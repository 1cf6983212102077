"""The settings of policy and critic."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from hiper.validation import StrictModel

_LARGEST_NANO = 2_000_000_000
"""The largest number of weights in the layers of a nano model."""


class NanoConfig(StrictModel):
    """The sizes of a nano model. It is used where ``model.path`` names no other model."""

    layers: int = Field(2, ge=1, le=200)
    """The number of transformer layers."""
    hidden: int = Field(128, ge=8, le=16_384)
    """The width of hidden states. It must be a multiple of twice the number of heads."""
    feed_forward: int = Field(384, ge=8, le=65_536)
    """The width of feed-forward layers."""
    heads: int = Field(4, ge=1, le=256)
    """The number of attention heads. It must be a multiple of ``kv_heads``."""
    kv_heads: int = Field(4, ge=1, le=256)
    """The number of key-value heads."""
    max_positions: int = Field(1024, ge=64, le=1_000_000)
    """The maximum length of prompt and response together, in tokens."""
    rope_theta: float = Field(1e6, gt=1, le=1e12)
    """The base of the rotary position embedding."""
    vocabulary_tasks: int = Field(400, ge=1, le=1_000_000_000)
    """The number of training tasks whose words become the vocabulary. Raise it where each task has words of its own."""
    subwords: int | None = Field(None, ge=200, le=1_000_000)
    """The number of tokens of a vocabulary of words and parts of words (byte-pair encoding). None: whole words.

    Rare words are spelled in parts then. So a model can copy words that it hardly met or never met.
    """
    induction: bool = False
    """If true, initialise some heads so that they find equal words (:mod:`hiper.models.induction`).

    This needs at least 2 layers, at least 3 heads, and as many key-value heads as heads.
    """

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        if self.induction and not (self.layers >= 2 and self.heads == self.kv_heads >= 3):
            raise ValueError("induction needs layers >= 2, heads >= 3 and kv_heads equal to heads")
        parameters = self.layers * self.hidden * (4 * self.hidden + 3 * self.feed_forward)
        if parameters > _LARGEST_NANO:
            raise ValueError(f"it would have {parameters:,} weights; a model made here has at most {_LARGEST_NANO:,}")
        if self.hidden % (2 * self.heads):
            raise ValueError(f"hidden ({self.hidden}) must be a multiple of 2 * heads ({2 * self.heads})")
        if self.heads % self.kv_heads:
            raise ValueError(f"heads ({self.heads}) must be a multiple of kv_heads ({self.kv_heads})")
        return self


class ModelConfig(StrictModel):
    """The policy and the critic."""

    path: str | None = None
    """The Hugging Face name or the folder of a causal language model. None: make a nano model."""
    nano: NanoConfig = NanoConfig()
    """The sizes of the nano model."""
    critic: Literal["own", "shared", "detached"] = "own"
    """The hidden states that value heads read. An estimator without a critic ignores this setting.

    - ``own``: those of a second backbone, which starts as a copy of the policy's.
    - ``shared``: those of the policy. Both losses train its backbone.
    - ``detached``: those of the policy, without a gradient. This costs almost nothing and does not change the policy.
    """
    param_dtype: Literal["float32", "bfloat16"] = "float32"
    """The number format of the weights."""
    compute_dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """The number format of forward passes. ``auto``: bfloat16 if the hardware supports it, otherwise float32."""
    attention: Literal["auto", "flash_attention_2", "flash_attention_3"] = "auto"
    """How attention is computed. ``auto``: by torch.

    The others need a GPU and a package, such as flash-attn. With them, the learner packs rows without padding.
    """
    gradient_checkpointing: bool = False
    """If true, compute activations again in the backward pass. This saves memory and takes time."""
