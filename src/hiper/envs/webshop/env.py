"""WebShop as a :class:`~hiper.envs.base.TextEnv`."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Mapping
from functools import cache, lru_cache
from importlib.resources import files
from typing import ClassVar, cast

from hiper.envs.base import MOST_TURNS, EndReason, Info, Observation, Start, Step, TextEnv
from hiper.envs.panels import Panel, Task
from hiper.envs.webshop.expert import WebshopExpert
from hiper.envs.webshop.goals import split_goals
from hiper.envs.webshop.layout import labels, laid_out
from hiper.envs.webshop.nouns import AUTO, TAGGERS, choose_tagger
from hiper.envs.webshop.official_files import SMALL
from hiper.envs.webshop.pages import Page, Place, View, follow, page, parse, receipt
from hiper.envs.webshop.reward import judge
from hiper.envs.webshop.shop import ATTRIBUTES, Shop
from hiper.envs.webshop.sources import open_shop
from hiper.errors import UserError

SEARCH = "search[<your query>]"
"""The listing of the free-form action among the admissible ones."""

MOST_UNASKED = 200_000
"""The largest number of goals of a split that are played without ``tasks`` being given."""

_RUNNING = Info(score=0.0)


class WebshopEnv(TextEnv):
    """Shopping from an instruction, in the texts of the original's text mode, character for character.

    An episode ends with a purchase. The reward is ``reward`` if the purchase answers the instruction in every respect,
    and zero otherwise. The original's graded reward is the score. A search is understood on every page, but listed only
    on pages with a search bar.

    The arguments besides ``shop``, the products and the goals, are those of :func:`make`.
    """

    name: ClassVar[str] = "webshop"
    version: ClassVar[str] = "1"
    max_turns = 15
    reward = 10.0
    repeat_instruction = True

    def __init__(
        self,
        shop: Shop,
        split: str = "train",
        *,
        tasks: int | None = None,
        max_turns: int = max_turns,
        reward: float = reward,
        nouns: str = AUTO,
        repeat_instruction: bool = repeat_instruction,
    ) -> None:
        if not 1 <= max_turns <= MOST_TURNS:
            raise UserError(
                f"max_turns is {max_turns}; an episode needs at least one turn, and has {MOST_TURNS:,} at most"
            )
        if tasks is not None and tasks < 1:
            raise UserError(f"tasks is {tasks}; an environment needs at least one")
        self.max_turns = max_turns
        self.reward = reward
        self.nouns = choose_tagger(nouns)
        """The tagger in use. It is part of the tasks' digests, as other nouns give other scores."""
        self._nouns = TAGGERS[self.nouns]()
        self._shop = shop
        self.repeat_instruction = repeat_instruction
        kept = split_goals(shop.goals, shop.products, split)
        if tasks is None and len(kept) > MOST_UNASKED:
            raise UserError(
                f"{shop.name}/{split} has {len(kept):,} goals; say how many to play: tasks={MOST_UNASKED}, or more if "
                "time and memory allow (each takes about 0.1 ms and 0.3 kB)"
            )
        indices = kept[:tasks].tolist()
        self._indices = {f"{shop.name}/{split}/{index:07d}": index for index in indices}
        self.panel = Panel.of(f"{shop.name}/{split}", itertools.starmap(self._task, self._indices.items()))
        self._view = View()

    @property
    def official(self) -> bool | None:
        """Whether this is exactly the official panel of its name, shown as usual; None if there is no such panel."""
        known = official_panels().get(self.panel.name)
        as_usual = ATTRIBUTES not in self._shop.details
        return None if known is None else as_usual and known[self.nouns] == self.panel.hash

    def _reset(self, task_id: str, seed: int) -> Start:
        """Begin an episode. Shops have no chance in them, so ``seed`` changes nothing."""
        self._goal = self._shop.goals.goal(self._indices[self.panel[task_id].id], self._shop.products)
        self._view = View()
        return Start(self._goal.instruction, self._observe())

    def _step(self, action: str) -> Step:
        self._view = follow(self._shop, self._view, action) or self._view
        if self._view.place is Place.DONE:
            return self._buy()
        return Step(self._observe(), reward=0.0, terminated=False, truncated=False, info=_RUNNING)

    def accepts(self, action: str, observation: Observation) -> bool:
        """Whether the shop would understand ``action``: any search, or a click on a listed label."""
        parsed = parse(action)
        if parsed is None:
            return False
        verb, argument = parsed
        return verb == "search" or (verb == "click" and f"click[{argument}]" in (observation.admissible or ()))

    def for_people(self, observation: Observation) -> Observation:
        """Lay the current page out on lines, with price and title beside the ids of products."""
        words = labels(self._shop, self._view)
        said = ((action, parse(action)) for action in observation.admissible or ())
        actions = (f"{a}  {words[p[1]]}" if p and p[1] in words else a for a, p in said)
        return Observation("\n".join(laid_out(self._shop, self._view)), tuple(actions))

    def expert(self) -> WebshopExpert:
        """Return a player that is easy to imitate: it searches for words of the instruction and compares titles."""
        return WebshopExpert()

    def _task(self, task_id: str, index: int) -> Task:
        goal = self._shop.goals.goal(index, self._shop.products)
        content = "\n".join((goal.digest, self._shop.products.fingerprint, self.nouns))
        return Task(task_id, goal.product.category, hashlib.sha256(content.encode()).hexdigest())

    def _observe(self) -> Observation:
        instruction = self._goal.instruction if self.repeat_instruction else None
        seen = page(self._shop, self._view, instruction)
        return Observation(seen.text, _admissible(seen))

    def _buy(self) -> Step:
        product = self._shop.products[self._view.item]
        price = float(self._shop.products.prices_N[self._view.item])
        judged = judge(product, self._view.options.values(), price, self._goal, self._nouns)
        won = judged.total == 1.0
        seen = receipt(product, self._view.options, judged.total)
        return Step(
            observation=Observation(seen.text, _admissible(seen)),
            reward=self.reward if won else 0.0,
            terminated=True,
            truncated=False,
            info=Info(won, EndReason.WON if won else EndReason.LOST, judged.total, judged.parts),
        )


