"""Initialisation of small models with attention heads that find equal words.

An agent must see whether the object its subgoal names is among the objects it may take. A transformer finds equal words
with an induction circuit (Olsson et al. 2022, arXiv 2209.11895). A head of one layer copies the word some places back.
A head of the next layer looks for other places with that word. Large models have such heads. A small model trained for
minutes learns them late or never. So its first two layers begin with them. Vision models have been given learned
structure in the same way (mimetic initialisation: Trockman and Kolter 2023, arXiv 2305.09828). Every weight is still
trained.

The embedding begins in the first half of the residual stream, and the copies begin in the second. So the model does not
confuse them.
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from transformers import Qwen2ForCausalLM

_PLACES_BACK = (1, 2)
"""The number of places that each head of the first layer looks back. The second head skips a full stop."""

_SEARCHES = (("query", 1), ("query", 0), ("key", 0))
"""The heads of the second layer: which side is a copied word, and which head of the first layer copied it.

The other side is the word itself. "key" finds the word that followed this word before."""

_LOCAL = 5.0
"""The length of the query and key biases in each rotary pair of a head that looks back.

It is so large that nearly all of the head's attention falls on one place."""

_MATCH = 1.4
"""The gain of queries and keys that are words. Among 60 words, only equal words attract attention."""

_REST = 0.1
"""The factor on the random weights beside the planted ones. Full random weights would drown them."""


@torch.no_grad()
def plant_induction_heads(model: Qwen2ForCausalLM, generator: torch.Generator) -> None:
    """Overwrite parts of the first two layers of a freshly initialised model, in place.

    Args:
        model: A model of at least two layers and three heads, with one key-value head for each head.
        generator: The generator of the random bases.
    """
    config, decoder = model.config, model.model
    first, second = decoder.layers[0], decoder.layers[1]
    half, size = config.hidden_size // 2, config.hidden_size // config.num_attention_heads
    std = config.initializer_range

    word = decoder.embed_tokens.weight
    word[:, :half] *= math.sqrt(2)
    word[:, half:] *= 0.05

    # Fast rotary pairs tell places apart, and slow ones carry words.
    base = cast(dict[str, float], config.rope_parameters)["rope_theta"]
    turns = [base ** (-2 * pair / size) for pair in range(size // 2)]
    fast = [(pair, turn) for pair, turn in enumerate(turns) if turn > 0.05]
    slow = [pair for pair, turn in enumerate(turns) if turn < 0.02]

    heads = [slice(h * size, (h + 1) * size) for h in range(config.num_attention_heads)]
    room = half // len(_PLACES_BACK)
    width = min(size, room)
    first.self_attn.o_proj.weight.mul_(_REST)
    first.mlp.down_proj.weight.mul_(_REST)
    bases = []
    for h, places in enumerate(_PLACES_BACK):
        basis = torch.linalg.qr(torch.randn(half, size, generator=generator))[0].T[:width]
        _look_back(first.self_attn, heads[h], fast, places)
        value, out = first.self_attn.v_proj.weight[heads[h]], first.self_attn.o_proj.weight[:, heads[h]]
        value.zero_()
        out.zero_()
        value[:width, :half] = basis
        offset = half + h * room
        out[offset : offset + width, :width] = std * torch.eye(width)
        bases.append((basis, offset))

    carriers = [*slow, *(pair + size // 2 for pair in slow)][:width]
    for h, (side, copied_by) in enumerate(_SEARCHES):
        query, key = (getattr(second.self_attn, f"{name}_proj").weight[heads[h]] for name in "qk")
        query.mul_(_REST)
        key.mul_(_REST)
        copied, itself = (query, key) if side == "query" else (key, query)
        basis, offset = bases[copied_by]
        for row, carrier in enumerate(carriers):
            copied[carrier, offset + row] += _MATCH
            itself[carrier, :half] += _MATCH * basis[row]


def _look_back(attention: Any, head: slice, rates: list[tuple[int, float]], places: int) -> None:
    """Let a head attend to the position that is ``places`` back.

    A rotary pair of rate w scores biases q at m and k at n as |q| |k| cos(w (m - n) + a), with a the angle between
    them. An angle of -w * places puts the maximum at m - n = places.

    Args:
        attention: An attention module of Qwen2.
        head: The head's rows in the projections.
        rates: The rotary pairs to use, with their rates in radians per place.
        places: The distance in places.
    """
    query, key = attention.q_proj, attention.k_proj
    query.weight[head].mul_(_REST)
    key.weight[head].mul_(_REST)
    q_bias, k_bias = query.bias[head], key.bias[head]
    size = len(q_bias)
    for pair, rate in rates:
        q_bias[pair] = _LOCAL * math.cos(rate * places)
        q_bias[pair + size // 2] = -_LOCAL * math.sin(rate * places)
        k_bias[pair] = _LOCAL
