"""Jobs are done in order, side by side, around those that fail; a stop leaves no process behind."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import cast

import pytest
from rich.console import Console

from hiper.display.console import Display
from hiper.launch.local import Command, gpus_here, local_processes, run_commands


class Pretended:
    """A process that ends after so many looks at it, or when it was interrupted often enough."""

    def __init__(self, looks: int, code: int, on_end: Callable[[], None], patience: int = 1) -> None:
        self._looks, self._code, self._on_end, self._patience = looks, code, on_end, patience
        self.interrupts = 0

    def poll(self) -> int | None:
        if self.interrupts >= self._patience:
            return 130
        self._looks -= 1
        if self._looks > 0:
            return None
        self._on_end()
        return self._code

    def send_signal(self, sig: int, /) -> None:
        # Another SIGTERM would be ignored: a shutdown may send several.
        assert sig == (signal.SIGINT if self.interrupts else signal.SIGTERM)
        self.interrupts += 1


class Launcher:
    """Begins pretended processes; notes what begins and ends, and how many run at once."""

    def __init__(self, codes: dict[str, int] | None = None, looks: int = 2) -> None:
        self.codes, self.looks = codes or {}, looks
        self.events: list[str] = []
        self.begun: dict[str, Pretended] = {}
        self.alive = self.most = 0
        self.patience = 1
        self.on_launch: Callable[[], None] = lambda: None

    def __call__(self, job: Command, log: Path) -> Pretended:
        self.events.append(f"+{job.name}")
        self.alive += 1
        self.most = max(self.most, self.alive)
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("begun\nit went wrong\n\n")

        def end() -> None:
            self.events.append(f"-{job.name}")
            self.alive -= 1

        self.begun[job.name] = Pretended(self.looks, self.codes.get(job.name, 0), end, self.patience)
        self.on_launch()
        return self.begun[job.name]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("hiper.launch.local.POLL_SECONDS", 0.001)


def commands() -> list[Command]:
    """Two warm starts, and two runs from each."""
    made = []
    for seed in (0, 1):
        warm = Command(f"warm{seed}", ("sft",))
        made += [warm, *(Command(f"{name}{seed}", ("train",), needs=warm.name) for name in "ab")]
    return made


def quiet() -> Display:
    return Display(console=Console(file=StringIO(), width=200))


def test_one_after_the_other(tmp_path: Path):
    launcher = Launcher()
    assert run_commands(commands(), tmp_path / "logs", quiet(), launcher) == {}
    assert launcher.events == [f"{sign}{job.name}" for job in commands() for sign in "+-"]


def test_side_by_side_but_after_what_they_need(tmp_path: Path):
    launcher = Launcher()
    assert run_commands(commands(), tmp_path / "logs", quiet(), launcher, slots=3) == {}
    at = launcher.events.index
    assert launcher.most == 3
    assert launcher.events[:2] == ["+warm0", "+warm1"]  # nothing else can begin yet
    assert all(at(f"-warm{seed}") < at(f"+{name}{seed}") for seed in (0, 1) for name in "ab")


def test_what_fails_leaves_the_others_alone(tmp_path: Path):
    launcher = Launcher({"warm0": 2, "a1": -9})
    failures = run_commands(commands(), tmp_path / "logs", quiet(), launcher, slots=2)
    logs = tmp_path / "logs"
    assert failures == {
        "warm0": f"it went wrong ({logs / 'warm0.log'})",
        "a0": "not begun, as warm0 failed",
        "b0": "not begun, as warm0 failed",
        "a1": f"killed by signal 9 ({logs / 'a1.log'})",
    }
    assert "-b1" in launcher.events
    assert "+a0" not in launcher.events


def test_the_reason_is_what_this_attempt_named(tmp_path: Path):
    """An earlier attempt's lines come before it in the log, and advice on how to go on after it."""
    log = tmp_path / "logs" / "warm0.log"
    log.parent.mkdir()
    log.write_text("hiper: an earlier trouble\n")

    def launch(job: Command, log: Path) -> Pretended:
        with log.open("a") as file:
            file.write("begun\nhiper: out of memory\nsaved up to iter-00010; to go on: hiper train --resume x\n")
        return Pretended(1, 2, lambda: None)

    (warm, *_) = commands()
    assert run_commands([warm], log.parent, quiet(), launch) == {"warm0": f"hiper: out of memory ({log})"}

    def silent(job: Command, log: Path) -> Pretended:
        return Pretended(1, 2, lambda: None)

    assert run_commands([warm], log.parent, quiet(), silent) == {"warm0": f"exit code 2 ({log})"}


