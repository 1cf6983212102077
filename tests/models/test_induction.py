"""Planted heads: where a model that has learned nothing yet looks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hiper.config import ModelConfig, NanoConfig
from hiper.models.build import make_nano

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
