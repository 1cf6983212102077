"""The program `hiper`: how commands are registered, what they share, and how mistakes are told."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from hiper import __version__
from hiper.cli import parameters as given
from hiper.cli.parameters import examples

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


def command(*examples_of_use: str, name: str | None = None) -> Callable[[Callable[..., None]], Callable[..., None]]:
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


def say(text: str, *, indent: int = 2, err: bool = False) -> None:
    """Write a line of text. A terminal gets it wrapped at its words; other programs look for a whole line."""
    from hiper.display.text import wrapped

    terminal = (sys.stderr if err else sys.stdout).isatty()
    for line in wrapped(text, shutil.get_terminal_size().columns, indent) if terminal else [text]:
        typer.echo(line, err=err)


def make_display(stderr: bool = False) -> Display:
    """Make the display of a command; on standard error where standard output is for other programs."""
    from rich.console import Console

    from hiper.display.console import Display
    from hiper.processes import place

    console = Console(highlight=False, stderr=stderr, quiet=not place().first)
    return Display(shlex.join(["hiper", *sys.argv[1:]]), console)
