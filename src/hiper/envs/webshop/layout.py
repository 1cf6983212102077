"""The shop's pages laid out for people: one thing a line, with titles and prices beside product ids."""

from __future__ import annotations

from collections.abc import Mapping

from hiper.envs.webshop.pages import Place, View, found_on_page
from hiper.envs.webshop.product import Product
from hiper.envs.webshop.shop import ATTRIBUTES, Shop

LISTED = "• "
"""The beginning of an item of a list."""


def laid_out(shop: Shop, view: View) -> list[str]:
    """Return the page of ``view`` as lines."""
    if view.place is Place.SEARCH:
        return ["The shop. Search for products."]
    if view.place is Place.RESULTS:
        listed = found_on_page(view)
        empty = "" if listed else "; no product is on this page"
        return [f"Results, page {view.number}: {len(view.found)} products found{empty}"]
    product = shop.products[view.item]
    if view.place is Place.DETAIL:
        return [f"{view.detail} of {product.asin}", *_detail(product, view.detail)]
    head = f"{'You bought' if view.place is Place.DONE else 'Product'} {product.asin}, {product.price_tag}"
    return [head, product.title, *_options(product, view.options)]


def labels(shop: Shop, view: View) -> Mapping[str, str]:
    """Return what a person should read beside a label that can be clicked on: price and title of a product."""
    if view.place is not Place.RESULTS:
        return {}
    products = (shop.products[item] for item in found_on_page(view))
    return {product.asin.lower(): f"{product.price_tag}  {product.title}" for product in products}


def _options(product: Product, chosen: Mapping[str, str]) -> list[str]:
    """Return a line for each option, with the chosen value in brackets."""
    return [
        f"{LISTED}{option}: {', '.join(f'[{value}]' if chosen.get(option) == value else value for value in values)}"
        for option, values in product.options.items()
    ]


def _detail(product: Product, detail: str) -> list[str]:
    if detail == "Description":
        lines = product.description.splitlines()
    elif detail == "Features":
        lines = [f"{LISTED}{feature}" for feature in product.features]
    elif detail == ATTRIBUTES:
        lines = [f"{LISTED}{attribute}" for attribute in product.attributes]
        lines += [f"category: {product.category}", f"query: {product.query}", f"also in: {product.product_category}"]
    else:
        lines = []
    return lines or ["(nothing)"]
