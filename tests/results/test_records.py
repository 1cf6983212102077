"""Published tables follow from the records they are published with; run by `make test-records`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from hiper.analysis.comparison.comparison import Comparison, compare
from hiper.analysis.comparison.report import markdown
from hiper.analysis.comparison.traces import Trace, read_trace
from hiper.evaluation.evaluate import evaluate
from hiper.evaluation.saved import SavedPolicy
from hiper.runs.cards import Card
from hiper.runs.records import RECORDS, PackedRuns, pack, read_archive, unpack
from hiper.study.sweep import SweepReport

of_records = pytest.mark.records
"""A test that runs where records change, not in every loop."""

RESULTS = Path(__file__).parents[2] / "results"
DOCUMENT = RESULTS.parent / "docs" / "results.md"
STUDIES = sorted(file.parent for file in RESULTS.glob(f"*/{RECORDS}"))
NAMES = [study / name for study in STUDIES for name in read_archive(study / RECORDS)]
"""Where the packed files would lie, if they were not packed."""
TUNINGS = [file for file in NAMES if file.name == "tuning.json"]
SWEEPS = [file for file in NAMES if file.name == "sweep.json"]
WHOLE = [study / "comparison.json" for study in STUDIES if study / "comparison.json" in NAMES]
"""Comparisons that are no point of a sweep."""
COMPARISONS = [file for file in NAMES if file.name == "comparison.json"]

Records = Callable[[Path], PackedRuns]
Record = Callable[[Path, str], Trace]
Text = Callable[[Path], str]


@pytest.fixture(scope="module")
def records() -> Iterator[Records]:
    """Unpacks a study's records, once."""
    with ExitStack() as stack:
        unpacked: dict[Path, PackedRuns] = {}

        def of(study: Path) -> PackedRuns:
            if study not in unpacked:
                unpacked[study] = stack.enter_context(unpack(study / RECORDS))
            return unpacked[study]

        yield of


@pytest.fixture(scope="module")
def record(records: Records) -> Record:
    """A run in the folder of a comparison or a tuning."""

    def read(folder: Path, name: str) -> Trace:
        study = next(study for study in STUDIES if folder.is_relative_to(study))
        (run,) = records(study).at(PurePosixPath((folder / "runs" / name).relative_to(study).as_posix()))
        return read_trace(run)

    return read


@pytest.fixture(scope="module")
def text(records: Records) -> Text:
    """The content of a published file, packed or not."""

    def read(file: Path) -> str:
        study = next(study for study in STUDIES if file.is_relative_to(study))
        return (file if file.exists() else records(study).folder / file.relative_to(study)).read_text()

    return read


@of_records
def test_there_are_some():
    assert len(STUDIES) >= 3
    assert TUNINGS
    assert COMPARISONS
    assert SWEEPS
    assert WHOLE


@of_records
@pytest.mark.parametrize("file", TUNINGS, ids=lambda file: str(file.parent.relative_to(RESULTS)))
def test_a_tuning_is_that_of_its_records(file: Path, record: Record, text: Text):
    numbers: Counter[str] = Counter()
    for trial in json.loads(text(file))["trials"]:
        trace = record(file.parent, f"{trial['method']}-trial{numbers[trial['method']]}-seed100")
        numbers[trial["method"]] += 1
        assert trial["settings"] == {"learner.lr": trace.config.learner.lr}
        assert [evaluations[-1].overall.success for evaluations in trace.evaluations.values()] == [trial["success"]]


def recomputed(file: Path, record: Record, text: Text) -> Comparison:
    """A comparison that is published, made anew from its records."""
    methods = json.loads(text(file))["methods"].values()
    return compare([record(file.parent, Path(run).name) for method in methods for run in method["runs"]])


@of_records
@pytest.mark.parametrize("file", COMPARISONS, ids=lambda file: str(file.parent.relative_to(RESULTS)))
def test_a_comparison_is_that_of_its_records(file: Path, record: Record, text: Text):
    comparison = recomputed(file, record, text)
    stored, again = rounded(text(file)), rounded(json.dumps(comparison.to_json()))
    assert again["panels"] == stored["panels"]
    assert again["results"] == stored["results"]
    assert text(file.with_suffix(".md")) == markdown(comparison, file.with_suffix(".png").name)


