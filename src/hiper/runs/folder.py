"""The run folder: names of its files, and everything that is read from them.

RUN/config.yaml                     resolved settings
    warm-start                      the policy that training began from; warm-start.unfinished until it is complete
    metrics.jsonl                   one line per iteration and per evaluation; the same in tensorboard/
    episodes/iter-00012.jsonl.gz    training episodes with their credit
    episodes/eval-00010-SPLIT.jsonl.gz    evaluation episodes
    evaluations/eval-00010-SPLIT.json     result cards
    checkpoints/iter-00010/policy   a Hugging Face directory; critic and optimizer beside it
    report.md, curve.png            the report
    tracking-id                     the identity of the run at tracking services
    diverged                        present if training diverged: where, and what to do
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from hiper.config import Config, validate_config
from hiper.episode import Episode, problem_of, read_own_episodes, write_episodes
from hiper.errors import UserError
from hiper.files import exclusive_lock, remove_folder, sweep, user_path, write_text
from hiper.outcomes import Outcome
from hiper.runs.cards import Card
from hiper.runs.metrics import (
    CARD_NAME,
    EVAL_SUCCESS,
    SUCCESS,
    MetricsLog,
    card_problems,
    metrics_problems,
    read_metrics,
)
from hiper.runs.trackers import find_trackers
from hiper.strict_yaml import read_mapping


@dataclass(frozen=True)
class Evaluated:
    """One evaluation of a run, read back from its card."""

    iteration: int
    """How many iterations came before it."""
    split: str
    card: Card

    @property
    def outcomes(self) -> Mapping[str, Outcome]:
        """Outcomes by task type; ``all`` first."""
        return self.card.outcomes

    @property
    def overall(self) -> Outcome:
        """The outcome over all task types."""
        return self.card.overall

    @property
    def panel(self) -> str:
        """Name of the panel and the beginning of its hash."""
        return f"{self.card.panel.name}, sha256 {self.card.panel.sha256[:12]}"

    @property
    def environment(self) -> str:
        """Name, version and turn limit of the environment."""
        env = self.card.environment
        return f"{env.name} version {env.version}, at most {env.max_turns} turns"


@dataclass(frozen=True)
class Run:
    """A run folder.

    Reading needs neither torch nor a model. The tensors of a checkpoint are the learner's business.
    """

    path: Path
    config: Config
    origin: Path | None = None
    """Where the run was packed, if ``path`` is only a temporary copy (:mod:`hiper.runs.records`)."""

    @classmethod
    def create(cls, path: Path, config: Config) -> Self:
        """Describe a new run. Nothing is written before :meth:`save_settings`.

        Raises:
            UserError: the folder holds a run already.
        """
        run = cls(path, config)
        if run.checkpoints and not run.begun:
            raise UserError(
                f"{path} holds checkpoints of a run whose config.yaml is gone: choose another folder with --out"
            )
        if run.begun:
            raise UserError(
                f"there is a run in {path} already; continue it with `hiper train --resume {path}`, "
                "or choose another folder with --out"
            )
        return run

    @classmethod
    def open(cls, path: Path, origin: Path | None = None) -> Self:
        """Open an existing run.

        Raises:
            UserError: the folder holds no run, or the settings are invalid.
        """
        return cls(path, read_settings(_settings_file(user_path(path))), origin)

    @staticmethod
    def exists(path: Path) -> bool:
        """Whether ``path`` is the folder of a run that has begun."""
        return _settings_file(path).is_file()

    @property
    def shown_path(self) -> Path:
        """The path to show to people."""
        return self.origin or self.path

    # Settings and state

    def lock(self) -> AbstractContextManager[None]:
        """Keep other processes from training this run.

        Raises:
            UserError: another process does already.
        """
        return exclusive_lock(self.path)

    @property
    def settings_file(self) -> Path:
        """The resolved settings."""
        return _settings_file(self.path)

    def save_settings(self) -> None:
        """Make the folder and write the settings."""
        write_text(self.settings_file, self.config.to_yaml())

    @property
    def begun(self) -> bool:
        """Whether the run can be continued."""
        return self.exists(self.path)

    @property
    def diverged(self) -> str | None:
        """The message of the divergence that ended training; None: no divergence, or the run was continued since."""
        return self._divergence.read_text(encoding="utf-8").strip() if self._divergence.exists() else None

    def set_diverged(self, message: str | None) -> None:
        """Note that training diverged; None removes the note."""
        if message is None:
            self._divergence.unlink(missing_ok=True)
        else:
            write_text(self._divergence, f"{message}\n")

    @property
    def _divergence(self) -> Path:
        return self.path / "diverged"

    @property
    def finished(self) -> bool:
        """Whether the last iteration is saved and evaluated."""
        return self.evaluated and self.checkpoints[-1:] == [self.checkpoint(self.config.training.iterations)]

    @property
    def evaluated(self) -> bool:
        """Whether the cards of the last iteration are there."""
        last = self.config.training.iterations
        return all(self.card(last, split).exists() for split in self.config.evaluation.splits)

    # Policies

    @property
    def warm_start(self) -> Path:
        """Folder of the policy that training began from, if it was made for this run."""
        return self.path / "warm-start"

    def checkpoint(self, iteration: int) -> Path:
        """Folder of the checkpoint after ``iteration``."""
        return self._checkpoints / f"iter-{iteration:05d}"

    @property
    def checkpoints(self) -> list[Path]:
        """Complete checkpoints, oldest first."""
        found = {n: folder for folder in self._checkpoints.glob("iter-*") if (n := _number(folder.name)) is not None}
        return [found[number] for number in sorted(found)]

    @property
    def _checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def prune(self, keep: int) -> None:
        """Delete all but the newest ``keep`` checkpoints, and what killed processes left of others."""
        for old in self.checkpoints[:-keep]:
            remove_folder(old)
        sweep(self._checkpoints)

    # Metrics

    @property
    def metrics_file(self) -> Path:
        """Metrics, one JSON object per line."""
        return self.path / "metrics.jsonl"

    @property
    def tensorboard(self) -> Path:
        """Folder of TensorBoard's event files."""
        return self.path / "tensorboard"

    def metrics(self) -> list[dict[str, Any]]:
        """Read all metrics in the order written; a half-written last line is left out.

        Raises:
            UserError: another line than the last is damaged.
        """
        return read_metrics(self.metrics_file)

    def iteration_metrics(self) -> list[dict[str, Any]]:
        """Read the metrics of training iterations, without those of evaluations.

        Raises:
            UserError: see :meth:`metrics`.
        """
        return [record for record in self.metrics() if SUCCESS.name in record]

    def open_log(self, after: int) -> MetricsLog:
        """Open the metrics for writing; see :class:`~hiper.runs.metrics.MetricsLog`."""
        return MetricsLog(self.metrics_file, after, [make(self, after) for make in find_trackers(self.config)])

    def problems(self, after: int) -> list[str]:
        """Describe in words what the stored results of the first ``after`` iterations lack.

        Raises:
            UserError: see :meth:`metrics`.
        """
        records = [record for record in self.metrics() if record["iteration"] <= after]
        found = [f"{self.metrics_file}: {problem}" for problem in metrics_problems(records, after)]
        needed = [self.training_episodes(iteration) for iteration in range(1, after + 1)]
        for split in self.config.evaluation.splits:
            evaluated = {record["iteration"] for record in records if EVAL_SUCCESS.of(split) in record}
            # The evaluation of the newest checkpoint may be unfinished. It is then done again.
            for iteration in sorted(evaluated - {after}):
                needed += [self.card(iteration, split), self.evaluation_episodes(iteration, split)]
            lost = [n for n in range(after) if n not in evaluated and self.card(n, split).exists()]
            if lost:
                found.append(f"{self.metrics_file}: no line of the evaluation after iteration {lost[0]} on {split}")
        missing = [file for file in needed if not file.exists()]
        if missing:
            others = f", and {len(missing) - 1} other files" if len(missing) > 1 else ""
            found.append(f"{missing[0]} is missing{others}")
        found += filter(None, map(problem_of, sorted(self.episodes_folder.glob("*.jsonl.gz"))))
        return [*found, *card_problems(self.evaluations_folder, self.metrics_file, records, after)]

    # Episodes

    @property
    def episodes_folder(self) -> Path:
        """Folder of all stored episodes."""
        return self.path / "episodes"

    def training_episodes(self, iteration: int) -> Path:
        """File of the episodes of an iteration."""
        return self.episodes_folder / f"iter-{iteration:05d}.jsonl.gz"

    def evaluation_episodes(self, iteration: int, split: str) -> Path:
        """File of the episodes of an evaluation."""
        return self.episodes_folder / f"eval-{iteration:05d}-{split}.jsonl.gz"

    def write_episodes(self, file: Path, episodes: Iterable[Episode]) -> None:
        """Write episodes to one of the run's files.

        Raises:
            UnwritableError: the disk refused.
        """
        write_episodes(file, episodes)

    @property
    def stored_iterations(self) -> list[int]:
        """Iterations whose training episodes are stored, in order."""
        files = self.episodes_folder.glob("iter-*.jsonl.gz")
        return sorted(n for f in files if (n := _number(f.name.removesuffix(".jsonl.gz"))) is not None)

    def episodes(self, iteration: int) -> Iterator[Episode]:
        """Read the training episodes of an iteration.

        Raises:
            UserError: the file is missing or damaged.
        """
        return read_own_episodes(self.training_episodes(iteration))

    def evaluated_episodes(self, iteration: int, split: str) -> Iterator[Episode]:
        """Read the episodes of an evaluation.

        Raises:
            UserError: the file is missing or damaged.
        """
        return read_own_episodes(self.evaluation_episodes(iteration, split))

    # Evaluations

    @property
    def evaluations_folder(self) -> Path:
        """Folder of the result cards."""
        return self.path / "evaluations"

    def card(self, iteration: int, split: str) -> Path:
        """File of the result card of an evaluation."""
        return self.evaluations_folder / f"eval-{iteration:05d}-{split}.json"

    def write_card(self, file: Path, card: Card) -> None:
        """Write a result card to one of the run's files."""
        card.write(file)

    def evaluations(self) -> dict[str, list[Evaluated]]:
        """Read all evaluations by split, in the order of iterations.

        Raises:
            UserError: a card is damaged or of another version.
        """
        by_split: dict[str, list[Evaluated]] = {}
        for path in sorted(self.evaluations_folder.glob("*.json")):
            if name := CARD_NAME.fullmatch(path.stem):
                by_split.setdefault(name[2], []).append(Evaluated(int(name[1]), name[2], Card.read(path)))
        return {split: sorted(found, key=lambda e: e.iteration) for split, found in by_split.items()}

    # Reports and records

    @property
    def report_file(self) -> Path:
        """The report."""
        return self.path / "report.md"

    @property
    def curve_file(self) -> Path:
        """The learning curve of the report."""
        return self.path / "curve.png"

    @property
    def record_files(self) -> list[Path]:
        """The files that a published record keeps: settings, metrics, cards, and the note of a divergence."""
        files = [self.settings_file, self.metrics_file, self._divergence]
        return [*(f for f in files if f.is_file()), *sorted(self.evaluations_folder.glob("*.json"))]


def checkpoint_policy(checkpoint: Path) -> Path:
    """The policy folder inside a checkpoint."""
    return checkpoint / "policy"


def read_settings(path: Path) -> Config:
    """Read the settings saved with a run or a policy.

    Raises:
        UserError: the file is missing or invalid.
    """
    if not path.is_file():
        raise UserError(f"{path.parent} is not a run or a policy of one: it holds no {path.name}")
    return validate_config(read_mapping(path), str(path))


def _settings_file(path: Path) -> Path:
    return path / "config.yaml"


def _number(name: str) -> int | None:
    """The iteration in the name of a checkpoint or of a file of episodes."""
    match = re.fullmatch(r"iter-(\d+)", name)
    return int(match[1]) if match else None
