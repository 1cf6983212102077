"""Policies that ship can be played, with cards of these very weights; figures of studies are those of their records."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from hiper.analysis.comparison.comparison import Comparison, compare
from hiper.analysis.comparison.report import markdown
from hiper.analysis.comparison.traces import Trace, read_trace
from hiper.evaluation.evaluate import evaluate
from hiper.evaluation.saved import SavedPolicy
from hiper.runs.folder import Run
from hiper.study.sweep import SweepReport

RESULTS = Path(__file__).parents[1] / "results"
DOCUMENT = RESULTS.parent / "docs" / "results.md"
POLICIES = sorted(path.parent for path in RESULTS.glob("*/policy"))
TUNINGS = sorted(RESULTS.rglob("tuning.json"))
COMPARISONS = sorted(path for path in RESULTS.rglob("comparison.json") if (path.parent / "runs").exists())
SWEEPS = sorted(RESULTS.rglob("sweep.json"))
WHOLE = [file for file in COMPARISONS if file.parent.parent == RESULTS]
"""Those that are no point of a sweep."""


def test_there_are_some():
    assert POLICIES
    assert TUNINGS
    assert COMPARISONS
    assert SWEEPS


@pytest.mark.parametrize("folder", POLICIES, ids=lambda path: path.name)
def test_a_policy_that_ships_plays(folder: Path):
    without_data = ["env.data=generated"]
    saved = SavedPolicy.open(folder / "policy", overrides=without_data)
    agent = saved.load()[0].at(1.0)
    played = evaluate(saved.env("train"), agent, tasks=4, slots=4, seed=0)
    assert len(played.episodes) == 4
    assert any(turn.format_valid for episode in played.episodes for turn in episode.turns)


@pytest.mark.parametrize("folder", POLICIES, ids=lambda path: path.name)
def test_its_card_is_of_its_weights(folder: Path):
    hashes = {SavedPolicy.open(folder / "policy").load()[1].sha256()}
    assert hashes & {json.loads(card.read_text()).get("weights_sha256") for card in folder.rglob("*.json")}


def record(folder: Path, name: str) -> Trace:
    return read_trace(Run.open(folder / "runs" / name))


@pytest.mark.parametrize("file", TUNINGS, ids=lambda file: file.parts[-3])
def test_a_tuning_is_that_of_its_records(file: Path):
    numbers: Counter[str] = Counter()
    for trial in json.loads(file.read_text())["trials"]:
        trace = record(file.parent, f"{trial['method']}-trial{numbers[trial['method']]}-seed100")
        numbers[trial["method"]] += 1
        assert trial["settings"] == {"learner.lr": trace.config.learner.lr}
        assert [evaluations[-1].overall.success for evaluations in trace.evaluations.values()] == [trial["success"]]


def recomputed(file: Path) -> Comparison:
    """Of a comparison that is published, from its records."""
    methods = json.loads(file.read_text())["methods"].values()
    return compare([record(file.parent, Path(run).name) for method in methods for run in method["runs"]])


@pytest.mark.parametrize("file", COMPARISONS, ids=lambda file: str(file.parent.relative_to(RESULTS)))
def test_a_comparison_is_that_of_its_records(file: Path):
    comparison = recomputed(file)
    stored, again = rounded(file.read_text()), rounded(json.dumps(comparison.to_json()))
    assert again["panels"] == stored["panels"]
    assert again["results"] == stored["results"]
    assert file.with_suffix(".md").read_text() == markdown(comparison, file.with_suffix(".png").name)


@pytest.mark.parametrize("file", SWEEPS, ids=lambda file: file.parent.name)
def test_a_sweep_is_that_of_its_comparisons(file: Path):
    stored = rounded(file.read_text())
    values = next(iter(stored["success"].values()))
    points = {value: file.parent / f"{stored['setting']}={value}" for value in values}
    comparisons = {value: recomputed(point / "comparison.json") for value, point in points.items()}
    report = SweepReport.of(stored["setting"], comparisons)
    assert rounded(json.dumps(report.to_json())) == stored
    assert report.markdown("sweep.png") == file.with_suffix(".md").read_text()


@pytest.mark.parametrize("file", [*WHOLE, *SWEEPS], ids=lambda file: file.parent.name)
def test_the_document_shows_the_tables_of_a_study(file: Path):
    told = set(DOCUMENT.read_text().splitlines())
    held_out = file.with_suffix(".md").read_text().partition("## training")[0]
    tables = [line for line in held_out.splitlines() if line.startswith("| ")]
    assert tables
    assert [line for line in tables if line not in told] == []


def rounded(text: str) -> Any:
    """JSON, its numbers rounded: other versions of libraries may differ in the last digits."""
    return json.loads(text, parse_float=lambda number: round(float(number), 9))
