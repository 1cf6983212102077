"""Start one command in several processes that train together on this machine, and watch over them.

torchrun starts processes too, on several machines. But it kills them 30 seconds after a wish to stop, while a large
checkpoint takes longer; and a run on one machine should need no port.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from types import FrameType
from typing import Literal, TypeAlias

import typer

from hiper.errors import LostProcessError, UserError
from hiper.processes import PARENT, RENDEZVOUS, Processes, place, together

Launcher: TypeAlias = Literal["local", "ray"]

POLL_SECONDS = 0.05
GRACE_SECONDS = 120.0
"""How long the others may take to save what they have, after one process failed."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def joined(count: int, arguments: Sequence[str], launcher: Launcher = "local") -> Iterator[Processes]:
    """Join the processes of a command: this process becomes their launcher, or is one of them.

    Args:
        count: The number of processes asked for.
        arguments: The arguments of `hiper`.
        launcher: Where they are started: on this machine, or by Ray on the machines of its cluster.

    Raises:
        SystemExit: This process was their launcher, and all have ended.
        UserError: The processes do not meet.
    """
    if RENDEZVOUS not in os.environ:
        if launcher == "ray":
            from hiper.launch.ray import run_on_ray

            raise SystemExit(run_on_ray(arguments, count))
        if count > 1:
            raise SystemExit(run_together(arguments, count))
    with together() as processes:
        yield processes


def run_together(arguments: Sequence[str], count: int) -> int:
    """Run `hiper` with these arguments in several processes, and return its exit code.

    Process 0 has this terminal. The others write to files, which are shown if their process fails.

    Args:
        arguments: The arguments of `hiper`.
        count: The number of processes.

    Raises:
        UserError: A launcher has started several processes already.
    """
    if place().count > 1:
        raise UserError("torchrun or another launcher started several processes already: leave out --processes")
    with tempfile.TemporaryDirectory(prefix="hiper-") as folder, parent_pipe() as pipe:
        outputs = {rank: Path(folder) / f"process-{rank}.log" for rank in range(1, count)}
        common = {RENDEZVOUS: f"file://{folder}/meeting", PARENT: str(pipe), "WORLD_SIZE": str(count)}
        # Each process would otherwise compute on all cores.
        threads = {"OMP_NUM_THREADS": str(max(1, len(os.sched_getaffinity(0)) // count))}
        command = [sys.executable, "-m", "hiper", *arguments]
        running: dict[int, subprocess.Popen[bytes]] = {}
        with _passing_on(running) as asked:
            for rank in range(count):
                own = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
                with outputs[rank].open("wb") if rank else nullcontext() as output:
                    running[rank] = subprocess.Popen(
                        command,
                        stdin=subprocess.DEVNULL if rank else None,
                        stdout=output,
                        stderr=subprocess.STDOUT if rank else None,
                        env=threads | os.environ | common | own,
                        start_new_session=True,  # the terminal's signals reach this process alone, which passes them on
                        pass_fds=(pipe,),
                    )
            codes = _wait(running, asked)
        return _outcome(codes, outputs)


def _wait(running: Mapping[int, subprocess.Popen[bytes]], asked: Sequence[int]) -> dict[int, int]:
    """Wait for all processes, and return their exit codes in the order in which they ended.

    If one fails, the others are asked to stop, and killed if they take too long.
    """
    codes: dict[int, int] = {}
    deadline: float | None = None
    while len(codes) < len(running):
        for rank, process in running.items():
            if rank not in codes and (code := process.poll()) is not None:
                codes[rank] = code
                if code and not asked and deadline is None:
                    deadline = time.monotonic() + GRACE_SECONDS
                    _send(running, signal.SIGTERM)
        if deadline is not None and time.monotonic() > deadline:
            _send(running, signal.SIGKILL)
        time.sleep(POLL_SECONDS)
    return codes


def _outcome(codes: Mapping[int, int], outputs: Mapping[int, Path]) -> int:
    """Return the exit code of the process that failed first, and show what it said."""
    failed = {rank: code for rank, code in codes.items() if code}
    if not failed:
        return 0
    # A process that lost another one is not at fault.
    rank = next((r for r, code in failed.items() if code != LostProcessError.exit_code), next(iter(failed)))
    code = failed[rank]
    if rank in outputs:
        said = outputs[rank].read_text(encoding="utf-8", errors="replace").strip().splitlines()[-30:]
        typer.echo("\n".join([f"process {rank} of {len(codes)} failed:", *said]), err=True)
    if code < 0:
        typer.echo(f"hiper: process {rank} of {len(codes)} was ended by {signal.Signals(-code).name}", err=True)
        return 128 - code
    return code


def _send(running: Mapping[int, subprocess.Popen[bytes]], number: int) -> None:
    for process in running.values():
        with suppress(ProcessLookupError):
            process.send_signal(number)


@contextmanager
def _passing_on(running: Mapping[int, subprocess.Popen[bytes]]) -> Iterator[list[int]]:
    """Pass signals on to all processes; the list tells which came."""
    came: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        came.append(number)
        _send(running, number)

    previous = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in previous.items():
        if number is signal.SIGINT or handler is not signal.SIG_IGN:
            signal.signal(number, pass_on)
    try:
        yield came
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def parent_pipe() -> Iterator[int]:
    """Give the end of a pipe to read from. It reports its end when this process is gone, however it went."""
    read, write = os.pipe()
    try:
        yield read
    finally:
        os.close(read)
        os.close(write)
