"""The work that a study is: warm starts, and the runs that begin from them.

STUDY/warm-starts/seed0        the policy that all runs of a seed begin from
      runs/METHOD-seed0        one run each, as `hiper train` leaves it
      logs/METHOD-seed0.log    what it said
      comparison.md, .json, .png    see hiper.analysis.comparison
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hiper.analysis.comparison.settings import OF_A_RUN, WARM_STARTS, differing, flat
from hiper.config import Config, load_config
from hiper.errors import UserError
from hiper.imitation.warm_start import OF_A_WARM_START
from hiper.runs.folder import Run
from hiper.runs.policies import PolicyFolder
from hiper.study.definition import Study, settings_of, within
from hiper.training.build import settle_splits


@dataclass(frozen=True)
class Job:
    """A command to be run to its end."""

    name: str
    folder: Path
    """What it makes."""
    recipe: str
    settings: tuple[str, ...]
    needs: Job | None = None
    """The warm start it begins from; None: it is one, or there is none."""
    method: str | None = None
    """Whose run it is; None: it is a warm start."""

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
            return self.folder.exists()
        return self.begun and Run.open(self.folder).finished

    @property
    def diverged(self) -> str | None:
        """What was said when it diverged, if it did: doing it again would only repeat it."""
        return Run.open(self.folder).diverged if self.begun else None

    @property
    def command(self) -> list[str]:
        """What `hiper` is to be called with: to begin, or to go on."""
        if self.begun:
            return ["train", "--resume", str(self.folder)]
        return ["sft" if self.warm_start else "train", self.recipe, *self.settings, "--out", str(self.folder)]

    def check(self, undecided: Sequence[str] = ()) -> None:
        """Make sure that what is there already was made under these settings.

        Args:
            undecided: dotted keys that tuning is yet to decide.

        Raises:
            UserError: it was made under others.
        """
        there = PolicyFolder(self.folder).settings_file.exists() if self.warm_start else self.begun
        if not there:
            return
        saved = PolicyFolder(self.folder).settings() if self.warm_start else Run.open(self.folder).config
        settings = self.config if self.warm_start else settle_splits(self.config)
        keys = set(differing([flat(saved), flat(settings)])) - OF_A_RUN
        keys = {key for key in keys if not any(within(key, section) for section in undecided)}
        if self.warm_start:
            keys = {key for key in keys if key.startswith(OF_A_WARM_START)}
        if keys:
            raise UserError(
                f"{self.folder} was made under other settings ({', '.join(sorted(keys))}): choose another folder with "
                "--out, or delete this one to make it anew"
            )

    @property
    def begun(self) -> bool:
        """Whether there is a run to go on with."""
        return Run.exists(self.folder)


def plan(study: Study, folder: Path, threads: int | None = None) -> list[Job]:
    """All of a study's work, seed by seed, warm starts before what needs them.

    Args:
        study: what is studied.
        folder: the study's.
        threads: CPU threads of each process; None: as the recipes say.
    """
    root = folder.absolute()  # a run keeps the path of its warm start, wherever it is continued from
    common = () if threads is None else (f"training.threads={threads}",)
    jobs: list[Job] = []
    for seed in study.seeds:
        for name, method in study.methods.items():
            warm = _warm_start(study, name if method.warm_start == "own" else None, seed, root, common)
            if warm is not None and warm not in jobs:
                jobs.append(warm)
            recipe, settings = settings_of(study, name, seed)
            begin = () if warm is None else (f"model.path={json.dumps(str(warm.folder))}", "warm_start.tasks=0")
            run = f"{name}-seed{seed}"
            jobs.append(Job(run, root / "runs" / run, recipe, (*settings, *common, *begin), warm, name))
    return jobs


def _warm_start(study: Study, method: str | None, seed: int, root: Path, common: tuple[str, ...]) -> Job | None:
    """The warm start of one method, or (None) of all; None where the settings know of none."""
    recipe, settings = settings_of(study, method, seed)
    if load_config(recipe, settings).warm_start.tasks == 0:
        return None
    name = f"seed{seed}" if method is None else f"{method}-seed{seed}"
    return Job(f"warm-start-{name}", root / WARM_STARTS / name, recipe, (*settings, *common))
