"""The formulas of activations, beside the tensors that autograd stores for real models."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from hiper.config import Config, LoraConfig, ModelConfig, validate_config
from hiper.models.actor_critic import hidden_states
from hiper.models.build import add_critic
from hiper.models.lora import checkpoint_gradients
from hiper.training.estimate.activations import cache, logits, stored, stored_layer
from hiper.training.estimate.models import shape_of
from hiper.training.estimate.sizes import Formats, Shape, formats_of

ROWS, LENGTH, READ = 4, 96, 8
WORDS = 64


def model_of(kind: str, layers: int, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    sizes: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 160, "num_attention_heads": 4}
    config = AutoConfig.for_model(
        kind, vocab_size=WORDS, num_hidden_layers=layers, num_key_value_heads=2, tie_word_embeddings=True, **sizes
    )
    made: Any = AutoModelForCausalLM.from_config(config, dtype=dtype)
    return made.train()  # type: ignore[no-any-return]


def stored_bytes(model: PreTrainedModel, autocast: bool) -> int:
    """Count the bytes of all tensors that a forward pass stores for its backward pass, parameters not counted."""
    owned = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    seen: dict[int, tuple[int, Tensor]] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in owned:
            seen[storage.data_ptr()] = storage.nbytes(), tensor  # kept, so that no address is given out twice
        return tensor

    ids = torch.randint(WORDS, (ROWS, LENGTH), generator=torch.Generator().manual_seed(0))
    row_M = torch.arange(ROWS).repeat_interleave(READ)
    position_M = torch.arange(LENGTH - READ, LENGTH).repeat(ROWS)
    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast),
    ):
        hidden_states(model.get_decoder(), ids, row_M, position_M)
    return sum(size for size, _ in seen.values())


def settings(**model: Any) -> Config:
    return validate_config({"model": model}, "test")


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("formats", ["float32", "autocast", "bfloat16"])
@pytest.mark.parametrize("kind", ["qwen2", "llama", "qwen3"])
def test_a_layer_stores_what_the_formula_says(kind: str, formats: str, lora: bool):
    """Two more layers store twice what one layer stores, and under autocast the copies of their weights."""
    dtype = torch.bfloat16 if formats == "bfloat16" else torch.float32
    given = LoraConfig(rank=4) if lora else None
    counted, matrices = [], []
    for layers in (3, 5):
        model = model_of(kind, layers, dtype)
        shape = shape_of(model, given)
        if given is not None:
            model = add_critic(model, ModelConfig(critic="shared"), "none", given).policy.train()
        counted.append(stored_bytes(model, autocast=formats == "autocast"))
        matrices.append(shape.matrices)
    compute = "bfloat16" if formats != "float32" else "float32"
    config = settings(param_dtype="bfloat16" if formats == "bfloat16" else "float32", compute_dtype=compute)
    said = formats_of(config, shape, "cpu")
    copies = said.computed * (matrices[1] - matrices[0]) * said.casts
    found = (counted[1] - counted[0] - copies) / 2
    assert ROWS * LENGTH * stored_layer(shape, said, LENGTH) == pytest.approx(found, rel=0.05)


def test_checkpointing_stores_the_inputs_of_layers():
    for layers in (3, 5):
        model = model_of("qwen3", layers)
        shape = shape_of(model, None)
        checkpoint_gradients(model)
        said = stored(shape, Formats(4, 4, 4), ROWS * LENGTH, ROWS * READ, checkpointing=True)
        assert said == pytest.approx(stored_bytes(model, autocast=False), rel=0.12)


@pytest.mark.parametrize("kind", ["qwen2", "llama"])
def test_a_whole_pass_stores_what_the_formula_says(kind: str):
    model = model_of(kind, 4)
    said = stored(shape_of(model, None), Formats(4, 4, 4), ROWS * LENGTH, ROWS * READ, checkpointing=False)
    assert said == pytest.approx(stored_bytes(model, autocast=False), rel=0.08)


def shape(**sizes: Any) -> Shape:
    plain = {"layers": 28, "hidden": 3584, "queries": 3584, "keys": 512, "feed_forward": 18944, "vocab": 152064}
    counts = {"parameters": 7_615_616_512, "backbone": 7_070_619_136, "matrices": 6_525_288_448, "largest": 544_997_376}
    return Shape(**{**plain, **counts, "shortcut": True, **sizes})


def test_the_cache_of_a_known_model():
    """28 layers, 4 key-value heads of 128, keys and values, 2 bytes: 57,344 bytes a token, and a quarter for copies."""
    assert cache(shape(), Formats(4, 2, 2), tokens=1000) == 1.25 * 57_344 * 1000


def test_logits_come_in_pieces():
    """2^25 logits of 4 bytes in 6 arrays are 805 MB. A thousand positions of a hundred words are fewer than a piece."""
    assert logits(shape(), read=5000, most=1 << 25, copies=6) == 805_306_368
    assert logits(shape(vocab=100), read=1000, most=1 << 25, copies=6) == 6 * 4 * 100_000


def test_attention_without_a_kernel_keeps_scores():
    """28 heads keep scores and probabilities, 4 bytes each, for each of 1,000 keys."""
    formats, plain = Formats(4, 4, 4), shape(heads=28)
    more = stored_layer(shape(heads=28, kernel=False), formats, 1000) - stored_layer(plain, formats, 1000)
    assert more == 2 * 4 * 28 * 1000


def test_adapters_are_float32_beside_a_bfloat16_model():
    """Steps of 1e-5 on weights of a hundredth are rounded away in bfloat16, whose steps there are 6e-5."""
    both = add_critic(model_of("qwen2", 2, torch.bfloat16), ModelConfig(), "decisions", LoraConfig(rank=4))
    assert {parameter.dtype for parameter in both.policy_parameters()} == {torch.float32}
    assert {parameter.dtype for parameter in both.critic_parameters()} == {torch.float32}
    trained = both.policy_parameters()[0]
    before = trained.detach().clone()
    trained.data += 1e-5
    assert bool((trained != before).all())
