"""`hiper credit` on a run: the numbers are those of the estimators, and everything is written."""

from __future__ import annotations

import dataclasses
import json
import shutil
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from hiper.advantages import GRPO, HAE, Credit, GiGPO, TokenCredit, TokenGAE, TurnGAE, Turns
from hiper.analysis.credit.figure import draw_credit
from hiper.analysis.credit.opinions import Opinion, correlations, disagreement, rank_correlation, ranks, summaries
from hiper.analysis.credit.report import CreditReport, credit_report, estimators_for
from hiper.analysis.stored import read_stored
from hiper.commands.credit import credit_parts, show_credit
from hiper.config import Config, RolloutConfig
from hiper.display.console import Display
from hiper.runs.folder import Run


@pytest.fixture(scope="module")
def report(tiny_run: Path) -> CreditReport:
    return credit_report(Run.open(tiny_run))


def test_estimators_share_what_they_have_in_common():
    run = Config(advantages=HAE(0.9, 0.8, 0.7, "value-gap", False, True))
    estimators = estimators_for(run)
    assert estimators["HAE"] == HAE(0.9, 0.8, 0.7, bootstrap_truncated=False)
    assert estimators["turn GAE"] == TurnGAE(0.9, 0.8, False, normalize=False)
    of_grpo = Config(advantages=GRPO(), rollout=RolloutConfig(group_size=2))
    assert estimators_for(of_grpo)["HAE"] == HAE()
    assert not any(getattr(e, "normalize", False) or getattr(e, "scale", False) for e in estimators.values())


def test_a_run_whose_traces_pass_boundaries_is_asked_that_way():
    estimators = estimators_for(Config(advantages=HAE(0.9, lambda_boundary=0.5)))
    assert estimators["HAE"] == HAE(0.9, lambda_boundary=0.5)
    assert estimators["HAE, one scale"] == HAE(0.9, time_scales="one")
    assert estimators["GiGPO"] == GiGPO(0.9, scale=False)


def test_the_runs_own_estimator_has_its_own_settings():
    groups = RolloutConfig(group_size=2)
    own = estimators_for(Config(advantages=GiGPO(0.9, scale=True, similarity=0.8), rollout=groups))
    assert own["GiGPO"] == GiGPO(0.9, scale=False, similarity=0.8)
    assert own["HAE"] == HAE(0.9)
    own = estimators_for(Config(advantages=TurnGAE(0.9, 0.5, False)))
    assert own["turn GAE"] == TurnGAE(0.9, 0.5, False, normalize=False)
    assert own["HAE"] == HAE(0.9, 0.5, bootstrap_truncated=False)
    own = estimators_for(Config(advantages=TokenGAE(0.9, 0.5)))
    assert own["token GAE"] == TokenGAE(0.9, 0.5, normalize=False)


def test_every_number_is_the_estimators_own(tiny_run: Path, report: CreditReport):
    stored = read_stored(Run.open(tiny_run))
    hae = estimators_for(Run.open(tiny_run).config)["HAE"](stored.turns)
    flat = estimators_for(Run.open(tiny_run).config)["turn GAE"](stored.turns)
    row = 0
    for b, episode in enumerate(stored.episodes):
        of_episode = report.of_episode(b)
        np.testing.assert_allclose(of_episode["turn GAE"], flat.low_BT[b, : len(episode.turns)])
        for t, turn in enumerate(episode.turns):
            if turn.format_valid:
                expected = {1: hae.switch_BT[b, t], 3: hae.low_BT[b, t]}
                expected |= {2: hae.high_BT[b, t]} if turn.boundary else {}
                shown = report.opinions["HAE"].token_K_of(row)
                for kind, number in zip(turn.kinds, shown, strict=True):
                    np.testing.assert_equal(number, expected.get(kind, np.nan))
            row += 1
    low = report.summaries["HAE"][2]
    assert low.variance == pytest.approx(hae.low_BT[stored.turns.mask_BT].var())


