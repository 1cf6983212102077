"""HAE by hand, against its definition, and by its identities. Recorded numbers: `test_hae_recorded.py`."""

from __future__ import annotations

from dataclasses import fields, replace
from itertools import product
from typing import Any

import numpy as np
import pytest

from helpers.slow_estimators import random_turns, slow_credit
from hiper.advantages import HAE, Credit, Turns
from hiper.errors import UserError

RNG = np.random.default_rng
FIELDS = ("low_BT", "high_BT", "switch_BT", "return_low_BT", "return_high_BT", "return_switch_BT")
LAMBDAS = (0.0, 0.7, 1.0)


def assert_same(ours: Credit, other: Credit, fields: tuple[str, ...] = FIELDS) -> None:
    for field in fields:
        a, b = getattr(ours, field), getattr(other, field)
        if a is None or b is None:
            assert a is b, field
        else:
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10, err_msg=field)


def turns_of(terminated: bool = True, **rows: Any) -> Turns:
    """One episode from plain lists."""
    length = len(rows["reward"])
    return Turns(
        mask_BT=np.ones((1, length), dtype=bool),
        terminated_B=np.array([terminated]),
        **{f"{name}_BT": np.array([row]) for name, row in rows.items()},
    )


def arrays_of(turns: Turns) -> dict[str, np.ndarray]:
    """The fields that are given, by name."""
    return {field.name: array for field in fields(turns) if (array := getattr(turns, field.name)) is not None}


def flat_gae(turns: Turns, values_BT: np.ndarray, gamma: float, lambda_: float, bootstrap: bool) -> np.ndarray:
    """Turn-level GAE in its textbook form."""
    advantages = np.zeros_like(values_BT)
    for b, length in enumerate(turns.mask_BT.sum(axis=1)):
        following = values_BT[b, length - 1] if bootstrap and not turns.terminated_B[b] else 0.0
        trace = 0.0
        for t in reversed(range(length)):
            delta = turns.reward_BT[b, t] + gamma * following - values_BT[b, t]
            trace = delta + gamma * lambda_ * trace
            advantages[b, t], following = trace, values_BT[b, t]
    return advantages


def returns_to_go(turns: Turns, gamma: float) -> np.ndarray:
    """Discounted reward from each turn to the episode's end."""
    togo = turns.reward_BT.copy()
    for t in reversed(range(togo.shape[1] - 1)):
        togo[:, t] += gamma * togo[:, t + 1]
    return togo


