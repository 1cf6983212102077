"""The forward pass of Llama and Qwen2 at chosen positions, on the weights of a transformers model.

transformers computes every layer at every position. But most positions of a prompt are never read; other positions only
need their keys and values. So the last layer computes queries, attention and feed-forward at the read positions alone.
This saves a third of a two-layer model's work. The first layer's projections depend on the token alone, so a small
vocabulary needs them once for each word. Decoding uses a cache that is not copied at every token. Tests compare the
results with those of transformers.

Legend: N rows, L tokens of a row, M positions read in all rows, H hidden size, D size of a head, S slots of a cache,
V vocabulary size, R queries of a row.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor
from torch.nn.functional import embedding, scaled_dot_product_attention
from transformers import LlamaModel, Qwen2Model

Decoder: TypeAlias = Any
"""A LlamaModel or Qwen2Model, which is a model without its language head. Its parts have no useful types."""

Rotary: TypeAlias = tuple[Tensor, Tensor]
"""Cosines and signed sines for :func:`_rotate`, of shape (L, D) or one that broadcasts with it."""

Store: TypeAlias = Callable[[int, Tensor, Tensor], tuple[Tensor, Tensor]]
"""A function of a layer's number and its new keys and values (N, heads, L, D).

It returns all keys and values to attend to."""

At: TypeAlias = tuple[Tensor, Tensor]
"""Rows and positions to read, each of shape (M,)."""

Project: TypeAlias = Callable[..., Tensor]
"""A function that applies a linear map to a layer's normalised input, at all positions or at the given ones."""

ATTENTION = {"cpu": torch.float32}
"""The number format of attention by device, where it differs from the layers'.

On a CPU, torch's attention is slower in bfloat16. Its backward pass takes three times as long."""


PLAIN = "torch", "transformers", "peft", "bitsandbytes"
"""The packages whose modules do the same wherever they are. Those of others may take part in a layer's ``forward``."""


def understands(decoder: Decoder) -> bool:
    """Return whether this module supports ``decoder``.

    A decoder with a wrapped or hooked module is not supported, because layers' ``forward`` methods are not called here.
    """
    if type(decoder) not in (Qwen2Model, LlamaModel) or any(map(_is_wrapped, decoder.modules())):
        return False
    config: Any = decoder.config
    attends = set(getattr(config, "layer_types", None) or ["full_attention"])
    plain = config.rope_parameters["rope_type"] == "default" and attends == {"full_attention"}
    return plain and not packs(decoder) and config.attention_dropout == 0


def packs(decoder: Decoder) -> bool:
    """Return whether a decoder computes flash attention, which the user asked for. It reads rows without padding."""
    return str(getattr(decoder.config, "_attn_implementation", "")).startswith("flash_attention")


def _is_wrapped(module: torch.nn.Module) -> bool:
    """Return whether a hook, another ``forward`` set by hand, or another library takes part in the module."""
    hooked = module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    return bool(hooked) or "forward" in vars(module) or type(module).__module__.partition(".")[0] not in PLAIN


def read(decoder: Decoder, ids_NL: Tensor, row_M: Tensor, position_M: Tensor, store: Store | None = None) -> Tensor:
    """Return the hidden states (M, H) at the given positions of rows that begin at position 0.

    Args:
        decoder: The model without its language head.
        ids_NL: The rows, padded at the end. Causal attention hides the padding from every real token.
        row_M: The row of each position, in ascending order. A row may be read at several positions.
        position_M: The positions to read.
        store: A function that receives the keys and values of each layer.
    """
    rotary = rotations(decoder, ids_NL.shape[1])
    hidden = decoder.embed_tokens(ids_NL)
    *_, last = decoder.layers
    for index, layer in enumerate(decoder.layers):
        at = (row_M, position_M) if layer is last else None
        run = partial(_layer, decoder, index, ids_NL, rotary, at, store)
        if getattr(layer, "gradient_checkpointing", False) and layer.training and torch.is_grad_enabled():
            hidden = layer._gradient_checkpointing_func(run, hidden)
        else:
            hidden = run(hidden)
    return cast(Tensor, decoder.norm(hidden))


def _layer(
    decoder: Decoder, index: int, ids_NL: Tensor, rotary: Rotary, at: At | None, store: Store | None, hidden: Tensor
) -> Tensor:
    """Return a layer's output: at all positions (N, L, H), or (M, H) at the rows and positions ``at``."""
    layer = decoder.layers[index]
    attention = layer.self_attn
    by_word = index == 0 and decoder.embed_tokens.num_embeddings < ids_NL.numel()
    project = _of_words(decoder, ids_NL) if by_word else _of_states(layer, hidden)
    keys = _rotate(_heads(project(attention.k_proj), attention).transpose(1, 2), rotary)
    values = _heads(project(attention.v_proj), attention).transpose(1, 2)
    if store is not None:
        store(index, keys, values)
    if at is None:
        queries = _rotate(_heads(project(attention.q_proj), attention).transpose(1, 2), rotary)
        return _finish(layer, hidden, _attend(queries, keys, values, None))
    row_M, position_M = at
    queries_M = _rotate(_heads(project(attention.q_proj, at), attention), _at(rotary, position_M))
    return _finish(layer, hidden[at], _attend_at(queries_M, keys, values, row_M, position_M))


