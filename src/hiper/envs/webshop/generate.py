"""Generated products: a shop of our own in the form of the official files, so that nothing needs to be downloaded.

A product is a pure function of its position, the shop's size and a seed, the same on every machine. Three properties
make requests hard enough:

- Every kind of thing is sold by a dozen products or more, which differ in attributes, options and price.
- Most attributes stand in the title, some only among the features.
- Of every four products, two are alike in all that a request can name but the price. One of them is too dear for any
  request made for the other, and no request is made for it.

    >>> items, attributes = generate_files(4)
    >>> items[0]["name"]
    'Belbrook Shirt With Button Closure For Daily Wear'
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import yaml

from hiper.envs.dice import Dice
from hiper.envs.webshop.product import Product, read_attributes, read_product
from hiper.errors import UserError
from hiper.files import write_text

T = TypeVar("T")

GENERATOR_VERSION = 1
"""A part of every draw. It is raised whenever the same arguments give other products."""
PRODUCTS_PER_KIND = 16
"""The number of products per kind. A small shop sells fewer kinds, so that there is always a choice."""
SHOWN_IN_TITLE = 0.8
"""Probability that a title names an attribute."""
PRICE_RANGES = 0.15
"""Probability that a product's price depends on its options, so that a range is listed."""
TWIN_SURCHARGE = (60, 90)
"""The extra price of the dear twin, in dollars. The bound of a request is at most 40 dollars above a price."""

_FIRST = ("Bel", "Nor", "Kal", "Ven", "Tor", "Mar", "Hal", "Dun", "Ros", "Wil", "Fen", "Cor")
_LAST = ("mont", "well", "dale", "wick", "ford", "ham", "ton", "ria", "vane", "stead", "ley", "brook")


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of thing that is sold."""

    query: str
    """The words that people search for."""
    department: str
    path: str
    """The path in the shop's tree, its levels divided by "›"."""
    nouns: tuple[str, ...]
    """The nouns in titles."""
    price: tuple[int, int]
    """The lowest and the highest price, in dollars."""
    attributes: tuple[tuple[str, ...], ...]
    """Groups of attributes. A product of this kind has at most one of each group."""
    options: tuple[str, ...]
    """The names of its kinds of option."""


@dataclass(frozen=True, slots=True)
class Assortment:
    """All kinds of things, attributes and options."""

    places: Mapping[str, str]
    """The place of each attribute in requests and titles: "before" the noun, behind "with", or behind "for"."""
    options: Mapping[str, tuple[str, tuple[str, ...]]]
    """The option's name and its values, by kind of option."""
    kinds: tuple[Kind, ...]


@dataclass(frozen=True, slots=True)
class _Draft:
    """A product before it is written down."""

    kind: Kind
    noun: str
    attributes: tuple[str, ...]
    asked: tuple[str, ...]
    """The attributes that the request names. Empty: there is no request."""
    options: Mapping[str, tuple[str, ...]]
    price: int
    """The price in dollars, before a cent is taken off."""
    highest: int | None
    """The price of the dearest options, if it differs."""


@cache
def assortment() -> Assortment:
    """Return the shipped tables. They are read once."""
    tables = yaml.safe_load((files(__package__) / "assortment.yaml").read_text(encoding="utf-8"))
    return Assortment(
        places={name: place for place, names in tables["attributes"].items() for name in names},
        options={kind: (row["name"], tuple(row["values"])) for kind, row in tables["options"].items()},
        kinds=tuple(
            Kind(
                query,
                row["department"],
                row["path"],
                tuple(row["nouns"]),
                tuple(row["price"]),
                tuple((group,) if isinstance(group, str) else tuple(group) for group in row["attributes"]),
                tuple(row["options"]),
            )
            for query, row in tables["kinds"].items()
        ),
    )


def generate_products(count: int, seed: int = 0) -> Iterator[Product]:
    """Yield the products of a generated shop.

    Args:
        count: the number of products. A shop is not the beginning of a larger one.
        seed: the seed of the shop.

    Raises:
        UserError: ``count`` is below one.
    """
    for item, attributes in _entries(count, seed):
        yield read_product(item, *read_attributes(attributes, item["asin"]))


def generate_files(count: int, seed: int = 0) -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]:
    """Return the products as the contents of ``items_shuffle.json`` and ``items_ins_v2.json``."""
    entries = list(_entries(count, seed))
    return [item for item, _ in entries], {item["asin"]: attributes for item, attributes in entries}


def write_files(folder: Path, count: int, seed: int = 0) -> tuple[Path, Path]:
    """Write these files into ``folder``, named as the official ones, and return their paths."""
    paths = folder / "items_shuffle.json", folder / "items_ins_v2.json"
    for path, content in zip(paths, generate_files(count, seed), strict=True):
        write_text(path, json.dumps(content, ensure_ascii=False))
    return paths


