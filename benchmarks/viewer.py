"""Measure the viewer in headless Chromium: opening a large run, an episode, and credit under another lambda.

    python benchmarks/viewer.py [RUN] [--episodes 20000] [--gigabytes 1] [--keep FOLDER]

Without RUN, a small run is trained first (about a minute). Its episodes are repeated until the large run has as many,
and their turns until its files have the size asked for. The repeated turns get prompts of other tokens, so that the
files do not shrink when they are packed. Memory is the resident memory of the server, and the heap of the page.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hiper.config import validate_config
from hiper.episode import Credit, Episode, write_episodes
from hiper.runs.folder import Run
from hiper.strict_yaml import read_mapping

EPISODES_OF_A_FILE = 128
OPEN_SECONDS, OPEN_MEGABYTES, EPISODE_SECONDS, CREDIT_SECONDS = 1.0, 300.0, 0.1, 0.2
"""The limits: opening a run, the memory by then, an episode, and credit of 128 episodes under another lambda."""
TINY = (
    "env.games=16 warm_start.tasks=40 warm_start.epochs=1 warm_start.imperfect.epochs=0 rollout.episodes=16 "
    "training.iterations=1 evaluation.final_tasks=4 evaluation.every=0"
)
TURNS = 24
"""Turns of a repeated episode."""


def main() -> int:
    """Make the large run, measure, and print a line for each figure. Return 1 if one is not met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", type=Path, help="a small run whose episodes are repeated")
    parser.add_argument("--episodes", type=int, default=20_000)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--whole", action="store_true", help="wait until all episodes are indexed; minutes")
    parser.add_argument("--keep", type=Path, help="keep the large run here, or use the one that is there")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hiper-viewer-") as temporary:
        large = given.keep or Path(temporary) / "large"
        if not (large / "episodes").is_dir():
            enlarge(given.run or trained(Path(temporary) / "small"), large, given.episodes, given.gigabytes * 1e9)
        os.environ["XDG_CACHE_HOME"] = f"{temporary}/cache"
        return report(large, given.whole)


