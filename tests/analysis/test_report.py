from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from helpers.made import unstamped
from hiper.analysis.report import choose_sample, read_report, write_report
from hiper.commands.report import report_run
from hiper.display.console import Display
from hiper.display.plots import Curve, Estimate, draw_learning_curve
from hiper.episode import Episode
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
