"""What makes one trial better than another."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

from rich.console import Console

from helpers.cards import make_card, outcome
from hiper.display.console import Display
from hiper.runs.folder import Run
from hiper.study.definition import load_study, trials_of
from hiper.study.jobs import jobs_of
from hiper.study.tuning import choose_settings

STUDY = """\
name: mini
recipe: tiny.yaml
settings: {evaluation.splits: [test]}
seeds: [0]
methods:
  hiper: {}
tuning:
  seeds: [8, 9]
  settings: {evaluation.splits: [valid, easy]}
  grid: {learner.lr: [1.0e-3, 2.0e-3, 3.0e-3]}
"""
SUCCESS = {
    "valid": {("trial0", 8): 0.2, ("trial0", 9): 0.4, ("trial1", 8): 0.3, ("trial1", 9): 0.5},
    "easy": {("trial0", 8): 0.9, ("trial0", 9): 0.9},
}
"""After the last iteration; 0.1 where nothing is said."""


def test_success_after_training_on_the_first_split_named_over_all_seeds(tiny_recipe: Path, tmp_path: Path):
    (tmp_path / "tiny.yaml").write_text(tiny_recipe.read_text())
    (tmp_path / "mini.yaml").write_text(STUDY)
    study = load_study(str(tmp_path / "mini.yaml"))
    assert study.tuning is not None
    for job in jobs_of(trials_of(study, study.tuning), tmp_path):
        if not job.warm_start:
            run = Run.create(job.folder, job.config)
            run.save_settings()
            for split, success in SUCCESS.items():
                after = success.get((run.config.name.removeprefix("hiper-"), run.config.seed), 0.1)
                put_card(run, 0, split, 1 - after)
                put_card(run, run.config.training.iterations, split, after)

    best = choose_settings(study, study.tuning, tmp_path, Display("", Console(file=StringIO())))
    assert best.methods["hiper"].settings == {"learner.lr": 0.002}


def put_card(run: Run, iteration: int, split: str, success: float) -> None:
    won = round(10 * success)
    card = make_card({"all": outcome("1" * won + "0" * (10 - won))})
    card.write(run.card(iteration, split))
