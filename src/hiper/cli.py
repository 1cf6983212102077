"""The command line. Each command is a few lines over functions that can be called from Python as well.

Whatever takes long to import is imported inside the command that needs it, so that help and messages come at once.
"""

from __future__ import annotations

import random
import shlex
import shutil
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hiper import __version__
from hiper.commands import parameters as given
from hiper.commands.parameters import examples
from hiper.errors import OUT_OF_MEMORY, UserError, first_line, is_out_of_memory
from hiper.files import user_path
from hiper.launch.together import joined

if TYPE_CHECKING:
    from hiper.display.console import Display


app = typer.Typer(
    name="hiper",
    cls=given.Program,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Hierarchical plan-execute reinforcement learning for LLM agents.",
    epilog=examples("hiper train quickstart", "hiper report runs/quickstart-seed0", "hiper COMMAND -h"),
)


def _command(*examples_of_use: str, name: str | None = None) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a function as a command whose help ends with these examples."""
    return app.command(name, cls=given.Command, epilog=examples(*examples_of_use) if examples_of_use else None)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"hiper {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Hierarchical plan-execute reinforcement learning for LLM agents."""


@_command(
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
    dry_run: given.DryRun = False,
) -> None:
    """Train an agent: warm start, reinforcement learning, and evaluation before and after."""
    from hiper.config import load_config

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
    display = _display(stderr=dry_run)
    if dry_run:
        if config is not None:
            dry.show_new_run(config, out, display)
        elif run is not None:
            dry.show_resumed_run(run, display)
        return
    with joined(processes, sys.argv[1:]) as group:
        if config is not None:
            run = api.train(config, out=out, display=display, processes=group)
        elif run is not None:
            if run.finished:
                total = run.config.training.iterations
                done = f"{run.path} has all its {total} iterations: nothing is left to do"
                display.note(done, *(f"note: {problem}" for problem in run.problems(total)))
            api.resume(run, display, group)
        if run is not None and group.first:
            report_run(run, display)


@_command("hiper sft quickstart", "hiper eval runs/quickstart-sft-seed0")
def sft(
    recipe: given.Recipe,
    settings: given.Settings = None,
    out: given.Out = None,
    processes: given.Processes = 1,
    dry_run: given.DryRun = False,
) -> None:
    """Clone the environment's expert: only the warm start of a recipe, saved as a policy.

    The same command continues after an interrupt. A policy that is done already is kept.
    """
    from hiper.config import load_config

    config = load_config(recipe, settings or [])

    from hiper import api
    from hiper.commands import dry_run as dry

    display = _display(stderr=dry_run)
    if dry_run:
        dry.show_cloning(config, out, display)
        return
    with joined(processes, sys.argv[1:]) as group:
        path = api.clone_expert(config, out=out, display=display, processes=group)
        if group.first:
            display.note(f"saved in {path}; evaluate it with:")
            display.whole_line(f"  hiper eval {path}")


@_command(
    "hiper eval runs/quickstart-seed0",
    "hiper eval runs/alfworld-nano-seed0 --split valid_unseen --episodes 50",
    "hiper eval runs/quickstart-seed0/checkpoints/iter-00010 --temperature 0",
    "hiper eval Qwen/Qwen2.5-0.5B-Instruct --env alfworld env.data=generated --episodes 20",
    name="eval",
)
def evaluate(
    policy: given.AnyPolicy,
    settings: given.Settings = None,
    env: given.OtherEnv = None,
    split: given.Split = None,
    episodes: given.Episodes = None,
    temperature: given.Temperature = None,
    seed: given.EvaluationSeed = None,
    out: given.Out = None,
    processes: given.Processes = 1,
) -> None:
    """Play held-out tasks, show the outcome, and write a result card and the episodes."""
    from hiper.runs.policies import find_policy

    find_policy(policy, env)  # a wrong path is refused before torch is imported
    with joined(processes, sys.argv[1:]) as group:
        display = _display()
        display.whole_line(f"policy     {policy}")
        with display.bar("loading torch"):
            from hiper.commands.evaluate import evaluate_policy
            from hiper.evaluation.saved import SavedPolicy

        saved = SavedPolicy.open(policy, env, settings or [])
        splits = saved.config.evaluation.splits if split is None else (split,)
        folder = out or Path("runs") / f"eval-{user_path(policy).resolve().name}-{datetime.now():%Y%m%d-%H%M%S}"
        evaluate_policy(
            saved, splits, folder, display, episodes=episodes, temperature=temperature, seed=seed, processes=group
        )


@_command(
    "hiper play corridor",
    "hiper play alfworld data=generated size=tiny --agent expert",
    "hiper play corridor --agent runs/tiny-seed0 --auto",
)
def play(
    env: given.Env,
    options: given.PlayOptions = None,
    agent: given.Agent = "human",
    split: given.Split = None,
    task: given.TaskId = None,
    seed: given.PlaySeed = 0,
    temperature: given.Temperature = None,
    auto: Annotated[bool, typer.Option("--auto", help="Do not wait for Enter between an agent's turns.")] = False,
) -> None:
    """Step through one episode in the terminal, with subgoals."""
    from hiper.commands import play as table

    if agent not in (table.HUMAN, table.EXPERT):
        from hiper.runs.policies import find_policy

        find_policy(agent, env)  # a wrong path is refused before torch is imported
    display = _display()
    world, player = table.seat(env, options or [], agent, split=split, temperature=temperature, display=display)
    chosen = task or random.Random(seed).choice(world.panel.tasks).id
    table.play(world, player, chosen, seed, display.console, wait=not (auto or agent == table.HUMAN))


