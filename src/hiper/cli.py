"""The command line. Each command is a few lines over a function that can be called from Python as well."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from hiper import envs
from hiper.config import load_config, recipe_names
from hiper.console import Display
from hiper.errors import UserError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Hierarchical plan-execute reinforcement learning for LLM agents.",
)

Overrides = Annotated[list[str] | None, typer.Argument(metavar="[dotted.key=value]...", help="Settings to override.")]


@app.command()
def train(
    recipe: Annotated[str | None, typer.Argument(help="A shipped recipe's name or a YAML file.")] = None,
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="Run folder [default: runs/RECIPE-seedN].")] = None,
    resume: Annotated[Path | None, typer.Option(help="Continue the run in this folder.")] = None,
) -> None:
    """Train an agent: warm start, reinforcement learning, evaluation before and after."""
    from hiper.training.loop import train as run_training
    from hiper.training.run import Run

    if (recipe is None) == (resume is None):
        raise UserError("name a recipe (`hiper recipes` lists them), or a run to go on with: --resume RUN")
    if resume is not None:
        run = Run.open(resume)
    else:
        config = load_config(str(recipe), overrides or [])
        run = Run.create(out or Path("runs") / f"{config.name}-seed{config.seed}", config)
    run_training(run, Display(command=shlex.join(["hiper", *sys.argv[1:]])))


@app.command()
def recipes() -> None:
    """List the shipped recipes."""
    for name in recipe_names():
        typer.echo(name)


@app.command()
def tasks(
    env: Annotated[str, typer.Argument(help="An environment's name.")],
    options: Overrides = None,
) -> None:
    """List an environment's tasks: id and type, in panel order."""
    chosen = dict(option.split("=", 1) for option in options or [])
    panel = envs.make(env, **chosen).panel
    for task in panel:
        typer.echo(f"{task.id}\t{task.type}")


def main() -> None:
    """Run a command; what the user got wrong is said in one message, with exit code 2."""
    try:
        app()
    except UserError as error:
        typer.echo(f"hiper: {error}", err=True)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
