"""The commands that read finished runs, and the proofs: `report`, `credit`, `compare`, `verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hiper.cli import parameters as given
from hiper.cli.program import command, make_display
from hiper.errors import UserError


@command()
def report(run: given.Run) -> None:
    """Show the outcome of a run, and bring its report and learning curve up to date."""
    from hiper.commands.report import report_run
    from hiper.runs import folder as runs

    report_run(runs.Run.open(run), make_display())


@command()
def credit(run: given.Run, iteration: given.Iteration = None, out: given.RunOut = None) -> None:
    """Apply every estimator to a run's stored episodes: credit per turn, per token, and where they disagree."""
    from hiper.runs import folder as runs

    opened = runs.Run.open(run)  # a wrong path is refused before torch is imported
    display = make_display()
    display.whole_line(f"run        {run}")
    with display.bar("loading torch"):
        from hiper.commands.credit import show_credit

    show_credit(opened, out or opened.path, display, iteration)


@command("hiper compare runs/quickstart-seed* runs/grpo-seed*")
def compare(
    runs: given.Runs,
    out: given.ComparisonOut = Path("runs") / "comparison",
) -> None:
    """Compare runs on the same held-out tasks: tables, paired tests, and curves over seeds."""
    from hiper.runs.records import open_runs

    with open_runs(runs) as opened:
        from hiper.commands.compare import compare_runs

        compare_runs(opened, out, make_display())


@command("hiper verify", "hiper verify --run runs/quickstart-seed0 --iteration 3")
def verify(
    run: given.CheckedRun = None,
    iteration: given.Iteration = None,
    seed: Annotated[int, typer.Option(min=0, metavar="SEED", help="Seed of resampling these episodes.")] = 0,
    out: given.Out = None,
) -> None:
    """Prove on small decision processes that credit is unbiased, and measure its variance (about a minute)."""
    from hiper.runs import folder as runs

    if iteration is not None and run is None:
        raise UserError("--iteration says which episodes of a run are checked: name the run with --run")
    if run is not None:
        runs.Run.open(run)  # a wrong path is refused before torch is imported

    from hiper.commands.verify import verify as run_checks

    if failed := run_checks(out or Path("runs") / "verify", make_display(), run, iteration, seed).failed:
        raise UserError(f"not unbiased, though it is claimed to be: {', '.join(failed)}")


@command(
    "hiper view runs",
    "hiper view runs/quickstart-seed0 --port 9000",
    "hiper view runs/quickstart-seed0 --export page.html --episodes iter-00003/17,iter-00003/18",
)
def view(
    runs: given.Viewed,
    port: given.Port = None,
    host: given.Host = None,
    no_browser: given.NoBrowser = False,
    export: given.Export = None,
    episodes: given.ExportedEpisodes = None,
    beside: given.Beside = False,
) -> None:
    """Show runs, episodes and credit in a browser, and follow runs while they train."""
    from hiper.commands import view as viewer

    if export is not None:
        viewer.export(runs, export, make_display(), episodes)
        return
    if episodes is not None:
        raise UserError("--episodes chooses the episodes of a page: name the page with --export")
    viewer.view(runs, make_display(), port=port, host=host, browser=not no_browser, beside=beside)
