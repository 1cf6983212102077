"""Checks that an estimator keeps the contract of :class:`~hiper.advantages.estimator.Estimator`."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np

from hiper.advantages.checks import prefix_mask
from hiper.advantages.estimator import Estimator
from hiper.advantages.registry import check_estimator_class
from hiper.advantages.types import Bools, Credit, Floats, Turns
from hiper.advantages.values import HEADS
from hiper.errors import UserError

EPISODES, GROUP, MOST_TURNS, MOST_TOKENS = 12, 4, 6, 4
"""The size of the batches that estimators are tried on."""


def check_estimator(estimator: Estimator, *, batches: int = 3, seed: int = 0) -> None:
    """Call an estimator on small random batches, and check everything that can be checked from outside.

    Its credit must have the right shapes, be finite, and be zero beyond each array's mask. The same turns must give the
    same credit, and must stay as they are. It must work with the arrays that it asks for: the values of its ``heads``,
    groups if it is ``grouped``, and all that needs no critic. Each of its heads, and no other, must get a target.

    Args:
        estimator: The estimator, with its parameters.
        batches: The number of batches.
        seed: The seed of the batches.

    Raises:
        UserError: The contract is broken. The message says which part, and what the contract asks for.
    """
    check_estimator_class(type(estimator))
    rng = np.random.default_rng(seed)
    for tried in (estimator, estimator.unscaled(), *estimator.forms().values()):
        _demand(type(tried) is type(estimator), estimator, "unscaled() and forms() must give estimators of its class")
        for _ in range(batches):
            _check_batch(tried, _asked_for(tried, random_turns(rng)))
    unscaled = estimator.unscaled()
    _demand(unscaled.unscaled() == unscaled, estimator, "unscaled() of an unscaled estimator must be the same")


def random_turns(rng: np.random.Generator) -> Turns:
    """Make a batch with every array: episodes of one turn or more, truncated or not, in groups and out of order."""
    B, T = EPISODES, MOST_TURNS
    mask_BT = prefix_mask([T, *rng.integers(1, T + 1, B - 1).tolist()])
    said_switch_BT = rng.random((B, T)) < 0.4
    tokens_BT = rng.integers(1, MOST_TOKENS + 1, (B, T))
    most_tokens = int((tokens_BT * mask_BT).sum(axis=1).max())
    rooms = np.array(["a hall", "a kitchen", "a cellar"], dtype=object)
    values = {name: rng.normal(size=(B, T)) for name in ("v_low_BT", "v_high_BT", "v_switch_BT", "value_BT")}
    penalty_BT = rng.choice([0.0, -0.1], (B, T))
    return Turns(
        mask_BT=mask_BT,
        reward_BT=rng.normal(size=(B, T)) + penalty_BT,
        boundary_BT=said_switch_BT | (np.arange(T) == 0),
        terminated_B=rng.random(B) < 0.5,
        switch_prob_BT=rng.random((B, T)),
        said_switch_BT=said_switch_BT,
        penalty_BT=penalty_BT,
        group_B=rng.permutation(np.repeat(np.arange(B // GROUP), GROUP)),
        observation_BT=rooms[rng.integers(0, len(rooms), (B, T))],
        tokens_BT=tokens_BT,
        v_token_BK=rng.normal(size=(B, most_tokens)),
        **values,
    )


def _asked_for(estimator: Estimator, turns: Turns) -> Turns:
    """The same turns without the values and groups that the estimator does not ask for."""
    dropped: dict[str, Any] = {head.values: None for head in HEADS if head not in estimator.heads}
    if not estimator.grouped:
        dropped["group_B"] = None
    return replace(turns, **dropped)


def _check_batch(estimator: Estimator, turns: Turns) -> None:
    names = [field.name for field in fields(turns)]
    before = {name: np.copy(getattr(turns, name)) for name in names}
    credit = _called(estimator, turns)
    for name in names:
        unchanged = np.array_equal(getattr(turns, name), before[name])
        _demand(unchanged, estimator, f"it must leave its input alone, but changed Turns.{name}")
    _check_arrays(estimator, turns, credit)
    again = _called(estimator, turns)
    for field in fields(Credit):
        same = np.array_equal(getattr(again, field.name), getattr(credit, field.name))
        _demand(same, estimator, f"the same turns must give the same credit, but Credit.{field.name} differed")


def _called(estimator: Estimator, turns: Turns) -> Credit:
    try:
        credit = estimator(turns)
    except (ValueError, TypeError, AttributeError) as error:
        asked = ", ".join(head.name for head in estimator.heads) or "none"
        raise UserError(
            f"{_name(estimator)} fails on turns with the arrays it asks for (values: {asked}; groups: "
            f"{'yes' if estimator.grouped else 'no'}): {error}. See its critic, heads and grouped"
        ) from error
    _demand(isinstance(credit, Credit), estimator, f"it must return Credit, it returned {type(credit).__name__}")
    return credit


def _check_arrays(estimator: Estimator, turns: Turns, credit: Credit) -> None:
    arrays: list[tuple[str, Floats, Bools]] = [
        ("low_BT", credit.low_BT, turns.mask_BT),
        ("high_BT", credit.high_BT, turns.boundary_BT),
        ("switch_BT", credit.switch_BT, turns.mask_BT),
    ]
    if credit.token_BK is not None:
        arrays.append(("token_BK", credit.token_BK, turns.token_mask_BK))
        _demand(credit.undivided, estimator, "Credit.token_BK replaces the decisions' advantages: set undivided=True")
    for head in HEADS:
        target = head.targets_in(credit)
        if head in estimator.heads:
            _demand(target is not None, estimator, f"its head '{head.name}' needs a target, Credit.{head.target}")
        else:
            _demand(target is None, estimator, f"it gives Credit.{head.target}, but does not ask for '{head.name}'")
        if target is not None:
            arrays.append((head.target, target, head.trained_in(turns)))
    for name, array, mask in arrays:
        _demand(isinstance(array, np.ndarray), estimator, f"Credit.{name} must be an array of numpy")
        _demand(
            array.shape == mask.shape, estimator, f"Credit.{name} has shape {array.shape}, the turns have {mask.shape}"
        )
        _demand(array.dtype == np.float64, estimator, f"Credit.{name} must hold float64, it holds {array.dtype}")
        _demand(bool(np.isfinite(array).all()), estimator, f"Credit.{name} holds NaN or infinity")
        _demand(not array[~mask].any(), estimator, f"Credit.{name} must be zero outside its mask")


def _demand(kept: bool, estimator: Estimator, contract: str) -> None:
    if not kept:
        raise UserError(f"{_name(estimator)}: {contract}")


def _name(estimator: Estimator) -> str:
    return f"estimator '{type(estimator).__name__}'"
