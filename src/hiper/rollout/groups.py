"""Groups of episodes of one task, and replacing those that comparison learns nothing from (dynamic sampling).

Where all episodes of a group were paid the same, a comparison of episodes learns nothing. Yu et al., "DAPO" (arXiv
2503.14476) play other tasks in their place; here for a bounded number of rounds, after which what is left is kept.
(GiGPO's comparison of turns might yet have learned from them, if they were of unlike lengths: that is given up.)
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
    """To learn from: as many as were asked for, group after group."""
    replaced: list[Episode]
    """Played as well, and given up."""
    timing: Timing

    @property
    def played(self) -> list[Episode]:
        """All of them: the success of those kept alone would say little about the tasks."""
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
        play: plays assignments and gives their episodes in order.
        first: the groups of round 0, each of ``size`` assignments.
        further: given a round and the assignments so far, groups of other tasks, as many as there are.
        size: of a group.
        rounds: most rounds after the first.
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
    """The numbers of the groups whose episodes were all paid the same."""
    paid = [episode.total_reward for episode in episodes]
    return [group for group in range(len(paid) // size) if len(set(paid[group * size : (group + 1) * size])) == 1]
