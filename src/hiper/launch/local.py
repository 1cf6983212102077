"""Jobs, done by processes of their own, so many side by side: what one of them runs into leaves the others alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from hiper.display.console import Display
from hiper.files import lock_file, writing
from hiper.study.jobs import Job
from hiper.training.recovery import Stop

POLL_SECONDS = 0.1
ERROR = "hiper: "
"""What a message begins with that tells the user what is wrong."""


class Process(Protocol):
    """As much of :class:`subprocess.Popen` as is needed."""

    def poll(self) -> int | None:
        """The exit code; None while it runs."""

    def send_signal(self, sig: int, /) -> None:
        """Interrupt it."""


Launch = Callable[[Job, Path], Process]
"""Begins a job, whose output goes to the end of the file named."""


def work(jobs: Sequence[Job], logs: Path, display: Display, launch: Launch, slots: int = 1) -> dict[str, str]:
    """Do all jobs that are not done, in order, each as soon as there is room and what it needs is done.

    Args:
        jobs: those that others need come first.
        logs: the folder of their output.
        display: where it is said what happens.
        launch: see :data:`Launch`.
        slots: so many at once, at most.

    Returns:
        Why jobs failed, by name; everything else is done.

    Raises:
        KeyboardInterrupt: a stop was asked for; by then every process has come to its own stop.
    """
    done = {job.name for job in jobs if job.done}
    failures = {job.name: told for job in jobs if (told := job.diverged) is not None}
    waiting = [job for job in jobs if job.name not in done and job.name not in failures]
    if done:
        display.note(f"{len(done)} of {len(jobs)} are done already")
    running: dict[str, Process] = {}
    said_before: dict[str, int] = {}
    with Stop(display) as stop, _none_left(running):
        while waiting or running:
            stop.check()
            for job in list(waiting):
                if job.needs is not None and job.needs.name in failures:
                    waiting.remove(job)
                    failures[job.name] = f"not begun, as {job.needs.name} failed"
            ready = [job for job in waiting if job.needs is None or job.needs.name in done]
            for job in ready[: slots - len(running)]:
                waiting.remove(job)
                display.note(f"          {job.name} {'goes on' if job.begun else 'begins'}")
                log = logs / f"{job.name}.log"
                said_before[job.name] = log.stat().st_size if log.exists() else 0
                running[job.name] = launch(job, log)
            ended = {name: code for name, process in running.items() if (code := process.poll()) is not None}
            for name, code in ended.items():
                del running[name]
                if code == 0:
                    done.add(name)
                else:
                    failures[name] = _reason(logs / f"{name}.log", said_before[name], code)
                outcome = f"FAILED: {failures[name]}" if code else "done"
                display.note(f"{f'{len(done)}/{len(jobs)}':>9} {name} {outcome}")
            if running and not ended:
                time.sleep(POLL_SECONDS)
    return failures


@contextmanager
def _none_left(running: Mapping[str, Process]) -> Iterator[None]:
    """If the block ends early, wait for each process to come to its stop; if interrupted again, stop them at once."""
    try:
        yield
    except BaseException:
        while alive := [process for process in running.values() if process.poll() is None]:
            for process in alive:
                process.send_signal(signal.SIGINT)
            with suppress(KeyboardInterrupt):
                while any(process.poll() is None for process in alive):
                    time.sleep(POLL_SECONDS)
        raise


def _reason(log: Path, begin: int, code: int) -> str:
    """What killed a process, or the error that it named, or the last line it wrote; before ``begin`` others wrote."""
    if code < 0:
        return f"killed by signal {-code} ({log})"
    text = log.read_bytes()[begin:].decode(errors="replace") if log.exists() else ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    named = [line for line in lines if line.startswith(ERROR)]
    return f"{(named or lines or [f'exit code {code}'])[-1]} ({log})"


@contextmanager
def processes(folder: Path) -> Iterator[Launch]:
    """Gives what launches `hiper` in processes, as many CPU threads each as its settings say.

    They are in sessions of their own, so that Ctrl-C in a terminal does not reach them: it is passed on, once. Each
    holds on to the study's lock, so that even if this process is killed, no other begins what they are still at.

    Raises:
        UserError: the study is under way already.
    """
    refusal = (
        f"a process is at work in {folder} already, perhaps one left over by a study that was killed: wait for it, or "
        "end it"
    )
    with lock_file(folder / "lock", refusal) as lock:

        def launch(job: Job, log: Path) -> subprocess.Popen[bytes]:
            threads = job.config.training.threads
            limit = {} if threads is None else {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
            with writing(log):
                log.parent.mkdir(parents=True, exist_ok=True)
                with log.open("a") as output:
                    return subprocess.Popen(
                        [sys.executable, "-m", "hiper.cli", *job.command],
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                        env=os.environ | {"COLUMNS": "160"} | limit,
                        start_new_session=True,
                        pass_fds=(lock.fileno(),),
                    )

        yield launch
