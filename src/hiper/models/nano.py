"""`nano`, a causal language model of the Qwen2 architecture that trains on a laptop's CPU.

Its weights begin at random, and its tokenizer is built from the environment's own language. It is saved as an ordinary
Hugging Face directory, so any program that loads Qwen2.5 loads it.
"""

from __future__ import annotations

import torch
from transformers import PreTrainedTokenizerBase, Qwen2Config, Qwen2ForCausalLM

from hiper.config import NanoConfig
from hiper.models.induction import plant_induction_heads


def nano_config(config: NanoConfig, tokenizer: PreTrainedTokenizerBase) -> Qwen2Config:
    """Return the architecture of a nano model for ``tokenizer``."""
    return Qwen2Config(
        vocab_size=len(tokenizer),  # a spare row could be sampled, but would mean nothing
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
        rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
    )


def build_nano(config: NanoConfig, tokenizer: PreTrainedTokenizerBase, seed: int) -> Qwen2ForCausalLM:
    """Make a new model for ``tokenizer``. Equal seeds give equal weights."""
    qwen = nano_config(config, tokenizer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2ForCausalLM(qwen)
    if config.induction:
        plant_induction_heads(model, torch.Generator().manual_seed(seed))
    return model