@cache
def official_panels() -> Mapping[str, Mapping[str, str]]:
    """Return the hashes of the official panels: by name, then by noun tagger."""
    text = files("hiper.envs.webshop").joinpath("panels", "official.json").read_text()
    return cast(Mapping[str, Mapping[str, str]], json.loads(text))


def _admissible(seen: Page) -> tuple[str, ...]:
    """Return the actions that a page allows. A label with brackets may be shown that no click can name."""
    named = tuple(click for label in seen.clickables if (click := _click(label)))
    return (SEARCH, *named) if seen.search_bar else named


@lru_cache(1 << 14)
def _click(label: str) -> str | None:
    """Return the action that clicks on ``label``, or None if no action does."""
    action = f"click[{label}]"
    return action if label != "search" and parse(action) == ("click", label) else None


def make(
    split: str = "train",
    data: str | os.PathLike[str] | None = None,
    catalogue: str = SMALL.name,
    products: int | None = None,
    human: bool = False,
    tasks: int | None = None,
    max_turns: int = WebshopEnv.max_turns,
    reward: float = WebshopEnv.reward,
    nouns: str = AUTO,
    repeat_instruction: bool = WebshopEnv.repeat_instruction,
    show_attributes: bool = False,
    seed: int = 0,
) -> WebshopEnv:
    """Make WebShop over one split.

    Args:
        split: "train", "validation" or "test".
        data: folder of the official files; "generated" for generated products, which need no data; None: the folder
            that WEBSHOP_DATA names, or ``~/.cache/webshop``.
        catalogue: the official catalogue, "small" (1,000 products) or "full" (1.18 million).
        products: the number of products to sell, the first ones; None: all (of generated products, 1,000).
        human: use the instructions that people wrote.
        tasks: the number of goals to play, the first ones; None: all, if there are at most :data:`MOST_UNASKED`. The
            full catalogue has millions.
        max_turns: turns until an unfinished episode is truncated.
        reward: the reward for a perfect purchase.
        nouns: how the nouns of titles are found: with "spacy", as in the original; as "words", where every word counts;
            or "auto", which takes spaCy where it is installed.
        repeat_instruction: whether every page shows the instruction, as the original's pages do.
        show_attributes: whether items have a page of the attributes that the reward compares.
        seed: seed of generated products.

    Raises:
        UserError: there are no such products or goals.
    """
    shop = open_shop(data, catalogue, products, human, seed)
    return WebshopEnv(
        shop.showing_attributes() if show_attributes else shop,
        split,
        tasks=tasks,
        max_turns=max_turns,
        reward=reward,
        nouns=nouns,
        repeat_instruction=repeat_instruction,
    )
