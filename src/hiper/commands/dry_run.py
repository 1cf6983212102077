"""`--dry-run`: the resolved settings as YAML, and below them as comments what would be done. Nothing is written.

Standard output is a YAML file that the same command takes in place of the recipe. Progress goes to standard error.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer

from hiper.api import check_cloned, default_folder
from hiper.config import Config
from hiper.display.console import Display
from hiper.display.text import wrapped
from hiper.rollout.environment import resolve_splits
from hiper.runs.folder import Run
from hiper.runs.policies import unfinished_file


def show_new_run(config: Config, out: Path | None, display: Display) -> None:
    """Show what `hiper train RECIPE` would do.

    Raises:
        UserError: The command would be refused.
    """
    folder = out or default_folder(config)
    Run.create(folder, config)
    _show(resolve_splits(config), _place(folder), display)


def show_resumed_run(run: Run, display: Display) -> None:
    """Show what `hiper train --resume RUN` would do.

    Raises:
        UserError: The command would be refused.
    """
    total = run.config.training.iterations
    if run.finished:
        place = f"{run.path} has all its {total} iterations: nothing is left to do"
    elif run.checkpoints:
        place = f"continues {run.path} from {run.checkpoints[-1].name}, of {total} iterations"
    else:
        begun = unfinished_file(run.warm_start).exists()
        place = f"continues {run.path} {'within its warm start' if begun else 'from the beginning'}"
    _show(run.config, place, display)


def show_cloning(config: Config, out: Path | None, display: Display) -> None:
    """Show what `hiper sft RECIPE` would do.

    Raises:
        UserError: The command would be refused.
    """
    folder = out or default_folder(config, "sft-")
    if check_cloned(config, folder):
        place = f"{folder} is done already: nothing is left to do"
    elif unfinished_file(folder).exists():
        place = f"continues the warm start in {folder}"
    else:
        place = _place(folder)
    _show(resolve_splits(config), place, display)


def show_plan(text: str, lines: Sequence[str], width: int) -> None:
    """Write YAML to standard output, and below it lines as comments."""
    typer.echo(text)
    for line in (*lines, "this is a dry run: nothing was written"):
        for part in wrapped(line, width - 2, indent=2):
            typer.echo(f"# {part}")


def _place(folder: Path) -> str:
    if folder.exists():
        return f"writes to {folder}, which exists and holds no run; nothing in it would be overwritten"
    return f"writes to {folder}, which is new"


def _show(config: Config, place: str, display: Display) -> None:
    with display.bar("loading torch"):
        from hiper.training.outline import outline_of

    lines = outline_of(config, display)
    show_plan(config.to_yaml(), [place, *lines], display.console.width)
