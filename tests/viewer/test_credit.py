"""Credit that is shown: equal to the estimators called directly, under the run's settings and under others."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from hiper.advantages import Credit, TurnGAE, Turns
from hiper.analysis.credit.report import credit_report, estimators_for
from hiper.analysis.stored import read_stored
from hiper.errors import UserError
from hiper.runs.folder import Run
from hiper.viewer.app import Library
from hiper.viewer.credit import controls, disputes, lay_out
from hiper.viewer.episodes import Lines


def shown(run: Path, number: int, file: str = "iter-00002", **changes: Any) -> dict[str, dict[str, Any]]:
    answer = Library(run).credit_of(run.name, file, number, changes)
    return {estimator["title"]: estimator for estimator in answer["estimators"]}


def array(numbers: Any) -> Any:
    return np.array(numbers, dtype=float)  # None becomes NaN


@pytest.mark.parametrize("number", [0, 7])
def test_it_is_what_the_report_says(tiny_run: Path, number: int):
    report = credit_report(Run.open(tiny_run), 2)
    told = shown(tiny_run, number)
    assert {title for title, e in told.items() if "why_not" not in e} == set(report.opinions)
    first = sum(len(e.turns) for e in report.episodes[:number])
    for title, opinion in report.opinions.items():
        for t, tokens in enumerate(told[title]["tokens"]):
            np.testing.assert_allclose(array(tokens), opinion.token_K_of(first + t), atol=1e-5)


@pytest.mark.parametrize("changes", [{"gamma": 0.5}, {"lambda_turn": 0.0, "lambda_seg": 0.3}, {"normalize": True}])
def test_settings_by_hand_are_those_of_the_estimator(tiny_run: Path, changes: dict[str, Any]):
    stored, config = read_stored(Run.open(tiny_run), 2), Run.open(tiny_run).config
    told = shown(tiny_run, 3, **changes)
    hae = dataclasses.replace(estimators_for(config)["HAE"], **changes)
    credit, length = hae(stored.turns), len(stored.episodes[3].turns)
    for decision, advantage_BT in (("switch", credit.switch_BT), ("action", credit.low_BT)):
        np.testing.assert_allclose(array(told["HAE"]["decisions"][decision]), advantage_BT[3, :length], atol=1e-5)
    boundaries = stored.turns.boundary_BT[3, :length]
    subgoals = array(told["HAE"]["decisions"]["subgoal"])
    np.testing.assert_allclose(subgoals[boundaries], credit.high_BT[3, :length][boundaries], atol=1e-5)
    assert np.isnan(subgoals[~boundaries]).all()


def test_a_setting_reaches_every_estimator_that_has_it(tiny_run: Path):
    before, after = shown(tiny_run, 1), shown(tiny_run, 1, gamma=0.3)
    moved = {t for t in before if "decisions" in before[t] and before[t]["decisions"] != after[t]["decisions"]}
    by_name = {c["name"]: c for c in controls(estimators_for(Run.open(tiny_run).config))}
    assert moved <= set(by_name["gamma"]["of"])
    assert {"HAE", "turn GAE", "REINFORCE++"} <= moved
    # What tells the forms of HAE apart cannot be changed.
    assert not {"switch_form", "time_scales"} & set(by_name)
    assert by_name["statistics"]["choices"] == ["turns", "episodes"]


@pytest.mark.parametrize(
    "changes", [{"gamma": 2.0}, {"gamma": "<b>"}, {"gamma": True}, {"normalize": 1}, {"switch_form": "none"}, {"x": 1}]
)
def test_impossible_settings_are_refused(tiny_run: Path, changes: dict[str, Any]):
    with pytest.raises(UserError):
        shown(tiny_run, 0, **changes)


def test_values_and_return_are_those_of_the_episode(tiny_run: Path):
    run = Run.open(tiny_run)
    episode = list(run.episodes(2))[5]
    values = Library(tiny_run).credit_of(tiny_run.name, "iter-00002", 5, {"gamma": 0.5})["values"]
    assert episode.credit is not None
    series = episode.credit.series
    for name in ("low", "high", "switch"):
        assert values[name] == pytest.approx(series[f"value/{name}"], abs=1e-5)
    rewards = [
        sum(series[f"reward/{part}"][t] for part in ("environment", "invalid", "keep", "consistency"))
        for t in range(len(episode.turns))
    ]
    by_hand = [sum(r * 0.5**n for n, r in enumerate(rewards[t:])) for t in range(len(rewards))]
    assert values["return"] == pytest.approx(by_hand, abs=1e-5)


def test_evaluations_have_credit_only_where_no_value_is_needed(tiny_run: Path):
    told = shown(tiny_run, 0, "eval-00002-held_out")
    assert {title for title, e in told.items() if "why_not" not in e} == {"REINFORCE++"}
    assert told["HAE"]["why_not"] == "the run's critic has no values for it"


def test_disputes_are_the_reports(tiny_run: Path):
    report = credit_report(Run.open(tiny_run), 2)
    library = Library(tiny_run)
    file = library.run(tiny_run.name).episode_file("iter-00002")
    config = Run.open(tiny_run).config
    found, notes = disputes(lay_out(Lines().slim(file), config, file), config)
    assert notes == []
    most = report.disputed[0]
    assert max(apart for apart, _ in found.values()) == pytest.approx(most.apart, abs=1e-4)
    assert found[most.episode] == pytest.approx((most.apart, most.turn), abs=1e-4)


@dataclasses.dataclass(frozen=True)
class Raises(TurnGAE):
    """An estimator with a mistake in it."""

    type: ClassVar[str] = "raises"

    def __call__(self, turns: Turns) -> Credit:
        raise ZeroDivisionError("<b>no</b> credit today")


@dataclasses.dataclass(frozen=True)
class NotANumber(TurnGAE):
    """An estimator whose credit is NaN."""

    type: ClassVar[str] = "not-a-number"

    def __call__(self, turns: Turns) -> Credit:
        credit = super().__call__(turns)
        return dataclasses.replace(credit, low_BT=credit.low_BT * np.nan)


@pytest.mark.parametrize("own", [Raises(), NotANumber()])
def test_an_estimator_that_raises_leaves_the_others(tiny_run: Path, own: TurnGAE, monkeypatch: pytest.MonkeyPatch):
    shipped = estimators_for(Run.open(tiny_run).config)
    before = shown(tiny_run, 3)
    monkeypatch.setattr("hiper.viewer.credit.estimators_for", lambda _: {"own": own, **shipped})
    told = shown(tiny_run, 3)
    reason = told.pop("own")["why_not"]
    assert reason.startswith("it raised ")
    assert told == before
    library, config = Library(tiny_run), Run.open(tiny_run).config
    file = library.run(tiny_run.name).episode_file("iter-00002")
    found, notes = disputes(lay_out(Lines().slim(file), config, file), config)
    assert set(found) == set(range(16))
    assert notes == [f"'own' is not compared: {reason}"]
