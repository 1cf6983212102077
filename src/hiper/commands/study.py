"""`hiper study`: tune the methods if asked to, run what is not done yet, and compare everything that is done.

A sweep does this once for each value of a setting, in a folder each, and ends with success against that value.
"""

from __future__ import annotations

from collections.abc import Sequence, Set, Sized
from dataclasses import dataclass
from pathlib import Path

import yaml

from hiper.analysis.comparison.comparison import Comparison
from hiper.commands.compare import compare_runs
from hiper.commands.dry_run import show_plan
from hiper.commands.output import write_results
from hiper.display.console import Display
from hiper.errors import UserError
from hiper.files import forget_lock, write_text
from hiper.launch.local import Launch, local_processes, run_commands
from hiper.runs.folder import Run
from hiper.study.definition import Study, Tuning, combinations, points_of, trial_name, trials_of
from hiper.study.jobs import Job, jobs_of, left_of
from hiper.study.sweep import SweepReport
from hiper.study.tuning import choose_settings


def run_study(
    study: Study,
    folder: Path,
    display: Display,
    *,
    jobs: int = 1,
    threads: int | None = None,
    processes: int = 1,
    force: bool = False,
) -> None:
    """Do what is left of a study, and compare its methods.

    Args:
        study: the study.
        folder: where to write; an earlier call may have left a part of the study there.
        display: where to say what happens.
        jobs: number of processes that run in parallel.
        threads: CPU threads of each process; None: as the recipes say.
        processes: number of processes that work together on each job.
        force: begin jobs although the memory that is free is too small.

    Raises:
        UserError: the folder holds something made under other settings, the study is already running, or a run failed.
            In the last case all other runs are done and compared first.
        KeyboardInterrupt: the user stopped; unfinished runs have been saved.
    """
    points = {value: (point, folder / _subfolder(study, value)) for value, point in points_of(study).items()}
    with local_processes(folder) as launch:
        for point, place in points.values():
            _check(point, place, threads)
        write_text(folder / "study.yaml", yaml.safe_dump(study.model_dump(mode="json"), sort_keys=False))
        runner = _Runner(display, launch, jobs, threads, processes, force)
        results = {value: runner.run(point, place) for value, (point, place) in points.items()}
        if study.sweep is not None:
            comparisons = {value: r.comparison for value, r in results.items() if r.comparison is not None}
            _show_sweep(SweepReport.of(study.sweep.setting, comparisons), folder, display)
    failures = {
        f"{name} ({_subfolder(study, value)})" if study.sweep else name: reason
        for value, result in results.items()
        for name, reason in result.failures.items()
    }
    if failures:
        reasons = "\n  ".join(f"{name}: {reason}" for name, reason in failures.items())
        count = sum(result.jobs for result in results.values())
        raise UserError(
            f"{len(failures)} of {count} failed. The same command tries them again, except those that diverged, and "
            f"repeats nothing that is done:\n  {reasons}"
        )


def plan_study(study: Study, folder: Path, display: Display, *, threads: int | None = None) -> None:
    """Show the definition of a study, and which of its jobs are done and which would be done.

    Args:
        study: the study.
        folder: where it would be written.
        display: where to show progress.
        threads: CPU threads of each process; None: as the recipes say.

    Raises:
        UserError: the folder holds something made under other settings.
    """
    lines = [f"writes to {folder}" + ("" if folder.exists() else ", which is new")]
    with display.bar("reading the jobs"):
        for value, point in points_of(study).items():
            place = folder / _subfolder(study, value)
            _check(point, place, threads)
            if (tuning := point.tuning) is not None:
                lines += _listed(
                    f"{value} tuning".strip(), jobs_of(trials_of(point, tuning), place / "tuning", threads)
                )
            lines += _listed(f"{value} study".strip(), jobs_of(point, place, threads))
    text = yaml.safe_dump(study.model_dump(mode="json"), sort_keys=False)
    show_plan(text, lines, display.console.width)


def _listed(what: str, jobs: Sequence[Job]) -> list[str]:
    left = left_of(jobs)
    lines = [f"{what}: {len(jobs)} jobs, of which {len(jobs) - len(left)} are done already"]
    return lines + [f"  {job.name} {'continues' if job.begun else 'begins'}" for job in left]


def _subfolder(study: Study, value: str) -> str:
    """Return the place of a sweep's point in the folder of the study; a study without a sweep needs none."""
    return f"{study.sweep.setting}={value}" if study.sweep else ""


def _check(study: Study, folder: Path, threads: int | None) -> None:
    """Check that the folder's content belongs to this study (without a sweep), as far as is known before tuning."""
    undecided: tuple[str, ...] = ()
    if study.tuning is not None:
        for job in jobs_of(trials_of(study, study.tuning), folder / "tuning", threads):
            job.check()
        # Tuning may decide a method's warm start, and even whether it has one.
        undecided = (*study.tuning.grid, "model.path")
    for job in jobs_of(study, folder, threads):
        job.check(undecided)


