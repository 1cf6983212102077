"""The results of playing games beside TextWorld."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Difference:
    """The first turn at which the two engines disagree."""

    turn: int
    """The turn. 0 is the opening."""
    command: str
    what: str
    """The part that differs: text, admissible, won, done or score."""
    textworld: Any
    ours: Any
    before: tuple[tuple[str, str], ...]
    """The last commands and answers before it."""


@dataclass(frozen=True, slots=True)
class GameResult:
    """The result of one game."""

    id: str
    style: str
    turns: int
    won: bool
    understood: dict[str, int]
    """The numbers of admissible commands by verb, and of other commands under ""."""
    textworld_seconds: float
    our_seconds: float
    difference: Difference | None
    commands: tuple[str, ...]
    answers: tuple[str, ...]
    """Digests of TextWorld's answers: for the reset, then for each command."""


@dataclass(slots=True)
class ParityReport:
    """The results of all games of a run."""

    results: list[GameResult] = field(default_factory=list)

    @property
    def differences(self) -> list[GameResult]:
        """The games in which something differs."""
        return [result for result in self.results if result.difference]

    def summary(self) -> str:
        """Return a summary of a few lines."""
        results = self.results
        verbs: Counter[str] = Counter()
        styles: Counter[str] = Counter()
        for result in results:
            verbs.update(result.understood)
            styles[result.style] += 1
        lines = [
            f"{len(results)} games, {sum(r.turns for r in results)} turns, {sum(r.won for r in results)} won: "
            f"{len(self.differences)} differ",
            f"  players: {_counts(styles)}",
            f"  commands: {_counts(verbs)}",
            f"  seconds: TextWorld {sum(r.textworld_seconds for r in results):.1f}, "
            f"ours {sum(r.our_seconds for r in results):.3f}",
        ]
        for result in self.differences[:5]:
            lines.append(f"  {result.id}: {json.dumps(asdict(result)['difference'], indent=2)}")
        return "\n".join(lines)


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{name or '(not understood)'} {count}" for name, count in sorted(counter.items()))
