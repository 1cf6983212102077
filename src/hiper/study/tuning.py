"""The tuning of a study: each method gets the settings that did best for it, out of the same few for all.

A trial is a run like any other, in the study's folder under ``tuning``, with seeds and held-out tasks of its own. What
counts is success after its last iteration, over all tasks of its first split and all tuning seeds; of equal ones the
first in the grid is taken. A trial that diverged has won nothing, less than one that did not.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hiper.display.console import Display
from hiper.files import write_text
from hiper.runs.folder import Run
from hiper.study.definition import Study, Tuning, combinations, trial_name


@dataclass(frozen=True)
class Trial:
    """One combination of the grid for one method."""

    method: str
    settings: dict[str, Any]
    success: float
    """Mean over the tuning seeds, of which those that diverged won nothing."""
    diverged: int
    """How many of them did."""


def tuned(study: Study, tuning: Tuning, folder: Path, display: Display) -> Study:
    """The study with each method under the settings that did best for it; the table goes to ``folder/tuning.json``.

    Args:
        study: whose methods have been tried.
        tuning: its own.
        folder: where the trials are.
        display: where the outcomes are shown.
    """
    methods, trials = dict(study.methods), []
    for name, method in study.methods.items():
        tried = [
            _trial(name, combination, [folder / "runs" / f"{trial_name(name, number)}-seed{s}" for s in tuning.seeds])
            for number, combination in enumerate(combinations(tuning))
        ]
        best = max(tried, key=lambda trial: (trial.success, -trial.diverged))
        methods[name] = method.model_copy(update={"settings": {**method.settings, **best.settings}})
        trials += tried
        outcomes = ", ".join(
            f"{_shown(trial.settings)} {trial.success:.1%}{' (taken)' if trial is best else ''}"
            f"{' (diverged)' if trial.diverged else ''}"
            for trial in tried
        )
        display.note(f"tuned      {name}: {outcomes}")
    taken = {name: method.settings for name, method in methods.items()}
    tree = {"trials": [vars(trial) for trial in trials], "taken": taken}
    write_text(folder / "tuning.json", json.dumps(tree, indent=1))
    return study.model_copy(update={"methods": methods})


def _trial(method: str, combination: dict[str, Any], folders: Sequence[Path]) -> Trial:
    runs = [Run.open(folder) for folder in folders]
    success = [
        0.0 if run.diverged else run.evaluations()[run.config.evaluation.splits[0]][-1].overall.success for run in runs
    ]
    return Trial(method, combination, float(np.mean(success)), sum(run.diverged is not None for run in runs))


def _shown(settings: dict[str, Any]) -> str:
    return " ".join(f"{key}={value}" for key, value in settings.items())
