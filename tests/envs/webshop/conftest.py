"""What tests of WebShop share: wares to sell, and the original's data and recordings where they are at hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers.missing import skip_without
from hiper.envs.webshop.product import Product
from hiper.envs.webshop.shop import Shop
from hiper.envs.webshop.sources import open_shop

SHARED = Path(__file__).parents[4] / "shared"


@pytest.fixture(scope="session")
def official_folder() -> Path:
    """The folder of the official 1,000 products; skips where it is not at hand."""
    folder = SHARED / "data" / "webshop"
    if not folder.is_dir():
        skip_without("official products", folder)
    return folder


@pytest.fixture(scope="session")
def official_shop(official_folder: Path) -> Shop:
    return open_shop(official_folder)


@pytest.fixture(scope="session")
def recorded() -> dict[str, Any]:
    """What the original answered; skips where it is not at hand."""
    file = SHARED / "fixtures" / "webshop_episodes.json"
    if not file.is_file():
        skip_without("recorded cases", file)
    answers: dict[str, Any] = json.loads(file.read_text())
    return answers


@pytest.fixture(scope="session")
def generated_shop() -> Shop:
    return open_shop("generated", products=300)


@pytest.fixture(scope="session")
def make_product() -> Callable[..., Product]:
    """Products of which a test states only what matters to it."""

    def make(asin: str = "B000000001", **fields: Any) -> Product:
        plain: dict[str, Any] = {
            "title": "Mug",
            "description": "",
            "features": (),
            "category": "garden",
            "query": "mugs",
            "product_category": "Home › Kitchen › Mugs",
            "listed": (9.99,),
            "options": {},
            "attributes": (),
        }
        return Product(asin, **(plain | fields))

    return make


@pytest.fixture(scope="session")
def make_item() -> Callable[..., dict[str, Any]]:
    """Entries of ``items_shuffle.json``, likewise."""

    def make(asin: str = "B000000001", **fields: Any) -> dict[str, Any]:
        plain: dict[str, Any] = {
            "asin": asin,
            "name": "Mug",
            "full_description": "",
            "small_description": [],
            "pricing": "$9.99",
            "product_category": "Home › Kitchen › Mugs",
            "customization_options": "",
            "category": "garden",
            "query": "Mugs ",
        }
        return plain | fields

    return make