def test_who_is_left_out_is_said(report: CreditReport):
    assert set(report.left_out) == {"GRPO", "RLOO", "GiGPO"}
    assert set(report.opinions) | set(report.left_out) == set(estimators_for(Config()))


def test_the_disputed_come_first(report: CreditReport):
    apart = [disputed.apart for disputed in report.disputed]
    assert apart == sorted(apart, reverse=True)
    assert report.turn(report.shown).format_valid
    assert len(report.tokens) == len(report.turn(report.shown).response_ids)
    assert "<action>" in report.tokens


def test_everything_is_shown_and_written(tiny_run: Path, tmp_path: Path):
    screen = StringIO()
    report = show_credit(Run.open(tiny_run), tmp_path, Display(console=Console(file=screen, width=180)), iteration=1)
    text = screen.getvalue()
    for words in ("tiny, seed 0, iteration 1: 16 episodes", "Rank correlation", "disagree most", "token by token"):
        assert words in text
    assert "GRPO is left out: no task was played twice" in text
    assert (tmp_path / "credit.png").read_bytes().startswith(b"\x89PNG")
    tree = json.loads((tmp_path / "credit.json").read_text())
    assert tree["iteration"] == 1
    assert tree["rank_correlation"]["order"] == list(report.opinions)
    assert len(tree["episodes"]) == 16
    for b, episode in enumerate(tree["episodes"]):
        np.testing.assert_allclose(episode["credit"]["HAE"], report.of_episode(b)["HAE"], atol=1e-6)


def test_a_narrow_terminal_shows_every_number(tiny_run: Path, tmp_path: Path):
    """All nine estimators, as a run with groups and a critic would be asked."""
    report = credit_report(Run.open(tiny_run))
    nine = dict(zip(estimators_for(Config()), [report.opinions["HAE"]] * 9, strict=True))
    report = dataclasses.replace(
        report,
        opinions=nine,
        summaries=dict.fromkeys(nine, report.summaries["HAE"]),
        turn_correlation_EE=np.ones((9, 9)),
        token_correlation_EE=np.ones((9, 9)),
    )
    screen = StringIO()
    Display(console=Console(file=screen, width=80)).show(*credit_parts(report))
    assert "…" not in screen.getvalue()


def test_what_looks_like_mathematics_is_drawn_as_it_is(tiny_run: Path, tmp_path: Path):
    report = credit_report(Run.open(tiny_run))
    turns = tuple(dataclasses.replace(turn, action="a_$b^$") for turn in report.episodes[report.shown.episode].turns)
    episodes, at = list(report.episodes), report.shown.episode
    episodes[at] = dataclasses.replace(episodes[at], goal="search[$$ shoes]", turns=turns)
    report = dataclasses.replace(report, episodes=episodes, tokens=["$x_$"] * len(report.tokens))
    draw_credit(tmp_path / "x.png", report)
    assert (tmp_path / "x.png").stat().st_size > 10_000