class TestByHand:
    """Numbers worked out on paper: gamma = lambda_turn = lambda_seg = 1/2, two segments of 2 and 1 turns."""

    half = HAE(gamma=0.5, lambda_turn=0.5, lambda_seg=0.5)
    rows: dict[str, Any] = {  # noqa: RUF012
        "reward": [1.0, 2.0, 4.0],
        "boundary": [True, False, True],
        "v_low": [2.0, 4.0, 6.0],
        "v_high": [8.0, 99.0, 10.0],
        "v_switch": [1.0, 1.0, 1.0],
    }

    def test_terminated(self) -> None:
        credit = self.half(turns_of(terminated=True, **self.rows))
        # t=2: 4 + 0 - 6.  t=1: 2 + 10/2 - 4, the trace cut.  t=0: (1 + 4/2 - 2) + 3/4.
        np.testing.assert_array_equal(credit.low_BT, [[1.75, 3.0, -2.0]])
        # k=1: 4 + 0 - 10.  k=0: (1 + 2/2) + 10/4 - 8 = -3.5, and -6 * 1/4 * 1/2.
        np.testing.assert_array_equal(credit.high_BT, [[-4.25, 0.0, -6.0]])
        # Returns 4; 2 + 10/2 = 7; 1 + 7/2 = 4.5.
        np.testing.assert_array_equal(credit.switch_BT, [[3.5, 6.0, 3.0]])
        np.testing.assert_array_equal(credit.return_low_BT, [[3.75, 7.0, 4.0]])
        np.testing.assert_array_equal(credit.return_high_BT, [[3.75, 0.0, 4.0]])
        np.testing.assert_array_equal(credit.return_switch_BT, [[4.5, 7.0, 4.0]])

    def test_truncated_and_bootstrapped(self) -> None:
        credit = self.half(turns_of(terminated=False, **self.rows))
        np.testing.assert_array_equal(credit.low_BT, [[1.75, 3.0, 1.0]])  # 4 + 6/2 - 6
        np.testing.assert_array_equal(credit.high_BT, [[-3.625, 0.0, -1.0]])  # 4 + 10/2 - 10; -3.5 - 1/8
        np.testing.assert_array_equal(credit.switch_BT, [[3.5, 6.0, 8.0]])  # 4 + 10/2 - 1

    def test_traces_that_pass_half_of_each_boundary(self) -> None:
        credit = replace(self.half, lambda_boundary=0.5)(turns_of(terminated=True, **self.rows))
        # After turn 1 comes (10 + 4) / 2 in the place of 10: 2 + 7/2. Turn 0: 1 + (4/2 + 5.5/2) / 2 and 1 + 5.5/2.
        np.testing.assert_array_equal(credit.return_low_BT, [[3.375, 5.5, 4.0]])
        np.testing.assert_array_equal(credit.return_switch_BT, [[3.75, 5.5, 4.0]])
        np.testing.assert_array_equal(credit.low_BT, [[1.375, 1.5, -2.0]])
        np.testing.assert_array_equal(credit.switch_BT, [[2.75, 4.5, 3.0]])
        np.testing.assert_array_equal(credit.high_BT, [[-4.25, 0.0, -6.0]])  # the planner's trace always passed

    def test_a_long_last_segment_is_bootstrapped_from_its_start(self) -> None:
        turns = turns_of(
            terminated=False,
            reward=[1.0, 1.0],
            boundary=[True, False],
            v_low=[2.0, 3.0],
            v_high=[4.0, 100.0],
            v_switch=[0.0, 0.0],
        )
        credit = self.half(turns)
        np.testing.assert_array_equal(credit.low_BT, [[0.375, -0.5]])  # 1 + 3/2 - 3; (1 + 3/2 - 2) - 0.5/4
        np.testing.assert_array_equal(credit.high_BT, [[-1.5, 0.0]])  # 1 + 1/2 + 4/4 - 4
        np.testing.assert_array_equal(credit.switch_BT, [[2.5, 3.0]])  # 1 + 3/2; 1 + 4/2

    def test_value_gap(self) -> None:
        turns = turns_of(
            reward=[0.0, 0.0, 0.0, 1.0],
            boundary=[True, False, True, False],
            v_low=[1.0, 1.0, 3.0, 0.0],
            v_high=[3.0, 5.0, 1.0, 0.5],
            said_switch=[False, False, True, False],
            switch_prob=[0.25, 0.5, 0.75, 0.0],
        )
        credit = HAE(switch_form="value-gap")(turns)
        # Turn 0 is a boundary, yet KEEP was said there: (0 - 1/4) * 2.  Then (0 - 1/2) * 4, (1 - 3/4) * -2, 0.
        np.testing.assert_array_equal(credit.switch_BT, [[-0.5, -2.0, -0.5, 0.0]])
        assert credit.return_switch_BT is None

    def test_single_turn(self) -> None:
        turns = turns_of(reward=[3.0], boundary=[True], v_low=[1.0], v_high=[2.0], v_switch=[4.0])
        credit = self.half(turns)
        assert (credit.low_BT.item(), credit.high_BT.item(), credit.switch_BT.item()) == (2.0, 1.0, -1.0)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("form", ["termination-value", "value-gap"])
@pytest.mark.parametrize("bootstrap", [True, False])
def test_equals_the_definition(seed: int, form: Any, bootstrap: bool) -> None:
    for number, (gamma, lambda_turn, lambda_seg) in enumerate(product((0.9, 1.0), LAMBDAS, LAMBDAS)):
        rng = RNG([seed, number])
        turns = random_turns(rng, B=9, T=17, switch_rate=rng.random())
        hae = HAE(gamma, lambda_turn, lambda_seg, form, bootstrap, lambda_boundary=rng.choice(LAMBDAS))
        assert_same(hae(turns), slow_credit(turns, hae))


