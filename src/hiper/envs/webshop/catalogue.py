"""The catalogue: products in few bytes, in memory or on disk, where many processes share them read-only.

On disk it is a folder of ``products.bin`` (encoded products, end to end) and arrays beside it. All are memory-mapped.
So a million products open at once and take no memory of the process's own.

Legend: N products, in the catalogue's order.
"""

from __future__ import annotations

import hashlib
import io
import logging
import sys
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiper.envs.webshop.arrays import hold, mapped
from hiper.envs.webshop.product import (
    ASIN_LENGTH,
    Instruction,
    Product,
    decode,
    read_attributes,
    read_human_instructions,
    read_product,
)
from hiper.errors import UserError, shortened

log = logging.getLogger(__name__)

_CACHED = 1 << 12
"""The number of products that are cached decoded."""
_BLOB = "products.bin"
_ARRAYS = ("ends_N", "prices_N")


class ProductReader:
    """A reader of the products that the official files describe, once and in their order.

    Args:
        items: the entries of ``items_shuffle*.json``.
        attributes: the keys and values of ``items_ins_v2*.json``.
        human: the keys and values of ``items_human_ins.json``. Its instructions replace the others.
    """

    def __init__(
        self,
        items: Iterable[Any],
        attributes: Iterable[tuple[str, Any]],
        human: Iterable[tuple[str, Any]] | None = None,
    ) -> None:
        self.left_out: Counter[str] = Counter()
        """The number of entries left out, as in the original, by reason."""
        self._items = items
        self._known = {
            asin: _intern(*read_attributes(entry, asin)) for asin, entry in _each_once(attributes, "attributes")
        }
        self._human = (
            None
            if human is None
            else {asin: read_human_instructions(entry, asin) for asin, entry in _each_once(human, "human instructions")}
        )

    def __iter__(self) -> Iterator[Product]:
        """Yield the products.

        Raises:
            UserError: an entry is broken, or the files belong to different catalogues.
        """
        seen = set[str]()
        for item in self._items:
            if not isinstance(item, dict) or not isinstance(asin := item.get("asin"), str):
                raise UserError(f"entry {len(seen) + 1} of the products has no 'asin': {str(item)[:60]}")
            if asin == "nan" or len(asin) > ASIN_LENGTH:
                self.left_out["no proper asin"] += 1
            elif asin in seen:
                self.left_out["an asin met before"] += 1
            else:
                seen.add(asin)
                attributes, instructions = self._known.get(asin, ((), ()))
                if self._human is not None:
                    instructions = self._human.get(asin, ())
                yield read_product(item, attributes, instructions)
        unknown = len(seen - self._known.keys())
        if seen and unknown == len(seen):
            raise UserError("the file of attributes describes none of the products; both must be of one catalogue")
        if unknown:
            log.warning(
                "the file of attributes says nothing of %d of the %d products, so they have no goals; are both files "
                "of one catalogue?",
                unknown,
                len(seen),
            )
        if self.left_out:
            reasons = ", ".join(f"{count} with {reason}" for reason, count in sorted(self.left_out.items()))
            log.warning(
                "left out %d of the products' entries, as the original does: %s", self.left_out.total(), reasons
            )


def _each_once(pairs: Iterable[tuple[str, Any]], what: str) -> Iterator[tuple[str, Any]]:
    """Yield the entries of a file by their product's id.

    Raises:
        UserError: there are two entries for a product. The original takes the last in silence.
    """
    seen = set[str]()
    for asin, entry in pairs:
        if asin in seen:
            raise UserError(f"there are two entries of {what} for product '{shortened(asin)}'; fetch the file again")
        seen.add(asin)
        yield asin, entry


def _intern(
    attributes: tuple[str, ...], instructions: tuple[Instruction, ...]
) -> tuple[tuple[str, ...], tuple[Instruction, ...]]:
    """Return the same, but hold attributes that recur in many products once."""
    return tuple(map(sys.intern, attributes)), instructions


class Catalogue:
    """Products by position, and the price at which each is sold. Nothing in it changes.

    Args:
        blob: the encoded products, end to end.
        ends_N: the end of each product in ``blob``, in bytes.
        prices_N: prices in dollars: the listed price, or one drawn from the listed range.
        fingerprint: SHA-256 of products and prices.
    """

    def __init__(
        self,
        blob: NDArray[np.uint8],
        ends_N: NDArray[np.int64],
        prices_N: NDArray[np.float64],
        fingerprint: str,
    ) -> None:
        self.prices_N, self.fingerprint = prices_N, fingerprint
        self._blob, self._ends_N = blob, ends_N
        self._product = lru_cache(_CACHED)(self._decode)

    @classmethod
    def of(cls, products: Iterable[Product], rng: Random, folder: Path | None = None) -> Catalogue:
        """Make the catalogue of ``products``, whose ids all differ.

        Args:
            products: the products, in the catalogue's order.
            rng: draws the prices of products that list a range: one number each, in that order.
            folder: an existing folder to keep the catalogue in, for :meth:`open`; None: keep it in memory.

        Raises:
            UserError: there are no products.
        """
        sizes, prices, digest = array("q"), array("d"), hashlib.sha256()
        with io.BytesIO() if folder is None else (folder / _BLOB).open("wb") as file:
            for product in products:
                encoded = product.encode()
                file.write(encoded)
                digest.update(encoded)
                sizes.append(len(encoded))
                prices.append(rng.uniform(*product.listed) if len(product.listed) > 1 else product.listed[0])
            held = file.getvalue() if isinstance(file, io.BytesIO) else b""
        if not sizes:
            raise UserError("the catalogue holds no products")
        ends_N, prices_N = np.cumsum(np.array(sizes)), np.array(prices)
        digest.update(prices_N.astype("<f8").tobytes())
        for name, values_N in zip(_ARRAYS, (ends_N, prices_N), strict=True):
            hold(folder, name, values_N)
        if folder is None:
            return cls(np.frombuffer(held, np.uint8), ends_N, prices_N, digest.hexdigest())
        (folder / "fingerprint").write_text(digest.hexdigest())
        return cls.open(folder)

    @classmethod
    def open(cls, folder: Path) -> Catalogue:
        """Open the catalogue kept in ``folder``, memory-mapped.

        Raises:
            OSError, ValueError: there is no catalogue.
        """
        ends_N, prices_N = (mapped(folder, name) for name in _ARRAYS)
        fingerprint, blob = (folder / "fingerprint").read_text(), np.memmap(folder / _BLOB, mode="r")
        if len(blob) != ends_N[-1]:
            raise ValueError(f"{folder / _BLOB} has {len(blob):,} bytes instead of {ends_N[-1]:,}")
        return cls(blob, ends_N, prices_N, fingerprint)

    def __len__(self) -> int:
        return len(self._ends_N)

    def __getitem__(self, position: int) -> Product:
        """Return the product at ``position``, counted from 0.

        Raises:
            IndexError: there are fewer products.
        """
        return self._product(position)

    def __iter__(self) -> Iterator[Product]:
        """Yield all products, in order."""
        return map(self._decode, range(len(self)))

    def _decode(self, position: int) -> Product:
        if not 0 <= position < len(self):
            raise IndexError(position)
        start = self._ends_N[position - 1] if position else 0
        return decode(self._blob[start : self._ends_N[position]].tobytes())
