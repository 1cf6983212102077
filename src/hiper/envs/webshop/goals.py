"""Goals, drawn from the catalogue as the original draws them, and their splits.

Legend: G goals, I instructions. Each instruction gives a goal for every combination of its product's options.
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
"""The upper bounds that requests may state, in dollars."""
NO_LIMIT = 1_000_000.0
"""The bound where the price leaves no choice, in dollars. The request then does not state it."""

SPLITS = ("test", "validation", "train")
MOST_GOALS = 30_000_000
"""The largest number of goals of a catalogue, so that they fit into memory."""
TEST, VALIDATION = 500, 1000
"""The sizes of the splits in the literature. Where there are few goals, neither is more than a fifth of them."""


@dataclass(frozen=True, slots=True)
class Goal:
    """A request to buy something."""

    product: Product
    """The product that the request was made for. Others may answer it too."""
    instruction: str
    attributes: tuple[str, ...]
    options: tuple[tuple[str, str], ...]
    """Names and values of the options asked for. A name is empty where a person gave the value alone."""
    limit: float
    """The highest price, in dollars."""

    @property
    def digest(self) -> str:
        """SHA-256 of the request."""
        asked = (self.product.asin, self.instruction, self.attributes, self.options, self.limit)
        return hashlib.sha256(json.dumps(asked).encode()).hexdigest()


@dataclass(frozen=True)
class Goals:
    """All goals of a catalogue in their one canonical order. Nothing in it changes."""

    product_I: NDArray[np.int64]
    """The position of each instruction's product in the catalogue."""
    number_I: NDArray[np.int64]
    """The number of each instruction among those of its product."""
    limit_I: NDArray[np.float64]
    end_I: NDArray[np.int64]
    """The number of goals up to and including each instruction."""
    order_G: NDArray[np.int64]
    """The canonical order: goals in the catalogue's order, shuffled."""

    @classmethod
    def draw(cls, catalogue: Catalogue, rng: Random, seed: int, folder: Path | None = None) -> Goals:
        """Draw the goals of ``catalogue``.

        Args:
            catalogue: the products.
            rng: draws the upper bounds of prices. It has drawn the catalogue's prices before.
            seed: the seed of the shuffling.
            folder: an existing folder to keep the goals in, for :meth:`open`; None: keep them in memory.

        Raises:
            UserError: there are too many.
        """
        products, numbers, sizes, limits = array("q"), array("q"), array("q"), array("d")
        total = 0
        for position, product in enumerate(catalogue):
            for number, instruction in enumerate(product.instructions):
                products.append(position)
                numbers.append(number)
                limits.append(_draw_limit(float(catalogue.prices_N[position]), rng))
                sizes.append(1 if instruction.options is not None else _combinations(product))
                if (total := total + sizes[-1]) > MOST_GOALS:
                    raise UserError(
                        f"the catalogue gives more than {MOST_GOALS:,} goals, the last for '{product.asin}' with "
                        f"{sizes[-1]:,} combinations of its options: take fewer products, or leave this one out"
                    )
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
        """Open the goals kept in ``folder``, memory-mapped.

        Raises:
            OSError, ValueError: there are no goals.
        """
        return cls(**{part.name: mapped(folder, part.name) for part in fields(cls)})

    def __len__(self) -> int:
        return len(self.order_G)

    def products(self) -> NDArray[np.int64]:
        """Return the products of the goals, in canonical order, as positions in the catalogue."""
        return self.product_I[np.searchsorted(self.end_I, self.order_G, side="right")]

    def goal(self, index: int, catalogue: Catalogue) -> Goal:
        """Return the goal at ``index`` of the canonical order."""
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
    """Draw one of the four next round prices above ``price``, except the lowest."""
    above = [limit for limit in LIMITS if limit > price][:4]
    return max(rng.sample(above, 2)) if len(above) >= 2 else NO_LIMIT


def _combinations(product: Product) -> int:
    return math.prod(len(values) for values in product.options.values())


def _combination(product: Product, from_end: int) -> tuple[tuple[str, str], ...]:
    """Return one value of each option by name.

    Combinations are counted from the last one. The value of the last name changes fastest.
    """
    chosen = list[tuple[str, str]]()
    for name in sorted(product.options, reverse=True):
        values = product.options[name]
        from_end, step = divmod(from_end, len(values))
        chosen.append((name, values[-1 - step]))
    return tuple(reversed(chosen))


def split_goals(goals: Goals, catalogue: Catalogue, split: str) -> NDArray[np.int64]:
    """Return the indices of a split's goals, in canonical order.

    Test goals come first, then those for validation, then the rest. A goal is left out if an earlier split has one for
    the same product with the same options. So no test goal was asked for in training.

    Raises:
        UserError: there is no such split, or it has no goal.
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
    """Return a goal's product and combination of options."""
    return goal.product.asin, frozenset(goal.options)
