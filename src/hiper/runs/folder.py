"""The run directory: settings, metrics, every episode, checkpoints.

RUN/config.yaml                     the resolved settings
    warm-start                      the policy that training began from; until it is there, warm-start.unfinished
    metrics.jsonl                   one line per iteration and per evaluation; the same in tensorboard/
    episodes/iter-00012.jsonl.gz    every training episode, with its credit
    episodes/eval-...jsonl.gz       every evaluation episode
    evaluations/*.json              result cards
    checkpoints/iter-00010/policy   a Hugging Face directory; critic and optimiser beside it
    diverged                        if training diverged: where, and what to do
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from hiper.config import Config, validate_config
from hiper.errors import UserError
from hiper.files import write_text, writing
from hiper.strict_yaml import read_mapping
from hiper.training.build import SETTINGS


def episodes_played(metrics: Mapping[str, Any], config: Config) -> int:
    """In an iteration, by its metrics: those that dynamic sampling replaced by others are among them."""
    return int(metrics.get("group/episodes_played", config.rollout.episodes))


@dataclass(frozen=True)
class Run:
    """A run directory."""

    path: Path
    config: Config

    @classmethod
    def create(cls, path: Path, config: Config) -> Run:
        """A new run. Nothing is written before :meth:`save_settings`.

        Raises:
            UserError: there is one already.
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

    def save_settings(self) -> None:
        """Make the folder, with the settings in it."""
        write_text(self.path / "config.yaml", self.config.to_yaml())

    @classmethod
    def open(cls, path: Path) -> Run:
        """A run that exists.

        Raises:
            UserError: there is none, or its settings cannot be read.
        """
        return cls(path, read_settings(path / "config.yaml"))

    @property
    def begun(self) -> bool:
        """Whether it is there to be continued."""
        return (self.path / "config.yaml").exists()

    @property
    def diverged(self) -> str | None:
        """What was said when training diverged, if it did and was not continued since."""
        return self._divergence.read_text(encoding="utf-8").strip() if self._divergence.exists() else None

    def set_diverged(self, told: str | None) -> None:
        """Note that training diverged; None: that it is continued."""
        if told is None:
            self._divergence.unlink(missing_ok=True)
        else:
            write_text(self._divergence, f"{told}\n")

    @property
    def _divergence(self) -> Path:
        return self.path / "diverged"

    @property
    def warm_start(self) -> Path:
        """Where the policy lies that training began from, if it was made for this run."""
        return self.path / "warm-start"

    @property
    def checkpoints(self) -> list[Path]:
        """Whole checkpoints, oldest first."""
        return sorted(p for p in (self.path / "checkpoints").glob("iter-*") if re.fullmatch(r"iter-\d+", p.name))

    def training_episodes(self, iteration: int) -> Path:
        """Where the episodes of an iteration are stored."""
        return self.path / "episodes" / f"iter-{iteration:05d}.jsonl.gz"

    def evaluation_episodes(self, iteration: int, split: str) -> Path:
        """Where the episodes of an evaluation are stored."""
        return self.path / "episodes" / f"eval-{iteration:05d}-{split}.jsonl.gz"

    def card(self, iteration: int, split: str) -> Path:
        """Where the result card of an evaluation is stored."""
        return self.path / "evaluations" / f"eval-{iteration:05d}-{split}.json"

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        last = self.config.training.iterations
        return all(self.card(last, split).exists() for split in self.config.evaluation.splits) and (
            bool(self.checkpoints) and self.checkpoints[-1].name == checkpoint_name(last)
        )

    def checkpoint(self, iteration: int) -> Path:
        """Where the checkpoint after so many iterations goes."""
        return self.path / "checkpoints" / checkpoint_name(iteration)

    def prune(self, keep: int) -> None:
        """Delete all but the newest ``keep`` checkpoints."""
        for old in self.checkpoints[:-keep]:
            shutil.rmtree(old)


def checkpoint_name(iteration: int) -> str:
    """The folder of a checkpoint."""
    return f"iter-{iteration:05d}"


def read_settings(path: Path) -> Config:
    """The settings saved with a run or a policy.

    Raises:
        UserError: there are none, or they are not valid.
    """
    if not path.is_file():
        raise UserError(f"{path.parent} is not a run or a policy of one: it holds no {path.name}")
    return validate_config(read_mapping(path), str(path))


def find_policy(path: Path) -> Path:
    """The policy directory meant by a run, a checkpoint, or a policy directory itself.

    Raises:
        UserError: it is none of them.
    """
    if (path / SETTINGS).is_file():
        return path
    if (path / "policy" / SETTINGS).is_file():
        return path / "policy"
    if (path / "config.yaml").is_file() and (checkpoints := Run.open(path).checkpoints):
        return checkpoints[-1] / "policy"
    raise UserError(f"{path} is neither a run with a checkpoint, nor a checkpoint, nor a policy directory")


class MetricsLog:
    """Appends metrics to ``metrics.jsonl`` and to TensorBoard.

    Args:
        run: whose.
        after: drop what an earlier, interrupted process wrote of later iterations than this.
    """

    def __init__(self, run: Run, after: int) -> None:
        self._path = run.path / "metrics.jsonl"
        kept = [record for record in read_metrics(run.path) if record["iteration"] <= after]
        write_text(self._path, "".join(json.dumps(record) + "\n" for record in kept))
        board = run.path / "tensorboard"
        with writing(board):
            self._board = SummaryWriter(str(board), purge_step=after + 1)

    def write(self, iteration: int, metrics: Mapping[str, float]) -> None:
        """One line."""
        with writing(self._path), self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"iteration": iteration, **metrics}) + "\n")
        with writing(Path(self._board.log_dir)):
            for name, value in metrics.items():
                self._board.add_scalar(name, value, iteration)
            self._board.flush()

    def close(self) -> None:
        """Flush TensorBoard's file."""
        self._board.close()


def read_metrics(run_path: Path) -> list[dict[str, Any]]:
    """The metrics of a run, in the order written; a half-written last line is left out.

    Raises:
        UserError: another line than the last is damaged.
    """
    path = run_path / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number < len(lines):
                raise UserError(
                    f"{path}:{number} is damaged ({error}): mend the line, or delete it to go without what it told"
                ) from error
    return records
