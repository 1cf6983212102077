"""None"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from helpers.made import unstamped
from hiper.advantages import ESTIMATORS, GRPO, HAE, TokenGAE, TurnGAE
from hiper.advantages.hae import SwitchForm
from hiper.analysis.report import choose_sample, read_report, write_report
from hiper.analysis.stored import Stored, read_stored, stored_turns
from hiper.commands.report import report_run
from hiper.config import Config
from hiper.display.console import Display
from hiper.display.plots import Curve, Estimate, draw_learning_curve
from hiper.episode import Credit, Episode, write_episodes
from hiper.errors import UserError
from hiper.runs.folder import Run

MakeEpisode = Callable[..., Episode]


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Run:
    return Run.open(shutil.copytree(tiny_run, tmp_path / "tiny"))


def test_the_report_of_a_run(run: Run):
    report = read_report(run)
    write_report(report)
    assert [iteration for iteration, _ in report.training] == [1, 2]
    assert [e.iteration for e in report.evaluations["held_out"]] == [0, 1, 2]
    text = (run.path / "report.md").read_text()
    assert text.startswith("# tiny, seed 0\n")
    before, after = report.evaluations["held_out"][0].overall, report.evaluations["held_out"][-1].overall
    assert f"{after.success:.1%}" in text
    assert f"{before.success:.1%}" in text
    assert f"{100 * (after.success - before.success):+.1f} points" in text
    assert "sha256 fe4548bf7efb" in text
    for part in ("| locked |", "| unlocked |", "](curve.png)", "subgoal: find the", "`checkpoints/iter-00002/policy`"):
        assert part in text
    assert all(Path(place).exists() for place, _ in report.places())
    with Image.open(run.path / "curve.png") as image:
        assert image.width > 1000


def test_the_curve_is_drawn_anew_when_results_have_come(run: Run):
    card = run.card(2, "held_out")
    for changed in (run.metrics_file, card):
        run.curve_file.unlink(missing_ok=True)
        write_report(read_report(run))
        drawn = run.curve_file.stat().st_mtime_ns
        write_report(read_report(run))
        assert run.curve_file.stat().st_mtime_ns == drawn
        os.utime(changed, ns=(drawn + 1_000_000, drawn + 1_000_000))
        write_report(read_report(run))
        assert run.curve_file.stat().st_mtime_ns > drawn
        os.utime(changed, ns=(drawn - 1_000_000_000, drawn - 1_000_000_000))


def test_the_report_on_a_terminal(run: Run):
    out = StringIO()
    report_run(run, Display(console=Console(file=out, width=100)))
    shown = out.getvalue()
    for part in ("tiny, seed 0", "held out: held_out", "unlocked", "subgoal: find the", "report.md", "the settings"):
        assert part in shown


def test_scores_are_shown_where_they_say_more_than_success(run: Run):
    assert "score" not in read_report(run).tables()[0].headings
    card = unstamped(run.card(2, "held_out").read_text())
    for outcome in card["outcomes"].values():
        outcome["score"] = 0.625
    run.card(2, "held_out").write_text(json.dumps(card))
    (_, headings, (overall, *_), *_) = read_report(run).tables()[0]
    assert overall[headings.index("score")] == "0.625"
    for iteration in (0, 1):
        run.card(iteration, "held_out").unlink()
    (_, headings, (overall, *_), *_) = read_report(run).tables()[0]
    assert headings == ["task type", "tasks", "after 2 iterations", "score", "turns"]
    assert overall[3] == "0.625"


def test_a_run_that_was_stopped_after_its_first_evaluation(run: Run):
    for card in (run.card(1, "held_out"), run.card(2, "held_out"), run.path / "metrics.jsonl"):
        card.unlink()
    text = read_report(run).markdown()
    assert "A change of" not in text
    assert "0 iterations" in text


def test_a_run_without_an_evaluation(run: Run):
    shutil.rmtree(run.path / "evaluations")
    with pytest.raises(UserError, match=r"no evaluation yet; continue it with: hiper train --resume"):
        read_report(run)


@pytest.mark.parametrize("content", ["{half", "{}", '{"outcomes": {"all": {}}}', "[]"])
def test_a_damaged_card_is_named(run: Run, content: str):
    run.card(1, "held_out").write_text(content)
    with pytest.raises(UserError, match=r"eval-00001-held_out\.json is not a readable result card"):
        read_report(run)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"card": 1}, r"eval-00001-held_out\.json is a result card of version 1, and this hiper reads version 3"),
        ({"won_by_task": "1"}, "won_by_task of 'all' contradicts its episodes and won"),
        ({"won_by_task": "2" * 8}, "won_by_task of 'all' contradicts its episodes and won"),
    ],
)
def test_a_card_of_another_version_or_at_odds_with_itself_is_named(run: Run, change: dict[str, object], reason: str):
    card = unstamped(run.card(1, "held_out").read_text())
    changed = card if "card" in change else card["outcomes"]["all"]
    changed |= change
    run.card(1, "held_out").write_text(json.dumps(card))
    with pytest.raises(UserError, match=reason):
        read_report(run)


def test_a_card_from_before_it_told_of_tasks_is_named_by_its_version(run: Run):
    card = unstamped(run.card(1, "held_out").read_text()) | {"card": 1}
    del card["outcomes"]["all"]["won_by_task"]
    run.card(1, "held_out").write_text(json.dumps(card))
    with pytest.raises(UserError, match="of version 1, and this hiper reads version 3"):
        read_report(run)


def test_the_sample_is_won_and_rich_in_subgoals(make_episode: MakeEpisode):
    lost = make_episode("SWITCH a > x", "SWITCH b > y", "SWITCH c > z", won=False)
    plain = make_episode("SWITCH a > x", "SWITCH a > y", "SWITCH a > y", "SWITCH a > y")
    long = make_episode("SWITCH a > x", "SWITCH b > y", "KEEP > z")
    short = make_episode("SWITCH a > x", "SWITCH b > y")
    assert choose_sample([lost, plain, long, short]) == short
    assert choose_sample([lost]) == lost
    assert choose_sample([]) is None


def test_a_curve_of_two_splits_and_no_training(tmp_path: Path):
    held_out = {split: [Estimate(0, 0.2, 0.1, 0.3)] for split in ("valid_seen", "valid_unseen")}
    draw_learning_curve(tmp_path / "curve.png", Curve("title", [], held_out))
    assert (tmp_path / "curve.png").stat().st_size > 5_000


# --- Stored episodes give estimators what they saw in training, and what they would have seen -------------------------


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