@of_records
@pytest.mark.parametrize("file", SWEEPS, ids=lambda file: file.parent.name)
def test_a_sweep_is_that_of_its_comparisons(file: Path, record: Record, text: Text):
    stored = rounded(text(file))
    values = next(iter(stored["success"].values()))
    points = {value: file.parent / f"{stored['setting']}={value}" for value in values}
    comparisons = {value: recomputed(point / "comparison.json", record, text) for value, point in points.items()}
    report = SweepReport.of(stored["setting"], comparisons)
    assert rounded(json.dumps(report.to_json())) == stored
    assert report.markdown("sweep.png") == file.with_suffix(".md").read_text()


@of_records
@pytest.mark.parametrize("file", [*WHOLE, *SWEEPS], ids=lambda file: file.parent.name)
def test_the_document_shows_the_tables_of_a_study(file: Path):
    told = set(DOCUMENT.read_text().splitlines())
    held_out = file.with_suffix(".md").read_text().partition("## training")[0]
    tables = [line for line in held_out.splitlines() if line.startswith("| ")]
    assert tables
    assert [line for line in tables if line not in told] == []


@of_records
@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_records_can_be_packed_again(study: Path, records: Records, tmp_path: Path):
    packed = records(study)
    published = read_archive(study / RECORDS)
    runs = [run for name in packed.names for run in packed.at(name)]
    kept = {file.relative_to(packed.folder).as_posix() for run in runs for file in run.record_files}
    documents = [packed.folder / name for name in published if name not in kept]
    pack(runs, packed.folder, tmp_path / RECORDS, documents)
    again = read_archive(tmp_path / RECORDS)
    assert list(again.items()) == list(published.items())


@of_records
@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_every_card_is_read_and_would_be_written_unchanged(study: Path, records: Records, tmp_path: Path):
    cards = sorted(records(study).folder.rglob("evaluations/*.json"))
    assert len(cards) > 40
    for file in cards:
        Card.read(file).write(tmp_path / "card.json")
        written = json.loads((tmp_path / "card.json").read_text())
        # What cards have held since: nothing was set of the first two, and the other is made when a card is written.
        assert written.pop("prompt", {}) == {}
        assert written["sampling"].pop("choose", "anything") == "anything"
        written.pop("crc32")
        assert json.dumps(written, indent=2) + "\n" == file.read_text()


def rounded(text: str) -> Any:
    """JSON, its numbers rounded: other versions of libraries may differ in the last digits."""
    return json.loads(text, parse_float=lambda number: round(float(number), 9))


# --- The published records were tested as they are; the tests themselves take longer and run by `make test-records` ---


ROOT = Path(__file__).parents[2]


def test_the_records_were_tested_since_they_changed():
    command = [sys.executable, str(ROOT / "tools" / "records.py"), "stamp", "--check"]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr


@pytest.mark.parametrize("file", sorted(ROOT.glob(f"results/*/{RECORDS}")), ids=lambda file: file.parent.name)
def test_published_settings_are_still_understood(file: Path):
    """Whatever happens to the tree of settings."""
    with unpack(file) as packed:
        (run,) = packed.at(packed.names[0])
        assert run.evaluations()
        assert run.shown_path == file / packed.names[0]


# --- Policies that ship can be played, and their cards are of these very weights ------------------------------------


PUBLISHED = Path(__file__).parents[2] / "results"
POLICIES = sorted(path.parent for path in PUBLISHED.glob("*/policy"))


def test_there_are_published_policies():
    assert POLICIES


@pytest.mark.parametrize("folder", POLICIES, ids=lambda path: path.name)
def test_a_policy_that_ships_plays(folder: Path):
    without_data = ["env.data=generated"]
    saved = SavedPolicy.open(folder / "policy", overrides=without_data)
    agent = saved.load(1.0).agent
    played = evaluate(saved.env("train"), agent, tasks=4, slots=4, seed=0)
    assert len(played.episodes) == 4
    assert any(turn.format_valid for episode in played.episodes for turn in episode.turns)


@pytest.mark.parametrize("folder", POLICIES, ids=lambda path: path.name)
def test_its_card_is_of_its_weights(folder: Path):
    hashes = {SavedPolicy.open(folder / "policy").load().weights.sha256()}
    cards = [
        text for name, text in read_archive(PUBLISHED / "cards.tar.xz").items() if name.startswith(f"{folder.name}/")
    ]
    assert hashes & {json.loads(card).get("weights_sha256") for card in cards}
