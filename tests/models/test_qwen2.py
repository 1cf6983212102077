"""The forward pass of our own gives transformers' numbers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from transformers import LlamaConfig, LlamaModel, Qwen2ForCausalLM

from hiper.models import qwen2

MakeQwen2 = Callable[..., Qwen2ForCausalLM]

IDS = torch.tensor([[5, 9, 2, 33, 7, 12, 18], [8, 3, 39, 4, 0, 0, 0], [6, 6, 6, 30, 31, 0, 0]])
LENGTHS = torch.tensor([7, 4, 5])


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_states_read_are_those_of_transformers(make_qwen2: MakeQwen2, layers: int, kv_heads: int):
    decoder = make_qwen2(num_hidden_layers=layers, num_key_value_heads=kv_heads).get_decoder()
    positions = torch.tensor([[0, 6, 3], [3, 1, 1], [2, 4, 0]])
    theirs = decoder(input_ids=IDS, use_cache=False).last_hidden_state[torch.arange(3)[:, None], positions]
    torch.testing.assert_close(qwen2.read(decoder, IDS, positions), theirs, rtol=1e-5, atol=1e-5)


def test_a_single_position_can_be_read(make_qwen2: MakeQwen2):
    decoder = make_qwen2().get_decoder()
    theirs = decoder(input_ids=IDS, use_cache=False).last_hidden_state[torch.arange(3), LENGTHS - 1]
    ours = qwen2.read(decoder, IDS, LENGTHS.unsqueeze(1) - 1)[:, 0]
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_gradients_are_those_of_transformers(make_qwen2: MakeQwen2):
    positions = torch.tensor([[5, 6], [2, 3], [0, 4]])
    ours, theirs = make_qwen2().get_decoder(), make_qwen2().get_decoder()
    qwen2.read(ours, IDS, positions).sin().sum().backward()
    hidden = theirs(input_ids=IDS, use_cache=False).last_hidden_state
    hidden[torch.arange(3)[:, None], positions].sin().sum().backward()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-4)


def test_tokens_after_the_one_read_do_not_matter(make_qwen2: MakeQwen2):
    decoder = make_qwen2().get_decoder()
    changed = IDS.clone()
    changed[0, 4:] = 20
    positions = torch.tensor([[3], [3], [3]])
    torch.testing.assert_close(qwen2.read(decoder, IDS, positions), qwen2.read(decoder, changed, positions))


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
    assert qwen2.understands(make_qwen2(**settings).get_decoder()) == understood


def test_checkpointed_and_other_models_are_left_to_transformers(make_qwen2: MakeQwen2):
    checkpointed = make_qwen2()
    checkpointed.gradient_checkpointing_enable()
    assert not qwen2.understands(checkpointed.get_decoder())
    llama = LlamaConfig(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)
    assert not qwen2.understands(LlamaModel(llama))
