"""Our forward pass of Llama and Qwen2 equals transformers'; nano models with heads that find equal words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import LlamaConfig, LlamaModel, PreTrainedModel, Qwen2ForCausalLM, Qwen3Config, Qwen3Model

from hiper.config import ModelConfig, NanoConfig
from hiper.models import llama
from hiper.models.build import make_nano
from hiper.models.lora import checkpoint_gradients

MakeQwen2 = Callable[..., Qwen2ForCausalLM]

FEW = torch.tensor([[5, 9, 2, 33, 7, 12, 18], [8, 3, 39, 4, 0, 0, 0], [6, 6, 6, 30, 31, 0, 0]])
MANY = torch.cat([FEW, FEW.flip(0), FEW.roll(1, 1)])
"""More tokens than there are words: then the first layer's projections are looked up."""

ROWS = torch.tensor([0, 0, 0, 1, 2, 2])
POSITIONS = torch.tensor([0, 6, 3, 3, 4, 1])


def theirs(decoder: PreTrainedModel, ids: torch.Tensor, rows: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    hidden: torch.Tensor = decoder(input_ids=ids, use_cache=False).last_hidden_state[rows, positions]
    return hidden


@pytest.mark.parametrize("ids", [FEW, MANY], ids=["few tokens", "many tokens"])
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_states_read_are_those_of_transformers(make_qwen2: MakeQwen2, layers: int, kv_heads: int, ids: torch.Tensor):
    decoder = make_qwen2(num_hidden_layers=layers, num_key_value_heads=kv_heads).get_decoder()
    ours = llama.read(decoder, ids, ROWS, POSITIONS)
    torch.testing.assert_close(ours, theirs(decoder, ids, ROWS, POSITIONS), rtol=1e-5, atol=1e-5)


def test_one_position_of_each_row(make_qwen2: MakeQwen2):
    decoder, rows, last = make_qwen2().get_decoder(), torch.arange(3), torch.tensor([6, 3, 4])
    ours = llama.read(decoder, FEW, rows, last)
    torch.testing.assert_close(ours, theirs(decoder, FEW, rows, last), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("ids", [FEW, MANY], ids=["few tokens", "many tokens"])
def test_gradients_are_those_of_transformers(make_qwen2: MakeQwen2, ids: torch.Tensor):
    """Also where the token of the padding was sampled: no gradient reaches its embedding from there."""
    ours, other = make_qwen2(pad_token_id=7).get_decoder(), make_qwen2(pad_token_id=7).get_decoder()
    llama.read(ours, ids, ROWS, POSITIONS).sin().sum().backward()
    theirs(other, ids, ROWS, POSITIONS).sin().sum().backward()
    for mine, reference in zip(ours.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, reference.grad, rtol=1e-4, atol=1e-5)
    assert not ours.embed_tokens.weight.grad[7].any()


def test_tokens_after_the_one_read_do_not_matter(make_qwen2: MakeQwen2):
    decoder = make_qwen2().get_decoder()
    changed = FEW.clone()
    changed[0, 4:] = 20
    rows, positions = torch.arange(3), torch.tensor([3, 3, 3])
    torch.testing.assert_close(llama.read(decoder, FEW, rows, positions), llama.read(decoder, changed, rows, positions))


@pytest.mark.parametrize("dtype", [torch.bfloat16, None])
def test_in_bfloat16(make_qwen2: MakeQwen2, dtype: torch.dtype | None):
    """Whether parameters are in it, or forward passes only."""
    decoder = make_qwen2().get_decoder()
    exact = llama.read(decoder, MANY, ROWS, POSITIONS)
    if dtype is not None:
        decoder.to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype is None):
        rough = llama.read(decoder, MANY, ROWS, POSITIONS)
    assert 0 < (rough - exact).abs().mean() < 0.05


@pytest.mark.parametrize(
    ("settings", "understood"),
    [
        ({}, True),
        ({"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}, False),
        ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}, False),
        ({"attention_dropout": 0.1}, False),
    ],
)
def test_what_is_understood(make_qwen2: MakeQwen2, settings: dict[str, object], understood: bool):
    assert llama.understands(make_qwen2(**settings).get_decoder()) == understood


def test_other_models_are_left_to_transformers():
    sizes: Any = {"vocab_size": 8, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    assert not llama.understands(Qwen3Model(Qwen3Config(num_attention_heads=2, **sizes)))


def test_a_forward_set_by_hand_is_called(make_qwen2: MakeQwen2):
    """As hooks of accelerate do that move weights between devices."""
    decoder = make_qwen2().get_decoder()
    decoder.layers[0].mlp.forward = decoder.layers[0].mlp.forward
    assert not llama.understands(decoder)


def make_llama(seed: int, **settings: Any) -> LlamaModel:
    sizes: Any = {"vocab_size": 40, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2}
    heads: Any = {"num_attention_heads": 3, "num_key_value_heads": 1, "initializer_range": 0.25, "pad_token_id": 7}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaModel(LlamaConfig(**sizes, **heads, **settings))
    model.eval()
    return model


@pytest.mark.parametrize("biases", [False, True])
def test_llama_is_read_as_by_transformers(biases: bool):
    ours, other = (make_llama(0, attention_bias=biases, mlp_bias=biases) for _ in range(2))
    for model in (ours, other):
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):  # they begin as zeros
                torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(len(name)))
    assert llama.understands(ours)
    states, reference = llama.read(ours, FEW, ROWS, POSITIONS), theirs(other, FEW, ROWS, POSITIONS)
    torch.testing.assert_close(states, reference, rtol=1e-5, atol=1e-5)
    states.sin().sum().backward()
    reference.sin().sum().backward()
    for mine, expected in zip(ours.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, expected.grad, rtol=1e-4, atol=1e-5)


