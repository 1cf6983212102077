"""Our WebShop beside the original's recorded figures, and its search at a thousand and at a million products.

    python benchmarks/webshop.py [--data FOLDER] [--episodes 200] [--products 1000 1000000] [--queries 50]

All times are CPU time on one core. Without ``--data`` the shop's products are generated; the original's figures are of
the official 1,000. The large shops sell made-up products with as many words as official ones, from a vocabulary that
follows Zipf's law, in files like the official ones. Each is opened for the first time in a process of its own, which
keeps it on disk, and opened again and searched in another.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import resource
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from hiper.envs.webshop.catalogue import Catalogue
from hiper.envs.webshop.env import WebshopEnv
from hiper.envs.webshop.official_files import FULL
from hiper.envs.webshop.search import Index
from hiper.envs.webshop.sources import GENERATED, open_shop

ORIGINAL = {"click": 0.018, "search": 0.028}
"""Seconds a step takes the original, median, on the official 1,000 products."""
TARGET = 100
"""Times as fast as the original we mean to be."""
VOCABULARY = 300_000
QUERY_WORDS = 12


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=GENERATED, help="folder of the official files (default: generated products)")
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--products", type=int, nargs="*", default=[1000, 1_000_000])
    parser.add_argument("--queries", type=int, default=50)
    options = parser.parse_args()
    show_steps(options.data, options.episodes)
    for products in options.products:
        show_large(products, options.queries)


def show_steps(data: str, episodes: int) -> None:
    """Time of a step, of each kind, in episodes of random actions; no query is asked twice."""
    started = time.process_time()
    shop = open_shop(data)
    opened = time.process_time() - started
    taken = play(WebshopEnv(shop, max_turns=50), episodes)
    print(f"{shop.name}: {len(shop.products):,} products, {len(shop.goals):,} goals, opened in {opened:.1f} s")
    print(f"{'median step':16}{'original':>12}{'ours':>12}{'ratio':>10}{'target':>10}")
    for kind, theirs in ORIGINAL.items():
        ours = median(taken[kind])
        print(
            f"{kind:16}{theirs * 1e3:>9.0f} ms{ours * 1e6:>9.0f} µs{theirs / ours:>9,.0f}x{TARGET:>9}x"
            f"   ({len(taken[kind]):,} steps)"
        )
    every = [seconds for kind in taken.values() for seconds in kind]
    print(f"all together {len(every) / sum(every):,.0f} steps/s on one core\n")


def play(env: WebshopEnv, episodes: int) -> dict[str, list[float]]:
    """Seconds of the steps of each kind, with everything that is in them: texts, what can be done, search, reward."""
    rng = random.Random(0)
    taken: dict[str, list[float]] = {kind: [] for kind in ORIGINAL}
    for number, task in enumerate(rng.choices(env.panel.tasks, k=episodes)):
        start = env.reset(task.id)
        words, admissible, over = start.goal.split(), start.observation.admissible or (), False
        while not over:
            clicks = [action for action in admissible if action.startswith("click[")]
            kind = "click" if clicks and rng.random() > 0.15 else "search"
            query = " ".join(rng.sample(words, min(len(words), QUERY_WORDS - 1)))
            action = rng.choice(clicks) if kind == "click" else f"search[{query} {number}]"
            begun = time.process_time()
            step = env.step(action)
            taken[kind].append(time.process_time() - begun)
            admissible, over = step.observation.admissible or (), step.info.end is not None
    return taken


@dataclass(frozen=True)
class Made:
    """What opening a shop took for the first time."""

    seconds: float
    peak: float
    """MiB."""


@dataclass(frozen=True)
class Searched:
    """What a process sees that opens the shop later."""

    opening: float
    """Seconds."""
    query: float
    """Seconds, median."""
    slowest: float
    own: float
    """MiB beside what all processes share."""
    goals: int


def show_large(products: int, queries: int) -> None:
    """Open a shop once from its files and once as it was kept, each in a process of its own."""
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as place, spawn.Pool(1, maxtasksperchild=1) as pool:
        folder = Path(place)
        pool.apply(write_files, (products, folder))
        files = sum(file.stat().st_size for file in folder.iterdir()) / 2**20
        made = pool.apply(make, (folder,))
        searched = pool.apply(search, (folder, queries))
        kept = next(path for path in folder.iterdir() if path.is_dir())
        size = sum(file.stat().st_size for file in kept.iterdir()) / 2**20
        indexed = pool.apply(index, (kept,))
    print(f"{products:,} products, {searched.goals:,} goals, {files:,.0f} MiB of JSON, {size:,.0f} MiB as it is kept")
    print(
        f"  made in     {made.seconds:8.1f} s, of which the index takes {indexed:.1f} s; "
        f"at most {made.peak:,.0f} MiB of memory"
    )
    print(f"  opened in   {searched.opening * 1e3:8.1f} ms; after {queries} queries {searched.own:,.0f} MiB of its own")
    print(f"  query takes {searched.query * 1e3:8.1f} ms, the slowest {searched.slowest * 1e3:.1f} ms\n")


def make(folder: Path) -> Made:
    """Open the shop for the first time."""
    begun = time.process_time()
    open_shop(folder, FULL.name)
    return Made(time.process_time() - begun, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def index(kept: Path) -> float:
    """Seconds that the index of a shop's products takes alone."""
    catalogue = Catalogue.open(kept)
    with tempfile.TemporaryDirectory() as folder:
        begun = time.process_time()
        Index.of((product.document for product in catalogue), Path(folder))
        return time.process_time() - begun


