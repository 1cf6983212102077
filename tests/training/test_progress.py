"""The lines that training shows."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hiper.envs.panels import Panel, Task
from hiper.episode import Episode
from hiper.evaluation.evaluate import Evaluation
from hiper.outcomes import summarize
from hiper.training.progress import COLUMNS, LINES_PER_HEADING, IterationLines, evaluation_line

METRICS = dict.fromkeys((metric for _, metric, _ in COLUMNS), 0.5)


def test_headings_stand_above_the_first_line_and_again_now_and_then():
    progress = IterationLines()
    lines = [progress.of(done, 60, METRICS) for done in range(1, 61)]
    assert [n for n, shown in enumerate(lines) if len(shown) == 2] == [0, LINES_PER_HEADING, 2 * LINES_PER_HEADING]
    headings, line = lines[0]
    assert headings.split() == ["iteration", *" ".join(name for name, _, _ in COLUMNS).split()]
    assert line.startswith("     1/60  ")
    assert {len(text) for shown in lines for text in shown} == {len(headings)}


def test_each_number_ends_below_its_heading():
    headings, line = IterationLines().of(1, 2, METRICS)
    at = 0
    for name, _, _ in COLUMNS:
        at = headings.index(name, at) + len(name)
        assert line[at - 1] != " "
        assert line[at : at + 1] in (" ", "")


@pytest.mark.parametrize("metrics", [{}, {"policy/kl": float("nan")}])
def test_what_is_not_known_is_a_dash(metrics: dict[str, float]):
    _, line = IterationLines().of(1, 2, metrics)
    assert line.split() == ["1/2", *["-"] * len(COLUMNS)]


def test_an_evaluation_is_one_line(make_episode: Callable[..., Episode]):
    episodes = [make_episode("SWITCH a > b", won=won) for won in (True, False)]
    panel = Panel("errands", tuple(Task(f"{n}", "errand") for n in range(2)))
    line = evaluation_line(3, "held_out", Evaluation(panel, episodes, summarize(episodes), 7.2))
    assert line.strip().startswith("evaluation after 3 iterations on held_out: 50.0% of 2 [")
    assert line.endswith("1.0 turns, 7 s")
    assert "score" not in line
