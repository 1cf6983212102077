"""Groups of episodes of one task, and dynamic sampling: the replacement of groups without spread.

A group has no spread if all its episodes got the same reward. A comparison of its episodes then teaches nothing. DAPO
(Yu et al., arXiv 2503.14476) plays other tasks instead. Here the number of rounds is bounded. Groups that still have no
spread are kept. GiGPO's comparison of turns can learn from such groups if their episodes differ in length. Dynamic
sampling gives this up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hiper.episode import Episode
from hiper.rollout.collector import Timing
from hiper.rollout.players import Assignment


@dataclass(frozen=True, slots=True)
class Collected:
    """The episodes of an iteration."""

    episodes: list[Episode]
    """The episodes to learn from, as many as were assigned, group after group."""
    replaced: list[Episode]
    """The episodes of replaced groups."""
    timing: Timing
    """The seconds of all rounds."""

    @property
    def played(self) -> list[Episode]:
        """All episodes played. Metrics use them, because the kept episodes alone are a biased sample of the tasks."""
        return [*self.episodes, *self.replaced]


def collect_groups(
    play: Callable[[Sequence[Assignment]], tuple[list[Episode], Timing]],
    first: Sequence[Assignment],
    further: Callable[[int, Sequence[Assignment]], Sequence[Assignment]],
    *,
    size: int,
    rounds: int,
) -> Collected:
    """Play groups, and replace those without spread.

    Args:
        play: A function that plays assignments and returns their episodes in order.
        first: The groups of round 0, each of ``size`` assignments.
        further: A function of a round and the assignments so far that returns groups of all other tasks.
        size: The number of episodes in a group.
        rounds: The most rounds after the first.
    """
    episodes, timing = play(first)
    assigned, replaced = list(first), list[Episode]()
    for round_number in range(1, rounds + 1):
        flat = groups_without_spread(episodes, size)
        fresh = further(round_number, assigned)[: len(flat) * size] if flat else []
        if not fresh:
            break
        assigned += fresh
        new, more = play(fresh)
        timing += more
        for place, group in enumerate(flat[: len(fresh) // size]):
            kept = slice(group * size, (group + 1) * size)
            replaced += episodes[kept]
            episodes[kept] = new[place * size : (place + 1) * size]
    return Collected(episodes, replaced, timing)


def groups_without_spread(episodes: Sequence[Episode], size: int) -> list[int]:
    """Return the indices of the groups whose episodes all got the same total reward."""
    paid = [episode.total_reward for episode in episodes]
    return [group for group in range(len(paid) // size) if len(set(paid[group * size : (group + 1) * size])) == 1]
