"""Checks of an estimator's parameters, and padded arrays that it can trust: right shape, right type, zero padding.

Checked arrays are copies in Fortran order. So turn t of all episodes is contiguous, and recurrences along turns are
fast. Messages about parameters name the setting.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, TypeVar, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hiper.errors import UserError

Floats: TypeAlias = NDArray[np.float64]
Bools: TypeAlias = NDArray[np.bool_]
Ints: TypeAlias = NDArray[np.int64]
Objects: TypeAlias = NDArray[np.object_]
Array = TypeVar("Array", bound=NDArray[Any])


def check_fractions(parameters: object, *names: str) -> None:
    """Check that each named parameter lies in [0, 1].

    Raises:
        UserError: One does not.
    """
    for name in names:
        if not 0.0 <= (value := getattr(parameters, name)) <= 1.0:
            raise UserError(f"{name} is {value}; it must lie between 0 and 1")


def check_choices(parameters: object, **choices: Any) -> None:
    """Check that each named parameter is one of the strings of its ``Literal``.

    Raises:
        UserError: One is not.
    """
    for name, choice in choices.items():
        if (value := getattr(parameters, name)) not in get_args(choice):
            raise UserError(f"{name} is '{value}'; it must be one of {', '.join(get_args(choice))}")


def prefix_mask(lengths_B: Sequence[int]) -> Bools:
    """Return the mask (B, T) that is True for the first ``lengths_B[b]`` places of row b; T is the longest length."""
    mask_BT: Bools = np.arange(max(lengths_B)) < np.array(lengths_B)[:, None]
    return mask_BT


def on_grid(x_N: ArrayLike, mask_BT: Bools, dtype: type = float) -> NDArray[Any]:
    """Lay out one number per place of ``mask_BT``, in row-major order; zero elsewhere. ``x_BT[mask_BT]`` undoes it."""
    x_BT: NDArray[Any] = np.zeros(mask_BT.shape, dtype=dtype)
    x_BT[mask_BT] = x_N
    return x_BT


def needed(array: Array | None, name: str, who: str) -> Array:
    """Return ``array``, which not every estimator needs.

    Args:
        array: The array, or None.
        name: Its field of :class:`~hiper.advantages.types.Turns`.
        who: What needs it, for the message.

    Raises:
        ValueError: The array is None.
    """
    if array is None:
        raise ValueError(f"{who} needs Turns.{name}, which was not given")
    return array


def played_mask(mask_BT: ArrayLike) -> Bools:
    """Return a copy of ``mask_BT``, whose rows must be True up to the episode's last turn and False after it.

    Raises:
        ValueError: It is no such array, or no turn was played.
    """
    mask = _bools("mask_BT", mask_BT)
    if mask.ndim != 2 or mask.size == 0:
        raise ValueError(f"mask_BT must have B > 0 episodes of up to T > 0 turns, got shape {mask.shape}")
    if not mask.any():
        raise ValueError("mask_BT plays no turn at all")
    gap = mask[:, 1:] & ~mask[:, :-1]
    if gap.any():
        episode, turn = np.argwhere(gap)[0]
        raise ValueError(
            f"mask_BT of episode {episode} skips turn {turn} but plays turn {turn + 1}: pad at the end only"
        )
    return mask.copy(order="F")


def masked_bools(name: str, values: ArrayLike, mask_BT: Bools) -> Bools:
    """Return ``values``, set to False beyond each episode's end.

    Raises:
        ValueError: They are not booleans of the mask's shape.
    """
    array = _bools(name, values)
    _check_shape(name, array.shape, mask_BT)
    return np.logical_and(array, mask_BT, order="F")


def masked_floats(name: str, values: ArrayLike, mask_BT: Bools, of: Literal["turn", "token"] = "turn") -> Floats:
    """Return ``values`` in double precision, set to zero beyond each episode's end.

    Args:
        name: Their name, for messages.
        values: One number per turn, or per token.
        mask_BT: The turns or tokens that were played.
        of: Whether there is one number per turn or per token.

    Raises:
        ValueError: Their shape is not the mask's, or a played turn holds NaN or infinity.
    """
    array = np.asarray(values, dtype=np.float64)
    _check_shape(name, array.shape, mask_BT, of)
    clean = np.zeros(mask_BT.shape, order="F")
    np.copyto(clean, array, where=mask_BT)
    if not np.isfinite(clean).all():
        episode, place = np.argwhere(~np.isfinite(clean))[0]
        raise ValueError(f"{name} is {array[episode, place]} at episode {episode}, {of} {place}")
    return clean


def masked_ints(name: str, values: ArrayLike, mask_BT: Bools, least: int) -> Ints:
    """Return ``values`` as integers, set to zero beyond each episode's end.

    Raises:
        ValueError: They are not integers of the mask's shape, or one of a played turn is below ``least``.
    """
    array = np.asarray(values)
    if not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"{name} must hold integers, got {array.dtype}")
    _check_shape(name, array.shape, mask_BT)
    if (low := mask_BT & (array < least)).any():
        episode, turn = np.argwhere(low)[0]
        raise ValueError(f"{name} is {array[episode, turn]} at episode {episode}, turn {turn}; {least} is the least")
    return np.asfortranarray(np.where(mask_BT, array, 0), dtype=np.int64)


def masked_objects(name: str, values: ArrayLike, mask_BT: Bools) -> Objects:
    """Return ``values`` as objects, set to None beyond each episode's end.

    Raises:
        ValueError: Their shape is not the mask's.
    """
    array = np.asarray(values, dtype=object)
    _check_shape(name, array.shape, mask_BT)
    clean: Objects = np.full(mask_BT.shape, None, dtype=object, order="F")
    np.copyto(clean, array, where=mask_BT)
    return clean


def one_per_episode(name: str, values: ArrayLike, mask_BT: Bools, kind: Literal["boolean", "integer"]) -> NDArray[Any]:
    """Return a copy of ``values``, which must hold one entry per episode.

    Raises:
        ValueError: Their number or their type is another.
    """
    array, episodes = np.asarray(values), len(mask_BT)
    if not np.issubdtype(array.dtype, np.bool_ if kind == "boolean" else np.integer) or array.shape != (episodes,):
        raise ValueError(
            f"{name} must be one {kind} per episode, got {array.dtype} of shape {array.shape} for {episodes} episodes"
        )
    return array.copy()


def _bools(name: str, values: ArrayLike) -> Bools:
    array = np.asarray(values)
    # `~` inverts an integer mask bit by bit: 1 becomes -2, which is still true.
    if array.dtype != np.bool_:
        raise ValueError(f"{name} must be boolean, got {array.dtype}")
    return array


def _check_shape(name: str, shape: tuple[int, ...], mask_BT: Bools, of: Literal["turn", "token"] = "turn") -> None:
    if shape != mask_BT.shape:
        expected = "mask_BT has" if of == "turn" else "tokens_BT asks for"
        raise ValueError(f"{name} has shape {shape}, {expected} {mask_BT.shape}")
