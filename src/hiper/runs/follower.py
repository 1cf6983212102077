"""A run as all processes but the first see it, where several train it together."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from hiper.episode import Episode
from hiper.runs.cards import Card
from hiper.runs.folder import Run
from hiper.runs.metrics import MetricsLog, NoLog


@dataclass(frozen=True)
class Follower(Run):
    """A run that is read and never written."""

    def lock(self) -> AbstractContextManager[None]:
        """Do nothing, because the first process holds the lock."""
        return nullcontext()

    def save_settings(self) -> None:
        """Do nothing."""

    def set_diverged(self, message: str | None) -> None:
        """Do nothing."""

    def prune(self, keep: int) -> None:
        """Do nothing."""

    def open_log(self, after: int) -> MetricsLog:
        """Return a log that forgets what it is told."""
        return NoLog()

    def write_episodes(self, file: Path, episodes: Iterable[Episode]) -> None:
        """Do nothing."""

    def write_card(self, file: Path, card: Card) -> None:
        """Do nothing."""
