"""Decoding of a batch of prompts token by token, with a key-value cache.

Legend: N rows still in the batch, V vocabulary size, H hidden size, S slots of the cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol, cast, get_args

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from hiper.errors import UserError, first_line
from hiper.models import llama
from hiper.models.actor_critic import hidden_states
from hiper.models.batches import micro_batches
from hiper.models.checks import MOST_DIFFERENCE, logit_difference

PREFILL_TOKENS = {"cpu": 4_096}
"""The most prompt tokens read at once, by device. A CPU's caches hold about this many."""
DEFAULT_PREFILL_TOKENS = 65_536
"""The most prompt tokens read at once on other devices."""

MOST_ROUNDING = 5
"""How many times :data:`~hiper.models.checks.MOST_DIFFERENCE` full passes may differ, as in deep models and experts."""

Way = Literal["select", "reorder", "full"]
"""How the models that :mod:`hiper.models.llama` does not support are decoded, fastest first.

- ``select``: with a cache whose rows are picked by ``batch_select_indices``. Long prompts are read in pieces.
- ``reorder``: with a cache whose rows are picked by ``reorder_cache``. Recurrent layers have no other way.
- ``full``: without a cache; every token costs a pass over the whole row.
"""


class Decoding(Protocol):
    """A batch of prompts and the tokens chosen so far."""

    def prefill(self) -> Tensor:
        """Read the prompts, and return the logits (N, V) of the first response tokens."""

    def extend(self, token_N: Tensor) -> Tensor:
        """Append a token to each row, and return the logits (N, V) of the next tokens."""

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these."""


def begin(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    room: int,
    pad_id: int,
    shortcut: bool = True,
    way: Way = "select",
    most_tokens: int | None = None,
) -> Decoding:
    """Make the fastest decoding that supports ``model``.

    Args:
        model: A causal language model.
        prompts: The token ids of each prompt.
        room: The most tokens that can be appended.
        pad_id: The token that fills batches.
        shortcut: Whether :class:`ShortcutDecoding`, which does not call each layer's ``forward``, is allowed.
        way: The way to decode all other models, as :func:`choose_way` found it.
        most_tokens: See :class:`TransformersDecoding`.
    """
    if shortcut and llama.understands(model.get_decoder()):
        return ShortcutDecoding(model, prompts, room, pad_id)
    if way == "full":
        return FullDecoding(model, prompts, pad_id, shortcut)
    return TransformersDecoding(model, prompts, pad_id, way, most_tokens)


@torch.no_grad()
def choose_way(model: PreTrainedModel, pad_id: int, shortcut: bool = True) -> Way:
    """Return the fastest way of decoding that gives the logits of the learner's pass over whole rows.

    Rounding explains as much as full passes over parts of the rows differ. A model whose logits are not finite passes:
    its weights have diverged, and drawing from them says so.

    Args:
        model: A causal language model in evaluation mode.
        pad_id: The token that fills batches.
        shortcut: See :func:`begin`.

    Raises:
        UserError: No way of decoding gives these logits.
    """
    words = cast(nn.Embedding, model.get_input_embeddings()).weight.shape[0]
    ids_NL = torch.randint(words, (2, 13), generator=torch.Generator().manual_seed(0)).to(model.device)
    ids_NL[0, 11:] = ids_NL[1, 8:] = pad_id
    # What is read after each of the first three tokens of both rows, then of the row that stays.
    row_M, position_M = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1], [8, 9, 10, 3, 4, 5, 6, 7]], device=model.device)
    states_MH = hidden_states(model.get_decoder(), ids_NL, row_M, position_M, shortcut)
    expected = model.get_output_embeddings()(states_MH)
    if not bool(expected.isfinite().all()):
        return "select"
    most, failed = MOST_DIFFERENCE.get(model.dtype, MOST_DIFFERENCE[torch.float32]), ""
    differences: dict[Way, float] = {}
    way: Way
    for way in get_args(Way):
        try:
            differences[way] = logit_difference(_decode(model, ids_NL, pad_id, shortcut, way), expected)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever a model or a cache raises, this way does not serve it
            differences[way], failed = float("inf"), first_line(error)
        if differences[way] <= most:
            return way
    if differences["full"] <= MOST_ROUNDING * most:
        return next(way for way, difference in differences.items() if difference <= 2 * differences["full"])
    raise UserError(
        f"'{model.name_or_path}' ({model.config.model_type}) cannot be sampled and trained as one policy: decoding "
        "token by token does not give the logits of whole rows, even without a cache "
        f"({failed or 'its tokens see later ones, or padding'}); choose another model"
    )


def _decode(model: PreTrainedModel, ids_NL: Tensor, pad_id: int, shortcut: bool, way: Way) -> Tensor:
    """Return the logits of the check of :func:`choose_way`. The longer row ends early, and leaves the batch."""
    prompts = [ids_NL[0, :9].tolist(), ids_NL[1, :4].tolist()]
    decoding = begin(model, prompts, 4, pad_id, shortcut, way, most_tokens=8)
    pairs = [decoding.prefill(), *(decoding.extend(ids_NL[[0, 1], [9 + t, 4 + t]]) for t in range(2))]
    decoding.keep(torch.tensor([1], device=model.device))
    alone = [decoding.extend(ids_NL[1:, t]) for t in (6, 7)]
    return torch.cat([*(pair[:1] for pair in pairs), *(pair[1:] for pair in pairs), *alone])


class SmallCache(DynamicCache):
    """A cache that keeps keys and values in the number format in which autocast computes attention.

    Rotation leaves keys in float32, and attention rounds them whenever it reads them.
    """

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Add keys and values of a layer, and return all of them."""
        if torch.is_autocast_enabled(key_states.device.type):
            dtype = torch.get_autocast_dtype(key_states.device.type)
            key_states, value_states = key_states.to(dtype), value_states.to(dtype)
        return super().update(key_states, value_states, layer_idx, *args, **kwargs)


