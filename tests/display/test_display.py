"""Progress where there is no terminal, and tables."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from hiper.display.console import Display
from hiper.display.tables import Table
from hiper.display.text import clock, duration, wrapped
from hiper.display.transcript import transcript
from hiper.episode import Episode


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch):
    """A log gets a line every 20th of a second, not every minute."""
    monkeypatch.setattr("hiper.display.console.SECONDS_BETWEEN_LINES", 0.05)


def wait_for(file: StringIO, part: str) -> str:
    """What a log says, once it says ``part``."""
    until = time.monotonic() + 20
    while part not in file.getvalue():
        assert time.monotonic() < until, file.getvalue()
        time.sleep(0.01)
    return file.getvalue()


@pytest.mark.usefixtures("often")
def test_a_log_gets_a_line_now_and_then():
    file = StringIO()
    display = Display(console=Console(file=file, width=100))
    with display.bar("warm start", 5) as advance:
        assert re.match(r" {10}warm start: 0/5, [\d.]+ s\n", wait_for(file, "0/5"))
        advance(2)
        assert re.search(r"warm start: 2/5, [\d.]+ s left\n", wait_for(file, "2/5"))
        advance(1, "3 of the 5")
        assert "warm start: 3 of the 5, " in wait_for(file, "3 of")
    ended = file.getvalue()
    time.sleep(0.15)
    assert file.getvalue() == ended


@pytest.mark.usefixtures("often")
def test_a_log_tells_the_innermost_bar_and_the_whole():
    file = StringIO()
    display = Display(console=Console(file=file, width=100))
    with display.whole(lambda: "iteration 3 of 5"):
        assert "\n" + " " * 10 + "iteration 3 of 5\n" in "\n" + wait_for(file, "3 of 5")
        with display.bar("outer", 2), display.bar("inner"):
            said = wait_for(file, "inner")
    assert re.search(r"inner: [\d.]+ s; iteration 3 of 5\n", said)
    assert "outer" not in said


def test_what_is_short_says_nothing():
    file = StringIO()
    with Display(console=Console(file=file, width=100)).bar("warm start", 5) as advance:
        advance(5)
    assert file.getvalue() == ""


def test_a_terminal_shows_the_bars_and_the_whole_below():
    file = StringIO()
    display = Display(console=Console(file=file, width=60, force_terminal=True, color_system=None))
    with display.whole(lambda: "iteration 3 of 5, 12 s so far"), display.bar("scoring", 10) as advance:
        advance(4)
        said = wait_for(file, "4/10")
    lines = [line.rstrip() for line in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "\n", said).splitlines() if line.strip()]
    bar = next(line for line in lines if "4/10" in line)
    assert bar.startswith("scoring ")
    assert bar.endswith("left")
    assert len(bar) <= 60
    assert "iteration 3 of 5, 12 s so far" in lines


def test_a_line_is_wrapped_at_its_words():
    assert wrapped("short", 10) == ["short"]
    assert wrapped("  one two three four", 12) == ["  one two", "    three", "    four"]
    assert wrapped("one two-three/four five", 9, indent=0) == ["one", "two-three/four", "five"]
    long = "saved in runs/a/very/long/path/that/no/one/breaks"
    assert wrapped(long, 20)[-1].strip() == "runs/a/very/long/path/that/no/one/breaks"


def test_commands_are_never_broken():
    file = StringIO()
    Display(console=Console(file=file, width=30)).interrupted("nothing was lost", "hiper train quickstart learner.lr=1")
    assert file.getvalue().splitlines()[-1] == "  hiper train quickstart learner.lr=1"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.44, "0.4 s"),
        (9.9, "9.9 s"),
        (41, "41 s"),
        (120, "2 min"),
        (5900, "98 min"),
        (12000, "3.3 h"),
        (270000, "75 h"),
    ],
)
def test_a_time_in_words_is_short(seconds: float, said: str):
    assert duration(seconds) == said
    assert len(said) <= 6


def test_a_time_so_far():
    assert [clock(seconds) for seconds in (7.9, 65, 3600 + 125)] == ["0:07", "1:05", "1:02:05"]


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
        "     1  (nothing)  [cut off] You see room 1.",
        "     2  look       (out of turns)",
    ]


def test_long_answers_are_cut(make_episode: MakeEpisode):
    episode = make_episode("SWITCH find it > look", "KEEP > look")
    wordy = replace(episode.turns[1], observation="word " * 100)
    lines = transcript(replace(episode, turns=(episode.turns[0], wordy)), width=60)
    assert lines[2].endswith("word ...")
    assert len(lines[2]) <= 60


def test_no_line_is_wider_than_it_may_be(make_episode: Callable[..., Episode]):
    episode = make_episode(f"SWITCH {'find ' * 30}> search[{'red shoes ' * 20}]", f"KEEP > {'x' * 200}", won=False)
    wordy = tuple(replace(turn, observation="word " * 100, invalid="inadmissible_action") for turn in episode.turns)
    for width in (60, 80, 110):
        lines = transcript(replace(episode, turns=wordy), width)
        assert max(map(len, lines)) <= width
        assert width == 60 or any("not possible here" in line for line in lines)
