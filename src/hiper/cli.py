"""The command line. Each command is a few lines over functions that can be called from Python as well.

Whatever takes long to import is imported inside the command that needs it, so that help and messages come at once.
"""

from __future__ import annotations

import random
import shlex
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hiper.errors import UserError

if TYPE_CHECKING:
    from hiper.display.console import Display

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Hierarchical plan-execute reinforcement learning for LLM agents.",
)

Recipe = Annotated[str, typer.Argument(help="A shipped recipe's name or a YAML file.")]
Settings = Annotated[list[str] | None, typer.Argument(metavar="[dotted.key=value]...", help="Settings to override.")]
Env = Annotated[str, typer.Argument(help="An environment's name.")]
Options = Annotated[
    list[str] | None, typer.Argument(metavar="[option=value]...", help="Options of the environment, as in a recipe.")
]
Split = Annotated[str | None, typer.Option(help="Which tasks.", show_default="the environment's or the run's own")]
Out = Annotated[Path | None, typer.Option(help="Folder to write to.", show_default="one under runs/")]


@app.command()
def train(
    recipe: Annotated[str | None, typer.Argument(help="A shipped recipe's name or a YAML file.")] = None,
    settings: Settings = None,
    out: Out = None,
    resume: Annotated[Path | None, typer.Option(help="Continue the run in this folder, under its settings.")] = None,
) -> None:
    """Train an agent: warm start, reinforcement learning, evaluation before and after."""
    from hiper.config import load_config

    if recipe is not None and resume is not None:
        given = " ".join([recipe, *(settings or [])])
        raise UserError(f"--resume goes on with the run's own recipe and settings: leave out {given}")
    if recipe is None and resume is None:
        raise UserError("name a recipe (`hiper recipes` lists them), or a run to go on with: --resume RUN")
    if out is not None and resume is not None:
        raise UserError("--resume goes on in the run's own folder: leave out --out")
    config = None if recipe is None else load_config(recipe, settings or [])

    from hiper.analysis.report import write_report
    from hiper.runs.folder import Run
    from hiper.training.build import settle_splits
    from hiper.training.trainer import train as run_training

    if config is not None:
        config = settle_splits(config)
        run = Run.create(out or Path("runs") / f"{config.name}-seed{config.seed}", config)
    else:
        run = Run.open(Path(str(resume)))
    display = _display()
    if run.finished:
        display.note(f"{run.path} has all its {run.config.training.iterations} iterations: nothing is left to do")
    else:
        run_training(run, display)
    display.report(write_report(run))


@app.command()
def sft(recipe: Recipe, settings: Settings = None, out: Out = None) -> None:
    """Clone the environment's expert: a recipe's warm start alone, saved as a policy that `hiper eval` reads.

    The same command goes on where it was interrupted.
    """
    from hiper.config import load_config

    config = load_config(recipe, settings or [])
    path = out or Path("runs") / f"{config.name}-sft-seed{config.seed}"
    if path.exists():
        raise UserError(f"{path} exists already; choose another folder with --out")
    if config.warm_start.tasks == 0:
        raise UserError("warm_start.tasks is 0, so there is nothing to learn from")

    from hiper.imitation.warm_start import clone
    from hiper.training.build import settle_splits

    display = _display()
    clone(settle_splits(config), path, display)
    display.note(f"saved in {path}; evaluate it with: hiper eval {path}")


@app.command(name="eval")
def evaluate(
    policy: Annotated[Path, typer.Argument(help="A run, a checkpoint, or a policy directory.")],
    settings: Settings = None,
    env: Annotated[str | None, typer.Option(help="Environment.", show_default="the run's own")] = None,
    split: Split = None,
    episodes: Annotated[
        int | None, typer.Option(min=1, help="Play a fixed subset of so many tasks.", show_default="all")
    ] = None,
    temperature: Annotated[float | None, typer.Option(min=0, help="0 is greedy.", show_default="the run's own")] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of sampling and environment.", show_default="the run's own")
    ] = None,
    out: Out = None,
) -> None:
    """Play held-out tasks; print the outcome, and write a result card and the episodes."""
    from hiper.commands.evaluate import evaluate_policy
    from hiper.evaluation.saved import SavedPolicy

    saved = SavedPolicy.open(policy, env, settings or [])
    splits = saved.config.evaluation.splits if split is None else (split,)
    folder = out or Path("runs") / f"eval-{policy.resolve().name}-{datetime.now():%Y%m%d-%H%M%S}"
    evaluate_policy(saved, splits, folder, _display(), episodes=episodes, temperature=temperature, seed=seed)


