"""Kill training at random moments, resume it until it is done, and compare it with an uninterrupted run.

    python tools/kills.py                    # 300 kills; the same command goes on where it was stopped
    python tools/kills.py --kills 30 --out /tmp/kills

Killed are: training, a warm start inside a run, `hiper sft`, `hiper eval`, and a study with two jobs side by side (its
launcher alone, one of its jobs, or all of its processes). Signals are KILL, TERM, HUP, INT, and INT twice. In the end
weights, critic, heads, optimizer, metrics without times, episodes, and cards without times must equal those of the
uninterrupted run byte by byte, and nothing else may be left. A stop must give the exit code of its signal and no
traceback, and leave no process behind. Processes are forked from this one, so that each need not import torch. Moments
and signals depend on the seed alone; what a kill meets depends on the machine's pace as well.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any, Literal

import torch

import hiper.training.trainer  # noqa: F401 (imported once, before the forks)
from hiper import cli
from hiper.runs.folder import Run

RECIPE = """\
name: killed
env: {name: boxes, boxes: 1, rooms: 3, max_turns: 6}
prompt: {template: terse, max_tokens: 90, history_window: 1}
model:
  nano: {layers: 2, hidden: 32, feed_forward: 64, heads: 2, kv_heads: 1, max_positions: 128}
  critic: own
  compute_dtype: float32
warm_start: {tasks: 12, epochs: 30, batch_turns: 8, lr: 1.0e-2}
rollout: {episodes: 12, slots: 6, max_response_tokens: 16}
learner: {lr: 1.0e-3, critic_lr: 1.0e-3, minibatch_turns: 8, kl_coef: 0.1}
evaluation: {splits: [held_out, train], every: 2, tasks: 6, final_tasks: 6}
training: {iterations: 5, checkpoint_every: 2, keep_checkpoints: 2, threads: 1}
"""
STUDY = """\
name: killed
recipe: RECIPE
settings: {training.iterations: 3}
seeds: [0]
methods:
  hiper: {}
  ppo-turn: {settings: {advantages: {type: turn-gae}}}
"""
SIGNALS = ("KILL", "TERM", "HUP", "INT", "INT INT")
MOST_KILLS = 5
"""Kills of one run, after which it may end."""
PATIENCE = 300.0
"""Seconds after which a process that does not end counts as stuck."""
TIMED = ("time/", "speed/")
FORK = get_context("fork")

Content = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """A kind of process to kill."""

    name: str
    share: int
    """Kills of 300."""
    command: tuple[str, ...]
    """Arguments of `hiper` that begin it. They also continue it, if ``--resume`` does not."""
    content: Callable[[Path], Content]
    """What it came to, by what it wrote."""
    target: Literal["itself", "the launcher", "a job", "all"] = "itself"
    resumes: bool = False
    """Whether `hiper train --resume` continues it."""


def kinds(out: Path) -> list[Kind]:
    """List the kinds of processes, whose inputs lie in ``out``."""
    recipe, policy, study = str(out / "recipe.yaml"), str(out / "policy"), str(out / "study.yaml")
    begun = (f"model.path={policy}", "warm_start.tasks=0")
    study_command = ("study", study, "--jobs", "2", "--out", "done")
    return [
        Kind("training", 105, ("train", recipe, *begun, "--out", "done"), run_content, resumes=True),
        Kind(
            "warm start in a run",
            80,
            ("train", recipe, "training.iterations=1", "--out", "done"),
            run_content,
            resumes=True,
        ),
        Kind("hiper sft", 60, ("sft", recipe, "--out", "done"), policy_content),
        Kind("hiper eval", 19, ("eval", policy, "evaluation.splits=[held_out,train]", "--out", "done"), cards_content),
        Kind("study: its launcher", 12, study_command, study_content, "the launcher"),
        Kind("study: one of its jobs", 12, study_command, study_content, "a job"),
        Kind("study: all processes", 12, study_command, study_content, "all"),
    ]


# What was written


def sha256(content: bytes) -> str:
    """Hash bytes."""
    return hashlib.sha256(content).hexdigest()


def plain(value: Any) -> Any:
    """Make a tree of tensors comparable."""
    if isinstance(value, torch.Tensor):
        return [str(value.dtype), list(value.shape), sha256(value.contiguous().numpy().tobytes())]
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def cards_content(folder: Path) -> Content:
    """Cards without times, and all episodes, by file."""
    cards = {}
    for file in sorted(folder.rglob("*.json")):
        card = json.loads(file.read_text())
        cards[str(file.relative_to(folder))] = {
            k: v for k, v in card.items() if k not in ("date", "command", "seconds")
        }
    episodes = {file.name: sha256(gzip.decompress(file.read_bytes())) for file in sorted(folder.rglob("*.jsonl.gz"))}
    return {"cards": cards, "episodes": episodes}


def policy_content(folder: Path) -> Content:
    """All files of a policy."""
    return {file.name: sha256(file.read_bytes()) for file in sorted(folder.iterdir())}


def run_content(folder: Path) -> Content:
    """All that a run came to."""
    run = Run.open(folder)
    newest = run.checkpoints[-1]
    tensors = ("policy/model.safetensors", "heads.safetensors", "critic.safetensors")
    warm = {"warm start": policy_content(run.warm_start)} if run.warm_start.exists() else {}
    return {
        **cards_content(folder),
        **warm,
        "finished": run.finished,
        "metrics": [
            {k: v for k, v in record.items() if not k.startswith(TIMED) and not k.endswith("/seconds")}
            for record in run.metrics()
        ],
        "weights": {name: sha256((newest / name).read_bytes()) for name in tensors},
        "trainer": plain(torch.load(newest / "trainer.pt", weights_only=True)),
        "report": run.report_file.exists(),
    }


def study_content(folder: Path) -> Content:
    """All that a study came to."""
    results = json.loads((folder / "comparison.json").read_text())
    return {
        "runs": {run.name: run_content(run) for run in sorted((folder / "runs").iterdir())},
        "warm starts": {warm.name: policy_content(warm) for warm in sorted((folder / "warm-starts").iterdir())},
        "comparison": results["results"],
    }


def left_over(place: Path) -> list[str]:
    """Files that only an interrupted process leaves."""
    endings = (".partial", ".removed", ".unfinished", ".hiper-lock")
    return sorted(str(path.relative_to(place)) for path in place.rglob("*") if path.name.endswith(endings))


def differing(one: Any, other: Any, where: str = "") -> Iterator[str]:
    """Name the places where two contents differ."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in sorted({*one, *other}):
            yield from differing(one.get(key), other.get(key), f"{where}/{key}")
    elif one != other:
        yield where


