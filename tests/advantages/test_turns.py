"""What an estimator may rely on: `Turns` refuses what does not fit and blanks what must not be seen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hiper.advantages import Turns, on_grid, prefix_mask

YES, NO = True, False


def good() -> dict[str, Any]:
    """Two episodes, of three turns and of one."""
    return {
        "mask_BT": np.array([[YES, YES, YES], [YES, NO, NO]]),
        "reward_BT": np.array([[1.0, 2.0, 3.0], [4.0, np.nan, np.inf]]),
        "boundary_BT": np.array([[YES, NO, YES], [YES, YES, YES]]),
        "terminated_B": np.array([YES, NO]),
    }


def test_padding_is_blanked() -> None:
    turns = Turns(**good())
    np.testing.assert_array_equal(turns.reward_BT, [[1, 2, 3], [4, 0, 0]])
    np.testing.assert_array_equal(turns.boundary_BT, [[YES, NO, YES], [YES, NO, NO]])


def test_arrays_are_copied_in_double_precision() -> None:
    given = good() | {"reward_BT": np.ones((2, 3), dtype=np.float32)}
    turns = Turns(**given)
    given["reward_BT"][:] = 9.0
    given["mask_BT"][:] = NO
    given["terminated_B"][:] = NO
    assert turns.reward_BT.dtype == np.float64
    assert turns.reward_BT[0, 0] == 1.0
    assert turns.mask_BT[0, 0]
    assert turns.terminated_B[0]


def test_segments() -> None:
    turns = Turns(**good())
    assert turns.length_B.tolist() == [3, 1]
    assert turns.last_boundary_B.tolist() == [2, 0]


def test_tokens_stand_turn_after_turn() -> None:
    values = np.array([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, np.nan, np.inf]])
    turns = Turns(**good(), tokens_BT=np.array([[1, 2, 1], [2, 9, 9]]), v_token_BK=values)
    np.testing.assert_array_equal(turns.token_mask_BK, [[YES, YES, YES, YES], [YES, YES, NO, NO]])
    np.testing.assert_array_equal(turns.turn_of_token_BK, [[0, 1, 1, 2], [0, 0, 0, 0]])
    assert turns.v_token_BK is not None
    np.testing.assert_array_equal(turns.v_token_BK, [[1, 2, 3, 4], [5, 6, 0, 0]])


def test_observations_beyond_the_end_are_none() -> None:
    turns = Turns(**good(), observation_BT=np.array([["a", "b", "c"], ["d", "e", "f"]]))
    assert turns.observation_BT is not None
    assert turns.observation_BT.tolist() == [["a", "b", "c"], ["d", None, None]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mask_BT": np.array([[YES, NO, YES], [YES, NO, NO]])}, "episode 0 skips turn 1 but plays turn 2"),
        ({"mask_BT": np.array([[NO, YES, YES], [YES, NO, NO]])}, "episode 0 skips turn 0 but plays turn 1"),
        ({"mask_BT": np.ones((2, 3), dtype=int)}, "mask_BT must be boolean, got int64"),
        ({"mask_BT": np.ones(3, dtype=bool)}, r"mask_BT must have B > 0 episodes .* got shape \(3,\)"),
        ({"mask_BT": np.ones((0, 3), dtype=bool)}, "mask_BT must have B > 0 episodes"),
        ({"mask_BT": np.zeros((2, 3), dtype=bool)}, "mask_BT plays no turn at all"),
        ({"reward_BT": np.ones((2, 4))}, r"reward_BT has shape \(2, 4\), mask_BT has \(2, 3\)"),
        ({"reward_BT": np.full((2, 3), np.nan)}, "reward_BT is nan at episode 0, turn 0"),
        ({"v_low_BT": np.array([[0, 0, np.inf], [0, 0, 0]])}, "v_low_BT is inf at episode 0, turn 2"),
        ({"value_BT": np.array([[0, 0, 0], [np.nan, 0, 0]])}, "value_BT is nan at episode 1, turn 0"),
        ({"boundary_BT": np.array([[YES, NO, YES], [NO, NO, NO]])}, "episode 1 is False at turn 0"),
        ({"boundary_BT": np.ones((2, 3))}, "boundary_BT must be boolean, got float64"),
        ({"terminated_B": np.array([YES])}, "terminated_B must be one boolean per episode"),
        ({"terminated_B": np.array([1, 0])}, "terminated_B must be one boolean per episode"),
        ({"group_B": np.array([0])}, "group_B must be one integer per episode"),
        ({"group_B": np.array([0.0, 1.0])}, "group_B must be one integer per episode, got float64"),
        ({"observation_BT": np.array([["a", "b"]])}, r"observation_BT has shape \(1, 2\)"),
        ({"tokens_BT": np.ones((2, 3))}, "tokens_BT must hold integers, got float64"),
        ({"tokens_BT": np.array([[1, 1, 0], [1, 0, 0]])}, "tokens_BT is 0 at episode 0, turn 2; 1 is the least"),
        ({"v_token_BK": np.ones((2, 3))}, "a value per token needs Turns.tokens_BT"),
        (
            {"tokens_BT": np.array([[1, 2, 1], [3, 0, 0]]), "v_token_BK": np.ones((2, 3))},
            r"v_token_BK has shape \(2, 3\), tokens_BT asks for \(2, 4\)",
        ),
        (
            {"tokens_BT": np.array([[1, 2, 1], [3, 0, 0]]), "v_token_BK": np.array([[0, 0, 0, np.nan], [0, 0, 0, 0]])},
            "v_token_BK is nan at episode 0, token 3",
        ),
        ({"penalty_BT": np.full((2, 3), np.nan)}, "penalty_BT is nan at episode 0, turn 0"),
        ({"switch_prob_BT": np.full((2, 3), 1.5)}, "not probabilities"),
        ({"switch_prob_BT": np.full((2, 3), -0.1)}, "not probabilities"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Turns(**(good() | change))


def test_a_grid_holds_one_number_per_place_in_order() -> None:
    mask = prefix_mask([2, 3, 1])
    assert mask.tolist() == [[True, True, False], [True, True, True], [True, False, False]]
    filled = on_grid([1, 2, 3, 4, 5, 6], mask)
    assert filled.tolist() == [[1, 2, 0], [3, 4, 5], [6, 0, 0]]
    assert filled[mask].tolist() == [1, 2, 3, 4, 5, 6]
    assert on_grid(["a", "b"], prefix_mask([1, 1]), object).tolist() == [["a"], ["b"]]
