"""What a purchase is worth: how well the product bought answers the request, from 0 to 1.

    r = r_type * (attributes met + options met + [price <= limit]) / (attributes asked + options asked + 1)

and r_type in {0, 0.1, 0.5, 1} from the likeness of titles, searches and categories. Source: WebShop (Yao et al., 2022,
arXiv 2207.01206, section 3), and where that leaves details open, its code. Texts are alike where ``thefuzz`` gives them
a token set ratio above 85; its ratio is that of the standard library's difflib, as the original installs it.
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
"""Per cent above which two texts count as the same."""

# The order decides: the first that a text contains is its colour.
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
    """A purchase judged. Shares are of what was asked for."""

    type: float
    title: float
    """Share of the nouns in the wanted product's title that the bought one's has."""
    same_query: bool
    same_category: bool
    attributes: float
    options: float | None
    """None: no options were asked for."""
    price: bool
    """Whether it costs no more than the limit."""
    total: float

    @property
    def parts(self) -> dict[str, float]:
        """Its factors by name, for display."""
        parts = {"type": self.type, "attributes": self.attributes, "price": float(self.price)}
        return parts if self.options is None else {**parts, "options": self.options}


def judge(bought: Product, options: Iterable[str], price: float, goal: Goal, nouns: Tagger) -> Reward:
    """The reward for buying a product.

    Args:
        bought: the product.
        options: the option values chosen for it.
        price: what it costs, dollars.
        goal: what was asked for.
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
    """The first colour that a value names, which then stands for all of it."""
    return next((colour for colour in _COLOURS if colour in value), value)


def _wanted_option(option: tuple[str, str]) -> str:
    """An option asked for, as texts are compared with it.

    The original looks for colours in a text, and in a named option, a pair, for one that is a member of it; else the
    pair stands as Python prints it.
    """
    name, value = option
    return next((colour for colour in _COLOURS if colour in option), str(option)) if name else _colour(value)


@lru_cache(1 << 16)
def alike(one: str, other: str) -> bool:
    """Whether two texts count as the same: by their sets of words, what they share against what each has beside it."""
    words, others = (set(_words(text)) for text in (one, other))
    if not words or not others:
        return False
    shared = " ".join(sorted(words & others))
    first, second = (" ".join([shared, *sorted(rest)]).strip() for rest in (words - others, others - words))
    return any(_ratio(a, b) > ALIKE for a, b in ((shared, first), (shared, second), (first, second)))


def _words(text: str) -> list[str]:
    return _NO_WORD.sub(" ", text.translate(_LATIN_1)).lower().split()


def _ratio(one: str, other: str) -> int:
    """Likeness in per cent; nothing is like an empty text."""
    return round(100 * SequenceMatcher(None, one, other).ratio()) if one and other else 0
