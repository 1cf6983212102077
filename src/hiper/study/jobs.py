"""The jobs of a study: warm starts, and the runs that begin from them.

STUDY/warm-starts/seed0        the policy that all runs of a seed begin from
      runs/METHOD-seed0        one run each, as `hiper train` leaves it
      logs/METHOD-seed0.log    the output of its process
      comparison.md, .json, .png    see hiper.analysis.comparison
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hiper.analysis.comparison.settings import RUN_SPECIFIC_KEYS, WARM_STARTS, differing, flat
from hiper.config import WARM_START_PREFIXES, Config, load_config
from hiper.errors import UserError
from hiper.launch.local import Command
from hiper.rollout.environment import resolve_splits
from hiper.runs.folder import Run
from hiper.runs.policies import PolicyFolder, unfinished_file
from hiper.runs.records import is_record
from hiper.study.definition import Study, settings_of, warm_start_of, within


@dataclass(frozen=True)
class Job:
    """A warm start or a run of a study."""

    name: str
    folder: Path
    """Folder of the policy or the run that it makes."""
    recipe: str
    settings: tuple[str, ...]
    """Overrides of the recipe, as the command line takes them."""
    needs: Job | None = None
    """The warm start that the run begins from. None: this is one itself, or there is none."""
    method: str | None = None
    """The method of the run; None: this is a warm start."""

    @property
    def warm_start(self) -> bool:
        """Whether it makes a policy for runs to begin from."""
        return self.method is None

    @property
    def config(self) -> Config:
        """The resolved settings."""
        return load_config(self.recipe, self.settings)

    @property
    def done(self) -> bool:
        """Whether nothing is left to do."""
        if self.warm_start:
            return self.folder.exists() and not unfinished_file(self.folder).exists()  # `hiper sft` deletes it last
        if not self.begun:
            return False
        run = Run.open(self.folder)
        if is_record(run):  # published, and unpacked here for the study to go on
            return True
        return run.finished and run.report_file.exists()  # a kill after the last card leaves no report

    @property
    def diverged(self) -> str | None:
        """Why the run diverged, if it did; it would diverge again."""
        return Run.open(self.folder).diverged if self.begun else None

    @property
    def begun(self) -> bool:
        """Whether there is a run to continue."""
        return Run.exists(self.folder)

    def command(self, processes: int = 1, force: bool = False) -> Command:
        """Return the call of `hiper` that begins or continues it, in one process or several.

        Args:
            processes: number of processes that work together on it.
            force: begin although the memory that is free is too small.
        """
        if self.begun:
            arguments = ["train", "--resume", str(self.folder)]
        else:
            arguments = ["sft" if self.warm_start else "train", self.recipe, *self.settings, "--out", str(self.folder)]
        if processes > 1:
            arguments += ["--processes", str(processes)]
        if force:
            arguments += ["--force"]
        needs = None if self.needs is None else self.needs.name
        threads = self.config.training.threads
        return Command(self.name, tuple(arguments), threads, needs, processes=processes, resumes=self.begun)

    def check(self, undecided: Sequence[str] = ()) -> None:
        """Check that what is in the folder already was made under these settings.

        Args:
            undecided: dotted keys that tuning has yet to decide.

        Raises:
            UserError: it was made under other settings.
        """
        there = PolicyFolder(self.folder).settings_file.exists() if self.warm_start else self.begun
        if not there:
            return
        saved = PolicyFolder(self.folder).settings() if self.warm_start else Run.open(self.folder).config
        settings = self.config if self.warm_start else resolve_splits(self.config)
        prefixes = WARM_START_PREFIXES if self.warm_start else ("",)
        keys = set(differing([flat(saved), flat(settings)], prefixes)) - RUN_SPECIFIC_KEYS
        keys = {key for key in keys if not any(within(key, section) for section in undecided)}
        if keys:
            raise UserError(
                f"{self.folder} was made under other settings ({', '.join(sorted(keys))}): choose another folder with "
                "--out, or delete this one to make it anew"
            )


def jobs_of(study: Study, folder: Path, threads: int | None = None) -> list[Job]:
    """List the jobs of a study, seed by seed, each warm start before the runs that need it.

    Args:
        study: the study.
        folder: folder of the study.
        threads: CPU threads of each process; None: as the recipes say.
    """
    root = folder.absolute()  # a run records the path of its warm start, and may be continued from another folder
    common = () if threads is None else (f"training.threads={threads}",)
    jobs: list[Job] = []
    for seed in study.seeds:
        warm_starts: dict[str | None, Job | None] = {}
        for name in study.methods:
            start = warm_start_of(study, name)
            if start not in warm_starts:
                warm_starts[start] = made = _warm_start(study, start, name, seed, root, common)
                if made is not None:
                    jobs.append(made)
            warm = warm_starts[start]
            recipe, settings = settings_of(study, name, seed)
            begin = () if warm is None else (f"model.path={json.dumps(str(warm.folder))}", "warm_start.tasks=0")
            run = f"{name}-seed{seed}"
            jobs.append(Job(run, root / "runs" / run, recipe, (*settings, *common, *begin), warm, name))
    return jobs


def left_of(jobs: Sequence[Job]) -> list[Job]:
    """List the jobs that are not done. A warm start counts as done if every run that begins from it is done."""
    left = [job for job in jobs if not job.done]
    needed = {job.needs for job in left}
    return [job for job in left if not job.warm_start or job in needed]


def _warm_start(
    study: Study, start: str | None, method: str, seed: int, root: Path, common: tuple[str, ...]
) -> Job | None:
    """Return a warm start by its name, under the settings of a method or, if it has no name, of the study.

    None is returned if the settings ask for no warm start.
    """
    recipe, settings = settings_of(study, start and method, seed)
    if load_config(recipe, settings).warm_start.tasks == 0:
        return None
    name = f"seed{seed}" if start is None else f"{start}-seed{seed}"
    return Job(f"warm-start-{name}", root / WARM_STARTS / name, recipe, (*settings, *common))