def _entries(count: int, seed: int) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    if count < 1:
        raise UserError(f"a generated shop has at least one product; {count} were asked for")
    for position in range(count):
        dice = Dice(GENERATOR_VERSION, "product", count, seed, position)
        draft = _draft(position, count, seed)
        brand = dice.pick(_FIRST) + dice.pick(_LAST)
        asin = _asin(position)
        yield _item(draft, asin, brand, dice), _attributes(draft)


def _draft(position: int, count: int, seed: int) -> _Draft:
    """Draw the product at a position. The last two of every four share all draws but the price."""
    group, place = divmod(position, 4)
    dice = Dice(GENERATOR_VERSION, "draft", count, seed, group, min(place, 2))
    draft = _draw(dice, count)
    if place < 2 or (place == 2) == dice.chance(0.5):
        return draft
    surcharge = dice.between(*TWIN_SURCHARGE)
    highest = None if draft.highest is None else draft.highest + surcharge
    return replace(draft, asked=(), price=draft.price + surcharge, highest=highest)


def _draw(dice: Dice, count: int) -> _Draft:
    kinds = assortment().kinds[: max(1, count // PRODUCTS_PER_KIND)]
    kind = dice.pick(kinds)
    attributes = tuple(dice.pick(group) for group in _sample(dice, kind.attributes, dice.between(2, 4)))
    price = dice.between(*kind.price)
    return _Draft(
        kind=kind,
        noun=dice.pick(kind.nouns),
        attributes=attributes,
        asked=_sample(dice, attributes, dice.between(1, min(3, len(attributes)))),
        options={
            name: _in_order(values, _sample(dice, values, dice.between(2, min(4, len(values)))))
            for name, values in (assortment().options[option] for option in kind.options)
        },
        price=price,
        highest=price + dice.between(2, 8) if dice.chance(PRICE_RANGES) else None,
    )


def _item(draft: _Draft, asin: str, brand: str, dice: Dice) -> dict[str, Any]:
    """Return the product's entry of ``items_shuffle.json``."""
    shown = [name for name in draft.attributes if dice.chance(SHOWN_IN_TITLE)]
    name = " ".join((brand, _phrase(shown or draft.attributes[:1], draft.noun))).title()
    prices = [_dollars(price) for price in (draft.price, draft.highest) if price is not None]
    return {
        "asin": asin,
        "name": name,
        "full_description": f"{brand} makes this {draft.noun} with care.",
        "small_description": [
            f"{name.capitalize()}: what you expect of {draft.kind.query}" for name in draft.attributes
        ],
        "pricing": " to ".join(prices),
        "images": [f"https://example.com/{asin}.jpg"],
        "product_category": draft.kind.path,
        "average_rating": "",
        "customization_options": {
            option.title(): [
                {"value": value.title(), "price_string": prices[0], "is_selected": False, "image": None, "url": None}
                for value in values
            ]
            for option, values in draft.options.items()
        },
        "category": draft.kind.department,
        "query": draft.kind.query,
        "page": 1,
    }


def _attributes(draft: _Draft) -> dict[str, Any]:
    """Return the product's entry of ``items_ins_v2.json``."""
    known: dict[str, Any] = {"attributes": list(draft.attributes)}
    if not draft.asked:
        return known
    request = f"Find me {_phrase(draft.asked, draft.kind.query)}"
    return known | {"instruction": request, "instruction_attributes": list(draft.asked)}


def _phrase(attributes: Sequence[str], noun: str) -> str:
    """Return the noun with its attributes: "slim fit shirts with long sleeve for daily wear"."""
    places: dict[str, list[str]] = {}
    for name in attributes:
        places.setdefault(assortment().places[name], []).append(name)
    parts = [", ".join(places.get("before", ())), noun]
    parts += [f"{place} {', '.join(places[place])}" for place in ("with", "for") if place in places]
    return " ".join(filter(None, parts))


def _sample(dice: Dice, items: Sequence[T], count: int) -> tuple[T, ...]:
    """Draw ``count`` different items, in the order of drawing."""
    left = list(items)
    return tuple(left.pop(dice.between(0, len(left) - 1)) for _ in range(count))


def _in_order(values: Sequence[str], chosen: Sequence[str]) -> tuple[str, ...]:
    return tuple(value for value in values if value in chosen)


def _dollars(price: int) -> str:
    return f"${price - 0.01:.2f}"


_DIGITS = "0123456789ABCDEFGHJKLMNPQRSTUVWXYZ"
_IDS = len(_DIGITS) ** 8


def _asin(position: int) -> str:
    """Return ten characters that differ for every position and tell nothing about it."""
    number = position * 1_103_681_303_113 % _IDS  # a multiplier without a common factor: a permutation
    digits = []
    for _ in range(8):
        number, digit = divmod(number, len(_DIGITS))
        digits.append(_DIGITS[digit])
    return "B0" + "".join(digits)