@_command("hiper recipes", "hiper recipes quickstart > mine.yaml")
def recipes(name: given.ShippedRecipe = None) -> None:
    """List the shipped recipes, or show one of them."""
    from hiper.config import recipe_names, recipe_summary, recipe_text

    if name is not None:
        typer.echo(recipe_text(name), nl=False)
        return
    names = recipe_names()
    width = max(map(len, names))
    for known in names:
        _say(f"{known:{width}}  {recipe_summary(known)}", indent=width + 2)


@_command()
def tasks(env: given.Env, options: given.Options = None, split: given.Split = None) -> None:
    """List the tasks of an environment, id and type, in the order of its panel.

    The hash of the panel goes to standard error.
    """
    with _display(stderr=True).bar(f"opening {env}"):
        from hiper import envs
        from hiper.config import apply_overrides

        chosen = {} if split is None else {"split": split}
        made = envs.make(env, **apply_overrides(chosen, options or []))
    for task in made.panel:
        if sys.stdout.isatty():
            _say(f"{task.id}  {task.type}", indent=4)
        else:
            typer.echo(f"{task.id}\t{task.type}")
    official = {True: ", the official panel", False: ", NOT the official panel of this name", None: ""}
    _say(f"{made.panel.name}: {len(made.panel)} tasks, sha256 {made.panel.hash}{official[made.official]}", err=True)


@_command("hiper data", "hiper data alfworld --get games")
def data(
    env: given.DataEnv = None,
    get: given.Get = None,
    folder: given.DataFolder = None,
) -> None:
    """Show which official data are installed, and verify their checksums; with --get, download them."""
    from hiper.commands.data import get_data, show_data
    from hiper.envs.registry import names_with_data

    display = _display()
    if get is not None:
        if env is None:
            raise UserError("name the environment too: hiper data ENV --get SET")
        get_data(env, get, folder, display)
    elif env is None and folder is not None:
        raise UserError("name the environment too: hiper data ENV --folder FOLDER")
    right = [show_data(name, folder, display, only=get) for name in ([env] if env else names_with_data())]
    if not all(right):
        raise typer.Exit(1)


@_command()
def report(run: given.Run) -> None:
    """Show the outcome of a run, and bring its report and learning curve up to date."""
    from hiper.commands.report import report_run
    from hiper.runs import folder as runs

    report_run(runs.Run.open(run), _display())


@_command()
def credit(run: given.Run, iteration: given.Iteration = None, out: given.RunOut = None) -> None:
    """Apply every estimator to a run's stored episodes: credit per turn, per token, and where they disagree."""
    from hiper.runs import folder as runs

    opened = runs.Run.open(run)  # a wrong path is refused before torch is imported
    display = _display()
    display.whole_line(f"run        {run}")
    with display.bar("loading torch"):
        from hiper.commands.credit import show_credit

    show_credit(opened, out or opened.path, display, iteration)


@_command("hiper compare runs/quickstart-seed* runs/grpo-seed*")
def compare(
    runs: given.Runs,
    out: given.ComparisonOut = Path("runs") / "comparison",
) -> None:
    """Compare runs on the same held-out tasks: tables, paired tests, and curves over seeds."""
    from hiper.runs.records import open_runs

    with open_runs(runs) as opened:
        from hiper.commands.compare import compare_runs

        compare_runs(opened, out, _display())


@_command(
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
    out: given.Out = None,
    dry_run: given.DryRun = False,
) -> None:
    """Train several methods with several seeds, and compare them.

    The same command continues after an interrupt.
    """
    display = _display(stderr=dry_run)
    with display.bar("reading the study"):
        from hiper.commands.study import plan_study, run_study
        from hiper.study.definition import load_study

        definition = load_study(study, settings or [], _listed(seeds), _listed(methods))
    folder = out or Path("runs") / f"study-{definition.name}"
    if dry_run:
        plan_study(definition, folder, display, threads=threads)
        return
    run_study(definition, folder, display, jobs=jobs, threads=threads, processes=processes)


@_command("hiper verify", "hiper verify --run runs/quickstart-seed0 --iteration 3")
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

    if failed := run_checks(out or Path("runs") / "verify", _display(), run, iteration, seed).failed:
        raise UserError(f"not unbiased, though it is claimed to be: {', '.join(failed)}")


def _listed(text: str | None) -> list[str] | None:
    """Split a text at its commas."""
    return None if text is None else [part.strip() for part in text.split(",")]


def _say(text: str, *, indent: int = 2, err: bool = False) -> None:
    """Write a line of text. A terminal gets it wrapped at its words; other programs look for a whole line."""
    from hiper.display.text import wrapped

    terminal = (sys.stderr if err else sys.stdout).isatty()
    for line in wrapped(text, shutil.get_terminal_size().columns, indent) if terminal else [text]:
        typer.echo(line, err=err)


def _display(stderr: bool = False) -> Display:
    """Make the display of a command; on standard error where standard output is for other programs."""
    from rich.console import Console

    from hiper.display.console import Display
    from hiper.processes import place

    console = Console(highlight=False, stderr=stderr, quiet=not place().first)
    return Display(shlex.join(["hiper", *sys.argv[1:]]), console)


def main() -> None:
    """Run a command. A mistake of the user is told in one message, with exit code 2."""
    try:
        app(prog_name="hiper")
    except UserError as error:
        for line in f"hiper: {error}".split("\n"):
            _say(line, err=True)
        raise SystemExit(error.exit_code) from None
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        typer.echo(f"hiper: out of memory ({first_line(error)}): {OUT_OF_MEMORY}", err=True)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