# Processes


def start(command: Sequence[str], place: Path) -> ForkProcess:
    """Start `hiper` in a session of its own, with its output appended to ``place/log``."""

    def work() -> None:
        os.setsid()
        os.chdir(place)
        log = os.open("log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        for stream in (1, 2):
            os.dup2(log, stream)
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL if number != signal.SIGINT else signal.default_int_handler)
        sys.argv = ["hiper", *command]
        cli.main()

    process = FORK.Process(target=work)
    process.start()
    return process


def children(pid: int) -> list[int]:
    """List the processes that a process has begun and that have not ended."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
        except OSError:  # it has just ended
            continue
        if int(parent) == pid and state != "Z":
            found.append(int(folder.name))
    return sorted(found)


def alive(pid: int) -> bool:
    """Whether a process has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def send(pids: Sequence[int], name: str, pause: float) -> None:
    """Send a signal, or the same twice."""
    for number, part in enumerate(name.split()):
        if number:
            time.sleep(pause)
        for pid in pids:
            try:
                os.kill(pid, getattr(signal, f"SIG{part}"))
            except ProcessLookupError:
                continue


@dataclass
class Trial:
    """One run, killed some times, resumed until it is done, and compared."""

    kind: Kind
    place: Path
    rng: random.Random
    seconds: float
    """How long the uninterrupted run takes."""
    kills: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def run(self, whole: Content) -> None:
        """Do everything."""
        shutil.rmtree(self.place, ignore_errors=True)
        self.place.mkdir(parents=True)
        while self._killed():
            pass
        for _ in range(2):  # a job that was killed, or a study whose jobs went on, may need the command once more
            code = self._ended(start(self._command, self.place))
            if code == 0:
                break
        else:
            self.faults.append(f"not done in the end, exit code {code}")
        if code == 0:
            self.faults += [f"differs: {where}" for where in differing(self.kind.content(self.place / "done"), whole)]
            self.faults += [f"left: {name}" for name in left_over(self.place)]
        if "Traceback" in (self.place / "log").read_text():
            self.faults.append("a traceback")

    @property
    def _command(self) -> Sequence[str]:
        if self.kind.resumes and Run.exists(self.place / "done"):
            return ("train", "--resume", "done")
        return self.kind.command

    def _killed(self) -> bool:
        """Start it and kill it once. Whether more kills may follow."""
        if len(self.kills) == MOST_KILLS:
            return False
        process = start(self._command, self.place)
        assert process.pid is not None
        process.join(self.rng.uniform(0.0, 0.9 * self.seconds))
        jobs = children(process.pid)
        name = self.rng.choice(SIGNALS)
        pause = self.rng.uniform(0.0, 0.3)
        pids = {
            "itself": [process.pid],
            "the launcher": [process.pid],
            "a job": self.rng.sample(jobs, min(1, len(jobs))),
            "all": [process.pid, *jobs],
        }[self.kind.target]
        if process.exitcode is not None or not pids:
            return self._ended(process) != 0
        send(pids, name, pause)
        self.kills.append(name)
        code = self._ended(process)
        self._check(name, code, jobs)
        return code != 0

    def _check(self, name: str, code: int, jobs: Sequence[int]) -> None:
        """Check the exit code after a kill, and that no job is left or works beside another."""
        number = getattr(signal, f"SIG{name.split()[0]}")
        # A process that is hit before it has begun, or while it ends, dies of the signal itself.
        expected = {2} if self.kind.target == "a job" else {128 + number, -number}
        if code not in expected | {0}:
            self.faults.append(f"exit code {code} after {name}")
        left = [pid for pid in jobs if alive(pid)]
        if left and name != "KILL":
            self.faults.append(f"{len(left)} jobs left after {name}")
        if left:
            refused = self._ended(start(self._command, self.place))
            if refused != 2 and any(map(alive, left)):
                self.faults.append(f"begun beside a job that was left, exit code {refused}")
        while any(map(alive, left)):
            time.sleep(0.1)

    def _ended(self, process: ForkProcess) -> int:
        process.join(PATIENCE)
        if process.exitcode is None:
            self.faults.append("stuck")
            process.kill()
            process.join()
        assert process.exitcode is not None
        return process.exitcode