def trained(folder: Path) -> Path:
    """Train a small run."""
    command = [sys.executable, "-m", "hiper", "train", "quickstart", *TINY.split(), "--out", str(folder)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder


def enlarge(small: Path, large: Path, episodes: int, size: float) -> None:
    """Write a run with many episodes of a given size in all."""
    run = Run.open(small)
    source = [e for n in run.stored_iterations for e in run.episodes(n) if e.credit is not None]
    files = -(-episodes // EPISODES_OF_A_FILE)
    (large / "episodes").mkdir(parents=True)
    shutil.copytree(small / "checkpoints", large / "checkpoints")
    tree = read_mapping(small / "config.yaml")
    tree["training"]["iterations"] = files
    (large / "config.yaml").write_text(validate_config(tree, "settings").to_yaml())
    last = run.iteration_metrics()[-1]
    (large / "metrics.jsonl").write_text(
        "".join(json.dumps(last | {"iteration": n}) + "\n" for n in range(1, files + 1))
    )
    rng = random.Random(0)
    prompt, file = 500, large / "episodes" / "iter-00000.jsonl.gz"
    for _ in range(4):  # the length of prompts at which a file has the size asked for
        write_episodes(file, [longer(source[n % len(source)], prompt, rng) for n in range(8)])
        prompt = max(20, int(prompt * size / files / EPISODES_OF_A_FILE / (file.stat().st_size / 8)))
    file.unlink()
    for n in range(1, files + 1):
        count = min(EPISODES_OF_A_FILE, episodes - (n - 1) * EPISODES_OF_A_FILE)
        chosen = [longer(source[(n + k) % len(source)], prompt, rng) for k in range(count)]
        if n <= 4:
            write_episodes(large / "episodes" / f"iter-{n:05d}.jsonl.gz", chosen)
            continue
        # Writing is slow. Later files repeat the bytes of the first ones, which no reader can know.
        shutil.copy(
            large / "episodes" / f"iter-{1 + n % 4:05d}.jsonl.gz", large / "episodes" / f"iter-{n:05d}.jsonl.gz"
        )


def longer(episode: Episode, prompt: int, rng: random.Random) -> Episode:
    """Return an episode with :data:`TURNS` turns and prompts of so many tokens."""
    own = len(episode.turns)
    order = [n % own for n in range(TURNS)]
    turns = tuple(
        dataclasses.replace(episode.turns[n], prompt_ids=tuple(rng.choices(range(200), k=prompt))) for n in order
    )
    assert episode.credit is not None
    tokens: list[list[int]] = []
    for turn in episode.turns:
        start = tokens[-1][-1] + 1 if tokens else 0
        tokens.append(list(range(start, start + len(turn.response_ids))))
    places = [place for n in order for place in tokens[n]]
    series = {
        name: tuple(x[place] for place in (places if name.endswith("/token") else order))
        for name, x in episode.credit.series.items()
    }
    return dataclasses.replace(episode, turns=turns, credit=Credit(series))


def report(large: Path, whole: bool) -> int:
    """Measure, and print a line for each figure."""
    from playwright.sync_api import sync_playwright

    files = sorted((large / "episodes").glob("*.gz"))
    size = sum(file.stat().st_size for file in files) / 1e9
    print(
        f"{len(files)} files of {EPISODES_OF_A_FILE} episodes, {size:.2f} GB packed, "
        f"{unpacked(files[0]):.0f} MB a file unpacked"
    )
    server = subprocess.Popen(
        [sys.executable, "-m", "hiper", "view", str(large), "--no-browser"], stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    base = server.stdout.readline().split()[-1]
    program = os.environ.get("HIPER_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    try:
        with sync_playwright() as started:
            browser = started.chromium.launch(executable_path=program, args=["--no-sandbox"])
            figures = measure(browser, base, large.name, len(files), server.pid, whole)
            browser.close()
    finally:
        server.kill()
    for figure in figures:
        print(figure)
    return 0 if all(figure.met for figure in figures) else 1


@dataclass(frozen=True)
class Figure:
    """One thing that was measured."""

    name: str
    value: float
    limit: float | None = None
    unit: str = "s"

    @property
    def met(self) -> bool:
        """Whether it is below its limit."""
        return self.limit is None or self.value <= self.limit

    def __str__(self) -> str:
        asked = f"  (asked for: {self.limit:g} {self.unit}: {'met' if self.met else 'NOT MET'})" if self.limit else ""
        return f"{self.name:<68}{self.value:9.3f} {self.unit}{asked}"


def measure(browser: Any, base: str, run: str, files: int, server: int, whole: bool) -> list[Figure]:
    """Return the figures."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    curves = opened(page, f"{base}#/learning?run={run}", "document.querySelector('.plot canvas')")
    row = "document.querySelector('.vinner .vrow')"
    newest = changed(page, f"location.hash = '#/episodes?run={run}'", row)
    memory = resident(server) + heap(page)
    last = f"iter-{files:05d}"
    drawn = "document.querySelector('.detail .tokens') && document.querySelector('.strip .credit')"
    first = changed(page, f"location.hash = '#/episode?run={run}&file={last}&n=64'", drawn)
    page.wait_for_timeout(1000)
    steps = []
    for n in range(65, 75):
        key = "document.body.dispatchEvent(new KeyboardEvent('keydown', { key: 'n', bubbles: true }))"
        told = f"document.querySelector('.episode code')?.textContent === '{last}/{n}'"
        steps.append(changed(page, key, f"{told} && {drawn}"))
        page.wait_for_timeout(200)
    page.evaluate(f"location.hash = '#/episodes?run={run}'")
    page.wait_for_timeout(1000)
    shown = "document.querySelector('.detail .tokens')"
    cold = changed(page, f"location.hash = '#/episode?run={run}&file=iter-{files // 2:05d}&n=64'", shown)
    page.wait_for_selector(".strip .credit")
    page.evaluate("document.querySelector('.adjust').open = true")
    again = []
    for value in (0.9, 0.5, 0.8, 0.3, 0.7):
        redrawn = f"document.querySelector('[data-credit]').dataset.credit === '{{\"lambda_turn\":{value}}}'"
        again.append(changed(page, MOVE % value, redrawn))
        page.wait_for_timeout(200)
    return [
        Figure("open the run: page, curves drawn", curves, OPEN_SECONDS),
        Figure("then its newest episodes in the list, read for the first time", newest, OPEN_SECONDS),
        Figure("memory of server and page by then", memory, OPEN_MEGABYTES, "MB"),
        Figure("first episode of an iteration, with credit by three estimators", first),
        Figure("next episode of it, with credit (median of 10)", median(steps), EPISODE_SECONDS),
        Figure("an episode of an iteration that was not read yet", cold, EPISODE_SECONDS),
        Figure("credit of 128 episodes under another lambda, redrawn (median of 5)", median(again), CREDIT_SECONDS),
        Figure("memory of server and page by then", resident(server) + heap(page), unit="MB"),
        *(whole_list(page, base, run) if whole else []),
    ]


MOVE = (
    "const e = document.getElementById('set-lambda_turn'); e.value = %s; "
    "e.dispatchEvent(new Event('input', { bubbles: true }))"
)
"""Moves the control of lambda_turn."""


def whole_list(page: Any, base: str, run: str) -> list[Figure]:
    """Return how long the index of all episodes takes, and the list when it is there."""
    began = time.perf_counter()
    page.goto("about:blank")
    page.goto(f"{base}#/episodes?run={run}")
    done = "() => document.querySelector('.vinner .vrow') && !document.querySelector('.indexing').textContent"
    page.wait_for_function(done, timeout=3_600_000, polling=500)
    indexed = time.perf_counter() - began
    page.goto("about:blank")
    listed = opened(page, f"{base}#/episodes?run={run}&sort=-apart", "document.querySelector('.vinner .vrow')")
    return [
        Figure("all episodes indexed in the background", indexed),
        Figure("the list of all of them", listed, OPEN_SECONDS),
    ]


def opened(page: Any, address: str, until: str) -> float:
    """Return the seconds from the beginning of a navigation until the page shows something."""
    page.goto(address, wait_until="commit")
    return float(page.evaluate(f"() => {_awaiting(until)}")) / 1000


def changed(page: Any, act: str, until: str) -> float:
    """Return the seconds from an act in the page until it shows something."""
    began = f"const began = performance.now(); {{ {act}; }}"
    return float(page.evaluate(f"() => {{ {began} return {_awaiting(until)}.then((at) => at - began); }}")) / 1000


def _awaiting(until: str) -> str:
    """Return a script: a promise of the time of the page at the first frame in which an expression is true."""
    look = f"({until}) ? resolve(performance.now()) : requestAnimationFrame(look)"
    return f"new Promise((resolve) => {{ const look = () => {look}; look(); }})"


def median(numbers: Sequence[float]) -> float:
    """Return the middle one."""
    return sorted(numbers)[len(numbers) // 2]


def resident(process: int) -> float:
    """Return the resident memory of a process in MB."""
    line = next(x for x in Path(f"/proc/{process}/status").read_text().splitlines() if x.startswith("VmRSS"))
    return int(line.split()[1]) / 1000


def heap(page: Any) -> float:
    """Return the memory of the page's scripts and texts in MB."""
    return float(page.evaluate("performance.memory.usedJSHeapSize")) / 1e6


def unpacked(file: Path) -> float:
    """Return the size of a file's text in MB."""
    import gzip

    with gzip.open(file) as text:
        return sum(len(part) for part in iter(lambda: text.read(1 << 20), b"")) / 1e6


if __name__ == "__main__":
    sys.exit(main())
