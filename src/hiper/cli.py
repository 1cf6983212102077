"""The command line. Each command is a few lines over functions that can be called from Python as well.

Whatever takes long to import is imported inside the command that needs it, so that help and messages come at once.
"""

from __future__ import annotations

import random
import shlex
import sys
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup

from hiper import __version__
from hiper.errors import UserError

if TYPE_CHECKING:
    from hiper.display.console import Display


def _recipe_names() -> Iterable[str]:
    from hiper.config import recipe_names

    return recipe_names()


def _study_names() -> Iterable[str]:
    from hiper.study.definition import study_names

    return study_names()


def _environment_names() -> Iterable[str]:
    from hiper.envs.registry import names

    return names()


def _with_plain_types(params: list[Any]) -> list[Any]:
    """Make the help show the metavars of options, and none of Python's types such as ``<list[str]>``."""
    for param in params:
        shown = None if isinstance(param, TyperArgument) or param.is_flag else param.metavar
        param.display_type_rich = lambda ctx, shown=shown: shown
    return params


class _Command(TyperCommand):
    """A command whose help shows metavars in place of types."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _with_plain_types(super().get_params(ctx))


class _Group(TyperGroup):
    """The program itself, likewise."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _with_plain_types(super().get_params(ctx))


def _examples(*commands: str) -> str:
    """Return the text below a command's help; empty lines keep the commands on lines of their own."""
    return "\n\n".join(["Examples:", *(f"  {command}" for command in commands)])


app = typer.Typer(
    name="hiper",
    cls=_Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Hierarchical plan-execute reinforcement learning for LLM agents.",
    epilog=_examples("hiper train quickstart", "hiper report runs/quickstart-seed0", "hiper COMMAND -h"),
)

RECIPE = typer.Argument(
    metavar="RECIPE", help="Name of a shipped recipe, or a YAML file.", autocompletion=_recipe_names
)
Recipe = Annotated[str, RECIPE]
Settings = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Settings to override, such as learner.lr=1e-4 or seed=1."),
]
Env = Annotated[
    str,
    typer.Argument(
        metavar="ENV", help="Name of an environment, or module:Class of your own.", autocompletion=_environment_names
    ),
]
Options = Annotated[
    list[str] | None,
    typer.Argument(metavar="OPTION=VALUE", help="Options of the environment, as in the section env of a recipe."),
]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")]
Split = Annotated[
    str | None,
    typer.Option(
        metavar="SPLIT", help="Split whose tasks are used.", show_default="that of the environment or the run"
    ),
]
Out = Annotated[Path | None, typer.Option(metavar="FOLDER", help="Folder to write to.", show_default="one under runs/")]
Iteration = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Iteration whose episodes are read.", show_default="the last"),
]


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


@app.command(
    cls=_Command,
    epilog=_examples(
        "hiper train quickstart",
        "hiper train quickstart seed=1 learner.lr=1e-4 --out runs/second",
        "hiper train --resume runs/quickstart-seed0",
    ),
)
def train(
    recipe: Annotated[str | None, RECIPE] = None,
    settings: Settings = None,
    out: Out = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Continue the run in this folder, under its own settings.")
    ] = None,
) -> None:
    """Train an agent: warm start, reinforcement learning, and evaluation before and after."""
    from hiper.config import load_config

    if recipe is not None and resume is not None:
        given = " ".join([recipe, *(settings or [])])
        raise UserError(f"--resume continues a run under its own recipe and settings: leave out {given}")
    if recipe is None and resume is None:
        raise UserError("name a recipe (`hiper recipes` lists them), or a run to continue: --resume RUN")
    if out is not None and resume is not None:
        raise UserError("--resume continues in the run's own folder: leave out --out")
    config = None if recipe is None else load_config(recipe, settings or [])

    from hiper.runs import folder as runs
    from hiper.training.splits import resolve_splits

    if config is not None:
        config = resolve_splits(config)
        run = runs.Run.create(out or Path("runs") / f"{config.name}-seed{config.seed}", config)
    else:
        run = runs.Run.open(Path(str(resume)))

    from hiper.commands.report import report_run

    display = _display()
    if run.finished:
        display.note(f"{run.path} has all its {run.config.training.iterations} iterations: nothing is left to do")
    else:
        from hiper.training.trainer import train as run_training

        _hide_loading_bars()
        run_training(run, display)
    report_run(run, display)


