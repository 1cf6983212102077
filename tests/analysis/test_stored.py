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
from hiper.analysis.stored import Stored, read_stored, stored_turns
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
    turns, estimator = stored.turns, run.config.advantages
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


def test_values_of_a_critic_of_decisions(episodes: list[Episode]):
    said = [
        valued(episodes[0], low=[1, 2], high=[3, 4], switch=[5, 6]),
        valued(episodes[1], low=[7], high=[8], switch=[9]),
    ]
    turns = stored_turns(said, Config(advantages=HAE()))
    assert _list(turns.v_low_BT) == [[1, 2], [7, 0]]
    assert _list(turns.v_high_BT) == [[3, 4], [8, 0]]
    assert _list(turns.v_switch_BT) == _list(turns.value_BT) == [[5, 6], [9, 0]]
    assert _list(turns.v_token_BK) == [[5, 1, 6, 2], [9, 7, 0, 0]]


@pytest.mark.parametrize("form", ["value-gap", "none"])
def test_a_head_that_learned_nothing_is_not_read(episodes: list[Episode], form: SwitchForm):
    """These forms give V_switch no target, so whatever it says is untrained."""
    said = [
        valued(episodes[0], low=[1, 2], high=[3, 4], switch=[5, 6]),
        valued(episodes[1], low=[7], high=[8], switch=[9]),
    ]
    turns = stored_turns(said, Config(advantages=HAE(switch_form=form)))
    assert turns.v_switch_BT is turns.value_BT is turns.v_token_BK is None
    assert _list(turns.v_low_BT) == [[1, 2], [7, 0]]
    assert _list(turns.v_high_BT) == [[3, 4], [8, 0]]
    stored = Stored(1, said, turns)
    assert stored.why_not(HAE()) == "the run's critic learned no V_switch"
    assert stored.why_not(TurnGAE()) == "the run's critic has no values for it"
    assert stored.why_not(HAE(switch_form="value-gap")) is None


def test_values_of_a_critic_of_tokens(episodes: list[Episode]):
    said = [valued(episodes[0], token=[1, 2, 3, 4]), valued(episodes[1], token=[5, 6])]
    turns = stored_turns(said, Config(advantages=TokenGAE()))
    assert _list(turns.v_token_BK) == [[1, 2, 3, 4], [5, 6, 0, 0]]
    assert _list(turns.value_BT) == _list(turns.v_switch_BT) == [[1, 3], [5, 0]]
    assert _list(turns.v_low_BT) == [[2, 4], [6, 0]]
    assert _list(turns.v_high_BT) == [[1, 3], [5, 0]]


@pytest.mark.parametrize("head", ["turn", "low"])
def test_values_of_a_flat_critic(episodes: list[Episode], head: str):
    """Runs from before the head `turn` stored its values as those of `low`."""
    said = [valued(episode, **{head: numbers}) for episode, numbers in zip(episodes, ([1.0, 2.0], [3.0]), strict=True)]
    turns = stored_turns(said, Config(advantages=TurnGAE()))
    assert _list(turns.value_BT) == [[1, 2], [3, 0]]
    assert turns.v_low_BT is turns.v_high_BT is turns.v_switch_BT is turns.v_token_BK is None


def test_who_can_be_asked(tiny_run: Path, episodes: list[Episode]):
    stored = read_stored(Run.open(tiny_run))
    refused = {name: why for name, kind in ESTIMATORS.items() if (why := stored.why_not(kind()))}
    assert set(refused) == {"grpo", "rloo", "gigpo"}
    assert "no task was played twice" in refused["grpo"]
    said = [valued(episodes[0], turn=[1, 2]), valued(episodes[1], turn=[3])]
    alone = Stored(1, said, stored_turns(said, Config(advantages=TurnGAE())))
    assert alone.why_not(TurnGAE()) is None
    assert alone.why_not(HAE()) == "the run's critic has no values for it"
    assert alone.why_not(GRPO()) is None  # both episodes are of one task


def _list(array: np.ndarray | None) -> list[list[float]]:
    assert array is not None
    rows: list[list[float]] = array.tolist()
    return rows