class TestIdentities:
    @pytest.mark.parametrize("lambda_", LAMBDAS)
    @pytest.mark.parametrize("bootstrap", [True, False])
    def test_one_segment_is_flat_gae(self, lambda_: float, bootstrap: bool) -> None:
        turns = random_turns(RNG(0), 20, 12, switch_rate=0.0)
        hae = HAE(0.9, lambda_turn=lambda_, lambda_seg=0.3, bootstrap_truncated=bootstrap)
        assert turns.v_low_BT is not None
        flat = flat_gae(turns, turns.v_low_BT, 0.9, lambda_, bootstrap)
        np.testing.assert_allclose(hae(turns).low_BT, flat, atol=1e-10)

    @pytest.mark.parametrize("lambda_", LAMBDAS)
    @pytest.mark.parametrize("bootstrap", [True, False])
    def test_every_turn_a_boundary_is_flat_gae_for_the_planner(self, lambda_: float, bootstrap: bool) -> None:
        turns = random_turns(RNG(1), 20, 12, switch_rate=1.0)
        turns = replace(turns, v_low_BT=turns.v_high_BT)
        hae = HAE(0.9, lambda_turn=0.3, lambda_seg=lambda_, bootstrap_truncated=bootstrap)
        assert turns.v_high_BT is not None
        flat = flat_gae(turns, turns.v_high_BT, 0.9, lambda_, bootstrap)
        np.testing.assert_allclose(hae(turns).high_BT, flat, atol=1e-10)

    def test_lambda_seg_one_is_monte_carlo(self) -> None:
        turns = random_turns(RNG(2), 20, 12)
        turns = replace(turns, terminated_B=np.ones(20, dtype=bool))
        expected = np.where(turns.boundary_BT, returns_to_go(turns, 0.9) - turns.v_high_BT, 0.0)
        np.testing.assert_allclose(HAE(0.9, lambda_seg=1.0)(turns).high_BT, expected, atol=1e-10)

    @pytest.mark.parametrize("bootstrap", [True, False])
    def test_one_value_for_all_and_traces_that_pass_as_they_decay_is_one_time_scale(self, bootstrap: bool) -> None:
        turns = random_turns(RNG(10), 20, 12)
        turns = replace(turns, v_high_BT=turns.v_low_BT)
        passing = HAE(0.9, 0.7, bootstrap_truncated=bootstrap, lambda_boundary=0.7)
        one = HAE(0.9, 0.7, bootstrap_truncated=bootstrap, time_scales="one")
        np.testing.assert_allclose(passing(turns).low_BT, one(turns).low_BT, atol=1e-10)

    def test_traces_that_pass_whole_need_no_value(self) -> None:
        turns = random_turns(RNG(11), 20, 12)
        credit = HAE(0.9, 1.0, 1.0, bootstrap_truncated=False, lambda_boundary=1.0)(turns)
        togo = returns_to_go(turns, 0.9)
        at_boundaries = np.where(turns.boundary_BT, togo, 0.0)
        expected = {"return_low_BT": togo, "return_high_BT": at_boundaries, "return_switch_BT": togo}
        for name, return_BT in expected.items():
            np.testing.assert_allclose(getattr(credit, name), return_BT, atol=1e-10)

    def test_everything_telescopes_without_discount_or_decay(self) -> None:
        rewards = [1.0, 2.0, 3.0, 4.0]
        turns = turns_of(
            reward=rewards,
            boundary=[True, False, True, False],
            v_low=[0.1, 0.2, 0.3, 0.4],
            v_high=[10.0, 20.0, 30.0, 40.0],
            v_switch=[0.0] * 4,
        )
        credit = HAE(gamma=1.0, lambda_turn=1.0, lambda_seg=1.0)(turns)
        assert credit.return_low_BT is not None
        assert credit.return_high_BT is not None
        np.testing.assert_allclose(credit.return_low_BT, [[1 + 2 + 30, 2 + 30, 3 + 4, 4]])
        np.testing.assert_allclose(credit.return_high_BT, [[1 + 2 + 3 + 4, 0, 3 + 4, 0]])
        np.testing.assert_allclose(credit.low_BT, [[32.9, 31.8, 6.7, 3.6]])
        np.testing.assert_allclose(credit.high_BT, [[0, 0, -23, 0]])

    def test_with_lambda_turn_one_executor_and_switch_aim_at_the_same(self) -> None:
        turns = random_turns(RNG(3), 20, 12)
        credit = HAE(0.9, lambda_turn=1.0, bootstrap_truncated=False)(turns)
        assert credit.return_low_BT is not None
        assert credit.return_switch_BT is not None
        np.testing.assert_allclose(credit.return_low_BT, credit.return_switch_BT, atol=1e-10)

    @pytest.mark.parametrize(("lambda_turn", "lambda_seg"), list(product(LAMBDAS, LAMBDAS)))
    def test_exact_values_leave_nothing_to_credit(self, lambda_turn: float, lambda_seg: float) -> None:
        turns = random_turns(RNG(4), 20, 12)
        exact = returns_to_go(turns, 0.9)
        turns = replace(turns, v_low_BT=exact, v_high_BT=exact, v_switch_BT=exact, terminated_B=np.ones(20, dtype=bool))
        for form in ("termination-value", "value-gap"):
            credit = HAE(0.9, lambda_turn, lambda_seg, form)(turns)
            for advantages in (credit.low_BT, credit.high_BT, credit.switch_BT):
                np.testing.assert_allclose(advantages, 0.0, atol=1e-10)

    def test_a_truncated_end_without_bootstrap_is_a_terminal_one(self) -> None:
        turns = random_turns(RNG(5), 20, 12)
        ended = replace(turns, terminated_B=np.ones(20, dtype=bool))
        hae = HAE(0.9, 0.8, bootstrap_truncated=False)
        assert_same(hae(turns), hae(ended))
        assert_same(hae(ended), replace(hae, bootstrap_truncated=True)(ended))

    def test_each_lambda_concerns_its_own_level(self) -> None:
        turns = random_turns(RNG(6), 20, 12)
        hae = HAE(0.9, 0.8, 0.7)
        others = ("high_BT", "switch_BT", "return_high_BT", "return_switch_BT")
        assert_same(hae(turns), replace(hae, lambda_turn=0.1)(turns), others)
        others = ("low_BT", "switch_BT", "return_low_BT", "return_switch_BT")
        assert_same(hae(turns), replace(hae, lambda_seg=0.1)(turns), others)

    def test_both_forms_differ_in_the_switch_advantage_only(self) -> None:
        turns = random_turns(RNG(7), 20, 12)
        others = ("low_BT", "high_BT", "return_low_BT", "return_high_BT")
        assert_same(HAE(0.9)(turns), HAE(0.9, switch_form="value-gap")(turns), others)

    def test_the_executor_gets_no_credit_from_later_segments(self) -> None:
        turns = random_turns(RNG(8), 20, 12)
        credit = HAE(1.0, 1.0, 1.0)(turns)
        later = turns.reward_BT.copy()
        in_first_BT = np.cumsum(turns.boundary_BT, axis=1) <= 1
        later[~in_first_BT] += 100.0
        changed = HAE(1.0, 1.0, 1.0)(replace(turns, reward_BT=later))
        np.testing.assert_array_equal(credit.low_BT[in_first_BT], changed.low_BT[in_first_BT])
        assert not np.allclose(credit.high_BT[:, 0], changed.high_BT[:, 0])


