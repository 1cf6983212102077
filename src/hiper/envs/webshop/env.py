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

from hiper.envs.base import EndReason, Info, Observation, Start, Step, TextEnv
from hiper.envs.panels import Panel, Task
from hiper.envs.webshop.data import open_shop
from hiper.envs.webshop.expert import WebshopExpert
from hiper.envs.webshop.goals import split_goals
from hiper.envs.webshop.nouns import AUTO, TAGGERS, choose_tagger
from hiper.envs.webshop.pages import Page, Place, View, follow, page, parse, receipt
from hiper.envs.webshop.reward import judge
from hiper.envs.webshop.shop import ATTRIBUTES, Shop
from hiper.errors import UserError

SEARCH = "search[<your query>]"
"""How the free-form action is listed among the admissible ones."""

MOST_UNASKED = 200_000
"""Goals of a split that are all taken if nothing is said."""

_RUNNING = Info(score=0.0)


class WebshopEnv(TextEnv):
    """Shopping from an instruction, in the texts of the original's text mode, character for character.

    An episode ends with a purchase. The reward is ``reward`` if that answers the instruction in every respect, and
    zero otherwise; the original's graded reward is the score. A search is understood everywhere, but listed only where
    there is a search bar.

    Args:
        shop: what is sold and asked for.
        split: "train", "validation" or "test".
        tasks: play only so many goals, the first ones; None: all, of not more than :data:`MOST_UNASKED`.
        max_turns: turns until an unfinished episode is truncated.
        reward: what a perfect purchase pays.
        nouns: who finds the nouns of titles: "spacy", as the original, "words", or "auto" for spaCy where installed.
        repeat_instruction: whether every page says the instruction, as the original's do.
    """

    name: ClassVar[str] = "webshop"
    version: ClassVar[str] = "1"

    def __init__(
        self,
        shop: Shop,
        split: str = "train",
        *,
        tasks: int | None = None,
        max_turns: int = 15,
        reward: float = 10.0,
        nouns: str = AUTO,
        repeat_instruction: bool = True,
    ) -> None:
        if max_turns < 1:
            raise UserError(f"max_turns is {max_turns}; an episode needs at least one turn")
        if tasks is not None and tasks < 1:
            raise UserError(f"tasks is {tasks}; an environment needs at least one")
        self.max_turns = max_turns
        self.reward = reward
        self.nouns = choose_tagger(nouns)
        """Which tagger it came to; part of the tasks' digests, as other nouns give other scores."""
        self._nouns = TAGGERS[self.nouns]()
        self._shop = shop
        self._repeats = repeat_instruction
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
        """Whether this is exactly the official panel of its name, as it is usually shown; None if there is none."""
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
        """Whether the shop would understand ``action``: any search, or a click on what is listed."""
        parsed = parse(action)
        if parsed is None:
            return False
        verb, argument = parsed
        return verb == "search" or (verb == "click" and f"click[{argument}]" in (observation.admissible or ()))

    def expert(self) -> WebshopExpert:
        """A player that searches with the words of the instruction and compares titles: easy to imitate."""
        return WebshopExpert()

    def _task(self, task_id: str, index: int) -> Task:
        goal = self._shop.goals.goal(index, self._shop.products)
        content = "\n".join((goal.digest, self._shop.products.fingerprint, self.nouns))
        return Task(task_id, goal.product.category, hashlib.sha256(content.encode()).hexdigest())

    def _observe(self) -> Observation:
        instruction = self._goal.instruction if self._repeats else None
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
    """The hashes of the official panels under each noun tagger, by name."""
    text = files("hiper.envs.webshop").joinpath("panels", "official.json").read_text()
    return cast(Mapping[str, Mapping[str, str]], json.loads(text))


def _admissible(seen: Page) -> tuple[str, ...]:
    """What can be done on a page; a label with brackets may be shown that no click can name."""
    named = tuple(click for label in seen.clickables if (click := _click(label)))
    return (SEARCH, *named) if seen.search_bar else named


@lru_cache(1 << 14)
def _click(label: str) -> str | None:
    """The action that clicks on ``label``; None if none does."""
    action = f"click[{label}]"
    return action if label != "search" and parse(action) == ("click", label) else None


def make(
    split: str = "train",
    data: str | os.PathLike[str] | None = None,
    catalogue: str = "small",
    products: int | None = None,
    human: bool = False,
    tasks: int | None = None,
    max_turns: int = 15,
    reward: float = 10.0,
    nouns: str = AUTO,
    repeat_instruction: bool = True,
    show_attributes: bool = False,
    seed: int = 0,
) -> WebshopEnv:
    """WebShop over one split.

    Args:
        split: "train", "validation" or "test".
        data: folder of the official files; "generated" for generated products, which need no data; None: where
            WEBSHOP_DATA says, then ``~/.cache/webshop``.
        catalogue: which official one, "small" (1,000 products) or "full" (1.18 million).
        products: sell only the first so many; None: all (of generated ones, 1,000).
        human: ask with the instructions that people wrote.
        tasks: play only so many goals, the first ones; None: all. The full catalogue has millions, and has to be told.
        max_turns: turns until an unfinished episode is truncated.
        reward: what a perfect purchase pays.
        nouns: who finds the nouns of titles: "spacy", "words", or "auto" for spaCy where it is installed.
        repeat_instruction: whether every page says the instruction.
        show_attributes: give items a page of the attributes that the reward looks at.
        seed: of generated products.

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
