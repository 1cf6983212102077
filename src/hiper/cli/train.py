"""The commands that train: `train`, `sft`, `study`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from hiper.cli import parameters as given
from hiper.cli.program import command, make_display
from hiper.errors import UserError
from hiper.launch.together import joined

if TYPE_CHECKING:
    from hiper.display.console import Display


@command(
    "hiper train quickstart",
    "hiper train quickstart seed=1 learner.lr=1e-4 --out runs/second",
    "hiper train --resume runs/quickstart-seed0",
)
def train(
    recipe: given.OptionalRecipe = None,
    settings: given.Settings = None,
    out: given.Out = None,
    resume: given.Resume = None,
    processes: given.Processes = 1,
    launcher: given.Launcher = "local",
    view: given.View = False,
    force: given.Force = False,
    dry_run: given.DryRun = False,
) -> None:
    """Train an agent: warm start, reinforcement learning, and evaluation before and after."""
    from hiper.config import Config, load_config

    if recipe is not None and resume is not None:
        superfluous = " ".join([recipe, *(settings or [])])
        raise UserError(f"--resume continues a run under its own recipe and settings: leave out {superfluous}")
    if recipe is None and resume is None:
        raise UserError("name a recipe (`hiper recipes` lists them), or a run to continue: --resume RUN")
    if out is not None and resume is not None:
        raise UserError("--resume continues in the run's own folder: leave out --out")
    from hiper import api
    from hiper.commands import dry_run as dry
    from hiper.commands.report import report_run

    config = load_config(recipe, settings or []) if recipe is not None else None
    run = None if resume is None else api.open_run(resume)
    display = make_display(stderr=dry_run)
    if dry_run:
        if config is not None:
            dry.show_new_run(config, out, display)
        elif run is not None:
            dry.show_resumed_run(run, display)
        return
    folder = run.path if run is not None else out or api.default_folder(config or Config())
    with joined(processes, sys.argv[1:], launcher) as group, beside(folder, display, view and group.first):
        if config is not None:
            run = api.train(config, out=out, display=display, processes=group, force=force)
        elif run is not None:
            if run.finished:
                total = run.config.training.iterations
                done = f"{run.path} has all its {total} iterations: nothing is left to do"
                display.note(done, *(f"note: {problem}" for problem in run.problems(total)))
            api.resume(run, display, group, force)
        if run is not None and group.first:
            report_run(run, display)


@command("hiper sft quickstart", "hiper eval runs/quickstart-sft-seed0")
def sft(
    recipe: given.Recipe,
    settings: given.Settings = None,
    out: given.Out = None,
    processes: given.Processes = 1,
    launcher: given.Launcher = "local",
    force: given.Force = False,
    dry_run: given.DryRun = False,
) -> None:
    """Clone the environment's expert: only the warm start of a recipe, saved as a policy.

    The same command continues after an interrupt. A policy that is done already is kept.
    """
    from hiper.config import load_config

    config = load_config(recipe, settings or [])

    from hiper import api
    from hiper.commands import dry_run as dry

    display = make_display(stderr=dry_run)
    if dry_run:
        dry.show_cloning(config, out, display)
        return
    with joined(processes, sys.argv[1:], launcher) as group:
        path = api.clone_expert(config, out=out, display=display, processes=group, force=force)
        if group.first:
            display.note(f"saved in {path}; evaluate it with:")
            display.whole_line(f"  hiper eval {path}")


@command(
    "hiper study ablations --jobs 2 --threads 1",
    "hiper study ablations --methods hiper,flat-credit --seeds 0,1",
    "hiper study mine.yaml learner.epochs=1 --out runs/mine",
)
def study(
    study: given.Study,
    settings: given.Settings = None,
    seeds: given.Seeds = None,
    methods: given.Methods = None,
    jobs: given.Jobs = 1,
    threads: given.Threads = None,
    processes: given.JobProcesses = 1,
    force: given.Force = False,
    out: given.Out = None,
    dry_run: given.DryRun = False,
) -> None:
    """Train several methods with several seeds, and compare them.

    The same command continues after an interrupt.
    """
    display = make_display(stderr=dry_run)
    with display.bar("reading the study"):
        from hiper.commands.study import plan_study, run_study
        from hiper.study.definition import load_study

        definition = load_study(study, settings or [], listed(seeds), listed(methods))
    folder = out or Path("runs") / f"study-{definition.name}"
    if dry_run:
        plan_study(definition, folder, display, threads=threads)
        return
    run_study(definition, folder, display, jobs=jobs, threads=threads, processes=processes, force=force)


@contextmanager
def beside(run: Path, display: Display, view: bool) -> Iterator[None]:
    """Show a run in a browser while the block runs, if ``view`` says so."""
    if not view:
        yield
        return
    from hiper.viewer.serve import needs_extra, viewer_beside

    needs_extra()
    with viewer_beside(run, display.whole_line):
        yield


def listed(text: str | None) -> list[str] | None:
    """Split a text at its commas."""
    return None if text is None else [part.strip() for part in text.split(",")]
