"""Published tables follow from the records they are published with; run by `make test-records`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from hiper.analysis.comparison.comparison import Comparison, compare
from hiper.analysis.comparison.report import markdown
from hiper.analysis.comparison.traces import Trace, read_trace
from hiper.runs.cards import Card
from hiper.runs.records import RECORDS, PackedRuns, pack, read_archive, unpack
from hiper.study.sweep import SweepReport

pytestmark = pytest.mark.records

RESULTS = Path(__file__).parents[2] / "results"
DOCUMENT = RESULTS.parent / "docs" / "results.md"
STUDIES = sorted(file.parent for file in RESULTS.glob(f"*/{RECORDS}"))
TUNINGS = sorted(RESULTS.rglob("tuning.json"))
COMPARISONS = sorted(path for study in STUDIES for path in study.rglob("comparison.json"))
SWEEPS = sorted(RESULTS.rglob("sweep.json"))
WHOLE = [file for file in COMPARISONS if file.parent.parent == RESULTS]
"""Those that are no point of a sweep."""

Records = Callable[[Path], PackedRuns]
Record = Callable[[Path, str], Trace]


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


def test_there_are_some():
    assert len(STUDIES) >= 3
    assert TUNINGS
    assert COMPARISONS
    assert SWEEPS
    assert WHOLE


@pytest.mark.parametrize("file", TUNINGS, ids=lambda file: str(file.parent.relative_to(RESULTS)))
def test_a_tuning_is_that_of_its_records(file: Path, record: Record):
    numbers: Counter[str] = Counter()
    for trial in json.loads(file.read_text())["trials"]:
        trace = record(file.parent, f"{trial['method']}-trial{numbers[trial['method']]}-seed100")
        numbers[trial["method"]] += 1
        assert trial["settings"] == {"learner.lr": trace.config.learner.lr}
        assert [evaluations[-1].overall.success for evaluations in trace.evaluations.values()] == [trial["success"]]


def recomputed(file: Path, record: Record) -> Comparison:
    """A comparison that is published, made anew from its records."""
    methods = json.loads(file.read_text())["methods"].values()
    return compare([record(file.parent, Path(run).name) for method in methods for run in method["runs"]])


@pytest.mark.parametrize("file", COMPARISONS, ids=lambda file: str(file.parent.relative_to(RESULTS)))
def test_a_comparison_is_that_of_its_records(file: Path, record: Record):
    comparison = recomputed(file, record)
    stored, again = rounded(file.read_text()), rounded(json.dumps(comparison.to_json()))
    assert again["panels"] == stored["panels"]
    assert again["results"] == stored["results"]
    assert file.with_suffix(".md").read_text() == markdown(comparison, file.with_suffix(".png").name)


@pytest.mark.parametrize("file", SWEEPS, ids=lambda file: file.parent.name)
def test_a_sweep_is_that_of_its_comparisons(file: Path, record: Record):
    stored = rounded(file.read_text())
    values = next(iter(stored["success"].values()))
    points = {value: file.parent / f"{stored['setting']}={value}" for value in values}
    comparisons = {value: recomputed(point / "comparison.json", record) for value, point in points.items()}
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


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_records_can_be_packed_again(study: Path, records: Records, tmp_path: Path):
    packed = records(study)
    pack([run for name in packed.names for run in packed.at(name)], packed.folder, tmp_path / RECORDS)
    again, published = read_archive(tmp_path / RECORDS), read_archive(study / RECORDS)
    assert list(again.items()) == list(published.items())


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_every_card_is_read_and_would_be_written_unchanged(study: Path, records: Records, tmp_path: Path):
    cards = sorted(records(study).folder.rglob("evaluations/*.json"))
    assert len(cards) > 40
    for file in cards:
        Card.read(file).write(tmp_path / "card.json")
        assert (tmp_path / "card.json").read_bytes() == file.read_bytes()


def rounded(text: str) -> Any:
    """JSON, its numbers rounded: other versions of libraries may differ in the last digits."""
    return json.loads(text, parse_float=lambda number: round(float(number), 9))
