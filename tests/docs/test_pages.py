"""The pages agree with the code: tables, links, references."""

from __future__ import annotations

import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

import house
import recipes
import reference
from hiper import envs
from hiper.config import Config, flatten, recipe_names
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


# --- Every link and every picture of the documents leads somewhere: to a file, and to a heading in it -----------------


PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "results").rglob("*.md")])
LINK = re.compile(r"\]\(\s*([^)\s]+)\s*\)")


def prose(page: Path) -> str:
    """The text of a page without its blocks of code and without code in lines."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    return re.sub(r"`[^`\n]*`", lambda code: "x" * len(code[0]), text)


@cache
def anchors(page: Path) -> frozenset[str]:
    """The anchors that GitHub gives to the headings of a page."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    found: dict[str, int] = {}
    names = []
    for heading in re.findall(r"^#+ (.*?)\s*$", text, re.M):
        words = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        name = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
        count = found[name] = found.get(name, -1) + 1
        names.append(f"{name}-{count}" if count else name)
    return frozenset(names)


def broken(page: Path) -> list[str]:
    """The links of a page that lead nowhere."""
    wrong = []
    for target in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and (file.suffix != ".md" or anchor not in anchors(file))):
            wrong.append(target)
    return wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path):
    assert broken(page) == []


def test_every_page_of_the_docs_is_reached_from_the_readme():
    reached, ahead = set(), [ROOT / "README.md"]
    while ahead:
        page = ahead.pop()
        reached.add(page)
        for target in LINK.findall(prose(page)):
            file = (page.parent / target.partition("#")[0]).resolve()
            if file.suffix == ".md" and file not in reached and file.is_file():
                ahead.append(file)
    assert set((ROOT / "docs").rglob("*.md")) - reached == set()


def test_broken_links_are_found(tmp_path: Path):
    (tmp_path / "there.md").write_text("# A heading, with `code`\n\n# Twice\n\n# Twice\n\n```\n# no heading\n```\n")
    page = tmp_path / "page.md"
    page.write_text(
        "[a](there.md#a-heading-with-code) [b](there.md#twice-1) [c](https://x.org/y) `[d](gone.md)`\n"
        "[two\nlines](gone.md) ![e](gone.png) [f](there.md#no-heading) [g](#nowhere)\n"
    )
    assert broken(page) == ["gone.md", "gone.png", "there.md#no-heading", "#nowhere"]


# --- The reference pages are what the code says, and name everything there is -----------------------------------------


@pytest.mark.parametrize("name", reference.PAGES)
def test_pages_are_up_to_date(name: str):
    written = (reference.FOLDER / name).read_text(encoding="utf-8")
    assert written == reference.PAGES[name](), "run `make reference`"


def test_recipes_and_their_table_say_what_hiper_check_says():
    for file, text in recipes.files().items():
        assert file.read_text(encoding="utf-8") == text, f"{file} is out of date: run `make reference`"


def test_every_setting_has_a_row():
    rows = [(key, row) for key, part in parts_of("settings.md") for row in re.findall(r"^\| `([^`]+)` \|", part, re.M)]
    there = {row if key == "top level" else f"{key}.{row}" for key, row in rows}
    there |= {key for key, _ in rows}  # a section may be null
    wanted = {key for key, _ in flatten(Config().model_dump(mode="json")) if not key.startswith("advantages.")}
    assert {key for key in wanted if not key.startswith(("sampler.", "env."))} <= there
    assert {f"env.name: {name}" for name in ("alfworld", "boxes", "corridor", "webshop")} <= {k for k, _ in rows}
    assert {"env.name: alfworld.size", "sampler.type: transformers.batch_tokens", "advantages.type: hae.gamma"} <= there


def parts_of(name: str) -> list[tuple[str, str]]:
    """The headings of a page, each with the text below it."""
    text = (reference.FOLDER / name).read_text(encoding="utf-8")
    return [(part.partition("\n")[0], part) for part in re.split(r"^##+ ", text, flags=re.M)[1:]]


def test_every_environment_has_a_part():
    headings = {heading for heading, _ in parts_of("settings.md")}
    assert {f"env.name: {name}" for name in envs.registry.names() if ":" not in name} <= headings


def test_a_field_without_a_docstring_is_an_error():
    with pytest.raises(ValueError, match=r"Undocumented\.key has no docstring below it"):
        reference.documented(Undocumented)


class Undocumented:
    key: int = 1


def test_an_argument_without_a_docstring_is_an_error():
    def make(split: str, size: int = 1) -> None:
        """Make it.

        Args:
            split: the split.
        """

    with pytest.raises(ValueError, match="'size' is not documented"):
        reference.arguments_of(make)


def test_metrics_are_grouped_by_the_comments_above_them():
    source = "# Time. In seconds.\nA = Metric(\n    1)\n\nB = Metric(2)\n# Words\n# and more.\nC = Metric(3)\n# End.\n"
    assert reference.groups_of_metrics(source) == [("Time. In seconds.", ["A", "B"]), ("Words and more.", ["C"])]


@pytest.mark.parametrize(
    ("default", "text"),
    [(1e-6, "`1e-6`"), (None, "`null`"), (True, "`true`"), (("a",), "`[a]`"), (2.0, "`2`"), ("x", "`x`"), ({}, "`{}`")],
)
def test_defaults_are_shown_as_yaml(default: object, text: str):
    assert reference.shown(default) == text
