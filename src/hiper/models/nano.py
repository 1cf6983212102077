"""`nano`: a causal language model of the Qwen2 architecture, small enough to train on a laptop's CPU.

It is made on the spot, with a tokenizer built from the environment's own language, and saved as an ordinary
Hugging Face directory: whatever loads Qwen2.5 loads it.
"""

from __future__ import annotations

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from transformers import PreTrainedTokenizerBase, Qwen2Config, Qwen2ForCausalLM


class NanoConfig(BaseModel):
    """Sizes of a nano model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    layers: int = Field(2, ge=1)
    hidden: int = Field(128, ge=8)
    feed_forward: int = Field(384, ge=8)
    heads: int = Field(4, ge=1)
    kv_heads: int = Field(4, ge=1)
    max_positions: int = Field(1024, ge=64)

    @model_validator(mode="after")
    def _divisible(self) -> NanoConfig:
        if self.hidden % (2 * self.heads):
            raise ValueError(f"hidden ({self.hidden}) must be a multiple of 2 * heads ({2 * self.heads})")
        if self.heads % self.kv_heads:
            raise ValueError(f"heads ({self.heads}) must be a multiple of kv_heads ({self.kv_heads})")
        return self


def build_nano(config: NanoConfig, tokenizer: PreTrainedTokenizerBase, seed: int) -> Qwen2ForCausalLM:
    """A freshly initialised model for ``tokenizer``; the same seed gives the same weights."""
    qwen = Qwen2Config(
        vocab_size=-(-len(tokenizer) // 8) * 8,
        hidden_size=config.hidden,
        intermediate_size=config.feed_forward,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.kv_heads,
        max_position_embeddings=config.max_positions,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        initializer_range=config.hidden**-0.5 / 2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Qwen2ForCausalLM(qwen)