def search(folder: Path, queries: int) -> Searched:
    """Open the shop again, and ask it."""
    before, begun = own_memory(), time.process_time()
    shop = open_shop(folder, FULL.name)
    opening = time.process_time() - begun
    rng, taken = np.random.default_rng(1), list[float]()
    for _ in range(queries):
        query = " ".join(next(words(rng, QUERY_WORDS)))
        begun = time.process_time()
        shop.search(query)
        taken.append(time.process_time() - begun)
    return Searched(opening, median(taken), max(taken), own_memory() - before, len(shop.goals))


def own_memory() -> float:
    """MiB that this process shares with no other (Linux)."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Anonymous:")) / 1024


def write_files(products: int, folder: Path) -> None:
    """Files like the official ones, of products with about as many words, two of five with a request."""
    rng = np.random.default_rng(0)
    items, attributes = (folder / file.name for file in FULL.files)
    with items.open("w") as items_file, attributes.open("w") as attributes_file:
        for number, text in zip(range(products), words(rng, 110), strict=False):
            like = [f"quality {kind}" for kind in rng.integers(5000, size=3)]
            item = {
                "name": " ".join(text[:15]),
                "full_description": " ".join(text[15:85]),
                "pricing": "$9.99 to $19.99",
                "images": [f"https://example.org/{number}/{n}.jpg" for n in range(6)],
                "product_category": "Home \u203a Kitchen \u203a Mugs",
                "average_rating": "",
                "small_description": [" ".join(text[85:]), "soft", "warm"],
                "customization_options": {
                    "color": [{"value": value} for value in ("red", "blue", "green")],
                    "size": [{"value": value} for value in ("small", "large")],
                },
                "asin": f"B{number:09d}",
                "category": "garden",
                "query": text[0],
                "page": 1,
            }
            asked = {"instruction": "Find me something", "instruction_attributes": like[:2]} if number % 5 < 2 else {}
            items_file.write(("," if number else "[") + json.dumps(item))
            known = json.dumps({"attributes": like, **asked})
            attributes_file.write(("," if number else "{") + f'"{item["asin"]}": {known}')
        items_file.write("]")
        attributes_file.write("}")


def words(rng: np.random.Generator, count: int) -> Iterator[list[str]]:
    """Texts of ``count`` words without end; the n-th most frequent word is met with a probability like 1/n."""
    while True:
        for rank_w in (VOCABULARY ** rng.random((1000, count))).astype(np.int64).tolist():
            yield [f"w{rank:x}" for rank in rank_w]


if __name__ == "__main__":
    main()
