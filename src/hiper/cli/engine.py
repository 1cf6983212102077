"""The commands about engines: `engine install`."""

from __future__ import annotations

import typer

from hiper.cli import parameters as given
from hiper.cli.parameters import examples
from hiper.cli.program import app, make_display

engine = typer.Typer(cls=given.Program, no_args_is_help=True, help="Install vLLM, for sampler.type=vllm.")
app.add_typer(engine, name="engine")


@engine.callback()
def common() -> None:
    """Install vLLM, for sampler.type=vllm."""


@engine.command(cls=given.Command, epilog=examples("hiper engine install", "hiper engine install ~/vllm"))
def install(folder: given.EngineFolder = None, cpu: given.ForCpu = None) -> None:
    """Install vLLM in a Python environment of its own. Given again, the command continues."""
    from hiper.commands.engine import install_engine

    install_engine(folder, cpu, make_display())
