"""The command line. Each command is a few lines over functions that can be called from Python as well.

Whatever takes long to import is imported inside the command that needs it, so that help and messages come at once.
"""

from __future__ import annotations

import typer

# isort: off
# They register their commands, in the order in which help lists them.
from hiper.cli import train, play, read, machine, look_up  # noqa: F401

# isort: on
from hiper.cli.program import app, say
from hiper.errors import OUT_OF_MEMORY, UserError, first_line, is_out_of_memory

__all__ = ["app", "main"]


def main() -> None:
    """Run a command. A mistake of the user is told in one message, with exit code 2."""
    try:
        app(prog_name="hiper")
    except UserError as error:
        for line in f"hiper: {error}".split("\n"):
            say(line, err=True)
        raise SystemExit(error.exit_code) from None
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        typer.echo(f"hiper: out of memory ({first_line(error)}): {OUT_OF_MEMORY}", err=True)
        raise SystemExit(2) from None
