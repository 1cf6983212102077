"""The progress of many episodes that are played at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hiper.display.console import Advance, Display
from hiper.episode import Episode


@contextmanager
def episodes_bar(
    display: Display, label: str, episodes: int, max_turns: int, check: Callable[[], None] = lambda: None
) -> Iterator[Watch]:
    """Show a bar that moves with every turn, from the first one on.

    Args:
        display: The display of progress.
        label: What the episodes are for.
        episodes: The number of episodes.
        max_turns: The most turns of an episode.
        check: A function called after each turn. An exception that it raises ends the episodes.
    """
    with display.bar(label, episodes * max_turns) as advance:
        yield Watch(advance, episodes, max_turns, check)


class Watch:
    """What :func:`~hiper.rollout.collector.collect` is to call as episodes are played.

    Args:
        advance: Moves the bar, whose units are turns. An episode that ends early counts with all its turns.
        episodes: The number of episodes.
        max_turns: The most turns of an episode.
        check: A function called after each turn.
    """

    def __init__(self, advance: Advance, episodes: int, max_turns: int, check: Callable[[], None]) -> None:
        self._advance, self._episodes, self._max_turns, self._check = advance, episodes, max_turns, check
        self._running: Counter[int] = Counter()
        """The number of running episodes by the turns they have had."""
        self._done = 0

    def turn(self, turns: int) -> None:
        """Count a turn of an episode, its turn number ``turns``."""
        self._leave(turns - 1)
        self._running[turns] += 1
        self._advance(1, self._words())
        self._check()

    def episode(self, episode: Episode) -> None:
        """Count a finished episode."""
        self._leave(len(episode.turns))
        self._done += 1
        self._advance(self._max_turns - len(episode.turns), self._words())

    def _leave(self, turns: int) -> None:
        if self._running[turns] <= 1:
            del self._running[turns]
        else:
            self._running[turns] -= 1

    def _words(self) -> str:
        """Say how many episodes are done, and the turn that the furthest of the others has had."""
        done = f"{self._done}/{self._episodes} done"
        return f"{done}, turn {max(self._running)} of {self._max_turns}" if self._running else done