class TransformersDecoding:
    """Decoding with transformers' own forward pass and a cache, for most causal language models.

    Args:
        model: A causal language model.
        prompts: The token ids of each prompt.
        pad_id: The token that fills batches.
        way: How rows of the cache are picked.
        most_tokens: The most tokens of one pass over prompts. Models whose layers all see every earlier token read
            longer prompts in pieces.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        prompts: Sequence[Sequence[int]],
        pad_id: int,
        way: Way = "select",
        most_tokens: int | None = None,
    ) -> None:
        self._model = model
        self._way = way
        self._cache = SmallCache(config=model.config)
        width, device = max(map(len, prompts)), model.device
        self._ids = torch.tensor([[pad_id] * (width - len(p)) + list(p) for p in prompts], device=device)
        self._mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
        most = most_tokens or PREFILL_TOKENS.get(device.type, DEFAULT_PREFILL_TOKENS)
        self._piece = max(1, most // len(prompts)) if way == "select" and _sees_all(model) else width

    def prefill(self) -> Tensor:
        """See :class:`Decoding`."""
        # Position ids come from the mask, because the default would count the padding on the left.
        position_NL, mask_NL = (self._mask.cumsum(1) - 1).clamp(min=0), self._mask
        for start in range(0, self._ids.shape[1], self._piece):
            end = start + self._piece
            self._positions, self._mask = position_NL[:, start:end], mask_NL[:, :end]
            logits = self._forward(self._ids[:, start:end])
        return logits

    def extend(self, token_N: Tensor) -> Tensor:
        """See :class:`Decoding`."""
        self._positions = self._positions[:, -1:] + 1
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(self._mask), 1)], dim=1)
        return self._forward(token_N.unsqueeze(1))

    def keep(self, rows: Tensor) -> None:
        """See :class:`Decoding`."""
        if self._way == "reorder":
            self._cache.reorder_cache(cast(torch.LongTensor, rows))
        else:
            self._cache.batch_select_indices(rows)
        self._positions, self._mask = self._positions[rows], self._mask[rows]

    def _forward(self, ids: Tensor) -> Tensor:
        output = self._model(
            input_ids=ids,
            attention_mask=self._mask,
            position_ids=self._positions,
            past_key_values=self._cache,
            use_cache=True,
            # An index, because the number 1 would give the head a view. On CPUs torch multiplies a view of three
            # dimensions row by row: 16 s in place of 0.03 s for 64 rows and 49,152 words in bfloat16.
            logits_to_keep=torch.tensor([-1], device=ids.device),
        )
        return cast(Tensor, output.logits[:, -1])


def _sees_all(model: PreTrainedModel) -> bool:
    """Return whether every layer of a model attends to all earlier tokens."""
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    return kinds == {"full_attention"} and getattr(config, "sliding_window", None) is None


class FullDecoding:
    """Decoding by full passes over rows padded at the end, which is how the learner reads them."""

    def __init__(
        self, model: PreTrainedModel, prompts: Sequence[Sequence[int]], pad_id: int, shortcut: bool = True
    ) -> None:
        self._model, self._shortcut = model, shortcut
        width, device = max(map(len, prompts)), model.device
        self._pad_id = pad_id
        self._ids = torch.tensor([[*p, *[pad_id] * (width - len(p))] for p in prompts], device=device)
        self._length_N = torch.tensor([len(p) for p in prompts], device=device)

    def prefill(self) -> Tensor:
        """See :class:`Decoding`."""
        rows = torch.arange(len(self._ids), device=self._ids.device)
        states = hidden_states(self._model.get_decoder(), self._ids, rows, self._length_N - 1, self._shortcut)
        return cast(Tensor, self._model.get_output_embeddings()(states))

    def extend(self, token_N: Tensor) -> Tensor:
        """See :class:`Decoding`."""
        if int(self._length_N.max()) == self._ids.shape[1]:
            self._ids = nn.functional.pad(self._ids, (0, 1), value=self._pad_id)
        self._ids[torch.arange(len(token_N), device=self._ids.device), self._length_N] = token_N
        self._length_N = self._length_N + 1
        return self.prefill()

    def keep(self, rows: Tensor) -> None:
        """See :class:`Decoding`."""
        self._length_N = self._length_N[rows]
        self._ids = self._ids[rows, : int(self._length_N.max())]


class ShortcutDecoding:
    """Decoding of the models that :mod:`hiper.models.llama` supports, with prompts sorted by length and a fixed cache.

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
        self._rotary = llama.rotations(self._decoder, self._slots)
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
                    dtype = llama.ATTENTION.get(self._device.type, values.dtype)
                    cache[layer] = torch.zeros(size, dtype=dtype, device=self._device)
                cache[layer][rows, :, :width] = new.to(cache[layer].dtype)
            return keys, values

        every = torch.arange(len(prompts), device=self._device)
        return llama.read(self._decoder, ids, every, self._length_N[rows] - 1, store)

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
        return self._logits(llama.extend(self._decoder, token_N, position_N, self._rotary, unseen_NS, store))

    def keep(self, rows: Tensor) -> None:
        """See :class:`Decoding`."""
        self._keys = {layer: keys[rows] for layer, keys in self._keys.items()}
        self._values = {layer: values[rows] for layer, values in self._values.items()}
        self._length_N, self._unseen_NS = self._length_N[rows], self._unseen_NS[rows]

    def _logits(self, hidden_NH: Tensor) -> Tensor:
        return cast(Tensor, self._head(hidden_NH))