class TestBatch:
    @pytest.mark.parametrize("normalize", [False, True])
    def test_padding_does_not_matter(self, normalize: bool) -> None:
        turns = random_turns(RNG(9), 8, 10)
        wider = Turns(**{name: _widened(name, array) for name, array in arrays_of(turns).items()})
        hae = HAE(0.9, 0.8, normalize=normalize)
        for field in FIELDS:
            narrow, wide = getattr(hae(turns), field), getattr(hae(wider), field)
            np.testing.assert_allclose(wide[:, :10], narrow, atol=1e-12)
            assert not wide[:, 10:].any()

    def test_episodes_do_not_touch_each_other(self) -> None:
        turns, hae = random_turns(RNG(10), 8, 10), HAE(0.9, 0.8)
        whole = hae(turns)
        for b in range(8):
            alone = hae(Turns(**{name: array[b : b + 1] for name, array in arrays_of(turns).items()}))
            for field in FIELDS:
                np.testing.assert_array_equal(getattr(alone, field)[0], getattr(whole, field)[b])

    def test_zero_outside_each_mask(self) -> None:
        turns = random_turns(RNG(11), 8, 10)
        for normalize in (False, True):
            credit = HAE(0.9, normalize=normalize)(turns)
            for field in FIELDS:
                mask = turns.boundary_BT if "high" in field else turns.mask_BT
                assert not getattr(credit, field)[~mask].any()

    def test_an_episode_without_turns_gets_nothing(self) -> None:
        turns = random_turns(RNG(12), 3, 5)
        mask = turns.mask_BT.copy()
        mask[1] = False
        turns = replace(turns, mask_BT=mask, terminated_B=np.zeros(3, dtype=bool))
        credit = HAE()(turns)
        assert not any(getattr(credit, field)[1].any() for field in FIELDS)

    def test_input_is_left_alone_and_output_is_its_own(self) -> None:
        turns = random_turns(RNG(13), 4, 6)
        before = {name: array.copy() for name, array in arrays_of(turns).items()}
        credit = HAE(normalize=True)(turns)
        for field in FIELDS:
            getattr(credit, field)[:] = 7.0
        for name, array in arrays_of(turns).items():
            np.testing.assert_array_equal(array, before[name])


