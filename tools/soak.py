"""Train for an hour and watch whether memory, open files and threads stay flat.

    python tools/soak.py                                   # an hour of the run below
    python tools/soak.py --minutes 5 quickstart            # another recipe, with settings after it

The run plays, scores, updates, and after every iteration writes a checkpoint and evaluates two splits. Its environments
step in threads, and each holds an open file until it is closed. The process is watched from outside, through /proc, so
this needs Linux. The first tenth of the time is left out as warm-up; the rest is compared by quarters. The exit code is
1 if anything grew.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import linear_regression, mean
from typing import ClassVar, Self

from hiper.envs.panels import Panel
from hiper.envs.small.corridor import CorridorEnv, make
from hiper.runs.folder import Run

RECIPE = """\
name: soak
env: {name: "soak:corridor_with_files", cells: 3, max_turns: 4}
prompt: {template: terse, max_tokens: 90, history_window: 1}
model:
  nano: {layers: 2, hidden: 32, feed_forward: 32, heads: 2, kv_heads: 1, max_positions: 128}
  critic: own
warm_start: {tasks: 12, epochs: 60, batch_turns: 16, lr: 1.0e-2}
rollout: {episodes: 16, slots: 8, max_response_tokens: 16}
learner: {lr: 1.0e-4, critic_lr: 1.0e-3, minibatch_turns: 16, kl_coef: 0.1}
evaluation: {splits: [train, held_out], every: 1, tasks: 8}
training: {iterations: 1000000, checkpoint_every: 1, keep_checkpoints: 2, threads: 1}
"""
SECONDS_BETWEEN_LOOKS = 2.0
WARM_UP = 0.1
"""Share of the time that is left out."""
MOST_GROWTH_MB = 8.0
"""Growth of the memory, from the first quarter to the last, that counts as flat."""


class CorridorWithFiles(CorridorEnv):
    """A corridor whose episodes step in threads. Each environment holds an open file, as a process or a socket is."""

    name: ClassVar[str] = "corridor-with-files"
    concurrent = True

    def __init__(self, panel: Panel, max_turns: int) -> None:
        super().__init__(panel, max_turns)
        self._file = os.open(os.devnull, os.O_RDONLY)

    def spawn(self) -> Self:
        """Open a file of its own."""
        spawned = super().spawn()
        spawned._file = os.open(os.devnull, os.O_RDONLY)
        return spawned

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1


def corridor_with_files(split: str = "train", cells: int = 3, max_turns: int = 4) -> CorridorWithFiles:
    """Make the environment of the soak.

    Args:
        split: "train" or "held_out".
        cells: the number of cells.
        max_turns: turns until an unfinished episode is truncated.
    """
    plain = make(split, cells, max_turns)
    return CorridorWithFiles(plain.panel, plain.max_turns)


@dataclass(frozen=True)
class Look:
    """What /proc says of a process."""

    seconds: float
    """Since the process began."""
    memory: float
    """Resident memory in MB."""
    files: int
    threads: int


def look(pid: int, began: float) -> Look:
    """Look at a process.

    Raises:
        FileNotFoundError: it is gone.
    """
    process = Path(f"/proc/{pid}")
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    files = len(list((process / "fd").iterdir()))
    memory = int(status["VmRSS"].split()[0]) / 1024
    return Look(time.monotonic() - began, memory, files, int(status["Threads"]))


def watch(command: Sequence[str], log: Path, minutes: float) -> tuple[list[Look], int]:
    """Run a command for some minutes, stop it by SIGTERM, and return the looks at it and its exit code."""
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    began, looks = time.monotonic(), []
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=os.environ | {"PYTHONPATH": path})
        while process.poll() is None and time.monotonic() - began < 60 * minutes:
            time.sleep(SECONDS_BETWEEN_LOOKS)
            try:
                looks.append(look(process.pid, began))
            except (OSError, KeyError):  # it ends just now
                break
        process.send_signal(signal.SIGTERM)
        return looks, process.wait()


def verdicts(looks: Sequence[Look]) -> tuple[list[str], bool]:
    """Return a table in Markdown of what the looks show, and whether everything is flat."""
    kept = looks[int(WARM_UP * len(looks)) :]
    first, last = kept[: len(kept) // 4], kept[-(len(kept) // 4) :]
    lines = [
        "| of the process | first quarter, mean | last quarter, mean | slope an hour | most | |",
        "|---|---|---|---|---|---|",
    ]
    flat = True
    for what, limit in (("memory", MOST_GROWTH_MB), ("files", 2.0), ("threads", 2.0)):
        values = [getattr(each, what) for each in kept]
        before, after = (mean(getattr(each, what) for each in quarter) for quarter in (first, last))
        slope = 3600 * linear_regression([each.seconds for each in kept], values).slope
        good = after - before <= limit
        flat &= good
        name = "memory, MB" if what == "memory" else what
        word = "flat" if good else "GROWS"
        lines.append(f"| {name} | {before:.1f} | {after:.1f} | {slope:+.2f} | {max(values):.0f} | {word} |")
    return lines, flat


def main() -> None:
    """Run the soak and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0, help="how long (60)")
    parser.add_argument("--out", type=Path, default=Path("runs") / "soak", help="a new folder (runs/soak)")
    parser.add_argument("recipe", nargs="*", help="another recipe, and settings after it")
    given = parser.parse_args()
    given.out.mkdir(parents=True)
    recipe = given.recipe or [str(given.out / "soak.yaml")]
    (given.out / "soak.yaml").write_text(RECIPE)
    command = [sys.executable, "-m", "hiper", "train", *recipe, "--out", str(given.out / "run")]
    looks, code = watch(command, given.out / "log", given.minutes)
    run = Run.open(given.out / "run")
    done, cards = len(run.iteration_metrics()), len(list(run.evaluations_folder.glob("*.json")))
    lines, flat = verdicts(looks)
    minutes = looks[-1].seconds / 60
    sys.stdout.write(
        f"{minutes:.0f} minutes, {len(looks)} looks: {done} iterations, {cards} evaluations; exit code {code}\n\n"
    )
    sys.stdout.write("\n".join([*lines, ""]))
    sys.exit(not flat)


if __name__ == "__main__":
    main()
