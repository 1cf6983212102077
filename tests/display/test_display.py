"""Progress where there is no terminal, and tables."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from hiper.advantages import HEADS
from hiper.config import Config
from hiper.display.console import Display
from hiper.display.tables import Table
from hiper.display.text import clock, duration, wrapped
from hiper.display.transcript import transcript
from hiper.envs.panels import Panel, Task
from hiper.episode import Episode
from hiper.evaluation.evaluate import Evaluation
from hiper.outcomes import summarize
from hiper.training.progress import (
    COLUMNS,
    EXPLAINED_VARIANCE,
    LINES_PER_HEADING,
    OF_VALUES,
    IterationLines,
    Pace,
    evaluation_line,
)


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


# --- The lines that training shows, and the time to go ----------------------------------------------------------------


METRICS = {column.metric: 0.5 for column in COLUMNS}
OF_HAE = {
    column.metric: 0.5
    for column in COLUMNS
    if not column.metric.startswith(EXPLAINED_VARIANCE) or column.heading in ("low", "high", "switch")
}
"""The metrics of a run with HAE."""


def test_a_legend_and_headings_stand_above_the_first_line_and_headings_again_now_and_then():
    progress = IterationLines(60, 200)
    shown = [progress.of(done, METRICS) for done in range(1, 61)]
    assert [n for n, lines in enumerate(shown) if len(lines) > 1] == [0, LINES_PER_HEADING, 2 * LINES_PER_HEADING]
    _, legend, _, group, headings, line = shown[0]
    assert shown[LINES_PER_HEADING][:-1] == [group, headings]
    assert group.strip() == OF_VALUES
    assert headings.split() == ["iteration", *(column.heading for column in COLUMNS)]
    assert line.split()[0] == "1/60"
    assert {len(lines[-1]) for lines in shown} == {len(headings)}
    for column in COLUMNS:
        assert not column.meaning or f"{column.heading}: {column.meaning}" in legend
    assert f"{OF_VALUES}: " in legend


@pytest.mark.parametrize("total", [3, 150, 1000])
def test_all_of_hae_fits_80_columns(total: int):
    metrics = OF_HAE | {column.metric: 0.9999 for column in COLUMNS if column.shape.endswith("%}")}
    lines = IterationLines(total, 80).of(total, metrics)
    assert max(map(len, [line for line in lines if ":" not in line])) <= 80
    assert "switch entropy" in lines[-2]
    assert "clipped" not in lines[-2]


def test_a_wide_terminal_shows_every_column():
    *_, headings, _ = IterationLines(150, 120).of(1, OF_HAE)
    assert {"iteration", "switch", "segment", "clipped"} <= set(headings.split())
    narrow = IterationLines(150, 80).of(1, {name: 0.5 for name in OF_HAE if not name.startswith(EXPLAINED_VARIANCE)})
    assert "clipped" in narrow[-2]  # without value heads there is room


def test_each_number_ends_below_its_heading():
    *_, headings, line = IterationLines(2, 200).of(1, METRICS)
    at = 0
    for column in COLUMNS:
        at = headings.index(column.heading, at) + len(column.heading)
        assert line[at - 1] != " "
        assert line[at : at + 1] in (" ", "")


@pytest.mark.parametrize("metrics", [{}, {"policy/kl": float("nan")}])
def test_what_is_not_known_is_a_dash(metrics: dict[str, float]):
    *_, line = IterationLines(2, 200).of(1, metrics)
    always = [column for column in COLUMNS if not column.metric.startswith(EXPLAINED_VARIANCE)]
    assert line.split() == ["1/2", *["-"] * len(always)]


def test_an_evaluation_is_one_line(make_episode: Callable[..., Episode]):
    episodes = [make_episode("SWITCH a > b", won=won) for won in (True, False)]
    panel = Panel("errands", tuple(Task(f"{n}", "errand") for n in range(2)))
    line = evaluation_line(3, "held_out", Evaluation(panel, episodes, summarize(episodes), 7.2))
    assert line == "held out, after 3: held_out 50.0% [9, 91] of 2, 1.0 turns, 7.2 s"


@pytest.mark.parametrize("heads", [["low", "high"], ["turn"], ["token"], []])
def test_an_iteration_has_a_column_for_each_value_head_that_learns(heads: list[str]):
    variances = {f"critic/explained_variance_{head}": -10.3 - n for n, head in enumerate(heads)}
    lines = IterationLines(2, 80).of(1, {"success/all": 0.5, "policy/entropy": 0.25, **variances})
    *_, top, line = lines
    assert [word for word in top.split() if word in {head.name for head in HEADS} - {"switch"}] == heads
    assert re.findall(r"-1\d\.\d", line) == [f"{value:.1f}" for value in variances.values()]
    assert len(top) == len(line)
    assert top.index("entropy") + len("entropy") == line.index("0.250") + len("0.250")
    if heads:  # the heading of the group ends where its last column ends
        assert len(lines[-3]) == top.rindex(heads[-1]) + len(heads[-1])


# --- Time to go -------------------------------------------------------------------------------------------------------


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which a test sets."""
    now = [1000.0]
    monkeypatch.setattr("hiper.training.progress.time.monotonic", lambda: now[0])
    return now


def paced(**evaluation: Any) -> Pace:
    return Pace(Config.model_validate({"training": {"iterations": 10}, "evaluation": evaluation}))


def test_the_time_to_go_is_unknown_until_an_iteration_is_done(seconds: list[float]):
    pace = paced()
    assert pace.words() == "beginning, 0:00 so far, time to go unknown"
    seconds[0] += 65
    pace.begin_iteration(4)
    assert pace.words() == "iteration 5 of 10, 1:05 so far, time to go unknown"
    assert pace.to_go() is None


def test_the_time_to_go_follows_the_iterations_and_evaluations_of_this_process(seconds: list[float]):
    """Resumed after 4 of 10: iterations of 20 and 40 seconds, evaluations of 0.5 seconds a task."""
    pace = paced(every=3, tasks=20, final_tasks=None)
    for took in (20, 40):
        pace.begin_iteration(4 if took == 20 else 5)
        seconds[0] += took
        pace.iterated()
    assert pace.words() == "after iteration 6 of 10, 1:00 so far, about 2 min to go"
    assert pace.to_go() == 4 * 30
    pace.evaluated("seen", 20, 100, 10.0)
    # One more evaluation of 20 tasks, after 9, and one of all 100 after 10.
    assert pace.to_go() == 4 * 30 + 10 + 50
    pace.begin_iteration(6)
    seconds[0] += 12
    assert pace.to_go() == 4 * 30 - 12 + 10 + 50
