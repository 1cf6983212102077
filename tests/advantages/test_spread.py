"""Which token carries which advantage, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from helpers.slow_estimators import random_turns
from hiper.advantages import HAE, Credit, ResponseTokens, TokenKind, Turns, spread

O, W, G, A = TokenKind.OTHER, TokenKind.SWITCH, TokenKind.SUBGOAL, TokenKind.ACTION  # noqa: E741
YES, NO = True, False


def response(episode: int, turn: int, kinds: list[int], valid: bool = True) -> ResponseTokens:
    return ResponseTokens(episode, turn, np.array(kinds, dtype=np.int8), len(kinds), valid)


@pytest.fixture
def turns() -> Turns:
    """An episode of three turns (boundary, kept, boundary) and one of one turn."""
    return Turns(
        mask_BT=np.array([[YES, YES, YES], [YES, NO, NO]]),
        reward_BT=np.zeros((2, 3)),
        boundary_BT=np.array([[YES, NO, YES], [YES, NO, NO]]),
        terminated_B=np.array([YES, YES]),
    )


@pytest.fixture
def credit() -> Credit:
    """Units say where, tens say what: 1x executor, 2x planner, 3x switch."""
    where = np.array([[1.0, 2.0, 3.0], [4.0, np.nan, np.nan]])
    return Credit(low_BT=10 + where, high_BT=20 + where, switch_BT=30 + where)


@pytest.fixture
def responses() -> list[ResponseTokens]:
    """Out of order, of different lengths."""
    return [
        response(0, 2, [W, W, O, G, G, G, O, A, O]),
        response(1, 0, [O, A, G, O], valid=False),
        response(0, 0, [W, G, A]),
        response(0, 1, [O, W, G, G, A, A, O]),
    ]


def test_the_table(turns: Turns, credit: Credit, responses: list[ResponseTokens]) -> None:
    boundary, invalid, first, kept = spread(credit, turns, responses)
    assert boundary.advantages.tolist() == [33, 33, 0, 23, 23, 23, 0, 13, 0]
    assert boundary.mask.tolist() == [YES, YES, NO, YES, YES, YES, NO, YES, NO]
    assert invalid.advantages.tolist() == [14, 14, 14, 14]
    assert invalid.mask.tolist() == [YES] * 4
    assert first.advantages.tolist() == [31, 21, 11]
    assert first.mask.tolist() == [YES] * 3
    assert kept.advantages.tolist() == [0, 32, 0, 0, 12, 12, 0]
    assert kept.mask.tolist() == [NO, YES, NO, NO, YES, YES, NO]


def test_a_zero_advantage_still_has_a_loss(turns: Turns, credit: Credit, responses: list[ResponseTokens]) -> None:
    """KL and entropy run over the same mask, so it must not be read off the advantages."""
    nothing = Credit(low_BT=np.zeros((2, 3)), high_BT=np.zeros((2, 3)), switch_BT=np.zeros((2, 3)))
    for before, after in zip(spread(credit, turns, responses), spread(nothing, turns, responses), strict=True):
        np.testing.assert_array_equal(before.mask, after.mask)
        assert not after.advantages.any()


def test_without_decisions_every_token_answers_for_its_turn(turns: Turns, responses: list[ResponseTokens]) -> None:
    credit = Credit.of_responses(turns, np.array([[1.0, 2.0, 3.0], [4.0, 0.0, 0.0]]))
    responses[2] = response(0, 0, [A, A])  # no form is asked for
    spread_out = spread(credit, turns, responses)
    assert [set(row.advantages.tolist()) for row in spread_out] == [{3.0}, {4.0}, {1.0}, {2.0}]
    assert all(row.mask.all() for row in spread_out)


def test_tokens_with_advantages_of_their_own(turns: Turns, responses: list[ResponseTokens]) -> None:
    turns = replace(turns, tokens_BT=np.array([[3, 7, 9], [4, 0, 0]]))  # the lengths of the responses
    token_BK = np.where(turns.token_mask_BK, np.arange(19) + 100 * np.arange(2)[:, None], 0.0)
    credit = Credit.of_responses(turns, np.zeros((2, 3)), token_BK=token_BK)
    third, other, first, second = spread(credit, turns, responses)
    assert first.advantages.tolist() == [0, 1, 2]
    assert second.advantages.tolist() == [3, 4, 5, 6, 7, 8, 9]
    assert third.advantages.tolist() == list(range(10, 19))
    assert other.advantages.tolist() == [100, 101, 102, 103]
    assert all(row.mask.all() for row in (first, second, third, other))

    with pytest.raises(ValueError, match="episode 0, turn 1: credit for 7 tokens, 6 were sampled"):
        spread(credit, turns, [*responses[:3], response(0, 1, [A] * 6)])
    broken = replace(credit, token_BK=np.where(token_BK == 5, np.nan, token_BK))
    with pytest.raises(ValueError, match=r"episode 0, turn 1: credit\.token_BK is NaN or infinite"):
        spread(broken, turns, responses)


def test_the_same_as_token_by_token() -> None:
    rng = np.random.default_rng(0)
    turns = random_turns(rng, 12, 15)
    credit = HAE()(turns)
    responses = [
        response(b, t, [*sorted([1, 2, 3, *rng.integers(1, 4, rng.integers(0, 30))]), 0], bool(rng.random() < 0.8))
        for b, t in np.argwhere(turns.mask_BT).tolist()
    ]
    rng.shuffle(responses)
    for row, tokens in zip(responses, spread(credit, turns, responses), strict=True):
        at = row.episode, row.turn
        for kind, advantage, has_loss in zip(row.kinds, tokens.advantages, tokens.mask, strict=True):
            expected: float | None
            if not row.valid or kind == A:
                expected = credit.low_BT[at]
            elif kind == W:
                expected = credit.switch_BT[at]
            elif kind == G and turns.boundary_BT[at]:
                expected = credit.high_BT[at]
            else:
                expected = None
            assert has_loss == (expected is not None)
            assert advantage == (expected or 0.0)


def test_a_kept_subgoal_may_have_no_tokens(turns: Turns, credit: Credit, responses: list[ResponseTokens]) -> None:
    responses[3] = response(0, 1, [W, A])
    assert spread(credit, turns, responses)[3].advantages.tolist() == [32, 12]


@pytest.mark.parametrize(
    ("row", "wrong", "message"),
    [
        (0, {"kinds": np.array([1, 2, 3])}, "turn 2: 3 kinds for 9 sampled tokens"),
        (0, {"length": 8}, "turn 2: 9 kinds for 8 sampled tokens"),
        (2, {"kinds": np.array([1, 2, 4])}, "turn 0: kinds from 1 to 4, known are 0 to 3"),
        (2, {"kinds": np.array([-1, 2, 3])}, "turn 0: kinds from -1 to 3"),
        (1, {"kinds": np.array([0, 0, 0, 9])}, "episode 1, turn 0: kinds from 0 to 9"),
        (2, {"kinds": np.array([1.0, 2.0, 3.0])}, "turn 0: kinds must be a row of integers, got float64"),
        (2, {"kinds": np.array([[1, 2, 3]])}, r"turn 0: kinds must be a row of integers, got int64 of shape \(1, 3\)"),
        (1, {"kinds": np.array([], dtype=np.int8), "length": 0}, "episode 1, turn 0 has no tokens"),
        (2, {"kinds": np.array([1, 2, 0])}, "turn 0 is valid but has no action tokens"),
        (2, {"kinds": np.array([0, 2, 3])}, "turn 0 is valid but has no switch tokens"),
        (2, {"kinds": np.array([1, 0, 3])}, "turn 0 is valid but has no subgoal tokens"),
        (2, {"kinds": np.array([2, 1, 3])}, "turn 0 is valid but its decisions are not in the order"),
        (1, {"valid": True}, "episode 1, turn 0 is valid but has no switch tokens"),
        (2, {"episode": 2}, "episode 2, turn 0 lies outside the 2 episodes of up to 3 turns"),
        (2, {"turn": -1}, "turn -1 lies outside"),
        (1, {"turn": 1}, "episode 1, turn 1 answers a turn that was not played"),
        (2, {"turn": 1}, "episode 0, turn 1 is there twice"),
    ],
)
def test_misaligned_responses_are_refused(
    turns: Turns, credit: Credit, responses: list[ResponseTokens], row: int, wrong: dict[str, Any], message: str
) -> None:
    responses[row] = replace(responses[row], **wrong)
    with pytest.raises(ValueError, match=message):
        spread(credit, turns, responses)


def test_every_played_turn_must_be_answered(turns: Turns, credit: Credit, responses: list[ResponseTokens]) -> None:
    with pytest.raises(ValueError, match=r"1 played turns have no response; the first is \(episode, turn\) \[0, 1\]"):
        spread(credit, turns, responses[:-1])
    with pytest.raises(ValueError, match="4 played turns have no response"):
        spread(credit, turns, [])


@pytest.mark.parametrize("field", ["low_BT", "high_BT", "switch_BT"])
def test_misaligned_credit_is_refused(
    turns: Turns, credit: Credit, responses: list[ResponseTokens], field: str
) -> None:
    wrong: dict[str, Any] = {field: np.zeros((2, 2))}
    with pytest.raises(ValueError, match=rf"credit.{field} has shape \(2, 2\), the turns have \(2, 3\)"):
        spread(replace(credit, **wrong), turns, responses)
    broken = getattr(credit, field).copy()
    broken[0, 1] = np.nan
    with pytest.raises(ValueError, match=rf"credit.{field} is NaN or infinite at \(episode, turn\) \[0, 1\]"):
        spread(replace(credit, **{field: broken}), turns, responses)
