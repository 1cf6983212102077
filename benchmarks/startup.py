"""Time the commands that need no model: help, lists, mistakes, and reading a run.

    python benchmarks/startup.py [RUN]

For each command, the benchmark prints the least wall time and the least CPU time of five repeats, in seconds. Commands
that read a run are skipped if none is given.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPEATS = 5
COMMANDS = (
    ("-h",),
    ("--version",),
    ("trian",),
    ("train", "--uot", "x"),
    ("train", "quikstart"),
    ("train", "quickstart", "learner.clop=1"),
    ("train", "--resume", "nowhere"),
    ("report", "nowhere"),
    ("eval", "nowhere"),
    ("study", "ablation"),
    ("recipes",),
    ("tasks", "corridor"),
)


def seconds(arguments: tuple[str, ...]) -> tuple[float, float]:
    """Return the least wall time and the least CPU time of a command in seconds, over :data:`REPEATS` calls."""
    walls, processor = [], []
    for _ in range(REPEATS):
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run([sys.executable, "-m", "hiper", *arguments], capture_output=True, check=False)
        walls.append(time.perf_counter() - began)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        processor.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(walls), min(processor)


def main() -> None:
    """Time every command, and print one line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("run", nargs="?", type=Path, help="folder of a run that has been evaluated")
    run = parser.parse_args().run
    with tempfile.TemporaryDirectory() as folder:
        commands = list(COMMANDS)
        if run is not None:
            commands += [("report", str(run)), ("compare", str(run), "--out", folder)]
        print(f"{'wall':>6}  {'CPU':>5}  command")
        for arguments in commands:
            wall, processor = seconds(arguments)
            print(f"{wall:6.2f}  {processor:5.2f}  hiper {' '.join(arguments)}", flush=True)


if __name__ == "__main__":
    main()