def _widened(name: str, array: np.ndarray) -> np.ndarray:
    """Three more columns, holding what must never be looked at."""
    if array.ndim == 1:
        return array
    fill = False if name == "mask_BT" else True if array.dtype == bool else np.nan
    return np.concatenate([array, np.full((len(array), 3), fill)], axis=1)


class TestParameters:
    @pytest.mark.parametrize(
        ("parameters", "message"),
        [
            ({"gamma": 1.1}, "gamma is 1.1; it must lie between 0 and 1"),
            ({"lambda_turn": -0.1}, "lambda_turn is -0.1"),
            ({"lambda_seg": float("nan")}, "lambda_seg is nan"),
            ({"lambda_boundary": 2.0}, "lambda_boundary is 2.0"),
            ({"lambda_boundary": 0.5, "time_scales": "one"}, "no trace stops at boundaries; leave one of the two out"),
            ({"switch_form": "gap"}, "switch_form is 'gap'; it must be one of termination-value, value-gap, none"),
        ],
    )
    def test_out_of_range(self, parameters: dict[str, Any], message: str) -> None:
        with pytest.raises(UserError, match=message):
            HAE(**parameters)

    @pytest.mark.parametrize(
        ("missing", "form"),
        [
            ("v_low_BT", "termination-value"),
            ("v_high_BT", "termination-value"),
            ("v_switch_BT", "termination-value"),
            ("said_switch_BT", "value-gap"),
            ("switch_prob_BT", "value-gap"),
        ],
    )
    def test_missing_arrays_are_named(self, missing: str, form: Any) -> None:
        without: dict[str, Any] = {missing: None}
        turns = replace(random_turns(RNG(0), 2, 3), **without)
        with pytest.raises(ValueError, match=f"needs Turns.{missing}"):
            HAE(switch_form=form)(turns)

    def test_each_form_needs_only_its_own_arrays(self) -> None:
        turns = random_turns(RNG(0), 2, 3)
        HAE()(replace(turns, said_switch_BT=None, switch_prob_BT=None))
        HAE(switch_form="value-gap")(replace(turns, v_switch_BT=None))
