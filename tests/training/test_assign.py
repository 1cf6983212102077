"""From episodes to training rows, with credit worked by hand or asked of the estimator directly."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from helpers.made import episode, scored, turn
from hiper.advantages import GRPO, HAE, Credit, Estimator, Shaping, TokenGAE, TurnGAE, Turns
from hiper.episode import Episode, Turn
from hiper.models.actor_critic import HEADS
from hiper.rows import Row, Scores
from hiper.training.assign import Assigned, assign_credit, rows_of, switch_probability, turns_of

NO_SHAPING = Shaping(invalid_penalty=0.0, keep_penalty=0.0, consistency_penalty=0.0)
VALUES = [(0.5, 0.25, -0.5), (1.0, 3.0, 0.75), (2.0, -1.0, 0.5), (0.0, 1.0, 2.0), (1.5, 0.5, 0.25)]

EPISODES = [
    # Switch, keep, switch: won at the third turn.
    episode(turn(), turn(switch=False), turn(reward=10.0)),
    # A first turn that says KEEP and still is a boundary, then an invalid one; out of time.
    episode(
        turn(switch=False, boundary=True),
        turn(switch=False, boundary=False, invalid="missing_block", kinds=(0,) * 10, low_index=None, action=""),
        won=False,
    ),
]


def scores_of(episodes: list[Episode]) -> list[Scores]:
    turns = [t for e in episodes for t in e.turns]
    return [scored(t, *values) for t, values in zip(turns, VALUES, strict=True)]


def assigned(shaping: Shaping = NO_SHAPING, estimator: HAE | None = None) -> Assigned:
    return assign_credit(EPISODES, scores_of(EPISODES), shaping, estimator or HAE())


def test_rows_are_turns_in_order():
    ids, logprobs = tuple(range(10, 20)), (-0.5,) * 10
    assert rows_of(EPISODES) == [Row((7, 8, 9), ids, low, logprobs) for low in (4, 4, 4, 4, None)]
    assert [row.row for row in assigned().rows] == rows_of(EPISODES)


def test_credit_by_hand():
    """gamma = lambda_turn = 1, lambda_seg = 0.95; segments are turns 0-1 and 2, and the second episode as a whole."""
    rows = assigned().rows
    # Executor: the first segment is followed by V_high(2) = -1; the second ends with 10.
    low = [-1.0 - 0.5, -1.0 - 1.0, 10.0 - 2.0]
    # Planner: delta_1 = 10 - V_high(2) = 11; delta_0 = 0 + V_high(2) - V_high(0) = -1.25.
    high = [-1.25 + 0.95 * 11.0, 0.0, 11.0]
    # Switch: what follows the segment, minus V_switch.
    switch = [-1.0 + 0.5, -1.0 - 0.75, 10.0 - 0.5]
    for t in range(3):
        expected = [switch[t]] * 2 + [high[t]] * 3 + [low[t]] * 4 + [0.0]
        np.testing.assert_allclose(rows[t].advantages, expected, rtol=1e-6)
        # Nothing is learned from a copied subgoal, nor from tokens beside the blocks.
        assert rows[t].mask.tolist() == [True] * 2 + [t != 1] * 3 + [True] * 4 + [False]
    np.testing.assert_allclose(rows[2].targets, [10.0, 10.0, 10.0])
    np.testing.assert_allclose(rows[0].targets, [-1.0, 0.25 + high[0], -1.0], rtol=1e-6)
    assert [row.target_mask.tolist() for row in rows[:3]] == [[True, True, True], [True, False, True], [True] * 3]


def test_a_truncated_episode_goes_on_being_worth_something():
    rows = assigned().rows
    # Truncated at turn 1: V_low there stands for the future, so A_low(1) = 0, and A_low(0) = V_low(1) - V_low(0).
    np.testing.assert_allclose(rows[4].advantages, 0.0)
    np.testing.assert_allclose(rows[3].advantages[5:9], 1.5 - 0.0)
    ended = assigned(estimator=HAE(bootstrap_truncated=False)).rows
    np.testing.assert_allclose(ended[4].advantages, -1.5)


def test_all_tokens_of_an_invalid_response_answer_for_the_turn():
    row = assigned(dataclasses.replace(NO_SHAPING, invalid_penalty=-0.5), HAE(bootstrap_truncated=False)).rows[4]
    assert row.mask.all()
    np.testing.assert_allclose(row.advantages, -0.5 - 1.5)
    assert row.row.low_index is None


@pytest.mark.parametrize("thinking", [True, False])
def test_thoughts_are_credited_with_the_action_or_not_at_all(thinking: bool):
    """The same turns, each with two thoughts before it, and one that is nothing but thoughts."""

    def thoughtful(turns: tuple[Turn, ...]) -> list[Turn]:
        return [
            dataclasses.replace(
                t,
                response_ids=(1, 2, *t.response_ids),
                logprobs=(-0.25, -0.25, *t.logprobs),
                kinds=(4, 4, *t.kinds),
                low_index=None if t.low_index is None else t.low_index + 2,
            )
            for t in turns
        ]

    episodes = [dataclasses.replace(e, turns=tuple(thoughtful(e.turns))) for e in EPISODES]
    lost = dataclasses.replace(episodes[1].turns[1], kinds=(4,) * 12, invalid="unclosed_thinking")
    episodes[1] = dataclasses.replace(episodes[1], turns=(episodes[1].turns[0], lost))
    rows = assign_credit(episodes, scores_of(episodes), NO_SHAPING, HAE(), thinking=thinking).rows
    low = [-1.5, -2.0, 8.0, 1.5, 0.0]  # as in the tests above
    for row, plain, a_low in zip(rows[:4], assigned().rows, low, strict=False):
        assert row.mask.tolist() == [thinking] * 2 + plain.mask.tolist()
        np.testing.assert_allclose(row.advantages, [a_low * thinking] * 2 + plain.advantages.tolist())
        np.testing.assert_allclose(row.targets, plain.targets)
    assert rows[4].mask.tolist() == [thinking] * 12


def test_what_was_said_of_the_subgoal_is_not_read_from_thoughts():
    """An invalid response pays for KEEP if its answer says KEEP, whatever its thoughts say."""
    shaping = Shaping(invalid_penalty=0.0, keep_penalty=-0.3, consistency_penalty=0.0)
    thoughts, keep = "<think><switch>KEEP</switch></think>", "<switch>KEEP</switch>"
    said = [(thoughts, ""), (thoughts, keep), ("<think>" + keep, "")]
    lost = [
        turn(text=t + answer, thinking=len(t), invalid="missing_block", boundary=n == 0, switch=False, low_index=None)
        for n, (t, answer) in enumerate(said)
    ]
    rewards = assign_credit([episode(*lost)], [scored(t) for t in lost], shaping, HAE()).rewards
    assert rewards.total_BT[0].tolist() == [0.0, -0.3, 0.0]


def test_the_estimator_gets_the_episodes_as_they_are():
    seen: list[Turns] = []

    class Watched(HAE):
        def __call__(self, turns: Turns) -> Credit:
            seen.append(turns)
            return super().__call__(turns)

    assign_credit(EPISODES, scores_of(EPISODES), NO_SHAPING, Watched())
    (turns,) = seen
    assert turns.mask_BT.tolist() == [[True, True, True], [True, True, False]]
    assert turns.boundary_BT.tolist() == [[True, False, True], [True, False, False]]
    assert turns.said_switch_BT is not None
    assert turns.said_switch_BT.tolist() == [[True, False, True], [False, False, False]]
    assert turns.terminated_B.tolist() == [True, False]
    assert turns.reward_BT.tolist() == [[0.0, 0.0, 10.0], [0.0, 0.0, 0.0]]
    for name, h in zip(HEADS, range(3), strict=True):
        first = [VALUES[n][h] for n in range(3)]
        second = [VALUES[3][h], VALUES[4][h], 0.0]
        np.testing.assert_allclose(getattr(turns, f"v_{name}_BT"), [first, second])


def test_rewards_are_shaped_by_what_was_said():
    shaping = Shaping(invalid_penalty=-0.1, keep_penalty=-0.3, consistency_penalty=-0.7)
    strayed = episode(turn(), turn(switch=False, copy_differs=True), turn(switch=False, invalid="inadmissible_action"))
    scores = [scored(t) for t in strayed.turns]
    parts = assign_credit([strayed], scores, shaping, HAE()).rewards.parts()
    assert {name: part[0].tolist() for name, part in parts.items()} == {
        "environment": [0.0, 0.0, 0.0],
        "invalid": [0.0, 0.0, 0.0],  # an action that is not understood is a wrong decision, not a wrong form
        "keep": [0.0, -0.3, -0.3],
        "consistency": [0.0, -0.7, 0.0],
    }


@pytest.mark.parametrize(
    ("text", "keep"), [("<switch>KEEP</switch><action>", -0.3), ("<switch>SWITCH</switch>", 0.0), ("go", 0.0)]
)
def test_an_invalid_response_that_keeps_is_not_cheaper_than_a_valid_one(text: str, keep: float):
    shaping = Shaping(invalid_penalty=-0.1, keep_penalty=-0.3, consistency_penalty=-0.7)
    invalid = {"invalid": "missing_block", "low_index": None, "action": "", "copy_differs": False}
    played = episode(turn(), turn(switch=False, boundary=False, text=text, **invalid))
    parts = assign_credit([played], [scored(t) for t in played.turns], shaping, HAE()).rewards.parts()
    assert {name: part[0, 1] for name, part in parts.items()} == {
        "environment": 0.0, "invalid": -0.1, "keep": keep, "consistency": 0.0
    }  # fmt: skip


def test_the_value_gap_form_trains_no_switch_head():
    rows = assigned(estimator=HAE(switch_form="value-gap")).rows
    assert not any(row.target_mask[2] for row in rows)
    beta = 0.25  # two switch tokens, each with probability one half
    np.testing.assert_allclose(rows[0].advantages[:2], (1 - beta) * (0.25 - 0.5))
    np.testing.assert_allclose(rows[1].advantages[:2], (0 - (1 - beta)) * (3.0 - 1.0))


@pytest.mark.parametrize(
    ("fields", "probability"),
    [({"switch": True}, 0.25), ({"switch": False}, 0.75), ({"invalid": "missing_block"}, 0.5)],
)
def test_switch_probability(fields: dict[str, object], probability: float):
    said = turn(**fields)  # type: ignore[arg-type]
    assert switch_probability(said, scored(said).logprobs) == pytest.approx(probability)


def judged(estimator: Estimator, values: list[list[float]], shaping: Shaping = NO_SHAPING) -> Assigned:
    """With a critic that says ``values``, a list per turn."""
    turns = [t for e in EPISODES for t in e.turns]
    scores = [
        dataclasses.replace(scored(t), values=np.array(said, dtype=np.float32))
        for t, said in zip(turns, values, strict=True)
    ]
    return assign_credit(EPISODES, scores, shaping, estimator)


def test_turn_level_credit_by_hand():
    done = judged(TurnGAE(normalize=False), [[0.5], [1.0], [2.0], [0.0], [1.5]])
    # Returns 10 and, for a truncated episode that is not bootstrapped, 0.
    for row, advantage, target in zip(done.rows, (9.5, 9.0, 8.0, 0.0, -1.5), (10, 10, 10, 0, 0), strict=True):
        np.testing.assert_allclose(row.advantages, advantage)
        assert row.mask.all()
        assert row.targets.tolist() == [target]
        assert row.target_mask.all()
    credit = done.episodes[0].credit
    assert credit is not None
    assert {name for name in credit.series if not name.startswith("reward/")} == {
        "value/turn",
        "advantage/low",
        "logprob/token",
    }


def test_token_level_credit_by_hand():
    values = [[float(n)] * 9 + [n + 0.5] for n in range(5)]
    done = judged(TokenGAE(normalize=False, lambda_token=0.0), values)
    # One step ahead: nothing within a turn but half a unit at last, and half a unit more to the next turn's value.
    np.testing.assert_allclose(done.rows[0].advantages, [0.0] * 8 + [0.5, 0.5])
    np.testing.assert_allclose(done.rows[2].advantages, [0.0] * 8 + [0.5, 10.0 - 2.5])
    np.testing.assert_allclose(done.rows[4].advantages, [0.0] * 8 + [0.5, -4.5])
    np.testing.assert_allclose(done.rows[4].targets, [4.0] * 8 + [4.5, 0.0])
    assert all(row.target_mask.all() and row.mask.all() and len(row.targets) == 10 for row in done.rows)
    credit = done.episodes[1].credit
    assert credit is not None
    assert credit.series["value/token"] == tuple(values[3] + values[4])
    assert len(credit.series["advantage/token"]) == 20
    assert credit.series["advantage/low"] == pytest.approx((0.1, -0.4))  # means over the turns


def test_without_a_critic_nothing_is_regressed():
    done = judged(GRPO(scale=False), [[]] * 5, Shaping(invalid_penalty=-0.5, keep_penalty=0.0, consistency_penalty=0.0))
    # One group, as task and seed are equal: scores 10, 10, 10, 0 and -0.5, mean 5.9.
    for row, advantage in zip(done.rows, (4.1, 4.1, 4.1, -5.9, -6.4), strict=True):
        np.testing.assert_allclose(row.advantages, advantage, rtol=1e-6)
        assert row.mask.all()
        assert row.targets.shape == row.target_mask.shape == (0,)
    assert done.turns.group_B is not None
    assert done.turns.group_B.tolist() == [0, 0]


def test_groups_are_tasks_with_a_seed():
    others = [dataclasses.replace(EPISODES[0], seed=1), EPISODES[1], dataclasses.replace(EPISODES[0], task_id="b")]
    turns, _ = turns_of([*EPISODES, *others], NO_SHAPING, {}, [0.5] * 13)
    assert turns.group_B is not None
    assert turns.group_B.tolist() == [0, 0, 1, 0, 2]
    assert turns.tokens_BT is not None
    assert turns.tokens_BT[1].tolist() == [10, 10, 0]


def test_episodes_carry_their_credit():
    done = assigned(Shaping())
    assert [e.task_id for e in done.episodes] == [e.task_id for e in EPISODES]
    credit = done.episodes[1].credit
    assert credit is not None
    assert set(credit.series) == {
        *(f"value/{name}" for name in HEADS),
        *(f"advantage/{name}" for name in HEADS),
        *(f"reward/{part}" for part in ("environment", "invalid", "keep", "consistency")),
        "logprob/token",
    }
    assert {len(series) for name, series in credit.series.items() if name != "logprob/token"} == {2}  # its turns
    learned = np.concatenate([score.logprobs for score in scores_of(EPISODES)[3:]])  # the turns of the second episode
    assert credit.series["logprob/token"] == pytest.approx(tuple(learned.tolist()), abs=1e-6)
    assert credit.series["value/high"] == (1.0, 0.5)
    assert credit.series["reward/invalid"] == (0.0, -0.1)
    assert EPISODES[1].credit is None  # they are copies


# --- Refusals -------------------------------------------------------------------------------------------------------


def misaligned(change: str) -> list[Scores]:
    scores = scores_of(EPISODES)
    row = scores[2].row
    match change:
        case "missing":
            return scores[:-1]
        case "swapped":  # with a row of the same length
            other = dataclasses.replace(row, response_ids=row.response_ids[::-1])
            return [*scores[:2], dataclasses.replace(scores[2], row=other), *scores[3:]]
        case "prompt":
            other = dataclasses.replace(row, prompt_ids=(7, 8))
            return [*scores[:2], dataclasses.replace(scores[2], row=other), *scores[3:]]
        case "short":
            return [*scores[:2], dataclasses.replace(scores[2], logprobs=scores[2].logprobs[:-1]), *scores[3:]]
    raise AssertionError(change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("missing", "4 scores for 5 turns"),
        ("swapped", "turn 2: the tokens scored are not the tokens sampled"),
        ("prompt", "turn 2: the tokens scored are not the tokens sampled"),
        ("short", "turn 2: 10 tokens sampled, 10 log-probabilities, 10 kinds, 9 scored"),
    ],
)
def test_scores_of_other_tokens_are_refused(change: str, message: str):
    with pytest.raises(ValueError, match=message):
        assign_credit(EPISODES, misaligned(change), NO_SHAPING, HAE())


def test_kinds_of_another_length_are_refused():
    crooked = episode(turn(kinds=(1, 2, 3)))
    with pytest.raises(ValueError, match="10 tokens sampled, 10 log-probabilities, 3 kinds"):
        assign_credit([crooked], [scored(crooked.turns[0])], NO_SHAPING, HAE())


def test_log_probabilities_of_another_length_are_refused():
    crooked = episode(turn(logprobs=(-0.5,) * 9))
    with pytest.raises(ValueError, match="10 tokens sampled, 9 log-probabilities"):
        assign_credit([crooked], [scored(crooked.turns[0])], NO_SHAPING, HAE())
