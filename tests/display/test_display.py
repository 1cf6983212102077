"""Progress where there is no terminal, and tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from hiper.display.console import Display
from hiper.display.tables import Table
from hiper.display.transcript import transcript
from hiper.episode import Episode


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
    Display(console=Console(file=file, width=100)).table(Table("of [x]", ("[a]", "b", "c", "d"), [cells]))
    for text in (*cells, "of [x]", "[a]"):
        assert text in file.getvalue()


def test_notes_and_tables_are_shown_in_order():
    file = StringIO()
    Display(console=Console(file=file, width=100)).show(
        "first", Table("second", ("a", "b"), [("1", "some words")]), "[third]"
    )
    said = file.getvalue()
    assert said.index("first") < said.index("second") < said.index("[third]")


def test_the_sum_stands_out_and_columns_are_aligned():
    file = StringIO()
    console = Console(file=file, width=100, force_terminal=True, color_system="standard")
    rows = [("all", "10", "x"), ("one", "9", "y")]
    Display(console=console).table(Table("t", ("name", "number", "left"), rows, left=1, total="all"))
    first, second = (line for line in file.getvalue().splitlines() if "10" in line or " 9" in line)
    assert "\x1b[1m" in first
    assert "\x1b[1m" not in second
    assert "    9" in second


def test_a_table_as_markdown():
    table = Table("success", ("method", "after"), [["hiper", "70.1%"], ["a|b", "-"]])
    assert table.markdown() == "| method | after |\n| --- | ---: |\n| hiper | 70.1% |\n| a\\|b | - |"
    assert table._replace(left=2).markdown().splitlines()[1] == "| --- | --- |"


# --- Transcript -----------------------------------------------------------------------------------------------------


MakeEpisode = Callable[..., Episode]


def test_each_subgoal_stands_above_what_was_done_for_it(make_episode: MakeEpisode):
    episode = make_episode("SWITCH find it > go north", "KEEP > look", "SWITCH bring it > go back")
    assert transcript(episode) == [
        "errand: run an errand.",
        "  subgoal: find it",
        "     1  go north  You see room 1.",
        "     2  look      You see room 2.",
        "  subgoal: bring it",
        "     3  go back   (won)",
    ]


def test_what_was_wrong_is_shown(make_episode: MakeEpisode):
    episode = make_episode("SWITCH find it > go north", "KEEP > look", won=False)
    mute = replace(episode.turns[0], action="", subgoal="", invalid="cut_off")
    lines = transcript(replace(episode, turns=(mute, episode.turns[1])))
    assert lines[1:] == [
        "  subgoal: (none stated)",
        "     1  (nothing) [cut_off]  You see room 1.",
        "     2  look                 (turn_limit)",
    ]


def test_long_answers_are_cut(make_episode: MakeEpisode):
    episode = make_episode("SWITCH find it > look", "KEEP > look")
    wordy = replace(episode.turns[1], observation="word " * 100)
    lines = transcript(replace(episode, turns=(episode.turns[0], wordy)), width=60)
    assert lines[2].endswith("word ...")
    assert len(lines[2]) <= 60
