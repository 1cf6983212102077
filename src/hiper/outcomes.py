"""What episodes came to: success with Wilson intervals, overall and per task type."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean

from hiper.episode import Episode


def wilson(successes: int, trials: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's score interval for a proportion (95% by default); Wilson 1927, JASA 22(158).

    Raises:
        ValueError: there are no trials, or more successes than trials.
    """
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(f"{successes} successes in {trials} trials")
    p = successes / trials
    centre = p + z * z / (2 * trials)
    spread = z * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    # At the ends exactly, where rounding would put the bound on the wrong side of p.
    low = (centre - spread) / scale if successes else 0.0
    high = (centre + spread) / scale if successes < trials else 1.0
    return low, high


@dataclass(frozen=True, slots=True)
class Outcome:
    """Episodes of one task type, or of all."""

    episodes: int
    won: int
    won_by_task: str
    """A digit for each episode, in the order of a panel's tasks: 1 if it was won; so outcomes can be paired."""
    success: float
    interval: tuple[float, float]
    """Wilson, 95%."""
    score: float
    """Mean graded outcome; equals success where the environment has no grades."""
    turns: float
    """Mean length."""
    truncated: int
    invalid: dict[str, float]
    """Share of turns that were invalid, by kind."""
    parts: dict[str, float] = field(default_factory=dict)
    """Mean of each part of the score, over the episodes that have it."""

    @property
    def graded(self) -> bool:
        """Whether the score says more than the success."""
        return not math.isclose(self.score, self.success)


def summarize(episodes: Sequence[Episode]) -> dict[str, Outcome]:
    """One :class:`Outcome` per task type, sorted, and ``all`` first."""
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
