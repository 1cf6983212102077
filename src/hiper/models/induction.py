"""A head start for small models: attention heads that find equal words.

An agent must see whether the thing its subgoal names is among the things it may take. A transformer does so in two
steps (an induction circuit: Olsson et al. 2022, arXiv 2209.11895): a head of one layer copies the word that stands some
places back, and a head of the next looks for where that word occurs. Large models have such heads. A small model
trained for minutes finds them late or not at all, so its first two layers begin with them, as structure that training
is known to arrive at is given to vision models (mimetic initialisation: Trockman and Kolter 2023, arXiv 2305.09828).
It is a beginning, nothing more: every weight is trained.

The embedding begins in the first half of the residual stream and the copies in the second, so that the one is not
mistaken for the other.
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from transformers import Qwen2ForCausalLM

_PLACES_BACK = (1, 2)
"""Heads of the first layer, by how far back they look; the second skips a full stop."""

_SEARCHES = (("query", 1), ("query", 0), ("key", 0))
"""Heads of the second layer: whether the query or the key is a copied word, and by which head of the first layer; the
other side is the word itself. "key" finds what followed this word before."""

_LOCAL = 5.0
"""Length of the queries' and keys' bias in each rotating pair of a head that looks back: nearly all of its attention
falls on one place."""

_MATCH = 1.4
"""Gain of queries and keys that are words: of 60 words, only equal ones draw attention."""

_REST = 0.1
"""What is left of the random weights beside the planted ones, which they would drown."""


@torch.no_grad()
def plant_induction_heads(model: Qwen2ForCausalLM, generator: torch.Generator) -> None:
    """Overwrite parts of the first two layers of a freshly initialised model, in place.

    Args:
        model: of two layers or more, with as many key-value heads as heads, and three of them or more.
        generator: of the random bases.
    """
    config, decoder = model.config, model.model
    first, second = decoder.layers[0], decoder.layers[1]
    half, size = config.hidden_size // 2, config.hidden_size // config.num_attention_heads
    std = config.initializer_range

    word = decoder.embed_tokens.weight
    word[:, :half] *= math.sqrt(2)
    word[:, half:] *= 0.05

    # What a rotary pair turns per place decides what it is good for: fast ones tell places, slow ones carry words.
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
    """Let a head attend to the position so many ``places`` back.

    A rotary pair that turns at rate w scores biases q at m and k at n as |q| |k| cos(w (m - n) + angle between them),
    so an angle of -w * places puts the maximum where m - n = places.

    Args:
        attention: Qwen2's.
        head: its rows.
        rates: rotary pairs to use, with their rates in radians per place.
        places: how far back.
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
