"""Arguments and options that several commands of the command line share, and the look of their help.

Nothing here imports more than typer and signals, so that help and shell completion are fast.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup

from hiper.stopping import Stop, exit_code


def _with_plain_types(params: list[Any]) -> list[Any]:
    """Make the help show the metavars of options, and none of Python's types such as ``<list[str]>``."""
    for param in params:
        shown = None if isinstance(param, TyperArgument) or param.is_flag else param.metavar
        param.display_type_rich = lambda ctx, shown=shown: shown
    return params


class Command(TyperCommand):
    """A command whose help shows metavars in place of types, and which a signal stops.

    A signal stops it at once. Where work could be lost, the command waits for a safe point
    (:class:`~hiper.stopping.Stop`).
    """

    def invoke(self, ctx: Any) -> Any:
        """Call the command. The exit code after a signal is 128 and its number."""
        try:
            with Stop() as stop, stop.at_once():
                return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise typer.Exit(exit_code(error)) from error

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters, adapted for the help."""
        return _with_plain_types(super().get_params(ctx))


class Program(TyperGroup):
    """The program itself, whose help shows metavars in place of types."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters, adapted for the help."""
        return _with_plain_types(super().get_params(ctx))


def examples(*commands: str) -> str:
    """Return the text below a command's help; empty lines keep the commands on lines of their own."""
    return "\n\n".join(["Examples:", *(f"  {command}" for command in commands)])


def recipe_completions() -> Iterable[str]:
    """List the recipes for shell completion."""
    from hiper.config import recipe_names

    return recipe_names()


def study_completions() -> Iterable[str]:
    """List the studies for shell completion."""
    from hiper.study.definition import study_names

    return study_names()


def environment_completions() -> Iterable[str]:
    """List the environments for shell completion."""
    from hiper.envs.registry import names

    return names()


_RECIPE = typer.Argument(
    metavar="RECIPE", help="Name of a shipped recipe, or a YAML file.", autocompletion=recipe_completions
)
Recipe = Annotated[str, _RECIPE]
OptionalRecipe = Annotated[str | None, _RECIPE]
ShippedRecipe = Annotated[
    str | None,
    typer.Argument(
        metavar="NAME",
        help="Shipped recipe whose YAML is shown.",
        show_default="list all",
        autocompletion=recipe_completions,
    ),
]
Study = Annotated[
    str,
    typer.Argument(metavar="STUDY", help="Name of a shipped study, or a YAML file.", autocompletion=study_completions),
]
Settings = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Settings to override, such as learner.lr=1e-4 or seed=1."),
]
Env = Annotated[
    str,
    typer.Argument(
        metavar="ENV",
        help="Name of an environment, or module:Class of your own.",
        autocompletion=environment_completions,
    ),
]
DataEnv = Annotated[
    str | None,
    typer.Argument(metavar="ENV", help="Name of an environment.", show_default="all that have official data"),
]
OtherEnv = Annotated[
    str | None,
    typer.Option(
        metavar="ENV",
        help="Environment to play.",
        show_default="the policy's own",
        autocompletion=environment_completions,
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
RunOut = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="Folder to write to.", show_default="the run's own")
]
Processes = Annotated[
    int, typer.Option(min=1, metavar="N", help="Number of processes of this machine that do the work together.")
]
Iteration = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Iteration whose episodes are read.", show_default="the last"),
]
Temperature = Annotated[
    float | None,
    typer.Option(
        min=0, metavar="T", help="Sampling temperature of a policy; 0 is greedy.", show_default="the policy's own"
    ),
]
