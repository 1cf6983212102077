"""The score of a purchase: how well the bought product answers the request, from 0 to 1.

    r = r_type * (attributes met + options met + [price <= limit]) / (attributes asked + options asked + 1)

r_type is 0, 0.1, 0.5 or 1, by the likeness of titles, searches and categories. Source: WebShop (Yao et al., 2022,
arXiv 2207.01206, section 3), and its code where the paper leaves details open. Two texts are alike if their token set
ratio in ``thefuzz`` is above 85. That ratio uses the standard library's difflib, as in the original's installation.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import lru_cache

from hiper.envs.webshop.goals import Goal
from hiper.envs.webshop.nouns import Tagger
from hiper.envs.webshop.product import Product

ALIKE = 85
"""The ratio above which two texts count as the same, in per cent."""

# The order matters: the first one that a text contains is its colour.
_COLOUR_WORDS = """
alabaster apricot aqua ash asphalt azure banana beige black blue blush bordeaux bronze brown burgundy camel camo
caramel champagne charcoal cheetah chestnut chocolate christmas coffee cognac copper coral cranberry cream crystal
dark denim eggplant elephant espresso fuchsia gold granite grape graphite grass gray green grey heather indigo ivory
ivy khaki lavender lemon leopard light lilac lime magenta maroon mauve merlot midnight mint mocha multicolor mushroom
mustard natural navy nude olive orange peach pewter pink plum purple rainbow red rose royal rust sand sapphire
seashell silver skull slate steel stone stonewash sunflower tan taupe teal tiger turquoise violet walnut wheat white
wine yellow
"""
_COLOURS = tuple(_COLOUR_WORDS.split())
_NO_WORD = re.compile(r"\W")
_LATIN_1 = dict.fromkeys(range(128, 256))


@dataclass(frozen=True, slots=True)
class Reward:
    """The score of a purchase in parts. Shares are those of what was asked for."""

    type: float
    title: float
    """The share of nouns in the wanted product's title that the bought one's title has."""
    same_query: bool
    same_category: bool
    attributes: float
    options: float | None
    """The share of options met. None: no options were asked for."""
    price: bool
    """Whether the product costs no more than the limit."""
    total: float

    @property
    def parts(self) -> dict[str, float]:
        """The factors by name, for display."""
        parts = {"type": self.type, "attributes": self.attributes, "price": float(self.price)}
        return parts if self.options is None else {**parts, "options": self.options}


def judge(bought: Product, options: Iterable[str], price: float, goal: Goal, nouns: Tagger) -> Reward:
    """Judge a purchase.

    Args:
        bought: the bought product.
        options: the chosen option values.
        price: its price in dollars.
        goal: the request.
        nouns: finds the nouns of titles.
    """
    title = _title_score(nouns(bought.title), nouns(goal.product.title))
    same_query = bought.query == goal.product.query
    same_category = len(_levels(bought) & _levels(goal.product)) >= 2
    kind = _type_score(title, same_query or same_category)
    attributes = sum(_has_attribute(bought, wanted) for wanted in goal.attributes)
    chosen = [_colour(value) for value in options]
    met = sum(any(alike(value, wanted) for value in chosen) for wanted in map(_wanted_option, goal.options))
    affordable = price <= goal.limit
    asked = len(goal.attributes) + len(goal.options) + 1
    return Reward(
        type=kind,
        title=title,
        same_query=same_query,
        same_category=same_category,
        attributes=attributes / len(goal.attributes),
        options=met / len(goal.options) if goal.options else None,
        price=affordable,
        total=(attributes + met + affordable) / asked * kind,
    )


def _title_score(bought: tuple[str, ...], wanted: tuple[str, ...]) -> float:
    return len(set(bought) & set(wanted)) / len(wanted) if wanted else 0.2


def _type_score(title: float, same_kind: bool) -> float:
    if title == 0.0:
        return 0.0
    if title < 0.1:
        return 0.1
    return 1.0 if same_kind or title > 0.2 else 0.5


def _levels(product: Product) -> set[str]:
    return {level.strip() for level in product.product_category.split("›")}


def _has_attribute(product: Product, wanted: str) -> bool:
    return (
        any(alike(attribute, wanted) for attribute in product.attributes)
        or wanted in product.title.lower()
        or wanted in " ".join(product.features).lower()
        or wanted in product.description.lower()
    )


def _colour(value: str) -> str:
    """Return the first colour that a value names, in place of the value, or the value."""
    return next((colour for colour in _COLOURS if colour in value), value)


def _wanted_option(option: tuple[str, str]) -> str:
    """Return the text of an option asked for, for comparisons.

    The original looks for a colour in the text. A named option is a pair, in which a colour must be a member. Otherwise
    the pair counts as Python prints it.
    """
    name, value = option
    return next((colour for colour in _COLOURS if colour in option), str(option)) if name else _colour(value)


@lru_cache(1 << 16)
def alike(one: str, other: str) -> bool:
    """Whether two texts count as the same, by the words that they share and those that only one has."""
    words, others = (set(_words(text)) for text in (one, other))
    if not words or not others:
        return False
    shared = " ".join(sorted(words & others))
    first, second = (" ".join([shared, *sorted(rest)]).strip() for rest in (words - others, others - words))
    return any(_ratio(a, b) > ALIKE for a, b in ((shared, first), (shared, second), (first, second)))


def _words(text: str) -> list[str]:
    return _NO_WORD.sub(" ", text.translate(_LATIN_1)).lower().split()


def _ratio(one: str, other: str) -> int:
    """Return the likeness in per cent. No text is like an empty one."""
    return round(100 * SequenceMatcher(None, one, other).ratio()) if one and other else 0
