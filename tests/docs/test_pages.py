"""What pages say of the code holds: the order of units, the data's way, measures, columns, kinds, files, studies."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import house
from hiper.config import Config, recipe_names
from hiper.plan_execute.parse import InvalidKind
from hiper.runs.folder import Run
from hiper.study.definition import study_names
from hiper.training.alarms import WATCHES
from hiper.training.progress import COLUMNS

ROOT = Path(__file__).parents[2]


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def first_table(name: str, heading: str) -> list[list[str]]:
    """The rows of the first table below a heading, without its headings."""
    part = page(name).partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = re.search(r"(^\|.*\n)+", part, re.M)
    assert lines, heading
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[0].splitlines()[2:]]


def code(text: str) -> list[str]:
    """The code in lines of a text, without its blocks of code."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))


def test_the_order_of_units():
    told = [code(row[0]) for row in first_table("architecture.md", "The order of units")]
    hidden = {"__main__", "__init__"}
    assert told == [[unit for unit in row if unit not in hidden] for row in house.ORDER]


def test_the_modules_on_the_way_of_the_data():
    rows = first_table("architecture.md", "The way of the data")
    assert len(rows) == 11
    for row in rows:
        for module in code(row[2]):
            assert find_spec(module), module


def test_the_measures_are_those_of_the_script():
    measured = house.measures(house.House(ROOT))
    told = {row[0]: row[2] for row in first_table("architecture.md", "Measured")}
    assert list(told) == list(measured)
    for name in ("top-level units in a ring of imports", "lists of all estimators", "modules that step an environment"):
        assert told[name] == measured[name]


def test_every_column_of_an_iteration():
    told = {(code(row[0])[0], code(row[1])[0]) for row in first_table("reading-a-run.md", "The screen") if row[1]}
    assert told == {(heading, metric) for heading, metric, *_ in COLUMNS}


def test_every_alarm():
    part = page("reading-a-run.md").partition("\n## Alarms\n")[2].partition("\n## ")[0]
    assert {watch.limit for watch in WATCHES} <= set(code(part))


def test_every_kind_of_invalid_response():
    told = [code(row[0])[0] for row in first_table("reading-a-run.md", "Invalid responses")]
    assert told == [str(kind) for kind in InvalidKind]


def test_every_file_of_a_run():
    told = {name for row in first_table("reading-a-run.md", "The run folder") for name in code(row[0])}
    run = Run(Path(), Config())
    files = [run.settings_file, run.warm_start, run.metrics_file, run.training_episodes(12), run.report_file]
    files += [
        run.evaluation_episodes(10, "SPLIT"),
        run.card(10, "SPLIT"),
        run.checkpoint(10) / "policy",
        run.curve_file,
    ]
    assert {str(file) for file in files} <= told


def test_every_recipe_and_every_study():
    assert set(recipe_names()) <= set(code(page("commands.md")))
    assert set(study_names()) == set(re.findall(r"^\| `([^`]+)` \|", page("studies.md"), re.M))


def test_no_word_is_explained_twice():
    words = re.findall(r"^\| \*\*(.+?)\*\*", page("glossary.md"), re.M)
    assert len(words) == len(set(words)) > 80
