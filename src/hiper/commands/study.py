"""`hiper study`: its tuning if it has one, what is still to be done, then the comparison of all that is done.

A sweep is the same once for each value of a setting, in a folder each, and a figure of success against that value.
"""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path

import yaml

from hiper.analysis.comparison.comparison import Comparison
from hiper.commands.compare import show_comparison
from hiper.display.console import Display
from hiper.errors import UserError
from hiper.files import write_text
from hiper.launch.local import Launch, processes, work
from hiper.runs.folder import Run
from hiper.study.definition import Study, Tuning, combinations, points_of, trial_name, trials_of
from hiper.study.jobs import Job, plan
from hiper.study.sweep import show_sweep
from hiper.study.tuning import tuned


def run_study(study: Study, folder: Path, display: Display, *, jobs: int = 1, threads: int | None = None) -> None:
    """Do what is left of a study, and compare its methods.

    Args:
        study: what is studied.
        folder: where everything goes, and where an earlier call may have left a part of it.
        display: where it is said what happens.
        jobs: processes side by side.
        threads: CPU threads of each; None: as the recipes say.

    Raises:
        UserError: what is there was made under other settings, the study is under way already, or a run failed; in
            the last case all others are done and compared nonetheless.
        KeyboardInterrupt: a stop was asked for; what was under way has been saved.
    """
    points = {value: (point, _place(study, value)) for value, point in points_of(study).items()}
    with processes(folder) as launch:
        for point, place in points.values():
            _check(point, folder / place, threads)
        write_text(folder / "study.yaml", yaml.safe_dump(study.model_dump(mode="json"), sort_keys=False))
        count = 0
        failures: dict[str, str] = {}
        comparisons: dict[str, Comparison] = {}
        for value, (point, place) in points.items():
            comparison, planned, failed = _conduct(point, folder / place, display, launch, jobs, threads)
            count += planned
            failures |= {f"{name} ({place})" if place else name: reason for name, reason in failed.items()}
            comparisons |= {} if comparison is None else {value: comparison}
        if study.sweep:
            show_sweep(study.sweep.setting, comparisons, folder, display)
    if failures:
        said = "\n  ".join(f"{name}: {reason}" for name, reason in failures.items())
        raise UserError(
            f"{len(failures)} of {count} failed; the same command tries them again (but for those that diverged), and "
            f"leaves alone what is done:\n  {said}"
        )


def _place(study: Study, value: str) -> str:
    """Where a point of a sweep lies in the study's folder."""
    return f"{study.sweep.setting}={value}" if study.sweep else ""


def _check(study: Study, folder: Path, threads: int | None) -> None:
    """Make sure that what is there of a study without a sweep is its own, as far as that is known before tuning."""
    undecided: tuple[str, ...] = ()
    if study.tuning is not None:
        for job in plan(trials_of(study, study.tuning), folder / "tuning", threads):
            job.check()
        undecided = (*study.tuning.grid, "model.path")  # a method's warm start may be tuned, even whether it has one
    for job in plan(study, folder, threads):
        job.check(undecided)


def _conduct(
    study: Study, folder: Path, display: Display, launch: Launch, slots: int, threads: int | None
) -> tuple[Comparison | None, int, dict[str, str]]:
    """One study without a sweep: what its runs come to, if any are done; how many jobs it is; why some failed.

    A method of which a trial failed waits until it is tuned; one that diverged only lost.
    """
    display.note(f"study      {study.name}: {len(study.methods)} methods, {len(study.seeds)} seeds, in {folder}")
    count = 0
    failures: dict[str, str] = {}
    missing: list[str] = []
    if (tuning := study.tuning) is not None:
        trials = trials_of(study, tuning)
        display.note(f"tuning     {len(trials.methods)} methods, {len(trials.seeds)} seeds, in {folder / 'tuning'}")
        tried, failed = _do(trials, folder / "tuning", display, launch, slots, threads)
        count = len(tried)
        failures = {job.name: failed[job.name] for job in tried if job.name in failed and job.diverged is None}
        whole = _without(study, tuning, {job.method for job in tried if job.name in failures})
        if not whole.methods:
            return None, count, failures
        missing = [f"{name} is missing: it is not tuned yet" for name in study.methods if name not in whole.methods]
        study = tuned(whole, tuning, folder / "tuning", display)
    planned, failed = _do(study, folder, display, launch, slots, threads)
    runs = [job for method in study.methods for job in planned if job.method == method]
    done = [Run.open(job.folder) for job in runs if job.name not in failed]
    missing += [f"{job.name} is missing: {failed[job.name]}" for job in runs if job.name in failed]
    comparison = show_comparison(done, folder, display, missing) if done else None
    return comparison, count + len(planned), failures | failed


def _without(study: Study, tuning: Tuning, trials: Set[str | None]) -> Study:
    """A study without the methods of these trials."""
    numbers = range(len(combinations(tuning)))
    methods = {n: m for n, m in study.methods.items() if trials.isdisjoint(trial_name(n, number) for number in numbers)}
    return study.model_copy(update={"methods": methods})


def _do(
    study: Study, folder: Path, display: Display, launch: Launch, slots: int, threads: int | None
) -> tuple[list[Job], dict[str, str]]:
    """All jobs of a study, done as far as they can be; and why some could not."""
    planned = plan(study, folder, threads)
    for job in planned:
        job.check()
    try:
        return planned, work(planned, folder / "logs", display, launch, slots)
    except KeyboardInterrupt:
        display.interrupted("what was done is saved", display.command)
        raise