def test_what_is_not_in_the_list_counts_as_done(tmp_path: Path):
    launcher = Launcher()
    (_, *left) = commands()
    assert run_commands(left, tmp_path / "logs", quiet(), launcher) == {}
    assert launcher.events[:2] == ["+a0", "-a0"]


@pytest.mark.parametrize("patience", [1, 2])
def test_a_stop_is_passed_on_and_waited_for(tmp_path: Path, patience: int):
    """With a patience of 2, the processes heed only a second interrupt."""
    launcher = Launcher(looks=10**9)
    launcher.patience = patience

    def on_launch() -> None:
        if len(launcher.begun) == 2:
            os.kill(os.getpid(), signal.SIGINT)
            if patience == 2:
                signal.setitimer(signal.ITIMER_REAL, 0.05)

    before = signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
    launcher.on_launch = on_launch
    try:
        with pytest.raises(KeyboardInterrupt):
            run_commands(commands(), tmp_path / "logs", quiet(), launcher, slots=2)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert set(launcher.begun) == {"warm0", "warm1"}
    assert all(process.interrupts == patience for process in launcher.begun.values())


# --- GPUs -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def four_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which nvidia-smi tells of four GPUs."""
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nprintf '0\\n1\\n2\\n3\\n'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def gpus_of(process: object) -> str | None:
    """Return the variable of a process that has just been started, whose environment is there a moment later."""
    environment = Path(f"/proc/{process.pid}/environ")  # type: ignore[attr-defined]
    deadline = time.monotonic() + 20
    while b"COLUMNS=160" not in environment.read_bytes().split(b"\0"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    lines = environment.read_bytes().split(b"\0")
    return next((line.decode().partition("=")[2] for line in lines if line.startswith(b"CUDA_VISIBLE_DEVICES=")), None)


def test_each_job_has_its_own_gpus(tmp_path: Path, four_gpus: None):
    with local_processes(tmp_path / "study") as launch:

        def begin(name: str, processes: int = 1) -> subprocess.Popen[bytes]:
            arguments = ("verify", "--out", str(tmp_path / f"{name}-proofs"))  # a minute's work, unless killed
            return cast(
                "subprocess.Popen[bytes]", launch(Command(name, arguments, processes=processes), tmp_path / name)
            )

        begun = {name: begin(name) for name in "abcd"}
        assert {name: gpus_of(process) for name, process in begun.items()} == dict(zip("abcd", "0123", strict=True))
        begun["c"].kill()
        begun["c"].wait()
        begun["e"] = begin("e")
        assert gpus_of(begun["e"]) == "2"
        for name in "ad":
            begun[name].kill()
            begun[name].wait()
        begun["pair"] = begin("pair", 2)
        assert gpus_of(begun["pair"]) == "0,3"
        for process in begun.values():
            process.kill()
            process.wait()


@pytest.mark.parametrize(("allowed", "found"), [("1,3", ["1", "3"]), ("", []), (None, ["0", "1", "2", "3"])])
def test_gpus_that_may_be_used(four_gpus: None, monkeypatch: pytest.MonkeyPatch, allowed: str | None, found: list[str]):
    if allowed is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", allowed)
    assert gpus_here() == found


def test_a_machine_without_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpus_here() == []
