"""The shop's pages as data, and the effects of actions: pure functions, equal to the original's text mode.

A :class:`View` is the whole state of a visitor's session. :func:`page` returns its page, :func:`follow` the view after
an action. The texts are those that the original extracts from its HTML, joined by " [SEP] ".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, auto

from hiper.envs.webshop.product import Product
from hiper.envs.webshop.shop import ATTRIBUTES, Shop

PER_PAGE = 10
"""The number of results on a page."""
SEPARATOR = " [SEP] "

BACK, NEXT, PREVIOUS, BUY = "back to search", "next >", "< prev", "buy now"
_ACTION = re.compile(r"(.+)\[(.+)\]")
_WHITE = " \n\t\f\r"


class Place(Enum):
    """The kinds of pages."""

    SEARCH = auto()
    RESULTS = auto()
    ITEM = auto()
    DETAIL = auto()
    DONE = auto()


@dataclass(frozen=True, slots=True)
class View:
    """The state of a visitor's session."""

    place: Place = Place.SEARCH
    found: tuple[int, ...] = ()
    """Results of the last search, as positions in the catalogue, best first."""
    number: int = 1
    """The number of the page of results, from 1. There is always a next page, though it may be empty."""
    item: int = -1
    """The position in the catalogue of the current product."""
    options: Mapping[str, str] = field(default_factory=dict)
    """The chosen values by option, in the order in which the options were first chosen."""
    detail: str = ""
    """The name of the item's further page."""


@dataclass(frozen=True, slots=True)
class Page:
    """A page as a visitor sees it."""

    texts: tuple[str, ...]
    clickables: tuple[str, ...]
    search_bar: bool = False

    @property
    def text(self) -> str:
        """The text as the original prints it."""
        return SEPARATOR.join(self.texts)


def page(shop: Shop, view: View, instruction: str | None) -> Page:
    """Return the page of ``view``. :func:`receipt` returns the page of a purchase.

    Args:
        shop: the shop.
        view: the state of the visitor's session.
        instruction: the instruction, which every page of the original shows; None: leave it out.
    """
    head = () if instruction is None else ("Instruction:", *_shown([instruction]))
    if view.place is Place.SEARCH:
        return Page(("WebShop", *head, "Search"), ("search",), search_bar=True)
    body, clickables = _BODIES[view.place](shop, view)
    return Page((*head, "Back to Search", *_shown(body)), tuple(dict.fromkeys((BACK, *clickables))))


def parse(action: str) -> tuple[str, str] | None:
    """Return the verb and the argument of an action such as "click[buy now]", or None if it has another form.

    The verb counts as written, the argument in lower case. Text after the last bracket is ignored.
    """
    found = _ACTION.match(action)
    return (found[1], found[2].lower()) if found else None


def follow(shop: Shop, view: View, action: str) -> View | None:
    """Return the view after ``action``, or None if it is not understood in ``view``.

    A search is understood on every page, with a search bar or without, as in the original. The original's hidden
    keywords "<r>", "<a>", "<c>" and "<q>" list products at random, by attribute, category or query. Here they are plain
    words.
    """
    parsed = parse(action)
    if parsed is None or view.place is Place.DONE:
        return None
    verb, argument = parsed
    if verb == "search":
        return View(Place.RESULTS, shop.search(argument))
    if verb != "click" or view.place is Place.SEARCH:
        return None
    if argument == BACK:
        return View()
    return _FOLLOWED[view.place](shop, view, argument)


def _in_results(shop: Shop, view: View, clicked: str) -> View | None:
    if clicked == NEXT:
        return replace(view, number=view.number + 1)
    if clicked == PREVIOUS:
        return replace(view, number=view.number - 1) if view.number > 1 else None
    for item in found_on_page(view):
        if shop.products[item].asin.lower() == clicked:
            return replace(view, place=Place.ITEM, item=item)
    return None


