"""The bytes of activations, logits and caches: arithmetic on the sizes of a model.

The formulas follow what autograd stores for the modules of :mod:`transformers` and for :mod:`hiper.models.llama`. Tests
count the stored tensors of real models.

Legend: h hidden size, q and k widths of all queries and of all keys, f width of the feed-forward layer, c bytes of a
computed number, a bytes of a number in attention.
"""

from __future__ import annotations

from hiper.training.estimate.sizes import BFLOAT16, FLOAT32, Formats, Shape

LOGIT_COPIES = 6
"""The float32 arrays of logits that are alive at once in the backward pass of a piece: the divided logits' gradient,
log-probabilities, probabilities, and three gradients (:func:`hiper.models.actor_critic.token_scores`)."""
SCORED_LOGIT_COPIES = 4
"""The same without a backward pass."""


def stored_layer(shape: Shape, formats: Formats, row: int = 0) -> float:
    """Return the bytes a token that one layer stores for its backward pass.

    Both norms store their input and, if their weights are trained, the normalised states. Linear maps store their
    inputs. Maps of one input share it, unless autocast or an adapter casts it for each of them. Attention stores
    queries, keys, values, its result, and one float32 number for each head. The feed-forward layer stores both of its
    inner maps, and the activation of one of them.
    """
    h, q, k, f = shape.hidden, shape.queries, shape.keys, shape.feed_forward
    c, a, frozen = formats.computed, formats.attention, shape.rank > 0
    norms = (FLOAT32 + formats.weight * (not frozen)) * 2 * h
    if shape.head_norms:  # they read computed numbers, not residuals
        norms += (FLOAT32 + c * (not frozen)) * (q + k)
    result_cast = c * q if a != c else 0
    if formats.casts:
        inputs = 5 * c * h + c * f + c * q * (frozen or a != c)
    elif frozen and formats.weight == BFLOAT16:  # adapters are float32, and cast what they read
        inputs = FLOAT32 * (5 * h + q + f)
    else:
        inputs = 2 * c * h + c * f + result_cast
    attention = a * (2 * q + 2 * k) + FLOAT32 * shape.heads + 8
    if not shape.kernel:
        attention += 2 * FLOAT32 * shape.heads * row
    return norms + inputs + 3 * c * f + attention + 7 * shape.rank * FLOAT32


def passing_layer(shape: Shape, formats: Formats) -> float:
    """Return the bytes a token of one layer in a pass that stores nothing: two residuals, a norm, the feed-forward."""
    return 2 * formats.weight * shape.hidden + 2 * FLOAT32 * shape.hidden + 3 * formats.computed * shape.feed_forward


def stored(shape: Shape, formats: Formats, tokens: int, read: int, checkpointing: bool, row: int = 0) -> float:
    """Return the bytes that a forward pass stores for its backward pass.

    Args:
        shape: The model.
        formats: The number formats.
        tokens: The tokens of the micro-batch, with padding.
        read: The positions that are read. The shortcut computes the last layer there alone.
        checkpointing: Whether each layer stores its input alone (Chen et al. 2016, arXiv 1604.06174).
        row: The tokens of a row.
    """
    if checkpointing:
        # The last norm stores its input and, if its weights are trained, the normalised states.
        return tokens * formats.weight * shape.hidden * (shape.layers + (1 if shape.rank else 2))
    layer = stored_layer(shape, formats, row)
    if not shape.shortcut:
        return tokens * (shape.layers * layer + 2 * FLOAT32 * shape.hidden)
    last = 3 * formats.weight * shape.hidden + 2 * formats.attention * shape.keys
    return tokens * ((shape.layers - 1) * layer + last) + min(read, tokens) * layer


def logits(shape: Shape, read: int, most: int, copies: int) -> float:
    """Return the bytes of the logits that are in memory at once: pieces of at most ``most`` numbers."""
    return FLOAT32 * copies * min(read * shape.vocab, max(most, shape.vocab))


def cache(shape: Shape, formats: Formats, tokens: int) -> float:
    """Return the bytes of keys and values of ``tokens`` slots, in all layers.

    Rows leave a batch once half of them have ended. What is kept is copied, keys first: a quarter more.
    """
    size = max(formats.attention, FLOAT32) if not shape.shortcut and formats.casts else formats.attention
    return 1.25 * 2 * shape.layers * shape.keys * size * tokens
