"""The tuning of a study: every method gets the settings that did best for it, chosen from the same few for all.

A trial is a run like any other, in the study's folder under ``tuning``, with its own seeds and held-out tasks. A
combination is judged by success after the last iteration, averaged over the tasks of the first split and all tuning
seeds. The first of equal combinations in the grid is taken. A trial that diverged counts as no success, and loses
against an equal one that did not diverge.
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
    """Mean success over the tuning seeds; a diverged run counts as 0."""
    diverged: int
    """Number of runs that diverged."""


def choose_settings(study: Study, tuning: Tuning, folder: Path, display: Display) -> Study:
    """Give each method the settings that did best for it, and write all outcomes to ``folder/tuning.json``.

    Args:
        study: the study, whose methods have been tried.
        tuning: its tuning.
        folder: folder of the trials.
        display: where to show the outcomes.

    Returns:
        The study with these settings.
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
            f"{_text(trial.settings)} {trial.success:.1%}{' (taken)' if trial is best else ''}"
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


def _text(settings: dict[str, Any]) -> str:
    return " ".join(f"{key}={value}" for key, value in settings.items())
