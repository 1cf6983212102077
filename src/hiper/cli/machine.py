"""The commands that look at the machine before anything is launched: `check`, `doctor`."""

from __future__ import annotations

from typing import Annotated

import typer

from hiper.cli import parameters as given
from hiper.cli.program import command, make_display


@command(
    "hiper check quickstart",
    "hiper check alfworld-qwen2.5-7b learner.sharding=fsdp sampler.type=vllm --gpus 8x80GB",
    "hiper check alfworld-qwen2.5-7b-lora learner.micro_batch_tokens=8192 --gpus 1x48GB",
    "hiper check runs/quickstart-seed0",
)
def check(
    source: given.Checked,
    settings: given.Settings = None,
    gpus: given.Gpus = None,
    processes: given.CheckedProcesses = None,
) -> None:
    """Estimate the memory, the time and the disk of a run, and say whether it fits. The exit code is 1 if not."""
    from hiper.commands import check as checking

    if not checking.check(source, settings or [], gpus, processes, make_display()):
        raise typer.Exit(1)


@command("hiper doctor", "hiper doctor --json")
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON in place of the table.")] = False,
) -> None:
    """Show what this machine has, what works and what is missing. The exit code is 1 if something needed is broken."""
    from hiper.commands.doctor import examine, show

    found = examine()
    show(found, make_display(), as_json)
    if any(line.broken for line in found):
        raise typer.Exit(1)
