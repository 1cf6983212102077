from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hiper.display.plots import Curve, Estimate, draw_learning_curve
from hiper.episode import Episode
from hiper.outcomes import summarize, wilson

MakeEpisode = Callable[..., Episode]


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        # By hand, with z = 1.959964 and z^2 = 3.841459: centre (p + z^2/2n) / (1 + z^2/n), half width
        # z sqrt(p(1-p)/n + z^2/4n^2) / (1 + z^2/n).
        (0, 10, 0.0, 0.277533),  # z^2 / (n + z^2)
        (10, 10, 0.722467, 1.0),
        (5, 10, 0.236593, 0.763407),
        (8, 10, 0.490162, 0.943318),
        (1, 1, 0.206549, 1.0),
        (50, 100, 0.403832, 0.596168),
    ],
)
def test_wilson_by_hand(successes: int, trials: int, low: float, high: float):
    assert wilson(successes, trials) == pytest.approx((low, high), abs=1e-6)


def test_wilson_mirrors():
    low, high = wilson(3, 17)
    assert wilson(14, 17) == pytest.approx((1 - high, 1 - low))


def test_wilson_holds_the_proportion_itself():
    for trials in range(1, 700):
        for successes in {0, 1, trials // 3, trials - 1, trials}:
            low, high = wilson(successes, trials)
            assert 0.0 <= low <= successes / trials <= high <= 1.0
        assert wilson(0, trials)[0] == 0.0
        assert wilson(trials, trials)[1] == 1.0


@pytest.mark.parametrize("won", [0, 300])
def test_a_curve_of_nothing_or_all_is_drawn(won: int, tmp_path: Path):
    estimate = Estimate(0, won / 300, *wilson(won, 300))
    draw_learning_curve(tmp_path / "curve.png", Curve("title", [], {"held_out": [estimate]}))
    assert (tmp_path / "curve.png").stat().st_size > 1000


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (3, 2), (-1, 2)])
def test_wilson_refuses_the_impossible(successes: int, trials: int):
    with pytest.raises(ValueError, match="trials"):
        wilson(successes, trials)


def test_outcomes_by_task_type(make_episode: MakeEpisode):
    lost = make_episode("SWITCH a > b", "KEEP > c", "KEEP > d", won=False, task_type="cool")
    stumbled = replace(lost, turns=(replace(lost.turns[0], invalid="cut_off"), *lost.turns[1:]))
    outcomes = summarize([make_episode("SWITCH a > b", task_type="heat"), lost, stumbled])
    assert list(outcomes) == ["all", "cool", "heat"]
    overall, cool = outcomes["all"], outcomes["cool"]
    assert (overall.episodes, overall.won, overall.truncated) == (3, 1, 2)
    assert overall.success == overall.score == pytest.approx(1 / 3)
    assert overall.interval == wilson(1, 3)
    assert overall.turns == pytest.approx(7 / 3)
    assert overall.invalid == {"cut_off": pytest.approx(1 / 7)}
    assert cool.invalid == {"cut_off": pytest.approx(1 / 6)}
    assert (cool.episodes, cool.won) == (2, 0)
    assert (overall.won_by_task, cool.won_by_task, outcomes["heat"].won_by_task) == ("100", "00", "1")
    assert not any(outcome.graded for outcome in outcomes.values())


def test_scores_beside_success(make_episode: MakeEpisode):
    partly = replace(make_episode("SWITCH a > b", won=False), score=0.5)
    overall = summarize([make_episode("SWITCH a > b"), partly])["all"]
    assert (overall.success, overall.score) == (0.5, 0.75)
    assert overall.graded


def test_parts_of_the_score_are_averaged_where_there_are_any(make_episode: MakeEpisode):
    bought = [
        replace(make_episode("SWITCH a > b"), parts={"type": 1.0, "price": 1.0}),
        replace(make_episode("SWITCH a > b", won=False), score=0.25, parts={"type": 0.5, "price": 0.0, "options": 0.5}),
    ]
    overall = summarize([*bought, make_episode("SWITCH a > b", won=False)])["all"]
    assert overall.parts == {"options": 0.5, "price": 0.5, "type": 0.75}
