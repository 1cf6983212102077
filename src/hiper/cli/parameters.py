"""Arguments and options that several commands of the command line share, and the look of their help.

Nothing here imports more than typer and signals, so that help and shell completion are fast.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup

from hiper.errors import UserError
from hiper.files import user_path
from hiper.stopping import Stop, exit_code


def _with_plain_types(params: list[Any]) -> list[Any]:
    """Make the help show the metavars of options, and none of Python's types such as ``<list[str]>``."""
    for param in params:
        shown = None if isinstance(param, TyperArgument) or param.is_flag else param.metavar
        param.display_type_rich = lambda ctx, shown=shown: shown
    return params


class Command(TyperCommand):
    """A command that shows metavars in its help, knows settings by their names, and is stopped by a signal.

    A signal stops it at once. Where work could be lost, the command waits for a safe point
    (:class:`~hiper.stopping.Stop`).
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the command line. An unknown option that is a setting is told how settings are given.

        Raises:
            UserError: It is one.
        """
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            option: str = getattr(error, "option_name", "")  # of an unknown option; typer brings its own click, or not
            name = option.lstrip("-").partition("=")[0]
            if "settings" not in {param.name for param in self.params} or not _is_setting(name):
                raise
            raise UserError(f"{option} is a setting, not an option; give it as {name}=VALUE") from None

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


def _is_setting(name: str) -> bool:
    from hiper.config import Config, flatten

    return name in dict(flatten(Config().model_dump()))


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
Checked = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE",
        help="A shipped recipe, a YAML file, or the folder of a run.",
        autocompletion=recipe_completions,
    ),
]
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
        show_default="the policy's own; a plain model needs one",
        autocompletion=environment_completions,
    ),
]
Options = Annotated[
    list[str] | None,
    typer.Argument(metavar="OPTION=VALUE", help="Options of the environment, as in the section env of a recipe."),
]
PlayOptions = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="OPTION=VALUE",
        help="Options of the environment; a key with a dot is a setting of the agent, such as prompt.template=terse.",
    ),
]
Run = Annotated[Path, typer.Argument(parser=user_path, metavar="RUN", help="Folder of a run.")]
Split = Annotated[
    str | None,
    typer.Option(
        metavar="SPLIT", help="Split whose tasks are used.", show_default="that of the environment or the run"
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(parser=user_path, metavar="FOLDER", help="Folder to write to.", show_default="one under runs/"),
]
RunOut = Annotated[
    Path | None,
    typer.Option(parser=user_path, metavar="FOLDER", help="Folder to write to.", show_default="the run's own"),
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Show the resolved settings and what would be done; write nothing."),
]
Force = Annotated[
    bool, typer.Option("--force", help="Begin although the memory that is free is too small for the model.")
]
Gpus = Annotated[
    str | None,
    typer.Option(metavar="NxSIZE", help="Devices, such as 1x80GB, 4x24GB or cpu.", show_default="this machine's own"),
]
Processes = Annotated[
    int, typer.Option(min=1, metavar="N", help="Number of processes of this machine that do the work together.")
]
Launcher = Annotated[
    Literal["local", "ray"],
    typer.Option("--launcher", help="Who starts the processes: this machine, or Ray on the machines of its cluster."),
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
AnyPolicy = Annotated[
    str,
    typer.Argument(
        metavar="POLICY", help="A run, a checkpoint, a policy folder, or with --env any Hugging Face model."
    ),
]
TrainedPolicy = Annotated[
    str, typer.Argument(metavar="POLICY", help="A run, a checkpoint, a policy folder, or the folder of an adapter.")
]
ExportOut = Annotated[Path, typer.Option(parser=user_path, metavar="FOLDER", help="New folder to write.")]
NumberFormat = Annotated[
    Literal["float32", "bfloat16"] | None,
    typer.Option(help="Number format of the weights.", show_default="that of the policy's training"),
]
Episodes = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Play a fixed subset of N tasks.", show_default="all")
]
EvaluationSeed = Annotated[
    int | None,
    typer.Option(min=0, metavar="SEED", help="Seed of sampling and environment.", show_default="the run's own"),
]
Agent = Annotated[
    str,
    typer.Option(metavar="AGENT", help="Who plays: human, expert, a run, a checkpoint, a policy folder, or any model."),
]
TaskId = Annotated[
    str | None, typer.Option(metavar="ID", help="Id of the task.", show_default="one drawn with the seed")
]
PlaySeed = Annotated[
    int, typer.Option(min=0, metavar="SEED", help="Seed of the draw, the environment and the sampling.")
]
Runs = Annotated[
    list[Path],
    typer.Argument(
        parser=user_path, metavar="RUN", help="Runs, or packed runs; the first one's method is the reference."
    ),
]
Seeds = Annotated[str | None, typer.Option(metavar="0,1,...", help="Seeds to use in place of the study's own.")]
Methods = Annotated[
    str | None, typer.Option(metavar="A,B,...", help="Methods to run.", show_default="all of the study")
]
Threads = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="CPU threads of each process.", show_default="the recipe's"),
]
Resume = Annotated[
    Path | None,
    typer.Option(parser=user_path, metavar="RUN", help="Continue the run in this folder, under its own settings."),
]
CheckedRun = Annotated[
    Path | None,
    typer.Option(parser=user_path, metavar="RUN", help="Run whose training episodes are checked as well."),
]
DataFolder = Annotated[
    Path | None,
    typer.Option(
        parser=user_path,
        metavar="FOLDER",
        help="Folder of the data.",
        show_default="the place where the environment looks",
    ),
]
CheckedProcesses = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Number of processes.", show_default="one for each of --gpus"),
]
EngineFolder = Annotated[
    Path | None,
    typer.Argument(
        parser=user_path, metavar="FOLDER", help="Folder of its environment.", show_default="~/.cache/hiper/engine"
    ),
]
ForCpu = Annotated[
    bool | None, typer.Option("--cpu/--gpu", help="The build to install.", show_default="what the machine has")
]
JobProcesses = Annotated[
    int, typer.Option(min=1, metavar="N", help="Number of processes that work together on each job.")
]
Jobs = Annotated[int, typer.Option(min=1, metavar="N", help="Number of processes that run in parallel.")]
Get = Annotated[str | None, typer.Option(metavar="SET", help="Download what is missing of this data set.")]
ComparisonOut = Annotated[Path, typer.Option(parser=user_path, metavar="FOLDER", help="Folder to write to.")]
Viewed = Annotated[
    Path,
    typer.Argument(
        parser=user_path, metavar="RUN_OR_FOLDER", help="A run, a folder with runs, a study, or a file of packed runs."
    ),
]
Port = Annotated[
    int | None, typer.Option(min=1, max=65_535, metavar="PORT", help="Port to listen on.", show_default="a free one")
]
Host = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Address to listen on, such as 0.0.0.0; a token is then needed.",
        show_default="this machine alone",
    ),
]
NoBrowser = Annotated[bool, typer.Option("--no-browser", help="Only show the address; open no browser.")]
Export = Annotated[
    Path | None,
    typer.Option(parser=user_path, metavar="FILE", help="Write one page that needs no server, and end."),
]
ExportedEpisodes = Annotated[
    str | None,
    typer.Option(
        metavar="FILE/N,...",
        help="Episodes of the page, such as iter-00003/17.",
        show_default="some of the last iteration and of the last evaluation",
    ),
]
Beside = Annotated[bool, typer.Option("--beside", hidden=True)]
View = Annotated[bool, typer.Option("--view", help="Show the run in a browser while it trains.")]
