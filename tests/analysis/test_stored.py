"""Stored episodes give estimators what they saw in training, and what they would have seen."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hiper.advantages import ESTIMATORS, GRPO, HAE, TokenGAE, TurnGAE
from hiper.advantages.hae import SwitchForm
from hiper.analysis.stored import read_stored, views_of
from hiper.config import Config
from hiper.episode import Credit, Episode, write_episodes
from hiper.errors import UserError
from hiper.runs.folder import Run

MakeEpisode = Callable[..., Episode]


def valued(episode: Episode, **series: list[float]) -> Episode:
    """With the values given, by head."""
    credit = Credit({f"value/{name}": tuple(numbers) for name, numbers in series.items()})
    return dataclasses.replace(episode, credit=credit)


@pytest.fixture
def episodes(make_episode: MakeEpisode) -> list[Episode]:
    """Responses of two tokens: a switch and an action, the subgoal complete with the first."""
    return [make_episode("SWITCH hall > go", "KEEP > look"), make_episode("SWITCH hall > go", won=False)]


def test_training_is_reproduced_offline(tiny_run: Path):
    """The credit that was assigned in training is what the estimator makes of the stored values and rewards."""
    run = Run.open(tiny_run)
    stored = read_stored(run, iteration=1)
    turns, estimator = stored.views["decisions"], run.config.advantages
    credit = estimator(turns)
    for b, episode in enumerate(stored.episodes):
        assert episode.credit is not None
        for name, array in (("low", credit.low_BT), ("high", credit.high_BT), ("switch", credit.switch_BT)):
            recorded = episode.credit.series[f"advantage/{name}"]
            np.testing.assert_allclose(array[b, : len(recorded)], recorded, atol=5e-6)


def test_the_newest_iteration_is_meant(tiny_run: Path):
    run = Run.open(tiny_run)
    assert read_stored(run).iteration == 2
    assert read_stored(run).episodes != read_stored(run, 1).episodes


def test_other_iterations_are_refused_with_what_there_is(tiny_run: Path, tmp_path: Path):
    with pytest.raises(UserError, match="no episodes of iteration 7; there are 1 to 2"):
        read_stored(Run.open(tiny_run), 7)
    empty = shutil.copytree(tiny_run, tmp_path / "empty", ignore=shutil.ignore_patterns("iter-*"))
    with pytest.raises(UserError, match=r"holds no training episodes yet; continue it with: hiper train --resume"):
        read_stored(Run.open(Path(empty)))


def test_what_was_replaced_was_not_learned_from(tiny_run: Path, tmp_path: Path, episodes: list[Episode]):
    copied = Run.open(Path(shutil.copytree(tiny_run, tmp_path / "run")))
    learned = [
        valued(e, low=[0.0] * len(e.turns), high=[0.0] * len(e.turns), switch=[0.0] * len(e.turns)) for e in episodes
    ]
    write_episodes(copied.training_episodes(3), [*learned, episodes[0]])
    assert len(read_stored(copied).episodes) == 2


def test_views_of_decisions(episodes: list[Episode]):
    said = [
        valued(episodes[0], low=[1, 2], high=[3, 4], switch=[5, 6]),
        valued(episodes[1], low=[7], high=[8], switch=[9]),
    ]
    views = views_of(said, Config(advantages=HAE()))
    assert set(views) == {"decisions", "turn", "token", "none"}
    assert _list(views["decisions"].v_low_BT) == [[1, 2], [7, 0]]
    assert _list(views["turn"].v_low_BT) == [[5, 6], [9, 0]]
    assert _list(views["token"].v_token_BK) == [[5, 1, 6, 2], [9, 7, 0, 0]]
    assert views["none"].v_low_BT is None


@pytest.mark.parametrize("form", ["value-gap", "none"])
def test_a_head_that_learned_nothing_is_not_read(tiny_run: Path, episodes: list[Episode], form: SwitchForm):
    """These forms give V_switch no target, so whatever it says is untrained."""
    said = [
        valued(episodes[0], low=[1, 2], high=[3, 4], switch=[5, 6]),
        valued(episodes[1], low=[7], high=[8], switch=[9]),
    ]
    views = views_of(said, Config(advantages=HAE(switch_form=form)))
    assert set(views) == {"decisions", "none"}
    assert views["decisions"].v_switch_BT is None
    assert _list(views["decisions"].v_high_BT) == [[3, 4], [8, 0]]
    stored = type(read_stored(Run.open(tiny_run)))(1, said, views)
    assert stored.why_not(HAE()) == "the run's critic learned no V_switch"
    assert stored.why_not(TurnGAE()) == "the run's critic has no values for it"
    assert stored.why_not(HAE(switch_form="value-gap")) is None


def test_views_of_tokens(episodes: list[Episode]):
    said = [valued(episodes[0], token=[1, 2, 3, 4]), valued(episodes[1], token=[5, 6])]
    views = views_of(said, Config(advantages=TokenGAE()))
    assert _list(views["token"].v_token_BK) == [[1, 2, 3, 4], [5, 6, 0, 0]]
    assert _list(views["turn"].v_low_BT) == [[1, 3], [5, 0]]
    assert _list(views["decisions"].v_low_BT) == [[2, 4], [6, 0]]
    assert _list(views["decisions"].v_switch_BT) == [[1, 3], [5, 0]]


def test_who_can_be_asked(tiny_run: Path, episodes: list[Episode]):
    stored = read_stored(Run.open(tiny_run))
    refused = {name: why for name, kind in ESTIMATORS.items() if (why := stored.why_not(kind()))}
    assert set(refused) == {"grpo", "rloo", "gigpo"}
    assert "no task was played twice" in refused["grpo"]
    said = [valued(episodes[0], low=[1, 2]), valued(episodes[1], low=[3])]
    views = views_of(said, Config(advantages=TurnGAE()))
    assert set(views) == {"turn", "none"}
    alone = type(stored)(1, said, views)
    assert alone.why_not(HAE()) == "the run's critic has no values for it"
    assert alone.why_not(GRPO()) is None  # both episodes are of one task


def _list(array: np.ndarray | None) -> list[list[float]]:
    assert array is not None
    rows: list[list[float]] = array.tolist()
    return rows
