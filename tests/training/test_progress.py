"""The lines that training shows, and the time to go."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from hiper.advantages import HEADS
from hiper.config import Config
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
