"""What runs left behind, as far as it can be compared: evaluations, outcomes per task, metrics of the iterations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hiper.advantages import Floats
from hiper.analysis.report import Evaluated, read_evaluations
from hiper.config import Config
from hiper.errors import UserError
from hiper.runs.folder import Run, episodes_played, read_metrics

SUCCESS, SWITCH_RATE, SEGMENT = "success/all", "plan/switch_rate", "plan/segment_turns"


@dataclass(frozen=True)
class Trace:
    """One run."""

    path: Path
    config: Config
    evaluations: Mapping[str, Sequence[Evaluated]]
    """By split, in the order of iterations; at least one each."""
    iterations: Sequence[Mapping[str, Any]]
    """Metrics of training, from the first iteration on."""
    diverged: bool = False
    """It stopped short, and would again."""

    @property
    def alarms(self) -> list[str]:
        """The names of the alarms that rang, see :mod:`hiper.training.alarms`."""
        names = [key for record in self.iterations for key in record if key.startswith("alarm/") and record[key]]
        return list(dict.fromkeys(name.removeprefix("alarm/") for name in names))

    def effort(self, iteration: int) -> tuple[int, float]:
        """Episodes played, and minutes spent in iterations, until ``iteration`` was done."""
        done = [record for record in self.iterations if record["iteration"] <= iteration]
        episodes = sum(episodes_played(record, self.config) for record in done)
        return episodes, sum(record["time/iteration"] for record in done) / 60


@dataclass(frozen=True)
class Point:
    """A place on a curve: means over a method's seeds, and the worst and the best of them."""

    iteration: int
    episodes: float
    minutes: float
    mean: float
    low: float
    high: float
    tasks: int | None = None
    """Held-out ones, where success is on these."""


@dataclass(frozen=True)
class Method:
    """Runs that differ in their seeds alone, in the order of these."""

    label: str
    traces: Sequence[Trace]

    @property
    def seeds(self) -> list[int]:
        """One per run."""
        return [trace.config.seed for trace in self.traces]

    def outcomes(self, split: str, seeds: Sequence[int] | None = None, task_type: str = "all") -> Floats:
        """(S, N) of the last evaluation, 1 where a task was won; tasks in the order of their panel.

        Args:
            split: which tasks.
            seeds: whose; None: all, in order.
            task_type: of which type, alone.
        """
        of = {trace.config.seed: trace.evaluations[split][-1].outcomes[task_type] for trace in self.traces}
        return np.array([[float(won) for won in of[seed].won_by_task] for seed in seeds or self.seeds])

    def held_out(self, split: str) -> list[Point]:
        """Success at the iterations after which all runs were evaluated."""
        values = [{e.iteration: e.overall.success for e in trace.evaluations[split]} for trace in self.traces]
        tasks = {e.iteration: e.overall.episodes for e in self.traces[0].evaluations[split]}
        return [replace(point, tasks=tasks[point.iteration]) for point in self._curve(values)]

    def training(self, metric: str) -> list[Point]:
        """A metric of the iterations that all runs have it of."""
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
    """Gather them from a run's folder.

    Raises:
        UserError: the run has not been evaluated yet, or a card or the metrics of it are damaged.
    """
    evaluations = read_evaluations(run)
    if not evaluations:
        advice = f"; continue it with: hiper train --resume {run.path}" if run.diverged is None else f": {run.diverged}"
        raise UserError(f"{run.path} holds no evaluation yet{advice}")
    iterations = [record for record in read_metrics(run.path) if SUCCESS in record]
    known = {record["iteration"] for record in iterations}
    evaluated = max(of[-1].iteration for of in evaluations.values())
    if missing := [n for n in range(1, evaluated + 1) if n not in known]:
        raise UserError(
            f"{run.path / 'metrics.jsonl'} lacks {len(missing)} of the {evaluated} iterations before the last "
            f"evaluation, the first of them {missing[0]}: bring back the file, or leave the run out"
        )
    return Trace(run.path, run.config, evaluations, iterations, run.diverged is not None)
