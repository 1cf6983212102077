"""Policies that ship can be played, with cards of these very weights; figures of studies are those of their records."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from hiper.compare.comparison import compare
from hiper.compare.report import markdown
from hiper.compare.traces import Trace, read_trace
from hiper.evaluation.evaluate import evaluate
from hiper.evaluation.saved import SavedPolicy
from hiper.training.run import Run

RESULTS = Path(__file__).parents[1] / "results"
DOCUMENT = RESULTS.parent / "docs" / "results.md"
POLICIES = sorted(path.parent for path in RESULTS.glob("*/policy"))
TUNINGS = sorted(RESULTS.rglob("tuning.json"))
COMPARISONS = sorted(path for path in RESULTS.glob("*/comparison.json") if (path.parent / "runs").exists())


def test_there_are_some():
    assert POLICIES
    assert TUNINGS
    assert COMPARISONS


@pytest.mark.parametrize("folder", POLICIES, ids=lambda path: path.name)
def test_a_policy_that_ships_plays(folder: Path):
    without_data = ["env.data=generated"]
    saved = SavedPolicy.open(folder / "policy", overrides=without_data)
    agent = saved.agent(1.0)
    played = evaluate(saved.env("train"), agent, tasks=4, seed=0)
    assert len(played.episodes) == 4
    assert any(turn.format_valid for episode in played.episodes for turn in episode.turns)


@pytest.mark.parametrize("folder", POLICIES, ids=lambda path: path.name)
def test_its_card_is_of_its_weights(folder: Path):
    hashes = {SavedPolicy.open(folder / "policy").agent(1.0).sampler.weights_sha256()}
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


@pytest.mark.parametrize("file", COMPARISONS, ids=lambda file: file.parts[-2])
def test_a_comparison_is_that_of_its_records(file: Path):
    stored = json.loads(file.read_text(), parse_float=rounded)
    traces = [record(file.parent, Path(run).name) for method in stored["methods"].values() for run in method["runs"]]
    comparison = compare(traces)
    again = json.loads(json.dumps(comparison.to_json()), parse_float=rounded)
    assert again["panels"] == stored["panels"]
    assert again["results"] == stored["results"]
    document = file.with_suffix(".md").read_text()
    assert document == markdown(comparison, file.with_suffix(".png").name)
    told = set(DOCUMENT.read_text().splitlines())
    held_out = document.partition("## training")[0]
    assert [line for line in held_out.splitlines() if line.startswith("| ") and line not in told] == []


def rounded(number: str) -> float:
    """Other versions of libraries may differ in the last digits."""
    return round(float(number), 9)
