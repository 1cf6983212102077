"""Progress where there is no terminal, and tables."""

from __future__ import annotations

import re
from io import StringIO

import pytest
from rich.console import Console

from hiper.display.console import Display


def shown(monkeypatch: pytest.MonkeyPatch, seconds_a_unit: float) -> str:
    """What a bar of five units leaves in a log."""
    clock = iter(seconds_a_unit * n for n in range(100))
    monkeypatch.setattr("hiper.display.console.time.monotonic", lambda: next(clock))
    file = StringIO()
    with Display(console=Console(file=file, width=100)).bar("warm start", 5) as advance:
        for _ in range(5):
            advance()
    return file.getvalue()


def test_a_log_gets_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch):
    lines = shown(monkeypatch, seconds_a_unit=40.0).splitlines()
    assert [line.strip() for line in lines] == ["warm start: 2/5, 120 s to go", "warm start: 4/5, 40 s to go"]


def test_what_is_short_says_nothing(monkeypatch: pytest.MonkeyPatch):
    assert shown(monkeypatch, seconds_a_unit=5.0) == ""


def test_brackets_in_tables_are_text():
    file = StringIO()
    cells = ("click[item 1]", "search[/red mug]", "[bold]", "ends in \\")
    Display(console=Console(file=file, width=100)).table("of [x]", ("[a]", "b", "c", "d"), [cells])
    for text in (*cells, "of [x]", "[a]"):
        assert text in file.getvalue()


@pytest.mark.parametrize(
    ("heads", "headings"),
    [(["low", "high"], ["EV low", "EV high"]), (["turn"], ["EV turn"]), (["token"], ["EV token"]), ([], [])],
)
def test_an_iteration_has_a_column_for_each_value_head_that_learns(heads: list[str], headings: list[str]):
    file = StringIO()
    display = Display(console=Console(file=file, width=200))
    variances = {f"critic/explained_variance_{head}": -10.25 - n for n, head in enumerate(heads)}
    display.iteration(1, 2, {"success/all": 0.5, "policy/entropy": 0.25, **variances})
    top, line = file.getvalue().splitlines()
    assert re.findall(r"EV \w+", top) == headings
    assert re.findall(r"-1\d\.\d\d", line) == [f"{value:.2f}" for value in variances.values()]
    assert len(top) == len(line)
    assert top.index("entropy") + len("entropy") == line.index("0.250") + len("0.250")
