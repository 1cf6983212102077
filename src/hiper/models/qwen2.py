"""Qwen2's forward pass for those who read only some positions, on the weights of a transformers model.

transformers computes every layer at every position. But most positions of a prompt are never read: they matter to
others as keys and values only. So in the last layer everything else (queries, attention, feed-forward) is computed at
the positions that are read and nowhere else, which of a two-layer model's work saves a third. The first layer's
projections depend on the token alone, so with a small vocabulary they are computed once for each word. And decoding
is given a cache that it does not have to copy at every token. The numbers are those of transformers; tests compare
them.

Legend: N rows, L tokens, M positions read (of all rows together), H hidden size, D size of a head, S slots of a cache.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor
from torch.nn.functional import embedding, scaled_dot_product_attention
from transformers import Qwen2Model

Decoder: TypeAlias = Any
"""A model without its language head, a Qwen2Model; what its parts are, types do not know."""

Rotary: TypeAlias = tuple[Tensor, Tensor]
"""Cosines, and sines with the sign that :func:`_rotate` needs; of the shape (L, D) or one that goes with it."""

Store: TypeAlias = Callable[[int, Tensor, Tensor], tuple[Tensor, Tensor]]
"""Is given a layer's number and its new keys and values (N, heads, L, D); returns all that are to be attended to."""

Project: TypeAlias = Callable[..., Tensor]
"""Applies a linear map to a layer's normed input, at all positions or at those given."""

ATTENTION = {"cpu": torch.float32}
"""The format in which attention is computed, by device, where it is not the layers'. On a CPU, torch's attention is
slower in bfloat16, backwards by a factor of three."""


def understands(decoder: Decoder) -> bool:
    """Whether this module computes what ``decoder`` does.

    Not if a module of it is wrapped or hooked: its parts are called here past each layer's ``forward``.
    """
    if type(decoder) is not Qwen2Model or any(map(_is_wrapped, decoder.modules())):
        return False
    config: Any = decoder.config
    plain = config.rope_parameters["rope_type"] == "default" and set(config.layer_types) == {"full_attention"}
    checkpointed = any(getattr(layer, "gradient_checkpointing", False) for layer in decoder.layers)
    return plain and config.attention_dropout == 0 and not checkpointed


def _is_wrapped(module: torch.nn.Module) -> bool:
    """Whether something else than transformers or torch has its part in the module's ``forward``."""
    hooked = module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    return bool(hooked) or type(module).__module__.partition(".")[0] not in ("torch", "transformers")


def read(decoder: Decoder, ids_NL: Tensor, row_M: Tensor, position_M: Tensor, store: Store | None = None) -> Tensor:
    """Hidden states (M, H) at the given positions of rows that begin at position 0 and are padded at the end.

    Args:
        decoder: the model without its language head.
        ids_NL: the rows. Padding stands at the end, so causal attention alone keeps it from every real token.
        row_M: which rows to read, in ascending order; a row may be read at several positions.
        position_M: where to read them.
        store: is given the keys and values of each layer.
    """
    rotary = rotations(decoder, ids_NL.shape[1])
    hidden = decoder.embed_tokens(ids_NL)
    *_, last = decoder.layers
    for index, layer in enumerate(decoder.layers):
        by_word = index == 0 and decoder.embed_tokens.num_embeddings < ids_NL.numel()
        project = _of_words(decoder, ids_NL) if by_word else _of_states(layer, hidden)
        attention = layer.self_attn
        keys = _rotate(_heads(project(attention.k_proj), attention).transpose(1, 2), rotary)
        values = _heads(project(attention.v_proj), attention).transpose(1, 2)
        if store is not None:
            store(index, keys, values)
        if layer is not last:
            queries = _rotate(_heads(project(attention.q_proj), attention).transpose(1, 2), rotary)
            hidden = _finish(layer, hidden, _attend(queries, keys, values, None))
    at = row_M, position_M
    queries_M = _rotate(_heads(project(attention.q_proj, at), attention), _at(rotary, position_M))
    hidden_MH = _finish(last, hidden[at], _attend_at(queries_M, keys, values, row_M, position_M))
    return cast(Tensor, decoder.norm(hidden_MH))


