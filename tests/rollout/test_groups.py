"""Groups without spread are found, and replaced as long as there are tasks and rounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from hiper.episode import Episode
from hiper.rollout.collector import Timing
from hiper.rollout.groups import Collected, collect_groups, groups_without_spread
from hiper.rollout.players import Assignment

MakeEpisode = Callable[..., Episode]


@pytest.fixture
def play(make_episode: MakeEpisode) -> Callable[[Sequence[Assignment]], tuple[list[Episode], Timing]]:
    """A task's name says how its two episodes end: "wl-3" is won, then lost."""

    def played(assignments: Sequence[Assignment]) -> tuple[list[Episode], Timing]:
        return [
            make_episode("SWITCH go > look", won=a.task_id[n % 2] == "w", task_id=a.task_id)
            for n, a in enumerate(assignments)
        ], Timing(1.0, 2.0, 3.0)

    return played


def pairs(*names: str) -> list[Assignment]:
    return [Assignment(name, 0, member) for name in names for member in range(2)]


def names(episodes: Sequence[Episode]) -> list[str]:
    return [episode.task_id for episode in episodes[::2]]


def run(play: Callable[..., object], rounds: int, *further: Sequence[str]) -> tuple[Collected, list[list[str]]]:
    asked: list[list[str]] = []

    def more(round_number: int, assigned: Sequence[Assignment]) -> list[Assignment]:
        asked.append([a.task_id for a in assigned[::2]])
        return pairs(*further[round_number - 1])

    first = pairs("ww-1", "wl-1", "ll-1", "lw-1")
    collected = collect_groups(play, first, more, size=2, rounds=rounds)  # type: ignore[arg-type]
    return collected, asked


def test_groups_all_won_or_all_lost_have_no_spread(play: Callable[..., tuple[list[Episode], Timing]]):
    episodes, _ = play(pairs("ww-1", "wl-1", "ll-1", "lw-1"))
    assert groups_without_spread(episodes, 2) == [0, 2]
    assert groups_without_spread(episodes, 4) == []
    assert groups_without_spread(episodes[:2], 1) == [0, 1]


def test_without_rounds_nothing_is_replaced(play: Callable[..., object]):
    collected, asked = run(play, 0)
    assert names(collected.episodes) == ["ww-1", "wl-1", "ll-1", "lw-1"]
    assert not collected.replaced
    assert not asked
    assert collected.timing == Timing(1.0, 2.0, 3.0)


def test_replacements_take_the_places_of_what_they_replace(play: Callable[..., object]):
    collected, asked = run(play, 5, ["wl-2", "ww-2", "lw-2"], ["lw-3"])
    # Two groups were asked for and the third offered left alone; one of them was flat again.
    assert names(collected.episodes) == ["wl-2", "wl-1", "lw-3", "lw-1"]
    assert names(collected.replaced) == ["ww-1", "ll-1", "ww-2"]
    assert len(collected.played) == 14
    assert collected.timing == Timing(3.0, 6.0, 9.0)
    assert asked == [["ww-1", "wl-1", "ll-1", "lw-1"], ["ww-1", "wl-1", "ll-1", "lw-1", "wl-2", "ww-2"]]


def test_rounds_and_tasks_are_bounded(play: Callable[..., object]):
    collected, asked = run(play, 1, ["ww-2", "ll-2"])
    assert names(collected.episodes) == ["ww-2", "wl-1", "ll-2", "lw-1"]
    assert len(asked) == 1
    collected, asked = run(play, 9, ["ww-2"], [])  # one task is left, then none
    assert names(collected.episodes) == ["ww-2", "wl-1", "ll-1", "lw-1"]
    assert len(asked) == 2