def test_llama_with_other_rotations_is_left_to_transformers():
    scaled = {"rope_type": "llama3", "factor": 8.0, "rope_theta": 1e4, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    assert not llama.understands(make_llama(0, rope_parameters=scaled | {"original_max_position_embeddings": 64}))


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_of_one_query_is_that_of_torch(kv_heads: int, dtype: torch.dtype):
    generator = torch.Generator().manual_seed(0)
    queries = torch.randn(3, 4, 1, 8, generator=generator).to(dtype)
    keys, values = torch.randn(2, 3, kv_heads, 9, 8, generator=generator)
    unseen = torch.zeros(3, 1, 1, 9)
    unseen[0, ..., :4] = unseen[2, ..., 7:] = float("-inf")
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        found = llama._attend_once(queries, keys, values, unseen)
    exact = scaled_dot_product_attention(queries.float(), keys, values, attn_mask=unseen, enable_gqa=True)
    assert found.dtype == dtype
    torch.testing.assert_close(found, exact.to(dtype).view(3, 1, 32), rtol=2**-8, atol=1e-6)


@pytest.mark.parametrize("ids", [FEW, MANY], ids=["few tokens", "many tokens"])
def test_checkpointing_keeps_less_and_gives_the_same(make_qwen2: MakeQwen2, ids: torch.Tensor):
    """The same states and gradients. Between forward and backward pass, a layer's input is all that is kept."""

    def run(checkpointed: bool) -> tuple[torch.Tensor, list[torch.Tensor], int]:
        decoder = make_qwen2(num_hidden_layers=3).get_decoder().train()
        if checkpointed:
            checkpoint_gradients(decoder)
        assert llama.understands(decoder)
        kept: list[torch.Tensor] = []

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            kept.append(tensor)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            states = llama.read(decoder, ids, ROWS, POSITIONS)
        states.square().sum().backward()
        parameters = [p.grad for p in decoder.parameters() if p.grad is not None]
        return states, parameters, sum(tensor.numel() for tensor in kept)

    (plain, grads, kept), (again, same, fewer) = run(False), run(True)
    assert torch.equal(plain, again)
    for one, other in zip(grads, same, strict=True):
        torch.testing.assert_close(one, other)
    assert fewer < kept / 4


@pytest.mark.parametrize("mask", ["causal", "truth values", "added"])
def test_attention_on_cpus_is_in_float32_whatever_the_format(mask: str):
    """There, torch's own in bfloat16 is less exact and slower."""
    queries, keys, values = torch.randn(3, 2, 4, 5, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    unseen = torch.zeros(2, 1, 5, 5).masked_fill(~torch.ones(5, 5, dtype=torch.bool).tril(), float("-inf"))
    seen = {"causal": None, "truth values": unseen == 0, "added": unseen}[mask]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = llama._attend(queries, keys, values, seen)
    weights = (queries.float() @ keys.float().transpose(2, 3) / 8**0.5 + unseen).softmax(-1)
    exact = (weights @ values.float()).transpose(1, 2).reshape(2, 5, 32)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, exact.bfloat16(), rtol=2**-8, atol=1e-6)


# --- Planted heads: where a model that has learned nothing yet looks --------------------------------------------------


WORDS = [f"word{i}" for i in range(120)]
SIZES = NanoConfig(layers=3, hidden=128, feed_forward=384, heads=4, kv_heads=4, induction=True)


@pytest.fixture(scope="module")
def ids_L() -> Tensor:
    """80 words of a language of 120, with repetitions."""
    return torch.randint(4, 120, (80,), generator=torch.Generator().manual_seed(3))


def attention(sizes: NanoConfig, ids_L: Tensor, seed: int) -> list[Tensor]:
    """Where each layer's heads look, each (heads, L, L)."""
    policy, _ = make_nano(ModelConfig(nano=sizes), WORDS, seed=seed)
    policy.set_attn_implementation("eager")
    with torch.no_grad():
        return [weights[0] for weights in policy(input_ids=ids_L[None], output_attentions=True).attentions]


@pytest.mark.parametrize("seed", range(3))
def test_the_first_layer_looks_one_and_two_places_back(ids_L: Tensor, seed: int):
    first = attention(SIZES, ids_L, seed)[0]
    for head, places in ((0, 1), (1, 2)):
        back = first[head].diagonal(offset=-places)[2:]
        assert back.min() > 0.6


@pytest.mark.parametrize("seed", range(3))
def test_the_second_layer_finds_equal_words(ids_L: Tensor, seed: int):
    second = attention(SIZES, ids_L, seed)[1]
    query, key = ids_L[:, None], ids_L[None, :]
    two_back, one_back = torch.roll(query, 2, 0), torch.roll(query, 1, 0)
    follows = torch.roll(key, 1, 1)  # the word before each key: head 2 finds what followed this word
    for head, wanted in ((0, two_back == key), (1, one_back == key), (2, query == follows)):
        wanted = wanted.tril()
        wanted[:3] = False
        wanted[:, 0] = False
        asked = wanted.any(1)
        assert asked.sum() > 10
        assert (second[head] * wanted).sum(1)[asked].mean() > 0.6


def test_without_them_nobody_looks_anywhere_in_particular(ids_L: Tensor):
    first = attention(SIZES.model_copy(update={"induction": False}), ids_L, seed=0)[0]
    assert max(first[head].diagonal(offset=-1)[40:].mean() for head in range(4)) < 0.1


@pytest.mark.parametrize("wrong", [{"layers": 1}, {"heads": 2, "kv_heads": 2}, {"kv_heads": 2}])
def test_a_model_without_room_for_them_is_refused(wrong: dict[str, int]):
    with pytest.raises(ValueError, match="induction needs layers >= 2"):
        NanoConfig(**{"layers": 2, "heads": 4, "kv_heads": 4, "induction": True} | wrong)
