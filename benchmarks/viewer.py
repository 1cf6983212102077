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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hiper.config import validate_config
from hiper.episode import Credit, Episode, write_episodes
from hiper.runs.folder import Run
from hiper.strict_yaml import read_mapping

EPISODES_OF_A_FILE = 128
OPEN_SECONDS, OPEN_MEGABYTES, EPISODE_SECONDS, CREDIT_SECONDS = 1.0, 300.0, 0.1, 0.2
"""What issue 22 asks for."""
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
    met = True
    for name, value, limit, unit in figures:
        met &= limit is None or value <= limit
        told = (
            "" if limit is None else f"  (asked for: under {limit:g} {unit}: {'met' if value <= limit else 'NOT MET'})"
        )
        print(f"{name:<62}{value:9.3f} {unit}{told}")
    return 0 if met else 1


def measure(
    browser: Any, base: str, run: str, files: int, server: int, whole: bool
) -> list[tuple[str, float, float | None, str]]:
    """Return the figures: name, value, limit, unit."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto("about:blank")
    curves = clock(
        lambda: page.goto(f"{base}#/learning?run={run}"), page, "() => document.querySelector('.plot canvas')"
    )
    newest = clock(
        lambda: page.evaluate(f"location.hash = '#/episodes?run={run}'"),
        page,
        "() => document.querySelector('.vinner .vrow')",
    )
    opened = resident(server) + heap(page)
    last = f"iter-{files:05d}"
    first = clock(
        lambda: page.evaluate(f"location.hash = '#/episode?run={run}&file={last}&n=64'"),
        page,
        "() => document.querySelector('.detail .tokens')",
    )
    steps = [
        clock(
            lambda: page.keyboard.press("n"),
            page,
            f"() => document.querySelector('.episode code')?.textContent === '{last}/{n}'",
        )
        for n in range(65, 75)
    ]
    other = f"iter-{files // 2:05d}"
    cold = page.evaluate(
        "async (a) => { const t = performance.now(); await (await fetch(a)).json(); return performance.now() - t; }",
        f"api/episode?run={run}&file={other}&n=64",
    )
    page.click("summary >> text=Settings of the estimators")
    again = [credited(page, value) for value in (0.9, 0.5, 0.8, 0.3, 0.7)]
    most = resident(server) + heap(page)
    figures: list[tuple[str, float, float | None, str]] = [
        ("open the run: page, curves drawn", curves, OPEN_SECONDS, "s"),
        ("then its newest episodes in the list, read for the first time", newest, OPEN_SECONDS, "s"),
        ("memory of server and page by then", opened, OPEN_MEGABYTES, "MB"),
        ("first episode of an iteration: everything drawn, with credit", first, None, "s"),
        ("next episode of it, with credit (median of 10)", median(steps), EPISODE_SECONDS, "s"),
        ("an episode of an iteration not read yet, from the server", cold / 1000, EPISODE_SECONDS, "s"),
        ("credit of 128 episodes under another lambda, redrawn (median)", median(again), CREDIT_SECONDS, "s"),
        ("memory of server and page by then", most, None, "MB"),
    ]
    return figures + (whole_list(page, base, run) if whole else [])


def whole_list(page: Any, base: str, run: str) -> list[tuple[str, float, float | None, str]]:
    """Return how long the index of all episodes takes, and the list when it is there."""
    done = "() => document.querySelector('.vinner .vrow') && !document.querySelector('.indexing')?.textContent"
    began = time.perf_counter()
    page.evaluate(f"location.hash = '#/episodes?run={run}'")
    page.wait_for_function(done, timeout=3_600_000, polling=500)
    indexed = time.perf_counter() - began
    page.goto("about:blank")
    address = f"{base}#/episodes?run={run}&sort=-apart"
    listed = clock(lambda: page.goto(address), page, "() => document.querySelector('.vinner .vrow')")
    return [
        ("all episodes indexed in the background", indexed, None, "s"),
        ("the list of all of them", listed, OPEN_SECONDS, "s"),
    ]


def credited(page: Any, value: float) -> float:
    """Move the control of lambda_turn, and return the seconds until the credit under it is drawn."""
    move = (
        "(v) => { const e = document.getElementById('set-lambda_turn'); e.value = v; "
        "e.dispatchEvent(new Event('input')); }"
    )
    drawn = f"() => document.querySelector('[data-credit]')?.dataset.credit === '{{\"lambda_turn\":{value}}}'"
    return clock(lambda: page.evaluate(move, value), page, drawn)


def clock(act: Callable[[], object], page: Any, until: str) -> float:
    """Return the seconds from an act until the page shows something."""
    began = time.perf_counter()
    act()
    page.wait_for_function(until, timeout=120_000, polling="raf")
    return time.perf_counter() - began


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
