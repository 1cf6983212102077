"""A rule-based buyer that knows no more than an agent: the instruction, what it has read, the admissible actions.

It searches for the product's words, followed by the values of the options asked for, several times over. The search
covers options, they tell products apart best, and a word counts as often as it is said. It opens the first product
within the price, chooses the options one by one, and buys. It leaves a product that lacks an option for the next one.

It is written to be *imitated*. The shop does not show what has been chosen. But nearly every decision follows from the
instruction, the page, the last action and the subgoal. The subgoals for green trousers in size 9 are ``find trousers``,
``choose green``, ``choose 9``, ``buy``, and ``find second trousers`` where the first ones were not suitable.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from hiper.envs.base import Decision, Observation, Start
from hiper.envs.webshop.pages import BACK, BUY, NEXT, PREVIOUS, SEPARATOR
from hiper.errors import UserError

ORDINALS = ("second", "third", "fourth", "fifth")
PATIENCE = len(ORDINALS)
"""The number of unsuitable products after which the next one is bought, whatever it lacks."""
EMPHASIS = 3
"""How often a search names each option's value."""

_LIMIT = re.compile(r",? and price lower than (\d+\.\d+) dollars$")
_OPTION = re.compile(r", and (?=[^:,]+: )")
_PRICE = re.compile(r"\$(\d+(?:\.\d+)?)")


@dataclass(frozen=True, slots=True)
class Request:
    """The meaning of an instruction."""

    words: str
    """The product in words, without options and price."""
    options: tuple[tuple[str, str], ...]
    """Values of the options asked for, by name. Empty where a person wrote the instruction."""
    limit: float
    """Dollars."""

    @classmethod
    def read(cls, instruction: str) -> Request:
        """Read an instruction in the benchmark's form, or as a person writes it."""
        text, limit = instruction.strip(), float("inf")
        if bound := _LIMIT.search(text):
            text, limit = text[: bound.start()], float(bound[1])
        colon = text.find(": ")
        start = text.rfind(" with ", 0, colon) if colon >= 0 else -1
        named = _OPTION.split(text[start + len(" with ") :]) if start >= 0 else []
        wanted = text[:start] if start >= 0 else text
        words = re.sub(r"^find me ", "", wanted, flags=re.IGNORECASE)
        options = (option.partition(": ") for option in named)
        return cls(words, tuple((name, value) for name, _, value in options), limit)

    @property
    def query(self) -> str:
        """The query: the product in words, then the options' values several times over."""
        values = [value for _, value in self.options]
        return " ".join((_without_commas(self.words), *values * EMPHASIS))

    @property
    def thing(self) -> str:
        """The product in fewer words: up to the first "with" or "for"."""
        return _without_commas(re.split(r" (?:with|for) ", self.words, maxsplit=1)[0])


def _without_commas(text: str) -> str:
    return text.replace(",", "")


@dataclass(frozen=True, slots=True)
class Offer:
    """A product on a page of results."""

    action: str
    """The label that opens it."""
    title: str
    price: float
    """The lowest price, in dollars."""


