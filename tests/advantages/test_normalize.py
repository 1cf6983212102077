"""Normalising advantages over the turns that use them."""

from __future__ import annotations

import numpy as np

from helpers.slow_hae import random_turns
from hiper.advantages import HAE
from hiper.advantages.normalize import EPSILON, normalized, standardize


def test_by_hand() -> None:
    mask = np.array([[True, True, False]])
    # Mean 2, population standard deviation 1; the 100 is not looked at.
    np.testing.assert_allclose(standardize(np.array([[1.0, 3.0, 100.0]]), mask), [[-1, 1, 0]], atol=2 * EPSILON)


def test_alone_constant_or_absent_is_zero() -> None:
    one = np.array([[True, False]])
    np.testing.assert_array_equal(standardize(np.array([[5.0, 1.0]]), one), [[0, 0]])
    np.testing.assert_array_equal(standardize(np.array([[5.0, 1.0]]), ~one & one), [[0, 0]])
    everywhere = np.ones((1, 4), dtype=bool)
    np.testing.assert_array_equal(standardize(np.full((1, 4), 5.0), everywhere), np.zeros((1, 4)))


def test_each_advantage_over_its_own_turns() -> None:
    turns = random_turns(np.random.default_rng(0), 30, 20)
    credit = HAE(0.9, 0.8)(turns)
    after = normalized(credit, turns)
    for field, mask in (("low_BT", turns.mask_BT), ("high_BT", turns.boundary_BT), ("switch_BT", turns.mask_BT)):
        used = getattr(after, field)[mask]
        np.testing.assert_allclose([used.mean(), used.std()], [0, 1], atol=1e-8)
        assert not getattr(after, field)[~mask].any()
    for field in ("return_low_BT", "return_high_BT", "return_switch_BT"):
        np.testing.assert_array_equal(getattr(after, field), getattr(credit, field))
    np.testing.assert_array_equal(HAE(0.9, 0.8, normalize=True)(turns).high_BT, after.high_BT)