def extend(
    decoder: Decoder, ids_N: Tensor, position_N: Tensor, rotary: Rotary, unseen_NS: Tensor, store: Store
) -> Tensor:
    """Return the hidden states (N, H) at one further token of each row.

    Args:
        decoder: The model without its language head.
        ids_N: The tokens.
        position_N: The positions of the tokens.
        rotary: The rotary embeddings of all positions, from :func:`rotations`.
        unseen_NS: The mask of the keys that ``store`` returns: 0 where a row attends, minus infinity elsewhere.
        store: A function that takes this token's keys and values and returns all of them.
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
        hidden = _finish(layer, hidden, _attend_once(queries, keys, values, unseen_N11S).squeeze(1))
    return cast(Tensor, decoder.norm(hidden))


def rotations(decoder: Decoder, length: int) -> Rotary:
    """Return the rotary embeddings of the positions below ``length``."""
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
    """Return the first layer's projection, computed once for each word and then looked up."""
    # The embedding is called, because it keeps gradients from the row of the padding.
    words_V = torch.arange(decoder.embed_tokens.num_embeddings, device=ids_NL.device)
    normed_VH = decoder.layers[0].input_layernorm(decoder.embed_tokens(words_V))
    return lambda linear, at=...: embedding(ids_NL[at], linear(normed_VH))


def _attend(queries: Tensor, keys: Tensor, values: Tensor, seen: Tensor | None) -> Tensor:
    """Compute attention of ``queries`` (N, heads, R, D); return its result (N, R, H).

    ``seen`` masks keys with booleans or with numbers to add. None: each query sees the keys up to its own position.
    """
    rows, heads, count, size = queries.shape
    if count == 1:  # queries that share a key-value head count as queries of one head, so no key is repeated
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
    found = found.to(dtype) if own else found  # otherwise the next layer reads this format
    return found.reshape(rows, heads, count, size).transpose(1, 2).reshape(rows, count, -1)


def _attend_once(queries: Tensor, keys: Tensor, values: Tensor, unseen: Tensor) -> Tensor:
    """Compute attention of one query (N, heads, 1, D) a row, masked with numbers to add; return its result (N, 1, H).

    On a CPU, torch's attention took 0.9 to 2.5 times as long as these two products, in float32 and over six shapes.
    """
    if queries.device.type != "cpu":
        return _attend(queries, keys, values, unseen)
    rows, heads, _, size = queries.shape
    # Queries that share a key-value head count as queries of one head, so no key is repeated.
    grouped = queries.view(rows, keys.shape[1], -1, size).to(ATTENTION["cpu"])
    with torch.autocast("cpu", enabled=False):
        scores = (grouped @ keys.to(grouped.dtype).transpose(2, 3)).mul_(size**-0.5).add_(unseen)
        found = scores.softmax(-1) @ values.to(grouped.dtype)
    return found.to(queries.dtype).view(rows, 1, heads * size)


def _attend_at(queries_M: Tensor, keys: Tensor, values: Tensor, row_M: Tensor, position_M: Tensor) -> Tensor:
    """Compute attention of single queries (M, heads, D) to their rows; return its result (M, H)."""
    counts_N = torch.bincount(row_M, minlength=len(keys))
    place_M = torch.arange(len(row_M), device=row_M.device) - (counts_N.cumsum(0) - counts_N)[row_M]
    padded = len(keys), int(counts_N.max())
    queries = queries_M.new_zeros(*padded, *queries_M.shape[1:]).index_put((row_M, place_M), queries_M)
    position_NR = position_M.new_zeros(padded).index_put((row_M, place_M), position_M)
    seen_N1RL = (torch.arange(keys.shape[2], device=row_M.device) <= position_NR.unsqueeze(2)).unsqueeze(1)
    return _attend(queries.transpose(1, 2), keys, values, seen_N1RL)[row_M, place_M]


def _finish(layer: Any, hidden: Tensor, found: Tensor) -> Tensor:
    """Compute the rest of a layer after its attention."""
    hidden = hidden + layer.self_attn.o_proj(found)
    return cast(Tensor, hidden + layer.mlp(layer.post_attention_layernorm(hidden)))