@dataclass
class WebshopExpert:
    """The player. Beyond the page it remembers which products it has left, and what it has chosen on this one."""

    _request: Request = field(init=False)
    _subgoal: str = field(init=False, default="")
    _opened: Offer | None = field(init=False, default=None)
    """The current product, or the last one."""
    _left: list[str] = field(init=False, default_factory=list)
    """The labels of the products that were not suitable."""
    _chosen: list[str] = field(init=False, default_factory=list)
    """Values clicked for the current product, in order."""
    _page: Observation = field(init=False, default=Observation(""))

    def reset(self, start: Start) -> None:
        """Forget the last episode and read the new task."""
        self._request = Request.read(start.goal)
        self._subgoal, self._opened, self._left, self._chosen = "", None, [], []
        self._page = start.observation

    def act(self, observation: Observation) -> Decision:
        """Decide on the next turn."""
        self._page = observation
        subgoal, action = self._decide(_clicks(observation))
        switch, self._subgoal = subgoal != self._subgoal, subgoal
        return Decision(switch, subgoal, action)

    def acted(self, action: str, observation: Observation) -> None:
        """Learn the outcome of an action."""
        label, offers = _label(action), _offers(self._page)
        opened = next((offer for offer in offers if offer.action == action), None)
        if opened is not None:
            self._opened, self._chosen = opened, []
        elif _is_item(self._page) and label in (PREVIOUS, BACK):
            if self._opened is not None and not self._will_do(self._wanted()):
                self._left.append(self._opened.action)
            self._chosen = []
        elif any(label in values for values in _options(self._page).values()):
            self._chosen.append(label)
        self._page = observation

    def slip(self, observation: Observation, rng: random.Random) -> Decision | None:
        """Return a hasty mistake: to open the first product offered, or to buy the current one as it is."""
        subgoal, action = self._decide(_clicks(observation))
        if _is_item(observation):
            subgoal, hasty = "buy", _click(BUY)
        elif offers := _offers(observation):
            hasty = offers[0].action
        else:
            return None
        return Decision(subgoal != self._subgoal, subgoal, hasty) if hasty != action else None

    def _decide(self, clicks: Sequence[str]) -> tuple[str, str]:
        """Return the subgoal and the action for the current page."""
        find = self._find(len(self._left))
        if _is_item(self._page):
            return self._look_at_item()
        if offers := _offers(self._page):
            suitable = self._first_of(offers)
            return find, _click(NEXT) if suitable is None else suitable.action
        if _click(PREVIOUS) in clicks and _click(NEXT) not in clicks:
            return self._subgoal or find, _click(PREVIOUS)  # one of an item's further pages
        if _click(BACK) in clicks:
            return find, _click(BACK)
        return find, f"search[{self._request.query}]"

    def _find(self, left: int) -> str:
        """Return the subgoal of looking for a product after ``left`` unsuitable ones."""
        return " ".join(("find", *ORDINALS[max(0, left - 1) : left], self._request.thing))

    def _first_of(self, offers: Iterable[Offer]) -> Offer | None:
        """Return the first offer within the price that was not left before, or None."""
        fit = (offer for offer in offers if offer.price <= self._request.limit and offer.action not in self._left)
        return next(fit, None)

    def _look_at_item(self) -> tuple[str, str]:
        wanted = self._wanted()
        if not self._will_do(wanted):
            return self._find(len(self._left) + 1), _click(PREVIOUS)
        for value, values in wanted.items():
            chosen = next((clicked for clicked in reversed(self._chosen) if clicked in values), None)
            if values and chosen != value:
                return f"choose {value}", _click(value)
        return "buy", _click(BUY)

    def _wanted(self) -> dict[str, Sequence[str]]:
        """Return the values to choose on the current page, each with all values of its option, or none if missing."""
        options = _options(self._page)
        if self._request.options:
            return {
                value: next((values for values in options.values() if value in values), ())
                for _, value in self._request.options
            }
        asked = f" {self._request.words.lower()} "
        said = ((values, [value for value in values if f" {value} " in asked]) for values in options.values())
        return {max(mentioned, key=len): values for values, mentioned in said if mentioned}

    def _will_do(self, wanted: Mapping[str, Sequence[str]]) -> bool:
        """Whether to buy the current product."""
        if len(self._left) >= PATIENCE or self._opened is None:
            return True
        fits = self._opened.price <= self._request.limit and self._opened.action not in self._left
        return fits and all(wanted.values())


def _clicks(observation: Observation) -> tuple[str, ...]:
    if observation.admissible is None:
        raise UserError("the WebShop expert reads the admissible actions, and this environment gives none")
    return observation.admissible


def _click(label: str) -> str:
    return f"click[{label}]"


def _label(action: str) -> str:
    return action.removeprefix("click[").removesuffix("]")


def _is_item(observation: Observation) -> bool:
    return _click(BUY) in _clicks(observation)


def _offers(observation: Observation) -> list[Offer]:
    """Return the products on a page of results, in its order. Other pages have none."""
    texts = observation.text.split(SEPARATOR)
    places = {text.lower(): at for at, text in enumerate(texts)}
    if _is_item(observation) or _click(NEXT) not in _clicks(observation):
        return []
    found = ((label, places[label]) for label in map(_label, _clicks(observation)) if label in places)
    return [
        Offer(_click(label), texts[at + 1], float(price[1]))
        for label, at in found
        if label not in (BACK, NEXT, PREVIOUS) and (price := _PRICE.search(" ".join(texts[at + 2 : at + 3])))
    ]


def _options(observation: Observation) -> dict[str, list[str]]:
    """Return the values to choose from on a product's page, by the option's name. Other pages have none."""
    if not _is_item(observation):
        return {}
    texts, labels = observation.text.split(SEPARATOR), set(map(_label, _clicks(observation)))
    start = next((at for at, text in enumerate(texts) if text.lower() == PREVIOUS), len(texts)) + 1
    options: dict[str, list[str]] = {}
    name = ""
    for text in texts[start:]:
        if text in labels:
            options.setdefault(name, []).append(text)
        elif text.startswith("Price: "):
            break
        else:
            name = text
    return options