@app.command(cls=_Command, epilog=_examples("hiper sft quickstart", "hiper eval runs/quickstart-sft-seed0"))
def sft(recipe: Recipe, settings: Settings = None, out: Out = None) -> None:
    """Clone the environment's expert: only the warm start of a recipe, saved as a policy.

    The same command continues after an interrupt.
    """
    from hiper.config import load_config

    config = load_config(recipe, settings or [])
    path = out or Path("runs") / f"{config.name}-sft-seed{config.seed}"
    if path.exists():
        raise UserError(f"{path} exists already; choose another folder with --out")
    if config.warm_start.tasks == 0:
        raise UserError("warm_start.tasks is 0, so there is nothing to learn from")

    from hiper.imitation.warm_start import clone
    from hiper.training.splits import resolve_splits

    display = _display()
    _hide_loading_bars()
    clone(resolve_splits(config), path, display)
    display.note(f"saved in {path}; evaluate it with: hiper eval {path}")


@app.command(
    cls=_Command,
    name="eval",
    epilog=_examples(
        "hiper eval runs/quickstart-seed0",
        "hiper eval runs/alfworld-nano-seed0 --split valid_unseen --episodes 50",
        "hiper eval runs/quickstart-seed0/checkpoints/iter-00010 --temperature 0",
    ),
)
def evaluate(
    policy: Annotated[Path, typer.Argument(metavar="POLICY", help="A run, a checkpoint, or a policy folder.")],
    settings: Settings = None,
    env: Annotated[
        str | None,
        typer.Option(
            metavar="ENV",
            help="Environment to play.",
            show_default="the run's own",
            autocompletion=_environment_names,
        ),
    ] = None,
    split: Split = None,
    episodes: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Play a fixed subset of N tasks.", show_default="all")
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(min=0, metavar="T", help="Sampling temperature; 0 is greedy.", show_default="the run's own"),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, metavar="SEED", help="Seed of sampling and environment.", show_default="the run's own"),
    ] = None,
    out: Out = None,
) -> None:
    """Play held-out tasks, show the outcome, and write a result card and the episodes."""
    from hiper.runs.folder import find_policy

    find_policy(policy)  # a wrong path is refused before torch is imported

    from hiper.commands.evaluate import evaluate_policy
    from hiper.evaluation.saved import SavedPolicy

    saved = SavedPolicy.open(policy, env, settings or [])
    splits = saved.config.evaluation.splits if split is None else (split,)
    folder = out or Path("runs") / f"eval-{policy.resolve().name}-{datetime.now():%Y%m%d-%H%M%S}"
    _hide_loading_bars()
    evaluate_policy(saved, splits, folder, _display(), episodes=episodes, temperature=temperature, seed=seed)


@app.command(
    cls=_Command,
    epilog=_examples(
        "hiper play corridor",
        "hiper play alfworld data=generated size=tiny --agent expert",
        "hiper play corridor --agent runs/tiny-seed0 --auto",
    ),
)
def play(
    env: Env,
    options: Options = None,
    agent: Annotated[
        str, typer.Option(metavar="AGENT", help="Who plays: human, expert, or a run, checkpoint or policy folder.")
    ] = "human",
    split: Split = None,
    task: Annotated[
        str | None, typer.Option(metavar="ID", help="Id of the task.", show_default="one drawn with the seed")
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, metavar="SEED", help="Seed of the draw, the environment and the sampling.")
    ] = 0,
    temperature: Annotated[
        float | None,
        typer.Option(min=0, metavar="T", help="Sampling temperature of a policy.", show_default="its own"),
    ] = None,
    auto: Annotated[bool, typer.Option("--auto", help="Do not wait for Enter between an agent's turns.")] = False,
) -> None:
    """Step through one episode in the terminal, with subgoals."""
    from rich.console import Console

    from hiper.commands import play as table

    if agent not in (table.HUMAN, table.EXPERT):
        from hiper.runs.folder import find_policy

        find_policy(Path(agent))  # a wrong path is refused before torch is imported
        _hide_loading_bars()
    console = Console(highlight=False, soft_wrap=True)
    world, player = table.seat(
        env, options or [], agent, split=split, temperature=temperature, seed=seed, console=console
    )
    chosen = task or random.Random(seed).choice(world.panel.tasks).id
    table.play(world, player, chosen, seed, console, wait=not (auto or agent == table.HUMAN))


@app.command(cls=_Command, epilog=_examples("hiper recipes", "hiper recipes quickstart > mine.yaml"))
def recipes(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME", help="Recipe whose YAML is shown.", show_default="list all", autocompletion=_recipe_names
        ),
    ] = None,
) -> None:
    """List the shipped recipes, or show one of them."""
    from hiper.config import recipe_names, recipe_summary, recipe_text

    if name is not None:
        typer.echo(recipe_text(name), nl=False)
        return
    names = recipe_names()
    for known in names:
        typer.echo(f"{known:{max(map(len, names))}}  {recipe_summary(known)}")


