"""Qwen2's forward pass for those who read only some positions, on the weights of a transformers model.

transformers computes every layer at every position. But most positions of a prompt are never read: they matter to
others as keys and values only. So in the last layer everything else (queries, attention, feed-forward) is computed at
the positions that are read and nowhere else, which of a two-layer model's work saves a third. Decoding likewise is
given a cache that it does not have to copy at every token. The numbers are those of transformers; tests compare them.

Legend: N rows, L tokens, R positions read, H hidden size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import Qwen2Model

Decoder: TypeAlias = Any
"""A model without its language head, a Qwen2Model; what its parts are, types do not know."""

Rotary: TypeAlias = tuple[Tensor, Tensor]
"""Cosines and sines for queries or keys, which have the shape (N, heads, positions, head size)."""

Store: TypeAlias = Callable[[int, Tensor, Tensor], tuple[Tensor, Tensor]]
"""Is given a layer's number and its new keys and values; returns all that are to be attended to."""


def understands(decoder: Decoder) -> bool:
    """Whether this module computes what ``decoder`` does."""
    if type(decoder) is not Qwen2Model:
        return False
    config: Any = decoder.config
    plain = config.rope_parameters["rope_type"] == "default" and set(config.layer_types) == {"full_attention"}
    checkpointed = any(getattr(layer, "gradient_checkpointing", False) for layer in decoder.layers)
    return plain and config.attention_dropout == 0 and not checkpointed


def read(decoder: Decoder, ids_NL: Tensor, position_NR: Tensor, store: Store | None = None) -> Tensor:
    """Hidden states (N, R, H) at the given positions of rows that begin at position 0 and are padded at the end.

    Args:
        decoder: the model without its language head.
        ids_NL: the rows. Padding stands at the end, so causal attention alone keeps it from every real token.
        position_NR: where to read.
        store: is given the keys and values of each layer.
    """
    rotary = rotations(decoder, ids_NL.shape[1])
    hidden = decoder.embed_tokens(ids_NL)
    last = len(decoder.layers) - 1
    for index, layer in enumerate(decoder.layers):
        normed = layer.input_layernorm(hidden)
        keys, values = _keys_and_values(layer, normed, rotary)
        if store is not None:
            store(index, keys, values)
        if index < last:
            hidden = _finish(layer, hidden, normed, rotary, keys, values, None)
    rows_N1 = torch.arange(len(ids_NL), device=ids_NL.device).unsqueeze(1)
    at_read = _at(rotary, position_NR)
    seen_N1RL = (torch.arange(ids_NL.shape[1], device=ids_NL.device) <= position_NR.unsqueeze(2)).unsqueeze(1)
    hidden = _finish(
        layer, hidden[rows_N1, position_NR], normed[rows_N1, position_NR], at_read, keys, values, seen_N1RL
    )
    return cast(Tensor, decoder.norm(hidden))


def extend(
    decoder: Decoder, ids_N: Tensor, position_N: Tensor, rotary: Rotary, seen_NS: Tensor, store: Store
) -> Tensor:
    """Hidden states (N, H) at one further token of each row.

    Args:
        decoder: the model without its language head.
        ids_N: the tokens.
        position_N: their positions.
        rotary: of all positions, from :func:`rotations`.
        seen_NS: which of the keys that ``store`` returns each row attends to.
        store: takes this token's keys and values; returns all.
    """
    hidden = decoder.embed_tokens(ids_N.unsqueeze(1))
    here = _at(rotary, position_N.unsqueeze(1))
    seen_N11S = seen_NS[:, None, None]
    for index, layer in enumerate(decoder.layers):
        normed = layer.input_layernorm(hidden)
        keys, values = store(index, *_keys_and_values(layer, normed, here))
        hidden = _finish(layer, hidden, normed, here, keys, values, seen_N11S)
    return cast(Tensor, decoder.norm(hidden)[:, 0])


def rotations(decoder: Decoder, length: int) -> Rotary:
    """The rotary embeddings of positions 0 up to ``length``."""
    weight = decoder.embed_tokens.weight
    cos, sin = decoder.rotary_emb(weight, torch.arange(length, device=weight.device).unsqueeze(0))
    return cos.unsqueeze(1), sin.unsqueeze(1)


def _at(rotary: Rotary, position_NR: Tensor) -> Rotary:
    cos, sin = rotary
    return cos[0, 0, position_NR].unsqueeze(1), sin[0, 0, position_NR].unsqueeze(1)


def _rotate(x: Tensor, rotary: Rotary) -> Tensor:
    cos, sin = rotary
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


def _heads(x: Tensor, size: int) -> Tensor:
    return x.view(*x.shape[:2], -1, size).transpose(1, 2)


def _keys_and_values(layer: Any, normed: Tensor, rotary: Rotary) -> tuple[Tensor, Tensor]:
    attention = layer.self_attn
    keys, values = (
        _heads(attention.k_proj(normed), attention.head_dim),
        _heads(attention.v_proj(normed), attention.head_dim),
    )
    return _rotate(keys, rotary), values


def _finish(
    layer: Any, hidden: Tensor, normed: Tensor, rotary: Rotary, keys: Tensor, values: Tensor, seen: Tensor | None
) -> Tensor:
    """The rest of a layer. ``seen`` says which keys a query attends to; None: those up to its own position."""
    attention = layer.self_attn
    queries = _rotate(_heads(attention.q_proj(normed), attention.head_dim), rotary)
    rows, heads, count, size = queries.shape
    if count == 1:  # queries that share a key-value head are then like as many queries of it, and no key is repeated
        queries = queries.view(rows, keys.shape[1], -1, size)
    mixed = scaled_dot_product_attention(
        queries, keys, values, attn_mask=seen, is_causal=seen is None, enable_gqa=queries.shape[1] != keys.shape[1]
    )
    mixed = mixed.reshape(rows, heads, count, size).transpose(1, 2).reshape(rows, count, -1)
    hidden = hidden + attention.o_proj(mixed)
    return cast(Tensor, hidden + layer.mlp(layer.post_attention_layernorm(hidden)))
