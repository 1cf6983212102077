"""Compare our WebShop with recorded times of the original, and time its search at 1,000 and at 1,000,000 products.

    python benchmarks/webshop.py [--data FOLDER] [--episodes 200] [--products 1000 1000000] [--queries 50]

All times are CPU time on one core. Without ``--data`` the shop's products are generated. The original's times were
measured on the official 1,000 products. The large shops sell random products with as many words as official ones. Their
vocabulary follows Zipf's law, and their files have the official format. One process opens each shop for the first time
and stores it on disk. Another process opens it again and searches it.
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
"""The original's median seconds for each kind of step, on the official 1,000 products."""
TARGET = 100
"""The speed-up over the original that each kind of step should reach."""
VOCABULARY = 300_000
"""The number of different words in the large shops."""
QUERY_WORDS = 12
"""The number of words in a query."""


def main() -> None:
    """Measure steps and large shops, and print both."""
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
    """Print the time of each kind of step in episodes of random actions. No query is asked twice."""
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
    """Return the seconds of each step by kind. A step makes texts, admissible actions, search results and rewards."""
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
    """The cost of opening a shop for the first time."""

    seconds: float
    """The CPU time in seconds."""
    peak: float
    """The peak memory of the process in MiB."""


@dataclass(frozen=True)
class Searched:
    """The cost of opening a stored shop and searching it."""

    opening: float
    """The CPU time of opening the shop, in seconds."""
    query: float
    """The median CPU time of a query, in seconds."""
    slowest: float
    """The CPU time of the slowest query, in seconds."""
    own: float
    """The memory in MiB that the process does not share."""
    goals: int
    """The number of goals in the shop."""


def show_large(products: int, queries: int) -> None:
    """Print the cost of opening a shop from its files, and of opening and searching it once stored.

    Each measurement runs in its own process.
    """
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
    """Open the shop for the first time, and return the cost."""
    begun = time.process_time()
    open_shop(folder, FULL.name)
    return Made(time.process_time() - begun, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def index(kept: Path) -> float:
    """Return the CPU time in seconds of building only the index of a shop's products."""
    catalogue = Catalogue.open(kept)
    with tempfile.TemporaryDirectory() as folder:
        begun = time.process_time()
        Index.of((product.document for product in catalogue), Path(folder))
        return time.process_time() - begun


def search(folder: Path, queries: int) -> Searched:
    """Open the stored shop, search it, and return the cost."""
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
    """Return the memory in MiB that this process shares with no other (Linux only)."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Anonymous:")) / 1024


def write_files(products: int, folder: Path) -> None:
    """Write files in the official format. Two of five products have a request."""
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
    """Yield endless texts of ``count`` words. The n-th most frequent word has a probability in proportion to 1/n."""
    while True:
        for rank_w in (VOCABULARY ** rng.random((1000, count))).astype(np.int64).tolist():
            yield [f"w{rank:x}" for rank in rank_w]


if __name__ == "__main__":
    main()