def test_without_a_tokenizer_there_are_ids(tiny_run: Path, tmp_path: Path):
    copied = Path(shutil.copytree(tiny_run, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints")))
    report = credit_report(Run.open(copied))
    assert list(report.tokens) == [str(i) for i in report.turn(report.shown).response_ids]


# --- Statistics of credit, by hand and by identities ------------------------------------------------------------------


TURNS = Turns(
    mask_BT=np.array([[True, True, True], [True, False, False]]),
    reward_BT=np.zeros((2, 3)),
    boundary_BT=np.array([[True, False, True], [True, False, False]]),
    terminated_B=np.array([True, True]),
)


def opinion(*rows: tuple[list[float], list[bool]], credit: Credit | None = None) -> Opinion:
    tokens = [TokenCredit(np.array(advantages), np.array(mask)) for advantages, mask in rows]
    return Opinion(credit or Credit(*np.zeros((3, 2, 3))), tokens)


def test_turns_are_means_over_the_tokens_that_carry_credit():
    said = opinion(([1.0, 3.0, 9.0], [True, True, False]), ([-2.0], [True]), ([0.0], [False]))
    assert said.turn_N.tolist() == [2.0, -2.0, 0.0]
    np.testing.assert_array_equal(said.token_K, [1.0, 3.0, np.nan, -2.0, np.nan])


def test_summaries_of_decisions():
    credit = Credit(
        low_BT=np.array([[1.0, 2.0, 3.0], [6.0, 0.0, 0.0]]),
        high_BT=np.array([[1.0, 0.0, -1.0], [3.0, 0.0, 0.0]]),
        switch_BT=np.array([[5.0, 5.0, 5.0], [1.0, 0.0, 0.0]]),
    )
    switch, subgoal, action = summaries(opinion(credit=credit), TURNS)
    # Within episodes: 1, 2, 3 about 2 has 2 / 4; in all 1, 2, 3, 6 about 3 has 14 / 4.
    assert (action.count, action.mean, action.variance, action.positive) == (4, 3.0, 3.5, 1.0)
    assert action.within == pytest.approx(2 / 14)
    assert (subgoal.count, subgoal.mean) == (3, 1.0)
    assert subgoal.positive == pytest.approx(2 / 3)
    assert (switch.variance, switch.within) == (3.0, 0.0)
    whole = Credit.of_responses(TURNS, credit.low_BT)
    (response,) = summaries(opinion(credit=whole), TURNS)
    assert response.decision == "response"
    assert response.variance == 3.5


def test_what_is_rounding_is_nothing():
    noise = np.array([[3e-12, -2e-12, 1e-12], [0.0, 0.0, 0.0]])
    (response,) = summaries(opinion(credit=Credit.of_responses(TURNS, noise)), TURNS)
    assert (response.positive, response.variance, response.within) == (0.0, 0.0, 0.0)
    assert ranks(noise[0]).tolist() == [0.5, 0.5, 0.5]


def test_ranks_share_ties():
    assert ranks(np.array([5.0, 1.0, 5.0, 9.0])).tolist() == [0.5, 0.0, 0.5, 1.0]
    assert ranks(np.array([7.0])).tolist() == [0.5]
    assert ranks(np.array([2.0, 2.0])).tolist() == [0.5, 0.5]


def test_rank_correlation_by_hand():
    x = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    # 1 - 6 * sum of squared rank differences / (n^3 - n): differences 1, 1, 0, 1, 1.
    assert rank_correlation(x, np.array([2.0, 1.0, 3.0, 5.0, 4.0])) == pytest.approx(1 - 6 * 4 / 120)
    assert rank_correlation(x, np.exp(x)) == pytest.approx(1.0)
    assert rank_correlation(x, -(x**3)) == pytest.approx(-1.0)
    assert np.isnan(rank_correlation(x, np.ones(5)))
    gaps = np.array([1.0, np.nan, 3.0, np.nan, 0.0])
    assert rank_correlation(x, gaps) == pytest.approx(rank_correlation(x[[0, 2, 4]], gaps[[0, 2, 4]]))
    assert np.isnan(rank_correlation(x, np.full(5, np.nan)))


def test_correlations_are_symmetric_with_ones_on_the_diagonal():
    rng = np.random.default_rng(0)
    matrix = correlations({name: rng.normal(size=50) for name in "abc"})
    np.testing.assert_allclose(np.diag(matrix), 1.0)
    np.testing.assert_allclose(matrix, matrix.T)
    assert np.abs(matrix[~np.eye(3, dtype=bool)]).max() < 0.5


def test_disagreement_is_about_ranks():
    first = np.array([0.0, 1.0, 2.0, 3.0, 4.0])
    assert disagreement(np.array([first, 100 * first - 7])).tolist() == [0.0] * 5
    assert disagreement(np.array([first, -first])).tolist() == [1.0, 0.5, 0.0, 0.5, 1.0]