@app.command(cls=_Command)
def tasks(env: Env, options: Options = None, split: Split = None) -> None:
    """List the tasks of an environment, id and type, in the order of its panel.

    The hash of the panel goes to standard error.
    """
    from hiper import envs
    from hiper.config import overridden

    chosen = {} if split is None else {"split": split}
    made = envs.make(env, **overridden(chosen, options or []))
    for task in made.panel:
        typer.echo(f"{task.id}\t{task.type}")
    official = {True: ", the official panel", False: ", NOT the official panel of this name", None: ""}
    name, count, digest = made.panel.name, len(made.panel), made.panel.hash
    typer.echo(f"{name}: {count} tasks, sha256 {digest}{official[made.official]}", err=True)


@app.command(cls=_Command, epilog=_examples("hiper data", "hiper data alfworld --get games"))
def data(
    env: Annotated[
        str | None,
        typer.Argument(metavar="ENV", help="Name of an environment.", show_default="all that have official data"),
    ] = None,
    get: Annotated[str | None, typer.Option(metavar="SET", help="Download what is missing of this data set.")] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Folder of the data.", show_default="the place where the environment looks"
        ),
    ] = None,
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


@app.command(cls=_Command)
def report(run: Run) -> None:
    """Show the outcome of a run, and write its report and learning curve anew."""
    from hiper.commands.report import report_run
    from hiper.runs import folder as runs

    report_run(runs.Run.open(run), _display())


@app.command(cls=_Command)
def credit(
    run: Run,
    iteration: Iteration = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Folder to write to.", show_default="the run's own")
    ] = None,
) -> None:
    """Apply every estimator to a run's stored episodes: credit per turn, per token, and where they disagree."""
    from hiper.runs import folder as runs

    opened = runs.Run.open(run)  # a wrong path is refused before torch is imported

    from hiper.commands.credit import show_credit

    show_credit(opened, out or opened.path, _display(), iteration)


@app.command(cls=_Command, epilog=_examples("hiper compare runs/quickstart-seed* runs/grpo-seed*"))
def compare(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN", help="Folders of runs; the method of the first is the reference.")
    ],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder to write to.")] = Path("runs") / "comparison",
) -> None:
    """Compare runs on the same held-out tasks: tables, paired tests, and curves over seeds."""
    from hiper.runs import folder

    opened = [folder.Run.open(run) for run in runs]

    from hiper.commands.compare import compare_runs

    compare_runs(opened, out, _display())


@app.command(
    cls=_Command,
    epilog=_examples(
        "hiper study ablations --jobs 2 --threads 1",
        "hiper study ablations --methods hiper,flat-credit --seeds 0,1",
        "hiper study mine.yaml learner.epochs=1 --out runs/mine",
    ),
)
def study(
    study: Annotated[
        str,
        typer.Argument(metavar="STUDY", help="Name of a shipped study, or a YAML file.", autocompletion=_study_names),
    ],
    settings: Settings = None,
    seeds: Annotated[
        str | None, typer.Option(metavar="0,1,...", help="Seeds to use in place of the study's own.")
    ] = None,
    methods: Annotated[
        str | None, typer.Option(metavar="A,B,...", help="Methods to run.", show_default="all of the study")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, metavar="N", help="Number of processes that run in parallel.")] = 1,
    threads: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="CPU threads of each process.", show_default="the recipe's"),
    ] = None,
    out: Out = None,
) -> None:
    """Train several methods with several seeds, and compare them.

    The same command continues after an interrupt.
    """
    from hiper.study.definition import load_study

    definition = load_study(study, settings or [], _listed(seeds), _listed(methods))

    from hiper.commands.study import run_study

    run_study(definition, out or Path("runs") / f"study-{definition.name}", _display(), jobs=jobs, threads=threads)


@app.command(cls=_Command, epilog=_examples("hiper verify", "hiper verify --run runs/quickstart-seed0 --iteration 3"))
def verify(
    run: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Run whose training episodes are checked as well.")
    ] = None,
    iteration: Iteration = None,
    seed: Annotated[int, typer.Option(min=0, metavar="SEED", help="Seed of resampling these episodes.")] = 0,
    out: Out = None,
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


def _display() -> Display:
    from hiper.display.console import Display

    return Display(command=shlex.join(["hiper", *sys.argv[1:]]))


def _hide_loading_bars() -> None:
    """Hide transformers' bars of reading and writing weights; those of downloads stay."""
    from huggingface_hub.utils.tqdm import enable_progress_bars
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    enable_progress_bars()


def main() -> None:
    """Run a command. A mistake of the user is told in one message, with exit code 2."""
    try:
        app(prog_name="hiper")
    except UserError as error:
        typer.echo(f"hiper: {error}", err=True)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
