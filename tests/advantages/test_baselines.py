"""Estimators without a hierarchy: by hand, against their definitions, and by identities.

Recorded numbers: `test_baselines_recorded.py`.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from helpers.slow_estimators import (
    Episode,
    Numbers,
    episodes_of,
    random_batch,
    random_turns,
    slow_gae,
    slow_gigpo,
    slow_grpo,
    slow_reinforce_pp,
    slow_rloo,
    slow_token_gae,
    whiten,
)
from hiper.advantages import (
    ESTIMATORS,
    GRPO,
    HAE,
    RLOO,
    Credit,
    Estimator,
    GiGPO,
    ReinforcePP,
    TokenGAE,
    TurnGAE,
    Turns,
)
from hiper.advantages.normalize import EPSILON, normalized, standardize
from hiper.errors import UserError

RNG = np.random.default_rng
BATCH_WIDE = (TurnGAE(), TokenGAE(), ReinforcePP())
"""What is normalised over the batch depends on every episode of it."""


def grid(numbers: Numbers, width: int) -> np.ndarray:
    return np.array([[*row, *[0.0] * (width - len(row))] for row in numbers])


def rows(lengths: list[int], **arrays: Any) -> Turns:
    """Terminated episodes of these lengths; a segment each."""
    mask = np.arange(max(lengths)) < np.array(lengths)[:, None]
    boundary = np.zeros_like(mask)
    boundary[:, 0] = True
    return Turns(mask_BT=mask, boundary_BT=boundary, terminated_B=np.ones(len(lengths), dtype=bool), **arrays)


class TestByHand:
    def test_turn_gae(self) -> None:
        turns = rows([3], reward_BT=np.array([[1.0, 0.0, 4.0]]), value_BT=np.array([[2.0, 6.0, 3.0]]))
        credit = TurnGAE(gamma=0.5, lambda_turn=0.5, normalize=False)(turns)
        # delta: 1 + 6/2 - 2 = 2; 0 + 3/2 - 6 = -4.5; 4 + 0 - 3 = 1. A trace of 1/4.
        np.testing.assert_array_equal(credit.low_BT, [[2.0 + (-4.5 + 0.25) / 4, -4.25, 1.0]])
        assert credit.return_BT is not None
        np.testing.assert_array_equal(credit.return_BT - credit.low_BT, [[2.0, 6.0, 3.0]])

    def test_turn_gae_of_a_truncated_episode(self) -> None:
        turns = rows([2], reward_BT=np.zeros((1, 2)), value_BT=np.array([[2.0, 4.0]]))
        turns = replace(turns, terminated_B=np.array([False]))
        gae = TurnGAE(gamma=0.5, lambda_turn=1.0, normalize=False)
        np.testing.assert_array_equal(gae(turns).low_BT, [[-2.0, -4.0]])  # an end: returns are zero
        # Worth 4 still: 0 + 4/2 - 4 = -2; 0 + 4/2 - 2 = 0, and half of -2.
        np.testing.assert_array_equal(replace(gae, bootstrap_truncated=True)(turns).low_BT, [[-1.0, -2.0]])

    def test_whitening_is_unbiased(self) -> None:
        turns = rows([1, 1, 1], reward_BT=np.array([[1.0], [2.0], [6.0]]), value_BT=np.zeros((3, 1)))
        # Mean 3; variance (4 + 1 + 9) / 2 = 7.
        np.testing.assert_allclose(TurnGAE()(turns).low_BT[:, 0], np.array([-2.0, -1.0, 3.0]) / 7**0.5, rtol=1e-7)

    def test_token_gae(self) -> None:
        turns = rows(
            [2],
            reward_BT=np.array([[1.0, 8.0]]),
            tokens_BT=np.array([[2, 1]]),
            v_token_BK=np.array([[1.0, 2.0, 4.0]]),
        )
        credit = TokenGAE(gamma=0.5, lambda_token=0.5, normalize=False)(turns)
        # delta: 0 + 2 - 1 = 1, without discount inside a response; 1 + 4/2 - 2 = 1; 8 - 4 = 4.
        assert credit.token_BK is not None
        np.testing.assert_array_equal(credit.token_BK, [[1 + 0.5 * 2.0, 1 + 0.25 * 4, 4.0]])
        np.testing.assert_array_equal(credit.low_BT, [[2.0, 4.0]])  # means over the turn
        assert credit.return_token_BK is not None
        np.testing.assert_array_equal(credit.return_token_BK, [[3.0, 4.0, 8.0]])

    group: dict[str, Any] = {  # noqa: RUF012
        # Episodes of two and of one turn in one group, paid 6 and 0, and the first turn charged 1.
        "reward_BT": np.array([[-1.0, 6.0], [0.0, 0.0]]),
        "penalty_BT": np.array([[-1.0, 0.0], [0.0, 0.0]]),
        "group_B": np.array([7, 7]),
    }

    def test_grpo(self) -> None:
        turns = rows([2, 1], **self.group)
        # Scores 5 and 6, and 0: mean 11/3.
        np.testing.assert_allclose(GRPO(scale=False)(turns).low_BT, [[4 / 3, 7 / 3], [-11 / 3, 0]])
        # Squares 16/9 + 49/9 + 121/9 = 62/3; over two: 31/3.
        std = (31 / 3) ** 0.5 + 1e-6
        np.testing.assert_allclose(GRPO()(turns).low_BT, np.array([[4 / 3, 7 / 3], [-11 / 3, 0]]) / std)
        # Over episodes: 6 and 0, mean 3, variance 18.
        episodes = GRPO(statistics="episodes")(turns).low_BT
        np.testing.assert_allclose(episodes, np.array([[2.0, 3.0], [-3.0, 0.0]]) / (18**0.5 + 1e-6))

    def test_a_penalty_in_a_group_without_spread(self) -> None:
        """Two lost episodes of two turns, and one of the turns is charged 0.1 for its form."""
        penalty_BT = np.array([[0.0, -0.1], [0.0, 0.0]])
        turns = rows([2, 2], reward_BT=penalty_BT, penalty_BT=penalty_BT, group_B=np.array([0, 0]))
        np.testing.assert_allclose(GRPO(statistics="episodes")(turns).low_BT, penalty_BT)
        # Over turns: mean -0.025, squares 3 * 0.025^2 + 0.075^2 = 0.0075 over 3, so a deviation of 0.05.
        expected = np.array([[0.5, -1.5], [0.5, 0.5]])
        np.testing.assert_allclose(GRPO()(turns).low_BT, expected, rtol=1e-4)
        lost = replace(turns, reward_BT=np.zeros((2, 2)), penalty_BT=np.zeros((2, 2)))
        for estimator in (GRPO(), GRPO(statistics="episodes"), GiGPO()):
            assert not estimator(replace(lost, observation_BT=np.full((2, 2), "hall"))).low_BT.any()

    def test_rloo(self) -> None:
        turns = rows([2, 1], **self.group)
        np.testing.assert_allclose(RLOO()(turns).low_BT, [[5 - 3, 6 - 2.5], [0 - 5.5, 0]])
        np.testing.assert_allclose(RLOO(statistics="episodes")(turns).low_BT, [[5 - 0, 6 - 0], [0 - 6, 0]])

    def test_a_group_of_one_has_nothing_to_compare_with(self) -> None:
        turns = rows([1], reward_BT=np.array([[3.0]]), group_B=np.array([0]))
        assert GRPO(scale=False)(turns).low_BT.item() == RLOO()(turns).low_BT.item() == 3.0
        assert GRPO()(turns).low_BT.item() == pytest.approx(3.0, rel=1e-5)

    def test_gigpo(self) -> None:
        turns = rows(
            [2, 2],
            reward_BT=np.array([[0.0, 8.0], [0.0, 0.0]]),
            group_B=np.array([0, 0]),
            observation_BT=np.array([["hall", "kitchen"], ["hall", "hall"]]),
        )
        # Episodes: 8, 8, 0, 0 about a mean of 4. Returns 4, 8 and 0, 0; in the hall 4, 0, 0 about 4/3; kitchen: alone.
        credit = GiGPO(gamma=0.5, weight=3.0, scale=False)(turns)
        np.testing.assert_allclose(credit.low_BT, [[4 + 3 * 8 / 3, 4.0], [-4 - 3 * 4 / 3, -4 - 3 * 4 / 3]])

    def test_anchors_belong_to_their_group(self) -> None:
        turns = rows(
            [1, 1, 1, 1],
            reward_BT=np.array([[1.0], [2.0], [30.0], [50.0]]),
            group_B=np.array([0, 0, 5, 5]),
            observation_BT=np.full((4, 1), "hall"),
        )
        credit = GiGPO(scale=False)(turns)
        np.testing.assert_allclose(credit.low_BT[:, 0], [-1.0, 1.0, -20.0, 20.0])

    def test_similar_anchors(self) -> None:
        seen = np.array([["a red room with a bed"], ["a red room with a bee"], ["outside"], ["a red room with a bed"]])
        turns = rows(
            [1] * 4,
            reward_BT=np.array([[0.0], [6.0], [3.0], [0.0]]),
            group_B=np.zeros(4, dtype=int),
            observation_BT=seen,
        )
        # Episodes: mean 9/4. Equal anchors: 0 and 0, the others alone. Similar ones: 0, 6, 0 about 2.
        whole = np.array([-2.25, 3.75, 0.75, -2.25])
        np.testing.assert_allclose(GiGPO(scale=False)(turns).low_BT[:, 0], whole)
        similar = GiGPO(scale=False, similarity=0.9)(turns).low_BT[:, 0]
        np.testing.assert_allclose(similar - whole, [-2.0, 4.0, 0.0, -2.0])

    @pytest.mark.parametrize(("seen", "alike"), [(("tide", "diet"), True), (("diet", "tide"), False)])
    def test_an_observation_is_compared_with_its_anchor_and_not_the_reverse(self, seen: list[str], alike: bool) -> None:
        """difflib finds a ratio of 1/2 from "diet" to "tide", and of 1/4 from "tide" to "diet"."""
        reward_BT = np.array([[0.0], [2.0]])
        turns = rows([1, 1], reward_BT=reward_BT, group_B=np.zeros(2, dtype=int), observation_BT=np.array([seen]).T)
        twice = GiGPO(scale=False, similarity=0.5)(turns).low_BT[:, 0]
        np.testing.assert_allclose(twice, [-2.0, 2.0] if alike else [-1.0, 1.0])

    def test_reinforce_pp(self) -> None:
        turns = rows([2, 1], reward_BT=np.array([[1.0, 4.0], [-2.0, 0.0]]), penalty_BT=np.array([[0, 0], [-2.0, 0]]))
        # Returns 1 + 4/2 = 3, 4 and -2: mean 5/3, squares 16/9 + 49/9 + 121/9 over 2.
        expected = np.array([[4 / 3, 7 / 3], [-11 / 3, 0.0]]) / (31 / 3) ** 0.5
        np.testing.assert_allclose(ReinforcePP(gamma=0.5)(turns).low_BT, expected, rtol=1e-7)
        unscaled = ReinforcePP(gamma=0.5, scale=False)(turns).low_BT
        np.testing.assert_allclose(unscaled, [[4 / 3, 7 / 3], [-11 / 3, 0.0]])


class TestDefinition:
    """Against `slow_baselines`."""

    @pytest.fixture(params=range(4))
    def batch(self, request: pytest.FixtureRequest) -> Turns:
        return random_batch(RNG(request.param))

    def expect(self, credit: Credit, numbers: Numbers) -> None:
        np.testing.assert_allclose(credit.low_BT, grid(numbers, credit.low_BT.shape[1]), rtol=1e-9, atol=1e-9)

    @pytest.mark.parametrize("bootstrap", [True, False])
    @pytest.mark.parametrize(("gamma", "decay"), [(1.0, 1.0), (0.9, 0.7), (1.0, 0.0)])
    def test_gae(self, batch: Turns, bootstrap: bool, gamma: float, decay: float) -> None:
        episodes = episodes_of(batch)
        plain = [slow_gae(e, gamma, decay, bootstrap) for e in episodes]
        self.expect(TurnGAE(gamma, decay, bootstrap, normalize=False)(batch), plain)
        self.expect(TurnGAE(gamma, decay, bootstrap)(batch), whiten(plain))

        of_tokens = [slow_token_gae(e, gamma, decay, bootstrap) for e in episodes]
        for normalize, expected in ((False, of_tokens), (True, whiten(of_tokens))):
            credit = TokenGAE(gamma, decay, bootstrap, normalize)(batch)
            assert credit.token_BK is not None
            np.testing.assert_allclose(credit.token_BK, grid(expected, credit.token_BK.shape[1]), atol=1e-9)
            self.expect(credit, [token_means(e, row) for e, row in zip(episodes, expected, strict=True)])

    @pytest.mark.parametrize("statistics", ["turns", "episodes"])
    def test_grpo_and_rloo(self, batch: Turns, statistics: Any) -> None:
        episodes, over_turns = episodes_of(batch), statistics == "turns"
        for scale in (True, False):
            self.expect(GRPO(scale, statistics)(batch), slow_grpo(episodes, scale, over_turns))
        self.expect(RLOO(statistics)(batch), slow_rloo(episodes, over_turns))

    @pytest.mark.parametrize("similarity", [None, 0.0, 0.95, 1.0])
    @pytest.mark.parametrize("scale", [True, False])
    def test_gigpo(self, batch: Turns, scale: bool, similarity: float | None) -> None:
        expected = slow_gigpo(episodes_of(batch), 0.8, 0.5, scale, similarity)
        self.expect(GiGPO(0.8, 0.5, scale, similarity)(batch), expected)

    def test_reinforce_pp(self, batch: Turns) -> None:
        self.expect(ReinforcePP(0.8)(batch), slow_reinforce_pp(episodes_of(batch), 0.8))


def token_means(episode: Episode, numbers: list[float]) -> list[float]:
    left = iter(numbers)
    return [float(np.mean([next(left) for _ in turn])) for turn in episode.token_values]


class TestIdentities:
    batch = random_batch(RNG(9))

    def test_one_token_a_turn_makes_tokens_turns(self) -> None:
        ones = np.ones(self.batch.mask_BT.shape, dtype=int)
        turns = replace(self.batch, tokens_BT=ones, v_token_BK=self.batch.value_BT)
        for gamma, decay, bootstrap, normalize in ((0.9, 0.7, True, False), (1.0, 1.0, False, True)):
            tokens = TokenGAE(gamma, decay, bootstrap, normalize)(turns).low_BT
            np.testing.assert_allclose(tokens, TurnGAE(gamma, decay, bootstrap, normalize)(turns).low_BT, atol=1e-10)

    def test_lambda_one_is_monte_carlo(self) -> None:
        turns = replace(self.batch, terminated_B=np.ones(len(self.batch.terminated_B), dtype=bool))
        togo = np.flip(np.cumsum(np.flip(turns.reward_BT, 1), 1), 1)
        assert turns.value_BT is not None
        expected = np.where(turns.mask_BT, togo - turns.value_BT, 0.0)
        np.testing.assert_allclose(TurnGAE(normalize=False)(turns).low_BT, expected, atol=1e-10)

    def test_one_segment_of_hae_is_turn_gae(self) -> None:
        boundary = np.zeros_like(self.batch.boundary_BT)
        boundary[:, 0] = True
        turns = replace(self.batch, boundary_BT=boundary, value_BT=self.batch.v_low_BT)
        for bootstrap in (True, False):
            flat = TurnGAE(0.9, 0.7, bootstrap, normalize=False)(turns)
            np.testing.assert_allclose(
                HAE(0.9, 0.7, bootstrap_truncated=bootstrap)(turns).low_BT, flat.low_BT, atol=1e-10
            )

    @pytest.mark.parametrize("bootstrap", [True, False])
    def test_one_time_scale_gives_all_decisions_one_return(self, bootstrap: bool) -> None:
        credit = HAE(0.9, 0.7, bootstrap_truncated=bootstrap, time_scales="one")(self.batch)
        # Against the definition: `TurnGAE` shares its recurrence with HAE.
        flat = replace(self.batch, value_BT=self.batch.v_low_BT)
        slow = [slow_gae(episode, 0.9, 0.7, bootstrap) for episode in episodes_of(flat)]
        advantage_BT = grid(slow, self.batch.mask_BT.shape[1])
        v_low_BT, v_high_BT, v_switch_BT = self.batch.v_low_BT, self.batch.v_high_BT, self.batch.v_switch_BT
        assert v_low_BT is not None
        assert v_high_BT is not None
        assert v_switch_BT is not None
        return_BT, at = advantage_BT + v_low_BT, self.batch.boundary_BT
        np.testing.assert_allclose(credit.low_BT, advantage_BT, atol=1e-10)
        np.testing.assert_allclose(credit.high_BT[at], (return_BT - v_high_BT)[at], atol=1e-10)
        np.testing.assert_allclose(credit.switch_BT, return_BT - v_switch_BT, atol=1e-10)
        # Where every turn is a segment, two scales with lambda_seg = lambda_turn and one value are one scale.
        every = replace(self.batch, boundary_BT=np.ones_like(at), v_low_BT=self.batch.v_high_BT)
        two = HAE(0.9, lambda_seg=0.7)(every).high_BT
        np.testing.assert_allclose(HAE(0.9, 0.7, time_scales="one")(every).high_BT, two, atol=1e-10)

    def test_without_switch_credit_the_rest_stays(self) -> None:
        whole, without = HAE(0.9)(self.batch), HAE(0.9, switch_form="none")(self.batch)
        np.testing.assert_array_equal(whole.low_BT, without.low_BT)
        np.testing.assert_array_equal(whole.high_BT, without.high_BT)
        assert not without.switch_BT.any()
        assert without.return_switch_BT is None

    def test_group_advantages_cancel(self) -> None:
        """Over the turns of each group, or over its episodes, without penalties."""
        turns = replace(self.batch, penalty_BT=None)
        assert turns.group_B is not None
        for number in set(turns.group_B.tolist()):
            members = turns.group_B == number
            for estimator in (GRPO(), GRPO(scale=False), RLOO(), GiGPO(), GiGPO(scale=False)):
                assert estimator(turns).low_BT[members].sum() == pytest.approx(0.0, abs=1e-9)
            assert GRPO(statistics="episodes")(turns).low_BT[members, 0].sum() == pytest.approx(0.0, abs=1e-9)

    def test_rloo_is_grpo_without_scale_times_n_over_n_minus_one(self) -> None:
        first = np.arange(7) < np.ones((12, 1))  # a turn each, four episodes a group
        ones = replace(self.batch, mask_BT=first, penalty_BT=None, v_token_BK=None)
        np.testing.assert_allclose(RLOO()(ones).low_BT, 4 / 3 * GRPO(scale=False)(ones).low_BT)

    def test_groups_do_not_touch_each_other(self) -> None:
        turns, groups = self.batch, self.batch.group_B
        assert groups is not None
        other = turns.reward_BT.copy()
        other[groups == 1] += 5.0
        for estimator in (GRPO(), RLOO(), GiGPO(), GiGPO(similarity=0.9)):
            before, after = estimator(turns).low_BT, estimator(replace(turns, reward_BT=other)).low_BT
            np.testing.assert_array_equal(before[groups != 1], after[groups != 1])

    def test_gigpo_without_weight_is_grpo(self) -> None:
        np.testing.assert_array_equal(GiGPO(weight=0.0)(self.batch).low_BT, GRPO()(self.batch).low_BT)

    def test_full_similarity_means_equality(self) -> None:
        np.testing.assert_allclose(GiGPO(similarity=1.0)(self.batch).low_BT, GiGPO()(self.batch).low_BT)

    @pytest.mark.parametrize("estimator", BATCH_WIDE, ids=lambda e: e.type)
    def test_whitened_advantages_have_mean_zero_and_variance_one(self, estimator: Estimator) -> None:
        credit = estimator(self.batch)
        used = credit.low_BT[self.batch.mask_BT]
        if credit.token_BK is not None:
            used = credit.token_BK[self.batch.token_mask_BK]
        assert used.mean() == pytest.approx(0.0, abs=1e-9)
        assert used.var(ddof=1) == pytest.approx(1.0)


@pytest.mark.parametrize("estimator", [kind() for kind in ESTIMATORS.values()], ids=ESTIMATORS)
class TestEveryEstimator:
    batch = random_batch(RNG(5))

    def test_padding_gets_nothing_and_does_not_matter(self, estimator: Estimator) -> None:
        credit = estimator(self.batch)
        for field in fields(credit):
            array = getattr(credit, field.name)
            if isinstance(array, np.ndarray):
                mask = self.batch.token_mask_BK if field.name.endswith("BK") else self.batch.mask_BT
                assert array.shape == mask.shape
                assert not array[~mask].any(), field.name
        wider = Turns(**{f.name: _widened(f.name, getattr(self.batch, f.name)) for f in fields(self.batch)})
        np.testing.assert_allclose(estimator(wider).low_BT[:, :7], credit.low_BT, atol=1e-12)

    def test_the_order_of_episodes_does_not_matter(self, estimator: Estimator) -> None:
        order = RNG(0).permutation(len(self.batch.mask_BT))
        shuffled = Turns(**{f.name: getattr(self.batch, f.name)[order] for f in fields(self.batch)})
        np.testing.assert_allclose(estimator(shuffled).low_BT, estimator(self.batch).low_BT[order], atol=1e-10)

    def test_it_says_what_it_needs(self, estimator: Estimator) -> None:
        values = tuple(head.values for head in estimator.heads)
        tokens = ("tokens_BT",) if estimator.critic == "token" else ()
        groups = ("group_B", "observation_BT") if estimator.grouped else ()
        needed = {*values, *tokens, *groups}
        optional = {f.name for f in fields(Turns) if f.default is None} - needed - {"penalty_BT"}
        nothing: dict[str, Any] = dict.fromkeys(optional)
        bare = replace(self.batch, **nothing)
        np.testing.assert_array_equal(estimator(bare).low_BT, estimator(self.batch).low_BT)
        for name in needed - {"observation_BT"}:
            missing: dict[str, Any] = {name: None}
            if name == "tokens_BT":
                continue  # values per token cannot be given without
            with pytest.raises(ValueError, match=f"needs Turns.{name}"):
                estimator(replace(self.batch, **missing))

    def test_only_hae_tells_decisions_apart(self, estimator: Estimator) -> None:
        credit = estimator(self.batch)
        assert credit.undivided == (estimator.type != "hae")
        if credit.undivided:
            np.testing.assert_array_equal(credit.switch_BT, credit.low_BT)
            np.testing.assert_array_equal(credit.high_BT, np.where(self.batch.boundary_BT, credit.low_BT, 0.0))

    def test_input_is_left_alone(self, estimator: Estimator) -> None:
        names = [f.name for f in fields(self.batch)]
        before = {name: np.copy(getattr(self.batch, name)) for name in names}
        credit = estimator(self.batch)
        credit.low_BT[:] = 7.0
        credit.switch_BT[:] = 7.0
        for name in names:
            np.testing.assert_array_equal(getattr(self.batch, name), before[name])


def _widened(name: str, array: np.ndarray) -> np.ndarray:
    """Three more turns that were not played."""
    if not name.endswith("BT"):
        return array
    return np.concatenate([array, np.zeros((len(array), 3), dtype=array.dtype)], axis=1)


@pytest.mark.parametrize(
    ("kind", "parameters", "message"),
    [
        (TurnGAE, {"gamma": 1.1}, "gamma is 1.1; it must lie between 0 and 1"),
        (TokenGAE, {"lambda_token": -1.0}, "lambda_token is -1.0"),
        (GRPO, {"statistics": "turn"}, "statistics is 'turn'; it must be one of turns, episodes"),
        (RLOO, {"statistics": "all"}, "statistics is 'all'"),
        (GiGPO, {"similarity": 1.5}, "similarity is 1.5"),
        (GiGPO, {"weight": float("inf")}, "weight is inf; it must be zero or positive"),
        (ReinforcePP, {"gamma": float("nan")}, "gamma is nan"),
        (HAE, {"time_scales": "three"}, "time_scales is 'three'; it must be one of two, one"),
    ],
)
def test_parameters_out_of_range(kind: Any, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        kind(**parameters)


def test_a_group_method_needs_observations() -> None:
    with pytest.raises(ValueError, match=r"GiGPO needs Turns\.observation_BT"):
        GiGPO()(replace(random_batch(RNG(0)), observation_BT=None))


def test_standardize_by_hand() -> None:
    mask = np.array([[True, True, False]])
    # Mean 2, population standard deviation 1; the 100 is not looked at.
    np.testing.assert_allclose(standardize(np.array([[1.0, 3.0, 100.0]]), mask), [[-1, 1, 0]], atol=2 * EPSILON)


def test_standardizing_one_constant_or_no_number_gives_zero() -> None:
    one = np.array([[True, False]])
    np.testing.assert_array_equal(standardize(np.array([[5.0, 1.0]]), one), [[0, 0]])
    np.testing.assert_array_equal(standardize(np.array([[5.0, 1.0]]), ~one & one), [[0, 0]])
    everywhere = np.ones((1, 4), dtype=bool)
    np.testing.assert_array_equal(standardize(np.full((1, 4), 5.0), everywhere), np.zeros((1, 4)))


def test_each_advantage_is_normalized_over_its_own_turns() -> None:
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