def extend(
    decoder: Decoder, ids_N: Tensor, position_N: Tensor, rotary: Rotary, unseen_NS: Tensor, store: Store
) -> Tensor:
    """Hidden states (N, H) at one further token of each row.

    Args:
        decoder: the model without its language head.
        ids_N: the tokens.
        position_N: their positions.
        rotary: of all positions, from :func:`rotations`.
        unseen_NS: of the keys that ``store`` returns: 0 for those each row attends to, minus infinity for the others.
        store: takes this token's keys and values; returns all.
    """
    hidden = decoder.embed_tokens(ids_N)
    here = _at(rotary, position_N)
    unseen_N11S = unseen_NS[:, None, None]
    for index, layer in enumerate(decoder.layers):
        project, attention = _of_states(layer, hidden), layer.self_attn
        new_keys = _rotate(_heads(project(attention.k_proj), attention), here)
        new_values = _heads(project(attention.v_proj), attention)
        keys, values = store(index, new_keys.unsqueeze(2), new_values.unsqueeze(2))
        queries = _rotate(_heads(project(attention.q_proj), attention), here).unsqueeze(2)
        hidden = _finish(layer, hidden, _attend(queries, keys, values, unseen_N11S).squeeze(1))
    return cast(Tensor, decoder.norm(hidden))


def rotations(decoder: Decoder, length: int) -> Rotary:
    """The rotary embeddings of positions 0 up to ``length``."""
    weight = decoder.embed_tokens.weight
    cos, sin = decoder.rotary_emb(weight, torch.arange(length, device=weight.device).unsqueeze(0))
    first, second = sin[0].chunk(2, dim=-1)
    return cos[0], torch.cat((-first, second), dim=-1)


def _at(rotary: Rotary, position_M: Tensor) -> Rotary:
    cos, sin = rotary
    return cos[position_M].unsqueeze(1), sin[position_M].unsqueeze(1)


def _rotate(x: Tensor, rotary: Rotary) -> Tensor:
    cos, sin = rotary
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, dims=-1), sin)


def _heads(x: Tensor, attention: Any) -> Tensor:
    return x.view(*x.shape[:-1], -1, attention.head_dim)


def _of_states(layer: Any, hidden: Tensor) -> Project:
    normed = layer.input_layernorm(hidden)
    return lambda linear, at=...: linear(normed[at])


def _of_words(decoder: Decoder, ids_NL: Tensor) -> Project:
    """The first layer's: for each word once, and then looked up."""
    normed_VH = decoder.layers[0].input_layernorm(decoder.embed_tokens.weight)
    return lambda linear, at=...: embedding(ids_NL[at], linear(normed_VH))


def _attend(queries: Tensor, keys: Tensor, values: Tensor, seen: Tensor | None) -> Tensor:
    """What R queries of each row (N, heads, R, D) find, (N, R, H).

    ``seen`` says which keys a query attends to, in truth values or as what is added; None: up to its own position.
    """
    rows, heads, count, size = queries.shape
    if count == 1:  # queries that share a key-value head are then like as many queries of it, and no key is repeated
        queries = queries.view(rows, keys.shape[1], -1, size)
    dtype, own = queries.dtype, ATTENTION.get(queries.device.type)
    if own:
        queries, keys, values = queries.to(own), keys.to(own), values.to(own)
    if seen is not None and seen.is_floating_point():
        seen = seen.to(queries.dtype)
    with torch.autocast("cpu", enabled=False):
        found = scaled_dot_product_attention(
            queries, keys, values, attn_mask=seen, is_causal=seen is None, enable_gqa=queries.shape[1] != keys.shape[1]
        )
    found = found.to(dtype) if own else found  # else it is in the format that the next layer reads
    return found.reshape(rows, heads, count, size).transpose(1, 2).reshape(rows, count, -1)


def _attend_at(queries_M: Tensor, keys: Tensor, values: Tensor, row_M: Tensor, position_M: Tensor) -> Tensor:
    """What single queries (M, heads, D) find in their rows, (M, H)."""
    counts_N = torch.bincount(row_M, minlength=len(keys))
    place_M = torch.arange(len(row_M), device=row_M.device) - (counts_N.cumsum(0) - counts_N)[row_M]
    padded = len(keys), int(counts_N.max())
    queries = queries_M.new_zeros(*padded, *queries_M.shape[1:]).index_put((row_M, place_M), queries_M)
    position_NR = position_M.new_zeros(padded).index_put((row_M, place_M), position_M)
    seen_N1RL = (torch.arange(keys.shape[2], device=row_M.device) <= position_NR.unsqueeze(2)).unsqueeze(1)
    return _attend(queries.transpose(1, 2), keys, values, seen_N1RL)[row_M, place_M]


def _finish(layer: Any, hidden: Tensor, found: Tensor) -> Tensor:
    """The rest of a layer, behind its attention."""
    hidden = hidden + layer.self_attn.o_proj(found)
    return cast(Tensor, hidden + layer.mlp(layer.post_attention_layernorm(hidden)))
