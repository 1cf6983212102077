"""What a comparison reads of each run: evaluations, outcomes per task, metrics of the iterations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hiper.advantages import Floats
from hiper.config import Config
from hiper.errors import UserError
from hiper.runs.folder import Evaluated, Run
from hiper.runs.metrics import ITERATION_SECONDS, alarms_in, episodes_played


@dataclass(frozen=True)
class Trace:
    """One run."""

    path: Path
    """The path to show to people."""
    config: Config
    evaluations: Mapping[str, Sequence[Evaluated]]
    """By split, in the order of iterations; at least one each."""
    iterations: Sequence[Mapping[str, Any]]
    """Metrics of the training iterations, in order."""
    diverged: bool = False
    """Training diverged and stopped early."""

    @property
    def alarms(self) -> list[str]:
        """Names of the alarms that rang (:mod:`hiper.training.alarms`), in the order of their first ring."""
        return list(dict.fromkeys(name for record in self.iterations for name in alarms_in(record)))

    def effort(self, iteration: int) -> tuple[int, float]:
        """Count the episodes and the minutes of all iterations up to and including ``iteration``."""
        done = [record for record in self.iterations if record["iteration"] <= iteration]
        episodes = sum(episodes_played(record, self.config) for record in done)
        return episodes, sum(record.get(ITERATION_SECONDS.name, 0.0) for record in done) / 60


@dataclass(frozen=True)
class Point:
    """A point of a curve: the mean over a method's seeds, with the lowest and the highest seed."""

    iteration: int
    episodes: float
    minutes: float
    mean: float
    low: float
    high: float
    tasks: int | None = None
    """Number of held-out tasks; None for metrics of training."""


@dataclass(frozen=True)
class Method:
    """Runs that differ in their seeds alone, ordered by seed."""

    label: str
    traces: Sequence[Trace]

    @property
    def seeds(self) -> list[int]:
        """The seed of each run."""
        return [trace.config.seed for trace in self.traces]

    def outcomes(self, split: str, seeds: Sequence[int] | None = None, task_type: str = "all") -> Floats:
        """Return (S, N) outcomes of the last evaluation by seed and task: 1 if the task was won, else 0.

        Args:
            split: the split; its N tasks are in the order of the panel.
            seeds: the S seeds; None: all, in order.
            task_type: only tasks of this type.
        """
        of = {trace.config.seed: trace.evaluations[split][-1].outcomes[task_type] for trace in self.traces}
        return np.array([[float(won) for won in of[seed].won_by_task] for seed in seeds or self.seeds])

    def held_out(self, split: str) -> list[Point]:
        """Curve of held-out success, at iterations after which all runs were evaluated."""
        values = [{e.iteration: e.overall.success for e in trace.evaluations[split]} for trace in self.traces]
        tasks = {e.iteration: e.overall.episodes for e in self.traces[0].evaluations[split]}
        return [replace(point, tasks=tasks[point.iteration]) for point in self._curve(values)]

    def training(self, metric: str) -> list[Point]:
        """Curve of a training metric, at iterations for which all runs have it."""
        values = [{r["iteration"]: r[metric] for r in trace.iterations if metric in r} for trace in self.traces]
        return self._curve(values)

    def _curve(self, values: Sequence[Mapping[int, float]]) -> list[Point]:
        points = []
        for iteration in sorted(set.intersection(*map(set, values))):
            episodes, minutes = np.mean([trace.effort(iteration) for trace in self.traces], axis=0)
            at = [value[iteration] for value in values]
            points.append(
                Point(iteration, float(episodes), float(minutes), float(np.mean(at)), float(min(at)), float(max(at)))
            )
        return points


def read_trace(run: Run) -> Trace:
    """Read what a comparison needs from a run's folder.

    Raises:
        UserError: the run has no evaluation yet, or a card or the metrics are damaged or incomplete.
    """
    evaluations = run.evaluations()
    if not evaluations:
        advice = f"; continue it with: hiper train --resume {run.path}" if run.diverged is None else f": {run.diverged}"
        raise UserError(f"{run.shown_path} holds no evaluation yet{advice}")
    iterations = run.iteration_metrics()
    known = {record["iteration"] for record in iterations}
    evaluated = max(of[-1].iteration for of in evaluations.values())
    if missing := [n for n in range(1, evaluated + 1) if n not in known]:
        file = run.shown_path / run.metrics_file.name
        raise UserError(
            f"{file} lacks {len(missing)} of the {evaluated} iterations before the last "
            f"evaluation, the first of them {missing[0]}: bring back the file, or leave the run out"
        )
    return Trace(run.shown_path, run.config, evaluations, iterations, run.diverged is not None)
