"""Run commands in parallel subprocesses on this machine. A failing command does not affect the others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Protocol

from hiper.display.console import Display
from hiper.display.text import clock, duration
from hiper.files import lock_file, writing
from hiper.stopping import Stop

POLL_SECONDS = 0.1
VISIBLE = "CUDA_VISIBLE_DEVICES"
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
    processes: int = 1
    """Number of processes that it consists of. Each takes a GPU where there are several."""
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
    commands: Sequence[Command],
    logs: Path,
    display: Display,
    launch: Launch,
    slots: int = 1,
    *,
    before: int = 0,
    result: Callable[[str], str] = lambda name: "",
) -> dict[str, str]:
    """Run all commands in order, each as soon as a slot is free and the command it needs has succeeded.

    Args:
        commands: the commands; one that others need comes before them.
        logs: folder of the log files.
        display: where to say what happens.
        launch: starts a command.
        slots: largest number of commands that run at once.
        before: number of commands that were done before, and count as part of the whole.
        result: returns in words what a finished command of that name has come to; "" if there is nothing to say.

    Returns:
        Reasons of failure by name; all other commands succeeded.

    Raises:
        KeyboardInterrupt: the user stopped; every process has come to its own stop by then.
    """
    total = before + len(commands)
    pool = _Pool(list(commands), total, logs, display, launch, slots, result)
    with Stop(display.note) as stop, display.whole(pool.words), _interrupting(pool.running):
        while pool.waiting or pool.running:
            stop.check()
            pool.drop_unreachable()
            pool.start()
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
    slots: int
    result: Callable[[str], str]
    running: dict[str, Process] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    _begun: dict[str, tuple[Command, float]] = field(default_factory=dict)
    """Running commands, and when each began."""
    _seconds: dict[str, list[float]] = field(default_factory=dict)
    """What commands took that this process did from their beginning, by kind."""
    _since: float = field(default_factory=time.monotonic)
    _log_starts: dict[str, int] = field(default_factory=dict)
    """Size of each log file in bytes before this attempt."""

    def drop_unreachable(self) -> None:
        """Fail the commands that need a failed one."""
        for command in list(self.waiting):
            if command.needs in self.failures:
                self.waiting.remove(command)
                self.failures[command.name] = f"not begun, as {command.needs} failed"

    def words(self) -> str:
        """Say how many are done, the time so far, the time to go, and what is running."""
        passed, running = clock(time.monotonic() - self._since), ", ".join(list(self.running))
        return f"{self._done()}/{self.total} done, {passed} so far, {self._left()}; running: {running}"

    def _done(self) -> int:
        return self.total - len(self.waiting) - len(self.running) - len(self.failures)

    def _left(self) -> str:
        """Say the time to go, if commands of every kind that is left have been done."""
        now = time.monotonic()
        running = list(self._begun.values())
        means = {kind: fmean(seconds) for kind, seconds in self._seconds.items()}
        if any(_kind(command) not in means for command in (*self.waiting, *(c for c, _ in running))):
            return "time to go unknown"
        seconds = sum(means[_kind(command)] for command in self.waiting)
        seconds += sum(max(0.0, means[_kind(command)] - (now - began)) for command, began in running)
        return f"about {duration(seconds / min(self.slots, max(1, len(self.waiting) + len(running))))} to go"

    def start(self) -> None:
        """Start commands until all slots are taken or none is ready."""
        unfinished = {command.name for command in self.waiting} | set(self.running)
        ready = [command for command in self.waiting if command.needs not in unfinished]
        for command in ready[: self.slots - len(self.running)]:
            self.waiting.remove(command)
            self.display.note(f"          {command.name} {'continues' if command.resumes else 'begins'}")
            log = self._log(command.name)
            self._log_starts[command.name] = log.stat().st_size if log.exists() else 0
            self._begun[command.name] = command, time.monotonic()
            self.running[command.name] = self.launch(command, log)

    def collect(self) -> bool:
        """Note which processes ended; return whether any did."""
        ended = {name: code for name, process in self.running.items() if (code := process.poll()) is not None}
        for name, code in ended.items():
            del self.running[name]
            command, began = self._begun.pop(name)
            seconds = time.monotonic() - began
            if code:
                self.failures[name] = _reason(self._log(name), self._log_starts[name], code)
                outcome = f"FAILED: {self.failures[name]}"
            else:
                if not command.resumes:
                    self._seconds.setdefault(_kind(command), []).append(seconds)
                outcome = ", ".join(filter(None, (f"done in {duration(seconds)}", self.result(name))))
            left = f"; {self._left()}" if self.waiting or self.running else ""
            self.display.note(f"{f'{self._done()}/{self.total}':>9} {name} {outcome}{left}")
        return bool(ended)

    def _log(self, name: str) -> Path:
        return self.logs / f"{name}.log"


def _kind(command: Command) -> str:
    """Return what commands must share to take about equally long: what they call."""
    return command.arguments[0]


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

    On a machine of several GPUs, each sees only as many as it has processes: those that the fewest others use.

    The processes are in sessions of their own, so Ctrl-C in a terminal does not reach them; it is passed on once. Each
    of them holds the lock on ``folder`` too. So if this process is killed, no other can begin the work they still do.

    Raises:
        UserError: another process holds the lock.
    """
    refusal = (
        f"a process is at work in {folder} already, perhaps left over from a study that was killed: wait for it, or "
        "end it"
    )
    gpus = gpus_here()
    with lock_file(folder / "lock", refusal) as lock:
        begun: list[tuple[subprocess.Popen[bytes], Sequence[str]]] = []

        def own_gpus(command: Command) -> Sequence[str]:
            used = Counter(gpu for process, theirs in begun if process.poll() is None for gpu in theirs)
            return sorted(gpus, key=lambda gpu: used[gpu])[: command.processes] if len(gpus) > 1 else ()

        def launch(command: Command, log: Path) -> subprocess.Popen[bytes]:
            threads = command.threads
            limit = {} if threads is None else {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
            if gpus_of_it := own_gpus(command):
                limit[VISIBLE] = ",".join(gpus_of_it)
            with writing(log):
                log.parent.mkdir(parents=True, exist_ok=True)
                with log.open("a") as output:
                    process = subprocess.Popen(
                        [sys.executable, "-m", "hiper", *command.arguments],
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                        env=os.environ | {"COLUMNS": "160"} | limit,
                        start_new_session=True,
                        pass_fds=(lock.fileno(),),
                    )
            begun.append((process, gpus_of_it))
            return process

        yield launch


def gpus_here() -> list[str]:
    """Return the names of the GPUs that processes may use, as CUDA_VISIBLE_DEVICES has them. Needs no torch."""
    if (allowed := os.environ.get(VISIBLE)) is not None:
        return [name.strip() for name in allowed.split(",") if name.strip()]
    query = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    try:
        said = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return said.split()
