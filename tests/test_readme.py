"""The README's examples run, the folders it names exist, and what the pages beside it say can be done can be."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from hiper import cli, envs
from hiper.runs.records import read_archive

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def example(heading: str) -> dict[str, Any]:
    """The names that the Python block below a heading defines."""
    block = README.partition(f"## {heading}\n")[2].partition("```python\n")[2].partition("```")[0]
    names: dict[str, Any] = {"__name__": "readme"}
    exec(block, names)
    return names


def test_only_the_estimator():
    credit = example("Only the estimator")["credit"]
    claimed = [float(number) for row in re.findall(r"\[\[([-\d., ]+)\]\]", README) for number in row.split(",")]
    computed = [*credit.low_BT[0], *credit.high_BT[0], *credit.switch_BT[0]]
    assert computed == pytest.approx(claimed[-9:])


def test_an_environment_of_your_own():
    env = example("An environment of your own")["Echo"]()
    start = env.reset(env.panel.tasks[0].id)
    assert env.step(start.goal.removeprefix("say ")).info.won


def test_an_environment_is_found_by_where_it_is():
    assert envs.make("hiper.envs.small.corridor:make", cells=3).name == "corridor"


def test_the_python_example(tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any):
    """It is run as it stands, but for a recipe that trains in seconds and fewer tasks."""
    monkeypatch.chdir(tmp_path)
    block = README.partition("The same from Python:")[2].partition("```python\n")[2].partition("```")[0]
    small = block.replace('"quickstart"', repr(str(tiny_recipe))).replace("tasks=100", "tasks=3")
    assert small.count("tiny.yaml") == small.count("tasks=3") == 1
    exec(small, {})
    assert "eval/held_out/success" in capsys.readouterr().out


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 150
    assert len(tree_of_folders().splitlines()) <= 25


def test_every_command_is_in_the_readme_and_on_its_page():
    commands = {name for info in cli.app.registered_commands if (name := info.name or callback_name(info))}
    page = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    for name in commands:
        assert re.search(rf"hiper {name}\b", page), name
    table = README.partition("## The command line")[2].partition("```")[0]
    assert commands - {"sft"} <= set(re.findall(r"hiper (\w+)", table))


def callback_name(info: Any) -> str:
    return str(info.callback.__name__)


def tree_of_folders() -> str:
    return README.partition("## Where things are\n")[2].partition("```\n")[2].partition("```")[0]


def test_the_tree_is_the_tree():
    package = ROOT / "src" / "hiper"
    inside = tree_of_folders().partition("tests/")[0].removeprefix("src/hiper/")
    folders = set(re.findall(r"\b(\w+)/", inside))
    for folder in folders:
        assert any(path.is_dir() for path in package.rglob(folder)), folder
    assert folders >= {path.name for path in package.iterdir() if path.is_dir() and path.name != "__pycache__"}
    for folder in ("tests", "tools", "benchmarks", "results"):
        assert f"{folder}/" in tree_of_folders()
        assert (ROOT / folder).is_dir()


# --- Numbers ----------------------------------------------------------------------------------------------------------


def told(title: str, text: str = README) -> list[str]:
    """The percentages of the bullet that begins with a title, as they are written."""
    bullet = re.search(rf"^- \*\*{title}\*\*(.*?)(?=^- |^$)", text, re.M | re.S)
    assert bullet, title
    return re.findall(r"(\d+(?:\.\d+)?)%", bullet[1])


def assert_told(written: list[str], measured: list[float]) -> None:
    """Check percentages against what was measured, to the digits that are written."""
    assert written == [
        f"{value:.{len(text.partition('.')[2])}f}" for text, value in zip(written, measured, strict=True)
    ]


def rows(file: str, heading: str = "") -> list[list[str]]:
    """The cells of all tables of a page below a heading, up to the next."""
    part = (ROOT / file).read_text(encoding="utf-8").partition(heading)[2].partition("\n## ")[0]
    return [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in part.splitlines() if line[:1] == "|"]


def first(cell: str) -> float:
    """The first number of a cell."""
    return float(re.findall(r"\d+\.\d+", cell)[0])


@pytest.mark.parametrize(
    ("title", "heading", "after"),
    [
        ("Quickstart", "\n## The house: what stayed equal, and seeds per turn\n", -1),
        ("WebShop's quickstart", "\n## WebShop's quickstart: three seeds\n", 3),
    ],
)
def test_the_quickstarts_are_those_of_the_lab_log(title: str, heading: str, after: int):
    seeds = [row for row in rows("docs/lab-log.md", heading) if row[0] in ("0", "1", "2")]
    assert_told(told(title), [first(row[1]) for row in seeds] + [first(row[after]) for row in seeds])


def test_the_official_games_are_those_of_the_cards():
    cards = read_archive(ROOT / "results" / "cards.tar.xz")

    def success(name: str, temperature: float = 1.0) -> float:
        card = json.loads(cards[f"alfworld-nano/{name}.json"])
        assert (card["panel"]["sha256"][:12], card["sampling"]["temperature"]) == ("066dec1361c4", temperature)
        return 100 * float(card["outcomes"]["all"]["success"])

    def successes(who: str, temperature: float) -> list[float]:
        """By training seed, the mean of two passes."""
        return [
            fmean(success(f"{who}-seed{seed}-temperature{temperature}-pass{n}", temperature) for n in range(2))
            for seed in range(3)
        ]

    assert_told(told("Official ALFWorld games"), [*successes("dagger", 0.4), *successes("hiper", 0.4)])
    table = rows("results/README.md", "\n## alfworld-nano\n")
    for row, temperature in zip(table[2:4], (0.4, 1.0), strict=True):
        for cell, who in zip(row[1:4], ("cloned", "dagger", "hiper"), strict=True):
            seeds = successes(who, temperature)
            assert_told(re.findall(r"(\d+\.\d)%", cell), [*seeds, fmean(seeds)])
    (claim,) = (row for row in rows("docs/results.md", "\n## The published claims") if row[0].startswith("ALFWorld"))
    for cell, who in zip(claim[2:4], ("hiper", "dagger"), strict=True):
        seeds = successes(who, 0.4)
        assert_told(re.findall(r"\d+\.\d", cell), [fmean(seeds), *seeds])

    weak = [success(f"seeds/seed{n}-{when}") for when in ("before", "after") for n in range(3)]
    assert_told(told("From a weak warm start"), weak + [success(f"control/seed{n}") for n in range(3)])


def test_the_official_goals_are_those_of_the_cards():
    cards = read_archive(ROOT / "results" / "cards.tar.xz")

    def successes(who: str, temperature: float) -> list[float]:
        names = [f"webshop-nano/{who}-seed{n}-temperature{temperature}.json" for n in range(3)]
        found = [json.loads(cards[name]) for name in names]
        played = {(card["panel"]["sha256"][:12], card["sampling"]["temperature"]) for card in found}
        assert played == {("3b7359633faa", temperature)}
        return [100 * float(card["outcomes"]["all"]["success"]) for card in found]

    cloned, trained = successes("cloned", 0.4), successes("hiper", 0.4)
    assert_told(told("Official WebShop goals"), [*cloned, *trained])
    table = rows("results/README.md", "\n## webshop-nano\n")
    for row, temperature in zip(table[2:4], (0.4, 1.0), strict=True):
        for cell, who in zip(row[1:3], ("cloned", "hiper"), strict=True):
            seeds = successes(who, temperature)
            assert_told(re.findall(r"(\d+\.\d)%", cell), [*seeds, fmean(seeds)])


def test_the_studies_are_those_of_their_tables():
    official = {row[0]: row[4] for row in rows("results/official-games/comparison.md", "140 tasks") if len(row) > 7}
    methods = ("hiper", "ppo-turn", "gigpo", "grpo")
    assert_told(told("HiPER beside other methods"), [first(official[method]) for method in methods])
    (six,) = (row for row in rows("results/horizon/sweep.md", "\n## ") if row[0] == "6")
    assert_told(told("Chains of six subtasks"), [first(cell) for cell in six[2:5]])
    by_type = rows("results/generated-games/comparison.md", "by task type\n")
    two = next(row for row in by_type if row[0] == "pick_two_obj_and_place")
    assert_told(told("Where HiPER loses"), [first(two[by_type[0].index(name)]) for name in ("hiper", "ppo-turn")])


def test_what_lambda_boundary_gained_is_what_the_study_found():
    page = (ROOT / "docs" / "credit.md").read_text(encoding="utf-8").replace("\n", " ")
    claim = re.search(r"0\.95 won (\d+)% instead of (\d+)% of the games with two objects \(\+(\d+) ", page)
    assert claim
    table = rows("results/ablations/comparison.md", "by task type\n")
    two = dict(zip(table[0], next(row for row in table if row[0] == "pick_two_obj_and_place"), strict=True))
    most, plain = first(two["most-passes"]), first(two["hiper"])
    assert_told(list(claim.groups()), [most, plain, most - plain])


def test_the_courier_learns_what_the_lab_log_says():
    page = (ROOT / "docs" / "environments.md").read_text(encoding="utf-8").replace("\n", " ")
    claim = re.search(r"Success on the (\d+) held-out deliveries rises from (\d+\.\d)% \S+ \d+\] to (\d+\.\d)%", page)
    assert claim
    log = (ROOT / "docs" / "lab-log.md").read_text(encoding="utf-8").partition("\n## The page on environments\n")[2]
    assert f"{claim[2]}% [" in log.partition("\n## ")[0]
    assert f"{claim[3]}% [" in log.partition("\n## ")[0]


# --- On a package index -----------------------------------------------------------------------------------------------


def test_the_readme_of_the_package_has_no_link_that_leads_nowhere():
    readme = runpy.run_path(str(ROOT / "setup.py"))["readme"]
    link = re.compile(r"\]\(([^)]+)\)")
    alone, published = readme(README, None), readme(README, "https://example.org/hiper")
    assert {target for target in link.findall(alone) if not target.startswith("https://")} == set()
    assert {target for target in link.findall(published) if not target.startswith("https://")} == set()
    assert "(https://example.org/hiper/raw/HEAD/docs/data-flow.svg)" in published
    assert "[cards](https://example.org/hiper/blob/HEAD/results/README.md#alfworld-nano)" in published
    assert "*The way of the data: task, prompt," in alone
    blocks = re.findall(r"^```.*?^```", README, re.M | re.S)
    for shown in (alone, published):  # neither code nor other text has changed
        assert re.findall(r"^```.*?^```", shown, re.M | re.S) == blocks
        plain = re.sub(r"!?\[([^]]*)\]\([^)]*\)", r"\1", shown).replace("*The way", "The way")
        assert len(plain.split()) == len(re.sub(r"!?\[([^]]*)\]\([^)]*\)", r"\1", README).split())