def _show_sweep(report: SweepReport, folder: Path, display: Display) -> None:
    if report.splits:
        display.show(*report.tables())
        write_results(folder, "sweep", display, report.to_json(), report.draw, report.markdown("sweep.png"))


@dataclass(frozen=True)
class _Result:
    """Outcome of a study without a sweep."""

    comparison: Comparison | None
    """None: no run is done."""
    jobs: int
    """Number of jobs, trials included."""
    failures: dict[str, str]
    """Reasons of failure by job."""


@dataclass(frozen=True)
class _Runner:
    """Runs studies without a sweep, all in the same way."""

    display: Display
    launch: Launch
    slots: int
    threads: int | None
    processes: int
    force: bool

    def run(self, study: Study, folder: Path) -> _Result:
        """Tune a study's methods if it says so, do its runs, and compare those that are done.

        A method waits if one of its trials failed. A trial that diverged has lost, but has not failed.
        """
        self.display.note(
            f"study      {study.name}: {_many(study.methods, 'method')} and {_many(study.seeds, 'seed')}, in {folder}"
        )
        trials: list[Job] = []
        failures: dict[str, str] = {}
        missing: list[str] = []
        if (tuning := study.tuning) is not None:
            trials, failures = self._try_settings(study, tuning, folder / "tuning")
            tunable = _without(study, tuning, {job.method for job in trials if job.name in failures})
            if not tunable.methods:
                return _Result(None, len(trials), failures)
            missing = [f"{m} is missing: it is not tuned yet" for m in study.methods if m not in tunable.methods]
            study = choose_settings(tunable, tuning, folder / "tuning", self.display)
        jobs, failed = self._do(study, folder)
        runs = [job for method in study.methods for job in jobs if job.method == method]
        done = [Run.open(job.folder) for job in runs if job.name not in failed]
        missing += [f"{job.name} is missing: {failed[job.name]}" for job in runs if job.name in failed]
        comparison = compare_runs(done, folder, self.display, missing) if done else None
        return _Result(comparison, len(trials) + len(jobs), failures | failed)

    def _try_settings(self, study: Study, tuning: Tuning, folder: Path) -> tuple[list[Job], dict[str, str]]:
        """Do the trials of a study's tuning; return them, and why some failed other than by divergence."""
        trials = trials_of(study, tuning)
        self.display.note(
            f"tuning     {_many(trials.methods, 'trial')} of {_many(study.methods, 'method')}, with "
            f"{_many(trials.seeds, 'seed')}, in {folder}"
        )
        jobs, failed = self._do(trials, folder)
        return jobs, {job.name: failed[job.name] for job in jobs if job.name in failed and job.diverged is None}

    def _do(self, study: Study, folder: Path) -> tuple[list[Job], dict[str, str]]:
        """Do the jobs of a study that are left; return all its jobs, and why some failed."""
        jobs = jobs_of(study, folder, self.threads)
        for job in jobs:
            job.check()
        undone = left_of(jobs)
        done = [job for job in jobs if job not in undone]
        for job in done:
            forget_lock(job.folder)
        if done:
            self.display.note(f"{len(done)} of {len(jobs)} are done already")
        diverged = {job.name: reason for job in jobs if (reason := job.diverged) is not None}
        left = [job.command(self.processes, self.force) for job in undone if job.name not in diverged]
        try:
            failures = run_commands(
                left,
                folder / "logs",
                self.display,
                self.launch,
                self.slots,
                before=len(jobs) - len(left),
                result=lambda name: next(_result(job) for job in jobs if job.name == name),
            )
            return jobs, diverged | failures
        except KeyboardInterrupt:
            self.display.interrupted("everything that was done is saved", self.display.command)
            raise


def _result(job: Job) -> str:
    """Say how a finished run did on held-out tasks. A warm start has no result."""
    if job.warm_start:
        return ""
    found = Run.open(job.folder).evaluations()
    return ", ".join(f"{split} {evaluations[-1].overall.success:.1%}" for split, evaluations in found.items())


def _many(things: Sized, name: str) -> str:
    return f"{len(things)} {name}{'s' * (len(things) != 1)}"


def _without(study: Study, tuning: Tuning, trials: Set[str | None]) -> Study:
    """Return a study without the methods that these trials belong to."""
    numbers = range(len(combinations(tuning)))
    methods = {n: m for n, m in study.methods.items() if trials.isdisjoint(trial_name(n, number) for number in numbers)}
    return study.model_copy(update={"methods": methods})