def _in_item(shop: Shop, view: View, clicked: str) -> View | None:
    if clicked == BUY:
        return replace(view, place=Place.DONE)
    if clicked == PREVIOUS:
        return View(Place.RESULTS, view.found, view.number)
    for detail in shop.details:
        if detail.lower() == clicked:
            return replace(view, place=Place.DETAIL, detail=detail)
    # Where two options share the name of a value, a click chooses it in the last of them.
    for option, values in reversed(list(shop.products[view.item].options.items())):
        if clicked in values:
            return replace(view, options={**view.options, option: clicked})
    return None


def _in_detail(shop: Shop, view: View, clicked: str) -> View | None:
    return replace(view, place=Place.ITEM, detail="") if clicked == PREVIOUS else None


def found_on_page(view: View) -> tuple[int, ...]:
    """Return the products on the current page of results, as positions in the catalogue."""
    return view.found[(view.number - 1) * PER_PAGE : view.number * PER_PAGE]


def _results(shop: Shop, view: View) -> tuple[Iterable[str], Iterable[str]]:
    products = [shop.products[item] for item in found_on_page(view)]
    heading = f"Page {view.number} (Total results: {len(view.found)})"
    entries = (text for product in products for text in (product.asin, product.title, product.price_tag))
    turn = (PREVIOUS, NEXT) if view.number > 1 else (NEXT,)
    return (heading, *map(str.title, turn), *entries), (*turn, *(product.asin.lower() for product in products))


def _item(shop: Shop, view: View) -> tuple[Iterable[str], Iterable[str]]:
    product = shop.products[view.item]
    options = [text for option, values in product.options.items() for text in (option, *values)]
    facts = (product.title, f"Price: {product.price_tag}", "Rating: N.A.")
    clickables = (PREVIOUS, *map(str.lower, shop.details), BUY, *(v for vs in product.options.values() for v in vs))
    return ("< Prev", *options, *facts, *shop.details, "Buy Now"), clickables


def _detail(shop: Shop, view: View) -> tuple[Iterable[str], Iterable[str]]:
    product = shop.products[view.item]
    texts: Mapping[str, Iterable[str]] = {
        "Description": (product.description,),
        # The original's lists have a blank before each entry.
        "Features": (f" {feature}" for feature in product.features),
        "Reviews": (),
        ATTRIBUTES: (
            *(f" {attribute}" for attribute in product.attributes),
            *(product.category, product.query, product.product_category),
        ),
    }
    return ("< Prev", *texts[view.detail]), (PREVIOUS,)


def receipt(product: Product, options: Mapping[str, str], score: float) -> Page:
    """Return the page after a purchase of ``product``. The original leaves most of its fields empty."""
    return Page(
        (
            *("Thank you for shopping with us!", "Your code:", "None", "(Paste it in your MTurk interface.)"),
            *("Purchased", "asin", product.asin, "options", _json(options), "attrs", "None", "category", "None"),
            *("query", "None", "product category", "None", "Target", "asin", "options", "attrs", "price upper"),
            *("instuction text", "category", "product category", "query", "Goal", "None", "Reward"),
            *("Your score (min 0.0, max 1.0)", str(score), "Reward Details", "None"),
        ),
        ("search",),
        search_bar=True,
    )


_FOLLOWED = {Place.RESULTS: _in_results, Place.ITEM: _in_item, Place.DETAIL: _in_detail}
_BODIES = {Place.RESULTS: _results, Place.ITEM: _item, Place.DETAIL: _detail}


def _shown(texts: Iterable[str]) -> list[str]:
    """Return texts as HTML leaves them: without white space around them and without empty lines."""
    return [bare for text in texts if (bare := text.strip()) or (text and (text.strip(_WHITE) or "\n" not in text))]


def _json(options: Mapping[str, str]) -> str:
    """Write JSON as Flask does into HTML."""
    text = json.dumps(options, sort_keys=True)
    for mark in "<>&'":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return text
