"""Sources of shops: the official files, or generated products."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from itertools import islice
from pathlib import Path

from hiper.envs.webshop.catalogue import ProductReader
from hiper.envs.webshop.generate import generate_products
from hiper.envs.webshop.official_files import DATA_VARIABLE, FULL, HUMAN, SMALL, data_path
from hiper.envs.webshop.shop import Shop
from hiper.envs.webshop.streaming import read_list, read_pairs
from hiper.errors import UnwritableError, UserError
from hiper.files import atomic_folder, lock_file, lock_path, user_path

GENERATED = "generated"
"""The value of the option ``data`` that asks for generated products instead of official ones."""
GENERATED_PRODUCTS = 1000
"""The number of generated products if none is given."""
MOST_GENERATED = 100_000
"""The most generated products. All are made when the shop opens, and kept in memory."""
CATALOGUES = {files.name: files for files in (SMALL, FULL)}
"""The official catalogues. Each is a file of products and a file of their attributes."""

_LARGE = 20_000
"""The number of products above which a shop is kept on disk."""
_FORMAT = 1
"""The format of shops on disk. It is raised whenever a new shop would differ."""
_STAMP = "made-from.json"
_HOW_TO_GET = (
    "`hiper data webshop` says how to get it; `data` (env.data in a recipe) names another folder; `data=generated` "
    "needs no files"
)


def open_shop(
    data: str | os.PathLike[str] | None = None,
    catalogue: str = SMALL.name,
    products: int | None = None,
    human: bool = False,
    seed: int = 0,
) -> Shop:
    """Open or make a shop.

    Args:
        data: the folder of the official files; :data:`GENERATED` for generated products; None: the folder that
            :func:`~hiper.envs.webshop.official_files.data_path` returns.
        catalogue: the official catalogue, "small" (1,000 products) or "full".
        products: the number of products, the first ones; None: all (of generated ones, :data:`GENERATED_PRODUCTS`).
        human: use the instructions that people wrote instead of those made from the attributes.
        seed: the seed of generated products.

    Raises:
        UserError: there are no such products, or their files are broken.
    """
    if products is not None and products < 1:
        raise UserError(f"products is {products}; a shop sells at least one")
    if catalogue not in CATALOGUES:
        raise UserError(f"there is no WebShop catalogue '{catalogue}'; there are {' and '.join(CATALOGUES)}")
    if data == GENERATED:
        if human or catalogue != SMALL.name:
            raise UserError("human instructions and other catalogues are official data; drop them or `data=generated`")
        count = GENERATED_PRODUCTS if products is None else products
        if count > MOST_GENERATED:
            raise UserError(f"products is {count}; a generated shop sells at most {MOST_GENERATED:,}")
        return Shop.of(f"webshop-generated-{count}-seed{seed}", generate_products(count, seed))
    folder = data_path() if data is None else user_path(data)
    needed = CATALOGUES[catalogue].files + (HUMAN.files if human else ())
    files = [_present(folder / file.name, data is None) for file in needed]
    parts = [catalogue, *([str(products)] if products else []), *(["human"] if human else [])]
    name = "-".join(["webshop", *parts])
    if catalogue == FULL.name and (products is None or products > _LARGE):
        return _kept(name, files, products)
    return Shop.of(name, _read(files, products))


def _present(path: Path, default: bool) -> Path:
    if not path.is_file():
        asked = f" ({DATA_VARIABLE} names another folder)" if default else ""
        raise UserError(f"there is no '{path}'{asked}; {_HOW_TO_GET}")
    return path


def _read(files: list[Path], count: int | None) -> ProductReader:
    items, attributes, *human = files
    return ProductReader(
        islice(read_list(items), count), read_pairs(attributes), read_pairs(human[0]) if human else None
    )


def _kept(name: str, files: list[Path], count: int | None) -> Shop:
    """Return the shop kept beside its files. It is made if it is missing or the files have changed."""
    folder = files[0].parent / f"hiper-{name}"
    stamp = json.dumps([_FORMAT, *([file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files)])
    if shop := _opened(name, folder, stamp):
        return shop
    try:
        # One of several processes makes it, and the others wait.
        with lock_file(lock_path(folder), refusal=None):
            if shop := _opened(name, folder, stamp):
                return shop
            with atomic_folder(folder) as partial:
                Shop.of(name, _read(files, count), folder=partial)
                (partial / _STAMP).write_text(stamp)
    except UnwritableError as error:
        raise UserError(
            f"{error}. The full catalogue is made into a shop once, which is kept beside the official files: make room "
            "there, or link the files into a folder that can be written to and name that"
        ) from error
    return Shop.open(name, folder)


def _opened(name: str, folder: Path, stamp: str) -> Shop | None:
    """Return the shop kept in ``folder``, or None if there is no complete one with this stamp."""
    with suppress(OSError, ValueError):
        if (folder / _STAMP).read_text() == stamp:
            return Shop.open(name, folder)
    return None
