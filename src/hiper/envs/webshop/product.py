"""One product, read from the official files in the form that pages, search, goals and reward need."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from hiper.errors import UserError

ASIN_LENGTH = 10
"""The longest product id. Products with longer ids are left out, as in the original."""
DEFAULT_PRICE = 100.0
"""The price of a product without a price, in dollars."""

HIGHEST_PRICE = 1e9
"""The highest price that is read, in dollars."""
_NOT_NUMBER = re.compile(r"[^\d.]")


@dataclass(frozen=True, slots=True)
class Instruction:
    """A request written for one product."""

    text: str
    attributes: tuple[str, ...]
    """The attributes that the bought product must have. Never empty."""
    options: tuple[str, ...] | None = None
    """The option values asked for. None: one goal for every combination of the product's options."""


@dataclass(frozen=True, slots=True)
class Product:
    """A product as the shop shows it."""

    asin: str
    """The product's id."""
    title: str
    description: str
    features: tuple[str, ...]
    """The bullet points."""
    category: str
    """The broadest kind, such as "fashion"."""
    query: str
    """The search under which the product was found when the catalogue was collected, in lower case."""
    product_category: str
    """The path in the shop's tree, its levels divided by "›"."""
    listed: tuple[float, ...]
    """One price, or the lowest and the highest of a range, in dollars."""
    options: Mapping[str, tuple[str, ...]]
    """Values to choose from, by the option's name, all in lower case and in the shop's order."""
    attributes: tuple[str, ...]
    """The attributes. The reward compares them; pages do not show them."""
    instructions: tuple[Instruction, ...] = ()

    @property
    def price_tag(self) -> str:
        """The price as shown on pages."""
        return " to ".join(f"${price}" for price in self.listed)

    @property
    def document(self) -> str:
        """The text that searches cover: title, description, first bullet point and options."""
        options = ", and ".join(f"{name}: {', '.join(values)}" for name, values in self.options.items())
        return " ".join((self.title, self.description, *self.features[:1], options)).lower()

    def encode(self) -> bytes:
        """Return the product in few bytes, for :func:`decode`."""
        asked = [(instruction.text, instruction.attributes, instruction.options) for instruction in self.instructions]
        texts = (self.asin, self.title, self.description, self.features, self.category, self.query)
        rest = (self.product_category, self.listed, self.options, self.attributes, asked)
        return json.dumps((*texts, *rest), ensure_ascii=False, separators=(",", ":")).encode(errors="surrogatepass")


def decode(encoded: bytes) -> Product:
    """Return the product that was encoded. It is equal in every field."""
    asin, title, description, features, category, query, product_category, *rest = json.loads(encoded)
    listed, options, attributes, instructions = rest
    return Product(
        asin=asin,
        title=title,
        description=description,
        features=tuple(features),
        category=category,
        query=query,
        product_category=product_category,
        listed=tuple(listed),
        options={name: tuple(values) for name, values in options.items()},
        attributes=tuple(attributes),
        instructions=tuple(
            Instruction(text, tuple(wanted), None if chosen is None else tuple(chosen))
            for text, wanted, chosen in instructions
        ),
    )


def read_product(
    item: Mapping[str, Any], attributes: tuple[str, ...], instructions: tuple[Instruction, ...]
) -> Product:
    """Read a product from an entry of ``items_shuffle*.json``.

    Raises:
        UserError: a key is missing, or its value has another form. The message names the product and the key.
    """
    entry = _Entry(item, f"product '{item.get('asin', '?')}'")
    features = entry.get("small_description", str, list)
    return Product(
        asin=entry.text("asin"),
        title=entry.text("name"),
        description=entry.text("full_description"),
        features=(features,) if isinstance(features, str) else entry.texts("small_description"),
        category=entry.text("category"),
        query=entry.text("query").lower().strip(),
        product_category=entry.text("product_category"),
        listed=_listed_prices(entry),
        options=_options(entry),
        attributes=attributes,
        instructions=instructions,
    )


def read_attributes(item: object, asin: str) -> tuple[tuple[str, ...], tuple[Instruction, ...]]:
    """Read a product's attributes, and a request for it if there is one, from an entry of ``items_ins_v2*.json``.

    Raises:
        UserError: see :func:`read_product`.
    """
    where = f"attributes of product '{asin}'"
    if not isinstance(item, dict):
        raise UserError(f"{where}: should be a mapping, it is {str(item)[:60]!r}; were two files swapped?")
    entry = _Entry(item, where)
    attributes = entry.texts("attributes") if "attributes" in item else ()
    if item.get("instruction") is None:
        return attributes, ()
    return attributes, (Instruction(entry.text("instruction"), entry.texts("instruction_attributes", least=1)),)


def read_human_instructions(items: object, asin: str) -> tuple[Instruction, ...]:
    """Read the requests in an entry of ``items_human_ins.json``. Those that ask for no attribute are left out.

    Raises:
        UserError: see :func:`read_product`.
    """
    where = f"human instructions for product '{asin}'"
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise UserError(f"{where}: should be a list of instructions; {_FETCH_AGAIN}")
    entries = [_Entry(item, where) for item in items]
    return tuple(
        Instruction(entry.text("instruction").strip("."), attributes, entry.texts("instruction_options"))
        for entry in entries
        if (attributes := entry.texts("instruction_attributes"))
    )


_FETCH_AGAIN = "is this the official file? If so, fetch it again"


_IN_WORDS = {str: "a text", list: "a list", dict: "a mapping", type(None): "null"}


@dataclass(frozen=True, slots=True)
class _Entry:
    """An entry of an official file. Its values are checked when they are read."""

    item: Mapping[str, Any]
    where: str

    def get(self, key: str, *kinds: type) -> Any:
        try:
            value = self.item[key]
        except KeyError:
            raise UserError(f"{self.where}: the key '{key}' is missing; {_FETCH_AGAIN}") from None
        if not isinstance(value, kinds):
            names = " or ".join(dict.fromkeys(_IN_WORDS[kind] for kind in kinds))
            raise self.error(key, value, f"should be {names}")
        return value

    def text(self, key: str) -> str:
        text: str = self.get(key, str)
        return text

    def texts(self, key: str, least: int = 0) -> tuple[str, ...]:
        values = self.get(key, list)
        if len(values) < least or not all(isinstance(value, str) for value in values):
            raise self.error(key, values, f"should be a list of {'one or more ' if least else ''}texts")
        return tuple(values)

    def error(self, key: str, value: object, wrong: str) -> UserError:
        return UserError(f"{self.where}: '{key}' {wrong}, it is {str(value)[:60]!r}; {_FETCH_AGAIN}")


def _listed_prices(entry: _Entry) -> tuple[float, ...]:
    pricing = entry.item.get("pricing")
    if not pricing:
        return (DEFAULT_PRICE,)
    try:
        prices = [float(Decimal(_NOT_NUMBER.sub("", price))) for price in entry.text("pricing").split("$")[1:]]
    except InvalidOperation:
        prices = []
    if not prices or max(prices) > HIGHEST_PRICE:
        raise entry.error("pricing", pricing, 'should read like "$19.99" or "$19.99 to $29.99"')
    return tuple(prices[:2])


def _options(entry: _Entry) -> dict[str, tuple[str, ...]]:
    customization = entry.get("customization_options", dict, str, type(None)) or {}
    try:
        return {
            name.lower(): tuple(content["value"].strip().replace("/", " | ").lower() for content in contents)
            for name, contents in customization.items()
            if contents is not None
        }
    except (TypeError, KeyError, AttributeError):
        raise entry.error("customization_options", customization, "should give a list of values by name") from None
