"""One run as far as it can be read: what is damaged becomes a note, and the rest is shown."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from hiper.config import Config, flatten
from hiper.errors import UserError
from hiper.runs.cards import Card
from hiper.runs.folder import Run, read_settings
from hiper.runs.metrics import (
    CARD_NAME,
    EVAL_SECONDS,
    ITERATION_SECONDS,
    SUCCESS,
    alarms_in,
    metric_of,
    readable_metrics,
)
from hiper.strict_yaml import read_mapping
from hiper.viewer.folder import Folder, NotFoundError

EPISODE_FILE = re.compile(r"(iter-(\d+)|eval-(\d+)-([^/\0]+))\.jsonl\.gz")
"""The name of a file of episodes."""
QUIET_SECONDS = 180.0
"""A run that wrote nothing for this long, or for four of its iterations, counts as stopped."""


@dataclass(frozen=True)
class EpisodeFile:
    """A file of episodes of a run."""

    name: str
    """Its name without ``.jsonl.gz``, as in addresses."""
    path: Path
    iteration: int
    split: str | None
    """The split of an evaluation; None: training."""
    stamp: tuple[int, int]
    """Time of the last change, and size. Both are new when the file is written anew."""


@dataclass
class RunReader:
    """Reads one run. What was read is kept until its file changes."""

    folder: Folder
    id: str
    path: Path
    _kept: dict[Path, tuple[Any, Any]] = field(default_factory=dict)

    # Settings

    def settings(self) -> tuple[dict[str, Any], Config | None, list[str]]:
        """Return the settings by dotted key, the same validated if they can be, and notes on what is wrong."""
        return self._read(self.path / "config.yaml", _settings) or ({}, None, ["config.yaml is missing"])

    @property
    def config(self) -> Config:
        """The settings.

        Raises:
            UserError: They are missing or invalid.
        """
        _, config, notes = self.settings()
        if config is None:
            raise UserError("; ".join(notes))
        return config

    @property
    def name(self) -> str:
        """The name of the run's recipe."""
        return str(self.settings()[0].get("name", self.path.name))

    # Metrics and evaluations

    def metrics(self) -> tuple[list[dict[str, Any]], list[str]]:
        """Return the metrics that can be read, and notes on the others."""
        return self._read(self.path / "metrics.jsonl", _metrics) or ([], [])

    def evaluations(self) -> tuple[list[tuple[int, str, Card]], list[str]]:
        """Return iteration, split and card of each evaluation that can be read, in order, and notes on the others."""
        cards, notes = [], []
        for file in sorted((self.path / "evaluations").glob("*.json")):
            if name := CARD_NAME.fullmatch(file.stem):
                card = self._read(file, _card)
                if isinstance(card, Card):
                    cards.append((int(name[1]), name[2], card))
                elif card:
                    notes.append(card)
        return sorted(cards, key=lambda card: card[:2]), notes

    # Episodes

    def episode_files(self) -> list[EpisodeFile]:
        """Return the files of episodes, newest iteration last."""
        found = map(self._episode_file, (self.path / "episodes").glob("*.jsonl.gz"))
        return sorted(filter(None, found), key=lambda file: (file.iteration, file.split or ""))

    def episode_file(self, name: str) -> EpisodeFile:
        """Return a file of episodes by its name.

        Raises:
            NotFoundError: There is none.
        """
        file = f"{name}.jsonl.gz"
        found = self._episode_file(self.path / "episodes" / file) if EPISODE_FILE.fullmatch(file) else None
        if found is None:
            raise NotFoundError(f"run '{self.id}' has no episodes '{name}'")
        return found

    def _episode_file(self, path: Path) -> EpisodeFile | None:
        match = EPISODE_FILE.fullmatch(path.name)
        if match is None or not self.folder.holds(path) or (told := _told(path)) is None:
            return None
        return EpisodeFile(match[1], path, int(match[2] or match[3]), match[4], (told.st_mtime_ns, told.st_size))

    # State

    def stamp(self) -> str:
        """Return a text that changes whenever something of the run changes."""
        places = (self.path / n for n in ("config.yaml", "metrics.jsonl", "episodes", "evaluations", "diverged"))
        return "-".join(str(told.st_mtime_ns) if (told := _told(place)) else "0" for place in places)

    def summary(self) -> dict[str, Any]:
        """Return what a list of runs shows of this one."""
        settings, config, settings_notes = self.settings()
        records, notes = self.metrics()
        cards, card_notes = self.evaluations()
        trained = [record for record in records if SUCCESS.name in record]
        last = trained[-1] if trained else {}
        total = settings.get("training.iterations")
        state, updated = self._state(config, trained)
        held_out = {split: (iteration, card) for iteration, split, card in cards}
        return {
            "id": self.id,
            "name": self.name,
            "folder": self.path.name,
            "seed": _exact(settings.get("seed")),
            "method": settings.get("advantages.type"),
            "environment": settings.get("env.name"),
            "state": state,
            "iteration": last.get("iteration", 0),
            "iterations": total if isinstance(total, int) else None,
            "success": last.get(SUCCESS.name),
            "held_out": [
                {"split": split, "iteration": iteration, **_outcome(card)}
                for split, (iteration, card) in held_out.items()
            ],
            "seconds_left": self._seconds_left(records, trained, config) if state == "training" else None,
            "updated": updated,
            "alarms": alarms_in(last),
            "trend": [record[SUCCESS.name] for record in trained][-60:],
            "notes": [*settings_notes, *notes, *card_notes],
        }

    def details(self) -> dict[str, Any]:
        """Return everything that the page of a run shows, apart from its episodes."""
        settings, _, _ = self.settings()
        records, _ = self.metrics()
        cards, _ = self.evaluations()
        trained = [record for record in records if SUCCESS.name in record]
        names = sorted({name for record in trained for name in record} - {"iteration"})
        return self.summary() | {
            "settings": {key: _exact(value) for key, value in settings.items()},
            "metrics": {
                "iteration": [record["iteration"] for record in trained],
                **{name: [record.get(name) for record in trained] for name in names},
            },
            "meanings": {name: _meaning(name) for name in names},
            "alarms_rang": [
                {"iteration": record["iteration"], "name": name} for record in trained for name in alarms_in(record)
            ],
            "evaluations": [
                {"iteration": iteration, "split": split, "card": card.to_json() | {"seed": _exact(card.seed)}}
                for iteration, split, card in cards
            ],
            "files": [
                {"name": file.name, "iteration": file.iteration, "split": file.split, "size": file.stamp[1]}
                for file in self.episode_files()
            ],
            "diverged": self._text("diverged"),
        }

    def _state(self, config: Config | None, trained: list[dict[str, Any]]) -> tuple[str, float]:
        """Return what the run is doing, as far as files tell, and when it wrote last."""
        places = (self.path, *(self.path / name for name in ("metrics.jsonl", "episodes", "evaluations")))
        updated = max((told.st_mtime for place in places if (told := _told(place))), default=0.0)
        if _told(self.path / "diverged"):
            return "diverged", updated
        if config is not None and Run(self.path, config).finished:
            return "finished", updated
        pace = fmean(r.get(ITERATION_SECONDS.name, 0.0) for r in trained[-5:]) if trained else 0.0
        quiet = time.time() - updated > max(QUIET_SECONDS, 4 * pace)
        return ("stopped" if quiet else "training"), updated

    def _seconds_left(
        self, records: list[dict[str, Any]], trained: list[dict[str, Any]], config: Config | None
    ) -> float | None:
        """Return the time to go: the mean of the last iterations, and of evaluations, for each that is left."""
        if config is None or not trained:
            return None
        left = config.training.iterations - trained[-1]["iteration"]
        pace = fmean(record.get(ITERATION_SECONDS.name, 0.0) for record in trained[-5:])
        told = [value for record in records for name, value in record.items() if EVAL_SECONDS.matches(name)]
        every = config.evaluation.every
        rounds = (left // every if every else 0) + 1
        return float(left * pace + rounds * len(config.evaluation.splits) * (fmean(told) if told else 0.0))

    def _text(self, name: str) -> str | None:
        read: str | None = self._read(self.path / name, _beginning)
        return read

    def _read(self, path: Path, read: Any) -> Any:
        """Read a file that lies inside the folder, or return what was read before it last changed; None: no file."""
        try:
            told = self.folder.inside(path).stat()
            stamp = (told.st_mtime_ns, told.st_size)
            if self._kept.get(path, (None,))[0] != stamp:
                self._kept[path] = (stamp, read(path))
            return self._kept[path][1]
        except (OSError, NotFoundError):
            return None


def _told(path: Path) -> os.stat_result | None:
    """Return what the disk tells of a file; None: it is not there, or not any more."""
    try:
        return path.stat()
    except OSError:
        return None


def _settings(path: Path) -> tuple[dict[str, Any], Config | None, list[str]]:
    try:
        tree: Mapping[str, Any] = read_mapping(path)
    except UserError as error:
        return {}, None, [_reason(error, path)]
    flat = dict(flatten(tree))
    try:
        return flat, read_settings(path), []
    except UserError as error:
        return flat, None, [_reason(error, path)]


def _metrics(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    try:
        return readable_metrics(path)
    except OSError as error:
        return [], [f"{path.name} cannot be read: {error.strerror}"]


def _reason(error: UserError, path: Path) -> str:
    """Return what is wrong with a file. The file is named without its folder, which is nobody's business in exports."""
    return str(error).replace(f"{path.parent}{os.sep}", "")


def _beginning(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")[:4000]


def _card(path: Path) -> Card | str:
    try:
        return Card.read(path)
    except UserError as error:
        return _reason(error, path)


def _exact(value: Any) -> Any:
    """Return a whole number as text if a browser would round it; anything else as it is."""
    return str(value) if isinstance(value, int) and abs(value) > 2**53 else value


def _outcome(card: Card) -> dict[str, Any]:
    low, high = card.overall.interval
    return {"success": card.overall.success, "low": low, "high": high, "episodes": card.overall.episodes}


def _meaning(name: str) -> dict[str, str]:
    try:
        metric = metric_of(name)
    except ValueError:
        return {"unit": "", "meaning": ""}
    return {"unit": metric.unit, "meaning": metric.meaning}
