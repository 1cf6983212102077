"""Runs with outcomes set by hand: sorted into methods, compared, or refused."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from rich.console import Console

from helpers.made import unstamped
from hiper.analysis.comparison.comparison import compare
from hiper.analysis.comparison.paired import crossed_mean
from hiper.analysis.comparison.report import LEGEND, markdown, notes, tables
from hiper.analysis.comparison.traces import read_trace
from hiper.commands.compare import compare_runs
from hiper.display.console import Display
from hiper.episode import read_episodes
from hiper.errors import UserError
from hiper.outcomes import summarize, wilson
from hiper.runs.folder import Run
from hiper.runs.metrics import SUCCESS

MakeRun = Callable[..., Run]


@pytest.fixture
def make_run(tiny_run: Path, tmp_path: Path) -> MakeRun:
    """A run like the tiny one, of another seed and with settings changed, in which every n-th held-out task was won."""

    def make(name: str, seed: int, every: int, **sections: dict[str, Any]) -> Run:
        path = shutil.copytree(tiny_run, tmp_path / f"{name}-{seed}-{len(list(tmp_path.iterdir()))}")
        tree = yaml.safe_load((path / "config.yaml").read_text()) | {"name": name, "seed": seed}
        for section, changes in sections.items():
            tree[section] = changes if "type" in changes else tree[section] | changes
        (path / "config.yaml").write_text(yaml.safe_dump(tree))
        run = Run.open(path)
        file, card = run.evaluation_episodes(2, "held_out"), run.card(2, "held_out")
        played = read_episodes(file)
        episodes = [dataclasses.replace(e, won=n % every == 0, score=1.0) for n, e in enumerate(played)]
        outcomes = {name: dataclasses.asdict(outcome) for name, outcome in summarize(episodes).items()}
        card.write_text(json.dumps(unstamped(card.read_text()) | {"outcomes": outcomes}))
        return run

    return make


def compared(*runs: Run) -> Any:
    return compare([read_trace(run) for run in runs])


def edit_card(run: Run, iteration: int, section: str, **changes: Any) -> None:
    file = run.card(iteration, "held_out")
    card = unstamped(file.read_text())
    card[section] |= changes
    file.write_text(json.dumps(card))


def test_outcomes_over_seeds(make_run: MakeRun):
    runs = [make_run("a", 0, 1), make_run("a", 1, 2), make_run("b", 0, 2), make_run("b", 1, 2)]
    a, b = compared(*runs).results["held_out"]
    tasks = a.tasks
    half = math.ceil(tasks / 2) / tasks
    assert (a.method, a.seeds, b.method) == ("a", (0, 1), "b")
    assert a.success == pytest.approx((1 + half) / 2)
    assert a.by_seed == pytest.approx((1, half))
    assert b.success == pytest.approx(half)
    assert a.interval[0] < a.success < a.interval[1]
    assert a.paired is None
    assert b.paired is not None
    assert b.paired.difference == pytest.approx((half - 1) / 2)
    assert b.paired.p is not None
    assert b.paired.p > 0.4  # one seed is worse, the other equal
    discordant = tasks - math.ceil(tasks / 2)
    assert discordant <= 13
    assert b.paired.p_tasks == pytest.approx(2 / 2**discordant)
    assert b.paired.p_holm == b.paired.p
    assert a.by_type["all"] == pytest.approx(a.success)
    assert set(a.by_type) == {"all", "locked", "unlocked"}


def test_differences_by_task_type_are_those_of_its_tasks(make_run: MakeRun):
    every = {("a", 0): 1, ("a", 1): 2, ("b", 0): 2, ("b", 1): 3}
    runs = [make_run(name, seed, n) for (name, seed), n in every.items()]
    comparison = compared(*runs)
    a, b = comparison.results["held_out"]
    types = [episode.task_type for episode in read_episodes(runs[0].evaluation_episodes(2, "held_out"))]
    assert a.paired_by_type == {}
    assert sorted(b.paired_by_type) == sorted(set(types)) == ["locked", "unlocked"]
    (by_type,) = (table for table in tables(comparison) if table.title == "held_out: against a, by task type")
    for name, cell in by_type.rows:
        of_type = [n for n, task_type in enumerate(types) if task_type == name]
        won = {key: [float(n % of == 0) for n in of_type] for key, of in every.items()}
        apart = np.array([[x - y for x, y in zip(won["b", s], won["a", s], strict=True)] for s in (0, 1)])
        assert b.paired_by_type[name] == crossed_mean(apart)
        low, high = crossed_mean(apart).interval
        assert cell == f"{100 * apart.mean():+.1f} ± {100 * (high - apart.mean()):.1f}"
        assert low < apart.mean() < 0


def test_one_run_gets_wilsons_interval(make_run: MakeRun):
    (result,) = compared(make_run("a", 0, 2)).results["held_out"]
    assert result.interval == wilson(math.ceil(result.tasks / 2), result.tasks)


def test_only_common_seeds_are_paired(make_run: MakeRun):
    _, b, c = compared(make_run("a", 0, 1), make_run("b", 0, 2), make_run("b", 1, 1), make_run("c", 1, 1)).results[
        "held_out"
    ]
    assert b.paired is not None
    assert b.paired.seeds == 1
    assert c.paired is None


def test_curves_are_means_with_the_worst_and_the_best_seed(make_run: MakeRun):
    runs = [make_run("a", 0, 1), make_run("a", 1, 2)]
    (method,) = compared(*runs).methods
    points = method.held_out("held_out")
    assert [(p.iteration, p.episodes) for p in points] == [(0, 0), (1, 16), (2, 32)]
    (tasks,) = {
        evaluations[-1].overall.episodes for trace in method.traces for evaluations in trace.evaluations.values()
    }
    half = math.ceil(tasks / 2) / tasks
    assert (points[-1].mean, points[-1].low, points[-1].high) == pytest.approx(((1 + half) / 2, half, 1.0))
    seconds = [record["time/iteration"] for record in runs[0].metrics() if SUCCESS.name in record]
    assert points[-1].minutes == pytest.approx(sum(seconds) / 60)
    assert [p.iteration for p in method.training(SUCCESS.name)] == [1, 2]
    assert method.training("no such metric") == []


def test_replaced_episodes_count_as_played(make_run: MakeRun):
    run = make_run("a", 0, 1)
    file = run.path / "metrics.jsonl"
    records = [unstamped(line) for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps(r | {"group/episodes_played": 20.0}) + "\n" for r in records))
    assert read_trace(run).effort(2)[0] == 40


def test_methods_of_one_name_are_told_apart_by_their_settings(make_run: MakeRun):
    runs = [make_run("a", 0, 1), make_run("a", 1, 1), make_run("a", 0, 1, learner={"lr": 0.5})]
    labels = [method.label for method in compared(*runs).methods]
    assert labels == ["a, learner.lr 0.001", "a, learner.lr 0.5"]


def test_labels_say_no_more_than_tells_apart(make_run: MakeRun):
    """Estimators differ in many settings; which they are is enough, as far as it is."""
    hae = make_run("a", 0, 1)
    other = make_run("a", 0, 1, learner={"lr": 0.5, "epochs": 3})
    grpo = make_run("a", 0, 1, advantages={"type": "grpo"}, rollout={"group_size": 2})
    assert [m.label for m in compared(hae, grpo).methods] == ["a, advantages.type hae", "a, advantages.type grpo"]
    labels = [method.label for method in compared(hae, other, grpo).methods]
    assert [label.count(", ") for label in labels] == [2, 2, 2]
    assert len(set(labels)) == 3


def test_a_warm_start_for_each_seed_is_no_difference(make_run: MakeRun):
    runs = [make_run("a", s, 1, model={"path": f"/studies/x/warm-starts/seed{s}"}) for s in (0, 1)]
    assert [method.seeds for method in compared(*runs).methods] == [[0, 1]]


def test_a_run_is_not_counted_twice(make_run: MakeRun):
    with pytest.raises(UserError, match="the same settings and the same seed, 3"):
        compared(make_run("a", 3, 1), make_run("a", 3, 2))


@pytest.mark.parametrize(
    ("iteration", "section", "change"),
    [
        (2, "panel", {"sha256": "0" * 64}),
        (1, "panel", {"sha256": "0" * 64}),
        (2, "environment", {"version": "99"}),
        (2, "environment", {"max_turns": 99}),
    ],
)
def test_other_tasks_are_refused(make_run: MakeRun, iteration: int, section: str, change: dict[str, Any]):
    one, other = make_run("a", 0, 1), make_run("b", 0, 1)
    compared(one, other)
    edit_card(other, iteration, section, **change)
    with pytest.raises(UserError, match="on held_out they played different tasks") as refused:
        compared(one, other)
    assert str(one.path) in str(refused.value)
    assert str(other.path) in str(refused.value)


def test_seeds_of_one_method_have_come_equally_far(make_run: MakeRun):
    one, other = make_run("a", 0, 1), make_run("a", 1, 1)
    assert compared(one, other).results["held_out"][0].iterations == 2
    other.card(2, "held_out").unlink()
    with pytest.raises(UserError, match=r"seeds of one method.* after 2 and 1 iterations"):
        compared(one, other)


def test_what_differs_about_the_environment_is_said(make_run: MakeRun):
    a, b = make_run("a", 0, 1), make_run("b", 0, 1, env={"reward": 3.0})
    assert compared(a, make_run("c", 0, 1)).differences == []
    (said,) = compared(a, b).differences
    assert said == "methods differ in env.reward (a: None, b: 3.0)"


def test_unequal_terms_are_said(make_run: MakeRun):
    a, b = make_run("a", 0, 1), make_run("b", 0, 1, evaluation={"temperature": 0.5}, learner={"epochs": 3})
    assert compared(a, b).differences == [
        "methods differ in learner.epochs (a: 1, b: 3)",
        "methods differ in evaluation.temperature (a: 0.4, b: 0.5)",
    ]


def test_unfinished_runs_are_said(make_run: MakeRun):
    a, b = make_run("a", 0, 1), make_run("b", 0, 1)
    b.card(2, "held_out").unlink()
    assert compared(a, b).differences == ["b is not finished: it was last evaluated after 1 of 2 iterations"]
    b.set_diverged("the loss is not a number")
    assert compared(a, b).differences == [
        "b is not finished: it was last evaluated after 1 of 2 iterations, and diverged"
    ]


def test_the_shorter_of_two_seeds_is_to_be_continued_unless_it_diverged(make_run: MakeRun):
    longer, shorter = make_run("a", 0, 1), make_run("a", 1, 2)
    shorter.card(2, "held_out").unlink()
    with pytest.raises(UserError, match="2 and 1 iterations: continue the shorter one with hiper train --resume"):
        compared(longer, shorter)
    shorter.set_diverged("the loss is not a number")
    with pytest.raises(UserError, match="2 and 1 iterations: leave out the shorter one, which diverged"):
        compared(longer, shorter)


def test_cards_settings_and_metrics_are_all_that_is_read(make_run: MakeRun):
    run = make_run("a", 0, 3)
    before = compared(run).to_json()
    for folder in ("episodes", "checkpoints", "tensorboard"):
        shutil.rmtree(run.path / folder)
    assert compared(run).to_json() == before


def test_alarms_are_told(make_run: MakeRun, tmp_path: Path):
    runs = [make_run("a", seed, 1) for seed in (0, 1)]
    assert notes(compared(*runs)) == []
    file = runs[1].path / "metrics.jsonl"
    records = [unstamped(line) for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps(r | {"alarm/switch_rate": 1.0, "alarm/kl": 0.0}) + "\n" for r in records))
    assert notes(compared(*runs)) == ["note: alarms rang while a trained: switch_rate (1 of 2 runs)"]


def test_times_of_unlike_machines_are_said(make_run: MakeRun):
    one, other = make_run("a", 0, 1), make_run("b", 0, 1, training={"threads": 16})
    assert compared(one, other).differences == [
        "runs differ in training.threads (1, 16): their minutes are of unlike machines"
    ]


def test_runs_that_are_missing_are_said(make_run: MakeRun):
    runs = [make_run("a", 0, 1), make_run("a", 1, 1), make_run("b", 1, 1)]
    comparison = compare([read_trace(run) for run in runs], missing=["b-seed0 is missing: it failed"])
    assert comparison.differences == [
        "methods differ in seeds (a: 0, 1; b: 1): success is over all of each, differences over common ones",
        "b-seed0 is missing: it failed",
    ]


def test_before_is_before_training_and_on_the_same_tasks(make_run: MakeRun):
    run = make_run("a", 0, 1)
    assert compared(run).results["held_out"][0].before is not None
    edit_card(run, 0, "panel", sha256="0" * 64)
    assert compared(run).results["held_out"][0].before is None
    run.card(0, "held_out").unlink()
    comparison = compared(run)
    assert comparison.results["held_out"][0].before is None
    assert "| a | 1 | 2 | - |" in markdown(comparison, "figure.png")


def test_metrics_that_are_missing_or_damaged_are_refused(make_run: MakeRun):
    """Else all evaluations would come after as many episodes, none."""
    run = make_run("a", 0, 1)
    file = run.path / "metrics.jsonl"
    lines = file.read_text().splitlines()
    file.unlink()
    with pytest.raises(UserError, match=r"metrics\.jsonl lacks 2 of the 2 iterations .*, the first of them 1"):
        compared(run)
    damaged = next(n for n, line in enumerate(lines) if SUCCESS.name in line)
    file.write_text("\n".join([*lines[:damaged], lines[damaged][:40], *lines[damaged + 1 :]]))
    with pytest.raises(UserError, match=rf"metrics\.jsonl:{damaged + 1} is damaged"):
        compared(run)


def test_points_of_fewer_tasks_are_known(make_run: MakeRun):
    run = make_run("a", 0, 1)
    card = unstamped(run.card(1, "held_out").read_text())
    overall = card["outcomes"]["all"]
    tasks, fewer = overall["episodes"], overall["won_by_task"][:-1]
    overall |= {"episodes": len(fewer), "won": fewer.count("1"), "won_by_task": fewer}
    run.card(1, "held_out").write_text(json.dumps(card))
    (method,) = compared(run).methods
    assert [point.tasks for point in method.held_out("held_out")] == [tasks, tasks - 1, tasks]


def test_a_study_may_be_moved(make_run: MakeRun):
    runs = [make_run("a", s, 1, model={"path": f"/{place}/warm-starts/seed{s}"}) for s, place in ((0, "x"), (1, "y/z"))]
    assert [method.seeds for method in compared(*runs).methods] == [[0, 1]]


def test_other_splits_are_refused(make_run: MakeRun):
    one, other = make_run("a", 0, 1), make_run("b", 0, 1)
    for file in (other.path / "evaluations").iterdir():
        file.rename(file.with_name(file.name.replace("held_out", "elsewhere")))
    for file in (other.path / "episodes").glob("eval-*"):
        file.rename(file.with_name(file.name.replace("held_out", "elsewhere")))
    with pytest.raises(UserError, match="only one was evaluated on"):
        compared(one, other)


def test_a_run_without_evaluation_is_refused(make_run: MakeRun):
    run = make_run("a", 0, 1)
    shutil.rmtree(run.path / "evaluations")
    with pytest.raises(UserError, match="holds no evaluation yet; continue it"):
        compared(run)
    run.set_diverged("the loss is not a number: begin a new run")
    with pytest.raises(UserError, match="holds no evaluation yet: the loss is not a number: begin a new run"):
        compared(run)


def test_the_command_shows_and_writes(make_run: MakeRun, tmp_path: Path):
    out, folder = StringIO(), tmp_path / "out"
    runs = [make_run("a", 0, 1), make_run("a", 1, 2), make_run("b", 0, 3), make_run("b", 1, 3)]
    found = compare_runs(runs, folder, Display(console=Console(file=out, width=160)))
    for part in ("sha256 fe4548bf7efb", "against a, on the same tasks and seeds", "unlocked", "comparison.md"):
        assert part in out.getvalue()
    tree = json.loads((folder / "comparison.json").read_text())
    assert tree["results"]["held_out"][1]["success"] == found.results["held_out"][1].success
    assert [p["iteration"] for p in tree["methods"]["b"]["held_out"]["held_out"]] == [0, 1, 2]
    assert tree["methods"]["a"]["runs"] == [str(run.path) for run in runs[:2]]
    with Image.open(folder / "comparison.png") as image:
        assert image.width > 1500
    document = (folder / "comparison.md").read_text()
    assert document.startswith("# a, b\n")
    assert "](comparison.png)" in document
    outcome = found.results["held_out"][1]
    cells = next(line.split(" | ") for line in document.splitlines() if line.startswith("| b | 2 | 2 |"))
    assert f"{outcome.before:.1%}" == cells[3]
    assert f"{outcome.success:.1%}" == cells[4]
    assert outcome.paired is not None
    assert f"| b | 2 | {100 * outcome.paired.difference:+.1f} |" in document
    assert LEGEND in document
    assert "| learner.lr |" not in document


def test_the_document_says_what_methods_differ_in(make_run: MakeRun):
    runs = [make_run("a", 0, 1), make_run("b", 0, 1, learner={"lr": 0.5})]
    assert "| learner.lr | 0.001 | 0.5 |" in markdown(compared(*runs), "figure.png")
