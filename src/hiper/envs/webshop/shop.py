"""The shop: a catalogue with its search and its goals, made once, read by any number of environments and processes."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from random import Random

from hiper.envs.webshop.catalogue import Catalogue
from hiper.envs.webshop.goals import Goals
from hiper.envs.webshop.product import Product
from hiper.envs.webshop.search import Index

SEED = 42
"""Under which the literature draws prices and goals."""
DETAILS = ("Description", "Features", "Reviews")
"""An item's further pages."""
ATTRIBUTES = "Attributes"
"""One more, which shows what the reward looks at; the original leaves it out unless told otherwise."""

_CACHED = 1 << 12
"""Searches whose results are kept."""


class Shop:
    """Everything that visitors meet, and what they are asked to buy. Nothing in it changes.

    Args:
        name: which shop this is; stamped into panels.
        products: the catalogue.
        index: of the products' documents, in the catalogue's order.
        goals: drawn from the catalogue.
        details: an item's further pages.
    """

    def __init__(
        self, name: str, products: Catalogue, index: Index, goals: Goals, details: tuple[str, ...] = DETAILS
    ) -> None:
        self.name, self.products, self.goals, self.details = name, products, goals, details
        self._index = index
        self.search = lru_cache(_CACHED)(self._search)

    @classmethod
    def of(cls, name: str, products: Iterable[Product], seed: int = SEED, folder: Path | None = None) -> Shop:
        """The shop that sells ``products``.

        Args:
            name: see above.
            products: in the catalogue's order; read once.
            seed: of prices and goals.
            folder: an existing folder to keep the shop in, for :meth:`open`; None: it is held in memory.

        Raises:
            UserError: there are no products.
        """
        rng = Random(seed)
        # Before its first price, the original prints a message, for which its console library draws 32 bits.
        rng.getrandbits(32)
        catalogue = Catalogue.of(products, rng, folder)
        index = Index.of((product.document for product in catalogue), folder)
        return cls(name, catalogue, index, Goals.draw(catalogue, rng, seed, folder))

    @classmethod
    def open(cls, name: str, folder: Path) -> Shop:
        """The shop kept in ``folder``, memory-mapped: processes that open it share its memory.

        Raises:
            OSError, ValueError: there is none.
        """
        return cls(name, Catalogue.open(folder), Index.open(folder), Goals.open(folder))

    def showing_attributes(self) -> Shop:
        """The same shop, whose items have a page of attributes."""
        return Shop(self.name, self.products, self._index, self.goals, (*DETAILS, ATTRIBUTES))

    def _search(self, query: str) -> tuple[int, ...]:
        """Positions of the products found for ``query``, best first."""
        return tuple(self._index.search(query)[0].tolist())
