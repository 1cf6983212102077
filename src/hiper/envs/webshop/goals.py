"""Goals: what visitors are asked to buy, drawn from the catalogue as the original draws them, and their splits.

G goals, I instructions (of which each gives a goal for every combination of its product's options).
"""

from __future__ import annotations

import hashlib
import json
import math
from array import array
from dataclasses import dataclass, fields
from pathlib import Path
from random import Random

import numpy as np
from numpy.typing import NDArray

from hiper.envs.webshop.arrays import hold, mapped
from hiper.envs.webshop.catalogue import Catalogue
from hiper.envs.webshop.product import Product
from hiper.errors import NoSplitError, UserError

LIMITS = tuple(10.0 * step for step in range(1, 100))
"""Dollars: what a request's upper bound may be."""
NO_LIMIT = 1_000_000.0
"""Dollars: the bound where the price leaves no choice; the request then does not speak of it."""

SPLITS = ("test", "validation", "train")
TEST, VALIDATION = 500, 1000
"""Goals in the splits of the literature; where there are few goals, neither is more than a fifth of them."""


@dataclass(frozen=True, slots=True)
class Goal:
    """What a visitor is asked to buy."""

    product: Product
    """The one in mind; others may do."""
    instruction: str
    attributes: tuple[str, ...]
    options: tuple[tuple[str, str], ...]
    """The options' names and values; the name is empty where a person said the value alone."""
    limit: float
    """Dollars, at most."""

    @property
    def digest(self) -> str:
        """SHA-256 of what is asked."""
        asked = (self.product.asin, self.instruction, self.attributes, self.options, self.limit)
        return hashlib.sha256(json.dumps(asked).encode()).hexdigest()


@dataclass(frozen=True)
class Goals:
    """All goals of a catalogue in their one canonical order. Nothing in it changes."""

    product_I: NDArray[np.int64]
    """Position of the product in the catalogue."""
    number_I: NDArray[np.int64]
    """Which of the product's instructions."""
    limit_I: NDArray[np.float64]
    end_I: NDArray[np.int64]
    """How many goals there are up to and with this instruction."""
    order_G: NDArray[np.int64]
    """The canonical order: goals in the catalogue's order, shuffled."""

    @classmethod
    def draw(cls, catalogue: Catalogue, rng: Random, seed: int, folder: Path | None = None) -> Goals:
        """The goals of ``catalogue``.

        Args:
            catalogue: the products.
            rng: draws the upper bounds of prices; it has drawn the catalogue's prices before.
            seed: of the shuffling.
            folder: an existing folder to keep them in, for :meth:`open`; None: they are held in memory.
        """
        products, numbers, sizes, limits = array("q"), array("q"), array("q"), array("d")
        for position, product in enumerate(catalogue):
            for number, instruction in enumerate(product.instructions):
                products.append(position)
                numbers.append(number)
                limits.append(_draw_limit(float(catalogue.prices_N[position]), rng))
                sizes.append(1 if instruction.options is not None else _combinations(product))
        end_I = np.cumsum(np.array(sizes, dtype=np.int64))
        order = list(range(int(end_I[-1]) if len(end_I) else 0))
        Random(seed).shuffle(order)
        goals = cls(
            product_I=hold(folder, "product_I", np.array(products, dtype=np.int64)),
            number_I=hold(folder, "number_I", np.array(numbers, dtype=np.int64)),
            limit_I=hold(folder, "limit_I", np.array(limits)),
            end_I=hold(folder, "end_I", end_I),
            order_G=hold(folder, "order_G", np.array(order, dtype=np.int64)),
        )
        return goals if folder is None else cls.open(folder)

    @classmethod
    def open(cls, folder: Path) -> Goals:
        """The goals kept in ``folder``, memory-mapped.

        Raises:
            OSError, ValueError: there are none.
        """
        return cls(**{part.name: mapped(folder, part.name) for part in fields(cls)})

    def __len__(self) -> int:
        return len(self.order_G)

    def products(self) -> NDArray[np.int64]:
        """The products that the goals have in mind, in canonical order, as positions in the catalogue."""
        return self.product_I[np.searchsorted(self.end_I, self.order_G, side="right")]

    def goal(self, index: int, catalogue: Catalogue) -> Goal:
        """The goal at ``index`` of the canonical order."""
        at = int(np.searchsorted(self.end_I, self.order_G[index], side="right"))
        product, limit = catalogue[int(self.product_I[at])], float(self.limit_I[at])
        instruction = product.instructions[int(self.number_I[at])]
        bound = "" if limit == NO_LIMIT else f", and price lower than {limit:.2f} dollars"
        if instruction.options is not None:
            options = tuple(("", value) for value in instruction.options)
            return Goal(product, instruction.text + bound, instruction.attributes, options, limit)
        options = _combination(product, int(self.end_I[at] - 1 - self.order_G[index]))
        chosen = ", and ".join(f"{name}: {value}" for name, value in options)
        text = instruction.text + (f" with {chosen}" if chosen else "") + bound
        return Goal(product, text, instruction.attributes, options, limit)


def _draw_limit(price: float, rng: Random) -> float:
    """One of the four next round prices above ``price``, but the lowest."""
    above = [limit for limit in LIMITS if limit > price][:4]
    return max(rng.sample(above, 2)) if len(above) >= 2 else NO_LIMIT


def _combinations(product: Product) -> int:
    return math.prod(len(values) for values in product.options.values())


def _combination(product: Product, from_end: int) -> tuple[tuple[str, str], ...]:
    """One value of each option by name, counted from the last combination; the last name's value changes fastest."""
    chosen = list[tuple[str, str]]()
    for name in sorted(product.options, reverse=True):
        values = product.options[name]
        from_end, step = divmod(from_end, len(values))
        chosen.append((name, values[-1 - step]))
    return tuple(reversed(chosen))


def split_goals(goals: Goals, catalogue: Catalogue, split: str) -> NDArray[np.int64]:
    """The indices of a split's goals, in canonical order.

    Test goals come first, then those for validation, then the rest. A goal is left out if an earlier split has one for
    the same product with the same options: what is tested was never asked for in training.

    Raises:
        UserError: there is no such split, or no goal in it.
    """
    if split not in SPLITS:
        raise NoSplitError(f"WebShop has no split '{split}'; there are {', '.join(SPLITS)}")
    test = min(TEST, len(goals) // 5)
    held_out = test + min(VALIDATION, len(goals) // 5)
    start, end = {"test": (0, test), "validation": (test, held_out), "train": (held_out, len(goals))}[split]
    earlier = {_asked(goals.goal(index, catalogue)) for index in range(start)}
    product_G = goals.products()
    doubtful = start + np.flatnonzero(np.isin(product_G[start:end], product_G[:start]))
    met = [index for index in doubtful.tolist() if _asked(goals.goal(index, catalogue)) in earlier]
    kept = np.setdiff1d(np.arange(start, end), met)
    if not len(kept):
        raise UserError(f"the catalogue has {len(goals)} goals, too few for the split '{split}'; take more products")
    return kept


def _asked(goal: Goal) -> tuple[str, frozenset[object]]:
    """A goal's product and combination of options."""
    return goal.product.asin, frozenset(goal.options)
