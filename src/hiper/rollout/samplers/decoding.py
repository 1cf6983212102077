"""Decoding of a batch of prompts token by token, with a key-value cache.

Legend: N rows still in the batch, V vocabulary size, H hidden size, S slots of the cache.
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
"""The most prompt tokens read at once, by device. A CPU's caches hold about this many."""
DEFAULT_PREFILL_TOKENS = 65_536
"""The most prompt tokens read at once on other devices."""


class Decoding(Protocol):
    """A batch of prompts and the tokens chosen so far."""

    def prefill(self) -> Tensor:
        """Read the prompts, and return the logits (N, V) of the first response tokens."""

    def extend(self, token_N: Tensor) -> Tensor:
        """Append a token to each row, and return the logits (N, V) of the next tokens."""

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these."""


def begin(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], room: int, pad_id: int, shortcut: bool = True
) -> Decoding:
    """Make the fastest decoding that supports ``model``.

    Args:
        model: A causal language model.
        prompts: The token ids of each prompt.
        room: The most tokens that can be appended.
        pad_id: The token that fills batches.
        shortcut: Whether :class:`Qwen2Decoding`, which does not call each layer's ``forward``, is allowed.
    """
    if shortcut and qwen2.understands(model.get_decoder()):
        return Qwen2Decoding(model, prompts, room, pad_id)
    return TransformersDecoding(model, prompts, pad_id)


class TransformersDecoding:
    """Decoding with transformers' own forward pass, for any causal language model."""

    def __init__(self, model: PreTrainedModel, prompts: Sequence[Sequence[int]], pad_id: int) -> None:
        self._model = model
        self._cache = DynamicCache(config=model.config)
        width, device = max(map(len, prompts)), model.device
        self._ids = torch.tensor([[pad_id] * (width - len(p)) + list(p) for p in prompts], device=device)
        self._mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)

    def prefill(self) -> Tensor:
        """See :class:`Decoding`."""
        # Position ids come from the mask, because the default would count the padding on the left.
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
    """Decoding of the models that :mod:`hiper.models.qwen2` supports, with prompts sorted by length and a fixed cache.

    Each row's prompt takes the first slots. The t-th chosen tokens of all rows share one slot, behind the longest
    prompt. The slots between a shorter prompt and the chosen tokens are masked.
    """

    def __init__(self, model: PreTrainedModel, prompts: Sequence[Sequence[int]], room: int, pad_id: int) -> None:
        self._decoder = model.get_decoder()
        self._head = model.get_output_embeddings()
        self._prompts, self._pad_id, self._device = prompts, pad_id, model.device
        self._length_N = torch.tensor([len(prompt) for prompt in prompts], device=self._device)
        self._used = max(map(len, prompts))
        self._slots = self._used + room
        slots = torch.arange(self._slots, device=self._device)
        # The mask is added to attention scores. A boolean mask would be converted to numbers in every layer.
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
        """Fill the cache with some prompts, and return the hidden states (N, H) of their last tokens."""
        prompts = [self._prompts[row] for row in rows.tolist()]
        width = max(map(len, prompts))
        ids = torch.tensor([[*p, *[self._pad_id] * (width - len(p))] for p in prompts], device=self._device)

        def store(layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
            # The cache begins with zeros, because uninitialised memory may hold NaN, which a mask does not remove.
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