@app.command()
def play(
    env: Env,
    options: Options = None,
    agent: Annotated[str, typer.Option(help="human, expert, or a run, checkpoint or policy directory.")] = "human",
    split: Split = None,
    task: Annotated[str | None, typer.Option(help="A task's id.", show_default="one drawn with the seed")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the draw, the environment and the sampling.")] = 0,
    temperature: Annotated[float | None, typer.Option(min=0, help="Of a checkpoint.", show_default="its own")] = None,
    auto: Annotated[bool, typer.Option("--auto", help="Do not wait for Enter between an agent's turns.")] = False,
) -> None:
    """Step through one episode in the terminal, subgoals shown."""
    from rich.console import Console

    from hiper.commands import play as table

    if agent not in (table.HUMAN, table.EXPERT):
        _without_loading_bars()
    console = Console(highlight=False, soft_wrap=True)
    world, player = table.seat(
        env, options or [], agent, split=split, temperature=temperature, seed=seed, console=console
    )
    chosen = task or random.Random(seed).choice(world.panel.tasks).id
    table.play(world, player, chosen, seed, console, wait=not (auto or agent == table.HUMAN))


@app.command()
def recipes() -> None:
    """List the shipped recipes."""
    from hiper.config import recipe_names, recipe_summary

    names = recipe_names()
    for name in names:
        typer.echo(f"{name:{max(map(len, names))}}  {recipe_summary(name)}")


@app.command()
def tasks(env: Env, options: Options = None, split: Split = None) -> None:
    """List an environment's tasks, id and type, in panel order; the panel's hash goes to standard error."""
    from hiper import envs
    from hiper.config import overridden

    chosen = {} if split is None else {"split": split}
    made = envs.make(env, **overridden(chosen, options or []))
    for task in made.panel:
        typer.echo(f"{task.id}\t{task.type}")
    official = {True: ", the official panel", False: ", NOT the official panel of this name", None: ""}
    name, count, digest = made.panel.name, len(made.panel), made.panel.hash
    typer.echo(f"{name}: {count} tasks, sha256 {digest}{official[made.official]}", err=True)


@app.command()
def data(
    env: Annotated[
        str | None, typer.Argument(help="An environment's name.", show_default="all that have official data")
    ] = None,
    get: Annotated[str | None, typer.Option(metavar="SET", help="Download what is missing of this data set.")] = None,
    folder: Annotated[
        Path | None, typer.Option(help="Where they are, or go.", show_default="where the environment looks")
    ] = None,
) -> None:
    """Say which official data are installed and verify their checksums; with --get, download them."""
    from hiper.commands.data import get_data, show_data
    from hiper.display.console import Display
    from hiper.envs.registry import names_with_data

    display = Display()
    if get is not None:
        if env is None:
            raise UserError("name the environment too: hiper data ENV --get SET")
        get_data(env, get, folder, display)
    elif env is None and folder is not None:
        raise UserError("name the environment too: hiper data ENV --folder FOLDER")
    right = [show_data(name, folder, display, only=get) for name in ([env] if env else names_with_data())]
    if not all(right):
        raise typer.Exit(1)


@app.command()
def report(run: Annotated[Path, typer.Argument(help="A run folder.")]) -> None:
    """Show what came of a run, and write its report and learning curve anew."""
    from hiper.analysis.report import write_report
    from hiper.runs.folder import Run

    _display().report(write_report(Run.open(run)))


@app.command()
def credit(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    iteration: Annotated[int | None, typer.Option(min=1, help="Whose episodes.", show_default="the last")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write to.", show_default="the run's own")] = None,
) -> None:
    """Ask every estimator about a run's stored episodes: per turn, per token, and where they disagree."""
    from hiper.commands.credit import show_credit
    from hiper.runs.folder import Run

    show_credit(Run.open(run), out or run, _display(), iteration)


@app.command()
def compare(
    runs: Annotated[
        list[Path], typer.Argument(help="Run folders or packed runs; the first one's method is the reference.")
    ],
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("runs") / "comparison",
) -> None:
    """Compare runs that played the same held-out tasks: curves over seeds, tables, paired tests."""
    from hiper.commands.compare import show_comparison
    from hiper.runs.records import open_runs

    with open_runs(runs) as opened:
        show_comparison(opened, out, _display())


@app.command()
def study(
    study: Annotated[str, typer.Argument(help="A shipped study's name or a YAML file.")],
    settings: Settings = None,
    seeds: Annotated[str | None, typer.Option(metavar="0,1,...", help="Seeds in place of the study's.")] = None,
    methods: Annotated[str | None, typer.Option(metavar="A,B,...", help="Of the study's methods only these.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Processes side by side.")] = 1,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads of each.", show_default="the recipe's")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write to.", show_default="one under runs/")] = None,
) -> None:
    """Train methods with several seeds and compare them; the same command goes on where it was interrupted."""
    from hiper.commands.study import run_study
    from hiper.study.definition import load_study

    definition = load_study(study, settings or [], _listed(seeds), _listed(methods))
    run_study(definition, out or Path("runs") / f"study-{definition.name}", _display(), jobs=jobs, threads=threads)


@app.command()
def verify(
    run: Annotated[Path | None, typer.Option(help="Check training episodes of this run as well.")] = None,
    iteration: Annotated[int | None, typer.Option(min=1, help="Whose episodes.", show_default="the last")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the resampling of these episodes.")] = 0,
    out: Out = None,
) -> None:
    """Prove on small decision processes that credit is unbiased, and measure how it varies (about a minute)."""
    from hiper.commands.verify import verify as prove

    if iteration is not None and run is None:
        raise UserError("--iteration says which episodes of a run are checked: name it with --run")
    if failed := prove(out or Path("runs") / "verify", _display(), run, iteration, seed).failed:
        raise UserError(f"not unbiased, though it is claimed to be: {', '.join(failed)}")


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
def parity(context: typer.Context) -> None:
    """Play ALFWorld games beside TextWorld (the extra `textworld`) and compare everything; see `hiper parity -h`."""
    from hiper.envs.alfworld.parity import main as compare

    raise typer.Exit(compare(context.args))


def _listed(text: str | None) -> list[str] | None:
    """What stands between commas."""
    return None if text is None else [part.strip() for part in text.split(",")]


def _display() -> Display:
    """Where progress is shown."""
    from hiper.display.console import Display

    _without_loading_bars()
    return Display(command=shlex.join(["hiper", *sys.argv[1:]]))


def _without_loading_bars() -> None:
    """Leave out bars of reading and writing weights; those of downloads stay."""
    from huggingface_hub.utils.tqdm import enable_progress_bars
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    enable_progress_bars()


def main() -> None:
    """Run a command; what the user got wrong is said in one message, with exit code 2."""
    try:
        app()
    except UserError as error:
        typer.echo(f"hiper: {error}", err=True)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
