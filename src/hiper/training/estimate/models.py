"""The sizes of the model that a run would train, from its config alone: no weights are loaded."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel

from hiper.config import Config, LoraConfig, ModelConfig
from hiper.models import llama
from hiper.models.build import outline, outline_policy
from hiper.models.lora import target_layers
from hiper.plan_execute.tokenizer import find_model
from hiper.training.estimate.sizes import Shape

NANO_WORDS = 1_000
"""The words of a nano model's tokenizer, where nobody has read the environment's language. Embeddings are small."""

KNOWN: dict[str, dict[str, Any]] = {
    "Qwen/Qwen2.5-0.5B-Instruct": {
        "model_type": "qwen2",
        "hidden_size": 896,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "intermediate_size": 4_864,
        "vocab_size": 151_936,
        "tie_word_embeddings": True,
        "max_position_embeddings": 32_768,
    },
    "Qwen/Qwen2.5-1.5B-Instruct": {
        "model_type": "qwen2",
        "hidden_size": 1_536,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "intermediate_size": 8_960,
        "vocab_size": 151_936,
        "tie_word_embeddings": True,
        "max_position_embeddings": 32_768,
    },
    "Qwen/Qwen2.5-7B-Instruct": {
        "model_type": "qwen2",
        "hidden_size": 3_584,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "intermediate_size": 18_944,
        "vocab_size": 152_064,
        "tie_word_embeddings": False,
        "max_position_embeddings": 32_768,
    },
    "Qwen/Qwen3-4B": {
        "model_type": "qwen3",
        "hidden_size": 2_560,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "intermediate_size": 9_728,
        "vocab_size": 151_936,
        "tie_word_embeddings": True,
        "max_position_embeddings": 40_960,
    },
    "HuggingFaceTB/SmolLM2-135M-Instruct": {
        "model_type": "llama",
        "hidden_size": 576,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "intermediate_size": 1_536,
        "vocab_size": 49_152,
        "tie_word_embeddings": True,
        "max_position_embeddings": 8_192,
    },
}
"""What the public ``config.json`` of the models that recipes name says on the hub (huggingface.co/NAME). So sizes are
known without a network. Tests compare the numbers of parameters with those that the model cards state."""


def shape_of_run(config: Config, policy: Path | None = None, words: int = NANO_WORDS) -> tuple[Shape, str | None]:
    """Return the sizes of the model that a run would train, and a note where they come from a table.

    Args:
        config: The settings.
        policy: The policy of a checkpoint. None: the model that the settings name.
        words: The words of a nano model's tokenizer.

    Raises:
        UserError: The model's config cannot be read, or the model cannot be trained.
    """
    path = str(policy) if policy is not None else config.model.path
    if path is None:
        return _nano_shape(config.model, words), None
    if path not in KNOWN or Path(find_model(path)).is_dir():
        return shape_of(outline_policy(path, config.model), config.learner.lora), None
    note = f"the sizes of {path} are those that hiper knows; the hub was not asked"
    return _known_shape(path, config.model, config.learner.lora), note


@cache
def _known_shape(path: str, model: ModelConfig, lora: LoraConfig | None) -> Shape:
    tree = dict(KNOWN[path])
    architecture: PreTrainedConfig = AutoConfig.for_model(tree.pop("model_type"), **tree)
    return shape_of(outline(architecture, model), lora)


def _nano_shape(model: ModelConfig, words: int) -> Shape:
    from transformers import Qwen2Config

    sizes = model.nano
    architecture = Qwen2Config(
        vocab_size=words,
        hidden_size=sizes.hidden,
        intermediate_size=sizes.feed_forward,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.kv_heads,
        tie_word_embeddings=True,
    )
    return shape_of(outline(architecture, model), None)


def shape_of(policy: PreTrainedModel, lora: LoraConfig | None) -> Shape:
    """Return the sizes of a model, which may lie on torch's meta device.

    Raises:
        UserError: The model has none of the layers that ``lora`` names.
    """
    text: Any = policy.config.get_text_config()
    decoder = policy.get_decoder()
    heads = int(text.num_attention_heads)
    size = int(getattr(text, "head_dim", None) or text.hidden_size // heads)
    linear = {name: module for name, module in policy.named_modules() if isinstance(module, nn.Linear)}
    head = policy.get_output_embeddings()
    inner = {name: module for name, module in linear.items() if module is not head}
    adapted = [] if lora is None else target_layers(policy, lora)
    rank = 0 if lora is None else lora.rank
    return Shape(
        layers=int(text.num_hidden_layers),
        hidden=int(text.hidden_size),
        queries=heads * size,
        keys=int(getattr(text, "num_key_value_heads", None) or heads) * size,
        feed_forward=int(getattr(text, "intermediate_size", None) or 4 * text.hidden_size),
        vocab=int(text.vocab_size),
        parameters=sum(p.numel() for p in policy.parameters()),
        backbone=sum(p.numel() for p in decoder.parameters()),
        matrices=sum(module.weight.numel() for module in inner.values()),
        largest=max(p.numel() for p in policy.parameters()),
        # Two matrices beside each layer: one as wide as what goes in, one as what comes out.
        adapter=sum(rank * (module.in_features + module.out_features) for module in adapted),
        rank=rank,
        shortcut=llama.understands(decoder),
        kernel=bool(getattr(policy, "_supports_sdpa", True)),
        heads=heads,
        head_norms=any(name.endswith("q_norm") for name, _ in decoder.named_modules()),
    )


def has_bfloat16(device: torch.device) -> bool:
    """Return whether a device has bfloat16 instructions."""
    return device.type == "cuda" or bool(torch.cpu.get_capabilities().get("avx512_bf16"))