# All of it


def whole_of(kind: Kind, out: Path) -> tuple[Content, float]:
    """Make the uninterrupted run of a kind, or read it. Return what it came to and the seconds it took."""
    place = out / "whole" / kind.name.replace(":", "")
    file = place / "seconds"
    if not file.exists():
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        began = time.monotonic()
        process = start(kind.command, place)
        process.join()
        if process.exitcode:
            sys.exit(f"{kind.name} fails when nobody kills it: see {place / 'log'}")
        file.write_text(str(time.monotonic() - began))
    return kind.content(place / "done"), float(file.read_text())


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the counts in Markdown."""
    lines = [f"| killed | {' | '.join(SIGNALS)} | kills | runs | ended equal |", "|---|" + "---|" * (len(SIGNALS) + 3)]
    names = [*dict.fromkeys(row["kind"] for row in rows), "all"]
    for name in names:
        mine = [row for row in rows if name in (row["kind"], "all")]
        counts = Counter(kill for row in mine for kill in row["kills"])
        by_signal = " | ".join(str(counts[each]) for each in SIGNALS)
        equal = sum(not row["faults"] for row in mine)
        lines.append(f"| {name} | {by_signal} | {counts.total()} | {len(mine)} | {equal} |")
    return lines


def main() -> None:
    """Do what is left of all kills, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=300, help="how many, at least (300)")
    parser.add_argument("--seed", type=int, default=0, help="of moments and signals (0)")
    parser.add_argument("--out", type=Path, default=Path("runs") / "kills", help="folder (runs/kills)")
    given = parser.parse_args()
    out = given.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    (out / "recipe.yaml").write_text(RECIPE)
    (out / "study.yaml").write_text(STUDY.replace("RECIPE", str(out / "recipe.yaml")))
    os.environ["OMP_NUM_THREADS"] = "1"
    if not (out / "policy").exists():
        start(("sft", str(out / "recipe.yaml"), "--out", "policy"), out).join()
    done = out / f"trials-seed{given.seed}.jsonl"
    rows = [json.loads(line) for line in done.read_text().splitlines()] if done.exists() else []
    for kind in kinds(out):
        whole, seconds = whole_of(kind, out)
        mine = [row for row in rows if row["kind"] == kind.name]
        while sum(len(row["kills"]) for row in mine) < kind.share * given.kills / 300:
            place = out / "trials" / f"{kind.name.replace(':', '')}-{len(mine)}"
            trial = Trial(kind, place, random.Random(f"{given.seed}/{kind.name}/{len(mine)}"), seconds)
            trial.run(whole)
            mine.append({"kind": kind.name, "kills": trial.kills, "faults": trial.faults})
            rows.append(mine[-1])
            with done.open("a") as file:
                file.write(json.dumps(mine[-1]) + "\n")
            if not trial.faults:
                shutil.rmtree(place)
            outcome = "; ".join(trial.faults) or "equal"
            sys.stdout.write(f"{kind.name} {len(mine)}: {', '.join(trial.kills)}; {outcome}\n")
            sys.stdout.flush()
    sys.stdout.write("\n".join(["", *table(rows), ""]))
    sys.exit(any(row["faults"] for row in rows))


if __name__ == "__main__":
    main()
