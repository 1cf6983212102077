"""Continuing a batch of prompts token by token: next-token logits out, chosen tokens in.

Legend: N rows still in the batch, V words, S slots of the cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, cast

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from hiper.models import qwen2
from hiper.models.batches import micro_batches

PREFILL_TOKENS = {"cpu": 4_096}
"""Most tokens of a prompt batch read at once, by device: on a CPU, what its caches can hold."""
DEFAULT_PREFILL_TOKENS = 65_536


class Decoding(Protocol):
    """Prompts, and what has been chosen to follow them."""

    def prefill(self) -> Tensor:
        """Read the prompts; the logits (N, V) of what follows them."""

    def extend(self, token_N: Tensor) -> Tensor:
        """Append a token to each row; the logits (N, V) of what follows."""

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows only."""


def begin(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], room: int, pad_id: int, shortcut: bool = True
) -> Decoding:
    """A decoding of ``prompts`` by up to ``room`` tokens, the fastest there is for ``model``.

    Args:
        model: a causal language model.
        prompts: token ids.
        room: the most tokens that can be appended.
        pad_id: token that fills batches.
        shortcut: allow :class:`Qwen2Decoding`, which does not call each layer's ``forward``.
    """
    if shortcut and qwen2.understands(model.get_decoder()):
        return Qwen2Decoding(model, prompts, room, pad_id)
    return TransformersDecoding(model, prompts, pad_id)


class TransformersDecoding:
    """Any causal language model, as transformers runs it."""

    def __init__(self, model: PreTrainedModel, prompts: Sequence[Sequence[int]], pad_id: int) -> None:
        self._model = model
        self._cache = DynamicCache(config=model.config)
        width, device = max(map(len, prompts)), model.device
        self._ids = torch.tensor([[pad_id] * (width - len(p)) + list(p) for p in prompts], device=device)
        self._mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)

    def prefill(self) -> Tensor:
        """See :class:`Decoding`."""
        # Position ids come from the mask: with padding on the left, the default would shift every prompt.
        self._positions = (self._mask.cumsum(1) - 1).clamp(min=0)
        return self._forward(self._ids)

    def extend(self, token_N: Tensor) -> Tensor:
        """See :class:`Decoding`."""
        self._positions = self._positions[:, -1:] + 1
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(self._mask), 1)], dim=1)
        return self._forward(token_N.unsqueeze(1))

    def keep(self, rows: Tensor) -> None:
        """See :class:`Decoding`."""
        self._cache.batch_select_indices(rows)
        self._positions, self._mask = self._positions[rows], self._mask[rows]

    def _forward(self, ids: Tensor) -> Tensor:
        output = self._model(
            input_ids=ids,
            attention_mask=self._mask,
            position_ids=self._positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return cast(Tensor, output.logits[:, -1])


class Qwen2Decoding:
    """Models that :mod:`hiper.models.qwen2` understands: prompts by length, and a cache that never moves.

    Row n's prompt takes slots 0 up to its length. The t-th chosen token of every row takes the same slot, behind the
    longest prompt's; slots between are not attended to.
    """

    def __init__(self, model: PreTrainedModel, prompts: Sequence[Sequence[int]], room: int, pad_id: int) -> None:
        self._decoder = model.get_decoder()
        self._head = model.get_output_embeddings()
        self._prompts, self._pad_id, self._device = prompts, pad_id, model.device
        self._length_N = torch.tensor([len(prompt) for prompt in prompts], device=self._device)
        self._used = max(map(len, prompts))
        self._slots = self._used + room
        slots = torch.arange(self._slots, device=self._device)
        # Added to what a query finds: with a mask of truth values, each layer would make these numbers anew.
        seen_NS = slots < self._length_N.unsqueeze(1)
        self._unseen_NS = torch.zeros(seen_NS.shape, device=self._device).masked_fill(~seen_NS, float("-inf"))
        self._chosen = 0
        self._rotary = qwen2.rotations(self._decoder, self._slots)
        self._keys: dict[int, Tensor] = {}
        self._values: dict[int, Tensor] = {}

    def prefill(self) -> Tensor:
        """See :class:`Decoding`."""
        most = PREFILL_TOKENS.get(self._device.type, DEFAULT_PREFILL_TOKENS)
        batches = micro_batches([len(prompt) for prompt in self._prompts], most)
        hidden = torch.cat([self._read(torch.tensor(batch, device=self._device)) for batch in batches])
        order = torch.tensor([row for batch in batches for row in batch], device=self._device)
        return self._logits(hidden[order.argsort()])

    def _read(self, rows: Tensor) -> Tensor:
        """Fill the cache with some prompts; their last hidden states."""
        prompts = [self._prompts[row] for row in rows.tolist()]
        width = max(map(len, prompts))
        ids = torch.tensor([[*p, *[self._pad_id] * (width - len(p))] for p in prompts], device=self._device)

        def store(layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
            # Zeros rather than whatever memory holds: a masked key may be anything but NaN.
            for cache, new in ((self._keys, keys), (self._values, values)):
                if layer not in cache:
                    size = (len(self._prompts), new.shape[1], self._slots, new.shape[3])
                    dtype = qwen2.ATTENTION.get(self._device.type, values.dtype)
                    cache[layer] = torch.zeros(size, dtype=dtype, device=self._device)
                cache[layer][rows, :, :width] = new.to(cache[layer].dtype)
            return keys, values

        every = torch.arange(len(prompts), device=self._device)
        return qwen2.read(self._decoder, ids, every, self._length_N[rows] - 1, store)

    def extend(self, token_N: Tensor) -> Tensor:
        """See :class:`Decoding`."""
        slot, position_N = self._used, self._length_N + self._chosen
        self._used, self._chosen = self._used + 1, self._chosen + 1
        self._unseen_NS[:, slot] = 0.0

        def store(layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
            self._keys[layer][:, :, slot : slot + 1] = keys
            self._values[layer][:, :, slot : slot + 1] = values
            return self._keys[layer][:, :, : slot + 1], self._values[layer][:, :, : slot + 1]

        unseen_NS = self._unseen_NS[:, : slot + 1]
        return self._logits(qwen2.extend(self._decoder, token_N, position_N, self._rotary, unseen_NS, store))

    def keep(self, rows: Tensor) -> None:
        """See :class:`Decoding`."""
        self._keys = {layer: keys[rows] for layer, keys in self._keys.items()}
        self._values = {layer: values[rows] for layer, values in self._values.items()}
        self._length_N, self._unseen_NS = self._length_N[rows], self._unseen_NS[rows]

    def _logits(self, hidden_NH: Tensor) -> Tensor:
        return cast(Tensor, self._head(hidden_NH))
