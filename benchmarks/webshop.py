"""Our WebShop beside the original's recorded figures, and its search at a thousand and at a million products.

    python benchmarks/webshop.py [--data FOLDER] [--episodes 200] [--products 1000 1000000] [--queries 50]

All times are CPU time on one core. Without ``--data`` the shop's products are generated; the original's figures are of
the official 1,000. The large shops sell made-up products with as many words as official ones, from a vocabulary that
follows Zipf's law. Each is made in a process of its own, which keeps it on disk, and searched in another.
"""

from __future__ import annotations

import argparse
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
from hiper.envs.webshop.data import GENERATED, open_shop
from hiper.envs.webshop.env import WebshopEnv
from hiper.envs.webshop.goals import Goals
from hiper.envs.webshop.product import Instruction, Product
from hiper.envs.webshop.search import Index
from hiper.envs.webshop.shop import Shop

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
    """What making a shop took."""

    catalogue: float
    """Seconds, of which some go to making the products up."""
    index: float
    peak: float
    """MiB."""


@dataclass(frozen=True)
class Searched:
    """What a process that opens the shop sees of it."""

    opening: float
    """Seconds."""
    query: float
    """Seconds, median."""
    slowest: float
    own: float
    """MiB beside what all processes share."""


def show_large(products: int, queries: int) -> None:
    """Make a shop on disk in one process, search it in another."""
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder, spawn.Pool(1, maxtasksperchild=1) as pool:
        made = pool.apply(make, (products, folder))
        searched = pool.apply(search, (folder, queries))
        size = sum(file.stat().st_size for file in Path(folder).iterdir()) / 2**20
    print(f"{products:,} products, {size:,.0f} MiB on disk")
    print(
        f"  made in     {made.catalogue:8.1f} s, indexed in {made.index:.1f} s; at most {made.peak:,.0f} MiB of memory"
    )
    print(f"  opened in   {searched.opening * 1e3:8.1f} ms; after {queries} queries {searched.own:,.0f} MiB of its own")
    print(f"  query takes {searched.query * 1e3:8.1f} ms, the slowest {searched.slowest * 1e3:.1f} ms\n")


def make(products: int, folder: str) -> Made:
    """Make a shop in ``folder``."""
    begun = time.process_time()
    catalogue = Catalogue.of(made_up(products), random.Random(0), Path(folder))
    between = time.process_time()
    Index.of((product.document for product in catalogue), Path(folder))
    ended = time.process_time()
    Goals.draw(catalogue, random.Random(0), 0, Path(folder))
    return Made(between - begun, ended - between, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def search(folder: str, queries: int) -> Searched:
    """Open the shop in ``folder`` and ask it."""
    before, begun = own_memory(), time.process_time()
    shop = Shop.open("large", Path(folder))
    opening = time.process_time() - begun
    rng, taken = np.random.default_rng(1), list[float]()
    for _ in range(queries):
        query = " ".join(next(words(rng, QUERY_WORDS)))
        begun = time.process_time()
        shop.search(query)
        taken.append(time.process_time() - begun)
    return Searched(opening, median(taken), max(taken), own_memory() - before)


def own_memory() -> float:
    """MiB that this process shares with no other (Linux)."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Anonymous:")) / 1024


def made_up(products: int) -> Iterator[Product]:
    """Products with about as many words as official ones, five of a hundred with a request."""
    rng = np.random.default_rng(0)
    said = (Instruction("Find me something", ("soft",)),)
    for number, text in zip(range(products), words(rng, 110), strict=False):
        yield Product(
            asin=f"B{number:09d}",
            title=" ".join(text[:15]),
            description=" ".join(text[15:85]),
            features=(" ".join(text[85:]), "soft", "warm"),
            category="garden",
            query=text[0],
            product_category="Home › Kitchen › Mugs",
            listed=(9.99, 19.99),
            options={"color": ("red", "blue", "green"), "size": ("small", "large")},
            attributes=("soft", "warm"),
            instructions=said if number % 20 == 0 else (),
        )


def words(rng: np.random.Generator, count: int) -> Iterator[list[str]]:
    """Texts of ``count`` words without end; the n-th most frequent word is met with a probability like 1/n."""
    while True:
        for rank_w in (VOCABULARY ** rng.random((1000, count))).astype(np.int64).tolist():
            yield [f"w{rank:x}" for rank in rank_w]


if __name__ == "__main__":
    main()
