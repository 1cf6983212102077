"""Outcomes of episodes: success with Wilson intervals, overall and by task type."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean

from hiper.episode import Episode


def wilson(successes: int, trials: int, z: float = 1.959964) -> tuple[float, float]:
    """Return Wilson's score interval for a proportion (Wilson 1927, JASA 22(158)).

    With p = successes / n it is (p + z^2/2n +- z sqrt(p(1 - p)/n + z^2/4n^2)) / (1 + z^2/n).

    Args:
        successes: number of successes.
        trials: number of trials, n.
        z: quantile of the normal distribution; the default gives 95%.

    Raises:
        ValueError: there are no trials, or more successes than trials.
    """
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(f"{successes} successes in {trials} trials")
    p = successes / trials
    centre = p + z * z / (2 * trials)
    spread = z * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    # Exact at the ends, where rounding could put the bound on the wrong side of p.
    low = (centre - spread) / scale if successes else 0.0
    high = (centre + spread) / scale if successes < trials else 1.0
    return low, high


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of all episodes, or of those of one task type."""

    episodes: int
    won: int
    won_by_task: str
    """One digit per episode, in the order of the panel's tasks: 1 if it was won. Paired tests need it."""
    success: float
    """Share of episodes that were won."""
    interval: tuple[float, float]
    """Wilson interval of the success, 95%."""
    score: float
    """Mean graded outcome; equals success if the environment has no grades."""
    turns: float
    """Mean length of an episode."""
    truncated: int
    """Episodes that ended at the turn limit."""
    invalid: dict[str, float]
    """Share of turns that were invalid, by kind."""
    parts: dict[str, float] = field(default_factory=dict)
    """Mean of each part of the score, over the episodes that have the part."""

    @property
    def graded(self) -> bool:
        """Whether the score differs from the success."""
        return not math.isclose(self.score, self.success)


def summarize(episodes: Sequence[Episode]) -> dict[str, Outcome]:
    """Return one :class:`Outcome` per task type, sorted by name, after ``all``."""
    by_type: dict[str, list[Episode]] = defaultdict(list)
    for episode in episodes:
        by_type[episode.task_type].append(episode)
    return {"all": _outcome(episodes), **{name: _outcome(by_type[name]) for name in sorted(by_type)}}


def _outcome(episodes: Sequence[Episode]) -> Outcome:
    n, won = len(episodes), sum(episode.won for episode in episodes)
    turns = [turn for episode in episodes for turn in episode.turns]
    kinds = sorted({turn.invalid for turn in turns if turn.invalid is not None})
    parts = sorted({name for episode in episodes for name in episode.parts})
    return Outcome(
        episodes=n,
        won=won,
        won_by_task="".join("1" if episode.won else "0" for episode in episodes),
        success=won / n,
        interval=wilson(won, n),
        score=sum(episode.score for episode in episodes) / n,
        turns=len(turns) / n,
        truncated=sum(episode.truncated for episode in episodes),
        invalid={kind: sum(turn.invalid == kind for turn in turns) / len(turns) for kind in kinds},
        parts={name: fmean(e.parts[name] for e in episodes if name in e.parts) for name in parts},
    )
