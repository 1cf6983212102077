"""The shop: a catalogue with search and goals. It is made once and read by any number of environments and processes."""

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
"""The seed with which the literature draws prices and goals."""
DETAILS = ("Description", "Features", "Reviews")
"""The further pages of an item."""
ATTRIBUTES = "Attributes"
"""One more page, of the attributes that the reward compares. The original leaves it out by default."""

_CACHED = 1 << 12
"""The number of searches whose results are cached."""


class Shop:
    """A catalogue, its search and its goals. Nothing in it changes.

    Args:
        name: the name of the shop, stamped into panels.
        products: the catalogue.
        index: the index of the products' documents, in the catalogue's order.
        goals: the goals drawn from the catalogue.
        details: the further pages of items.
    """

    def __init__(
        self, name: str, products: Catalogue, index: Index, goals: Goals, details: tuple[str, ...] = DETAILS
    ) -> None:
        self.name, self.products, self.goals, self.details = name, products, goals, details
        self._index = index
        self.search = lru_cache(_CACHED)(self._search)

    @classmethod
    def of(cls, name: str, products: Iterable[Product], seed: int = SEED, folder: Path | None = None) -> Shop:
        """Make the shop that sells ``products``.

        Args:
            name: the name of the shop.
            products: the products in the catalogue's order. They are read once.
            seed: the seed of prices and goals.
            folder: an existing folder to keep the shop in, for :meth:`open`; None: keep it in memory.

        Raises:
            UserError: there are no products.
        """
        rng = Random(seed)
        # The original prints a message before its first price, and its console library draws 32 bits for that.
        rng.getrandbits(32)
        catalogue = Catalogue.of(products, rng, folder)
        index = Index.of((product.document for product in catalogue), folder)
        return cls(name, catalogue, index, Goals.draw(catalogue, rng, seed, folder))

    @classmethod
    def open(cls, name: str, folder: Path) -> Shop:
        """Open the shop kept in ``folder``, memory-mapped. Processes that open it share its memory.

        Raises:
            OSError, ValueError: there is no shop.
        """
        return cls(name, Catalogue.open(folder), Index.open(folder), Goals.open(folder))

    def showing_attributes(self) -> Shop:
        """Return the same shop with a page of attributes for every item."""
        return Shop(self.name, self.products, self._index, self.goals, (*DETAILS, ATTRIBUTES))

    def _search(self, query: str) -> tuple[int, ...]:
        """Return the positions of the products found for ``query``, best first."""
        return tuple(self._index.search(query)[0].tolist())
