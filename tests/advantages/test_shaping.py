"""Reward shaping by hand. Recorded numbers: `test_hae_recorded.py`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hiper.advantages import Shaping, shape
from hiper.errors import UserError

YES, NO = True, False


def episodes() -> dict[str, Any]:
    """Four turns with three KEEPs; two turns of SWITCH; one turn of KEEP. Padding holds what must not be seen."""
    return {
        "mask_BT": np.array([[YES, YES, YES, YES], [YES, YES, NO, NO], [YES, NO, NO, NO]]),
        "reward_BT": np.array([[0, 0, 0, 10.0], [0.5, 0, np.nan, np.nan], [10.0, np.nan, np.nan, np.nan]]),
        "valid_BT": np.array([[YES, NO, YES, YES], [NO, YES, NO, NO], [YES, NO, NO, NO]]),
        "keep_BT": np.array([[YES, YES, NO, YES], [NO, NO, YES, YES], [YES, YES, YES, YES]]),
        "strayed_BT": np.array([[YES, NO, YES, YES], [YES, YES, YES, YES], [YES, YES, YES, YES]]),
    }


def test_fixed() -> None:
    rewards = shape(Shaping(), **episodes())
    np.testing.assert_array_equal(rewards.environment_BT, [[0, 0, 0, 10], [0.5, 0, 0, 0], [10, 0, 0, 0]])
    np.testing.assert_array_equal(rewards.invalid_BT, [[0, -0.1, 0, 0], [-0.1, 0, 0, 0], [0, 0, 0, 0]])
    # KEEP said at turn 0 counts, though turn 0 is a boundary.
    np.testing.assert_array_equal(rewards.keep_BT, [[-0.3, -0.3, 0, -0.3], [0, 0, 0, 0], [-0.3, 0, 0, 0]])
    # Only where KEEP was said, and never at turn 0, which has no turn before it.
    np.testing.assert_array_equal(rewards.consistency_BT, [[0, 0, 0, -0.3], [0, 0, 0, 0], [0, 0, 0, 0]])
    np.testing.assert_allclose(rewards.total_BT, [[-0.3, -0.4, 0, 9.4], [0.4, 0, 0, 0], [9.7, 0, 0, 0]])


def test_normalized() -> None:
    rewards = shape(Shaping(keep_penalty=-3.5, keep_mode="normalized"), **episodes())
    # c * (3 / 4) / 3 at each KEEP turn; an episode of one turn pays nothing.
    expected: list[list[float]] = [[-0.875, -0.875, 0, -0.875], [0, 0, 0, 0], [0, 0, 0, 0]]
    np.testing.assert_allclose(rewards.keep_BT, expected)
    assert rewards.keep_BT[0].sum() == pytest.approx(-3.5 * 3 / 4)


def test_parts_add_up() -> None:
    rewards = shape(Shaping(), **episodes())
    assert list(rewards.parts()) == ["environment", "invalid", "keep", "consistency"]
    np.testing.assert_allclose(sum(rewards.parts().values()), rewards.total_BT)


def test_without_penalties_the_environment_remains() -> None:
    rewards = shape(Shaping(invalid_penalty=0.0, keep_penalty=0.0, consistency_penalty=0.0), **episodes())
    np.testing.assert_array_equal(rewards.total_BT, rewards.environment_BT)


def test_input_is_left_alone() -> None:
    given = episodes()
    shape(Shaping(), **given)
    for name, array in episodes().items():
        np.testing.assert_array_equal(given[name], array)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"keep_penalty": 0.3}, "keep_penalty is 0.3; it is added to the reward, so it must be zero or negative"),
        ({"invalid_penalty": float("nan")}, "invalid_penalty is nan"),
        ({"consistency_penalty": -float("inf")}, "consistency_penalty is -inf"),
        ({"keep_mode": "norm"}, "keep_mode is 'norm'; it must be one of fixed, normalized"),
    ],
)
def test_wrong_weights_are_refused(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Shaping(**parameters)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"valid_BT": np.ones((3, 4))}, "valid_BT must be boolean"),
        ({"keep_BT": np.ones((3, 3), dtype=bool)}, r"keep_BT has shape \(3, 3\)"),
        ({"reward_BT": np.full((3, 4), np.nan)}, "reward_BT is nan at episode 0, turn 0"),
    ],
)
def test_wrong_arrays_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        shape(Shaping(), **(episodes() | change))
