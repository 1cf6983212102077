"""HAE and reward shaping against numbers recorded from the reference implementation.

Five of the cases lie in `data/`; the full set is looked for beside the checkout.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.missing import skip_without
from hiper.advantages import HAE, Rewards, Shaping, Turns, shape

HERE = Path(__file__).parent
FULL = HERE.parents[2] / "shared" / "fixtures" / "hae_cases.json"
EXPECTED = {
    "adv_low": "low_BT",
    "adv_high": "high_BT",
    "adv_switch": "switch_BT",
    "ret_low": "return_low_BT",
    "ret_high": "return_high_BT",
    "ret_switch": "return_switch_BT",
}

Case = dict[str, Any]


class Grid:
    """A case's shuffled rows as (B, T) arrays, and back."""

    def __init__(self, case: Case) -> None:
        rows = case["turns"]
        order = {episode: b for b, episode in enumerate(sorted({row["episode"] for row in rows}))}
        self.rows = rows
        self.at = (np.array([order[row["episode"]] for row in rows]), np.array([row["turn"] for row in rows]))
        self.shape = (len(order), int(self.at[1].max()) + 1)
        self.mask = np.zeros(self.shape, dtype=bool)
        self.mask[self.at] = True

    def array(self, key: str) -> np.ndarray:
        values = np.array([row[key] for row in self.rows])
        # Padding that would spoil every sum it leaks into.
        fill = np.nan if values.dtype.kind == "f" else True if values.dtype.kind == "b" else -1
        grid = np.full(self.shape, fill, dtype=values.dtype)
        grid[self.at] = values
        return grid


def shaped(case: Case, grid: Grid) -> Rewards:
    config = case["config"]
    subgoal = grid.array("subgoal_id")
    strayed = np.zeros(grid.shape, dtype=bool)
    strayed[:, 1:] = subgoal[:, 1:] != subgoal[:, :-1]
    return shape(
        Shaping(
            invalid_penalty=-config.get("invalid_action_penalty_coef", 0.0),
            keep_penalty=config.get("keep_penalty", 0.0),
            keep_mode=config.get("keep_penalty_mode", "fixed"),
            consistency_penalty=config.get("keep_consistency_penalty", 0.0),
        ),
        mask_BT=grid.mask,
        reward_BT=grid.array("reward"),
        valid_BT=grid.array("valid"),
        keep_BT=~grid.array("switch"),
        strayed_BT=strayed,
    )


def check(case: Case) -> None:
    grid, config = Grid(case), case["config"]
    boundary = grid.array("switch")
    boundary[:, 0] = True
    turns = Turns(
        mask_BT=grid.mask,
        reward_BT=shaped(case, grid).total_BT,
        boundary_BT=boundary,
        terminated_B=np.logical_or.reduce(grid.array("done") & grid.mask, axis=1),
        v_low_BT=grid.array("v_low"),
        v_high_BT=grid.array("v_high"),
        v_switch_BT=grid.array("v_switch"),
    )
    credit = HAE(
        gamma=config["gamma"],
        lambda_turn=config["lam_turn"],
        lambda_seg=config["lam_seg"],
        bootstrap_truncated=config["bootstrap_truncated"],
        normalize=config["norm_adv"],
    )(turns)
    for recorded, ours in EXPECTED.items():
        # Six significant digits were recorded; what is zero in exact arithmetic is compared absolutely.
        np.testing.assert_allclose(
            getattr(credit, ours)[grid.at], case["expected"][recorded], rtol=6e-6, atol=2e-6, err_msg=recorded
        )


def load(path: Path) -> list[Case]:
    cases: list[Case] = json.loads(path.read_text())
    return cases


@pytest.mark.parametrize("case", load(HERE / "data" / "hae_cases.json"))
def test_shipped_cases(case: Case) -> None:
    check(case)


@pytest.mark.parametrize("number", range(24))
def test_all_cases(number: int) -> None:
    if not FULL.exists():
        skip_without("recorded cases", FULL)
    check(load(FULL)[number])


def test_shipped_cases_cover_every_option() -> None:
    configs = [case["config"] for case in load(HERE / "data" / "hae_cases.json")]
    assert {config["norm_adv"] for config in configs} == {True, False}
    assert {config["bootstrap_truncated"] for config in configs} == {True, False}
    assert {config.get("keep_penalty_mode") for config in configs} == {None, "fixed", "normalized"}
