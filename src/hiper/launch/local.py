"""Run commands in parallel subprocesses on this machine. A failing command does not affect the others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from hiper.display.console import Display
from hiper.files import lock_file, writing
from hiper.stopping import Stop

POLL_SECONDS = 0.1
ERROR = "hiper: "
"""Prefix of the message in which `hiper` tells the user what is wrong."""


@dataclass(frozen=True)
class Command:
    """A call of `hiper`."""

    name: str
    """Name in messages, and of the log file."""
    arguments: tuple[str, ...]
    """Arguments of `hiper`."""
    threads: int | None = None
    """CPU threads; None: as many as its libraries choose."""
    needs: str | None = None
    """Name of a command that must succeed first; one that is not in the list counts as done."""
    resumes: bool = False
    """Whether it continues something that an earlier call began."""


class Process(Protocol):
    """The part of :class:`subprocess.Popen` that is needed."""

    def poll(self) -> int | None:
        """Return the exit code; None while the process runs."""

    def send_signal(self, sig: int, /) -> None:
        """Send a signal to the process."""


Launch = Callable[[Command, Path], Process]
"""Starts a command, and appends its output to the given log file."""


def run_commands(
    commands: Sequence[Command], logs: Path, display: Display, launch: Launch, slots: int = 1
) -> dict[str, str]:
    """Run all commands in order, each as soon as a slot is free and the command it needs has succeeded.

    Args:
        commands: the commands; one that others need comes before them.
        logs: folder of the log files.
        display: where to say what happens.
        launch: starts a command.
        slots: largest number of commands that run at once.

    Returns:
        Reasons of failure by name; all other commands succeeded.

    Raises:
        KeyboardInterrupt: the user stopped; every process has come to its own stop by then.
    """
    pool = _Pool(list(commands), len(commands), logs, display, launch)
    with Stop(display.note) as stop, _interrupting(pool.running):
        while pool.waiting or pool.running:
            stop.check()
            pool.drop_unreachable()
            pool.start(slots)
            if not pool.collect() and pool.running:
                time.sleep(POLL_SECONDS)
    return pool.failures


@dataclass
class _Pool:
    """Commands on their way from waiting to done or failed."""

    waiting: list[Command]
    total: int
    logs: Path
    display: Display
    launch: Launch
    running: dict[str, Process] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    _log_starts: dict[str, int] = field(default_factory=dict)
    """Size of each log file in bytes before this attempt."""

    def drop_unreachable(self) -> None:
        """Fail the commands that need a failed one."""
        for command in list(self.waiting):
            if command.needs in self.failures:
                self.waiting.remove(command)
                self.failures[command.name] = f"not begun, as {command.needs} failed"

    def start(self, slots: int) -> None:
        """Start commands until all slots are taken or none is ready."""
        unfinished = {command.name for command in self.waiting} | set(self.running)
        ready = [command for command in self.waiting if command.needs not in unfinished]
        for command in ready[: slots - len(self.running)]:
            self.waiting.remove(command)
            self.display.note(f"          {command.name} {'continues' if command.resumes else 'begins'}")
            log = self._log(command.name)
            self._log_starts[command.name] = log.stat().st_size if log.exists() else 0
            self.running[command.name] = self.launch(command, log)

    def collect(self) -> bool:
        """Note which processes ended; return whether any did."""
        ended = {name: code for name, process in self.running.items() if (code := process.poll()) is not None}
        for name, code in ended.items():
            del self.running[name]
            if code:
                self.failures[name] = _reason(self._log(name), self._log_starts[name], code)
            done = self.total - len(self.waiting) - len(self.running) - len(self.failures)
            outcome = f"FAILED: {self.failures[name]}" if code else "done"
            self.display.note(f"{f'{done}/{self.total}':>9} {name} {outcome}")
        return bool(ended)

    def _log(self, name: str) -> Path:
        return self.logs / f"{name}.log"


@contextmanager
def _interrupting(running: Mapping[str, Process]) -> Iterator[None]:
    """If the block ends early, stop all processes and wait for them. A second Ctrl-C stops them at once."""
    try:
        yield
    except BaseException:
        # SIGTERM, as a shutdown may have sent it to them already: they heed it once, and a second SIGINT at once.
        number = signal.SIGTERM
        while alive := [process for process in running.values() if process.poll() is None]:
            for process in alive:
                process.send_signal(number)
            number = signal.SIGINT
            with suppress(KeyboardInterrupt):
                while any(process.poll() is None for process in alive):
                    time.sleep(POLL_SECONDS)
        raise


def _reason(log: Path, start: int, code: int) -> str:
    """Say why a process failed: the signal, the error in its log, or the last line of the log.

    Args:
        log: the log file.
        start: where this attempt's output begins in it, in bytes.
        code: the exit code.
    """
    if code < 0:
        return f"killed by signal {-code} ({log})"
    text = log.read_bytes()[start:].decode(errors="replace") if log.exists() else ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(ERROR)]
    return f"{(errors or lines or [f'exit code {code}'])[-1]} ({log})"


@contextmanager
def local_processes(folder: Path) -> Iterator[Launch]:
    """Yield a function that starts `hiper` in subprocesses, each with its own number of CPU threads.

    The processes are in sessions of their own, so Ctrl-C in a terminal does not reach them; it is passed on once. Each
    of them holds the lock on ``folder`` too. So if this process is killed, no other can begin the work they still do.

    Raises:
        UserError: another process holds the lock.
    """
    refusal = (
        f"a process is at work in {folder} already, perhaps left over from a study that was killed: wait for it, or "
        "end it"
    )
    with lock_file(folder / "lock", refusal) as lock:

        def launch(command: Command, log: Path) -> subprocess.Popen[bytes]:
            threads = command.threads
            limit = {} if threads is None else {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
            with writing(log):
                log.parent.mkdir(parents=True, exist_ok=True)
                with log.open("a") as output:
                    return subprocess.Popen(
                        [sys.executable, "-m", "hiper", *command.arguments],
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                        env=os.environ | {"COLUMNS": "160"} | limit,
                        start_new_session=True,
                        pass_fds=(lock.fileno(),),
                    )

        yield launch
