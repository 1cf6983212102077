"""The written form of a decision: three blocks, and what a response that strays from it means.

The form is strict, so that nothing is guessed: each of the three blocks exactly once, in order, none empty, the switch
word exact. White space around the blocks and inside their tags is free, and so is text outside the blocks (a chain of
thought before them, for example) as long as it holds none of the tags.

What a response comes to:

======================== ================================= ====================== ==========================
the response             action sent to the environment    subgoal from now on    ``decision``
======================== ================================= ====================== ==========================
valid, SWITCH            as stated                         as stated              as stated
valid, KEEP              as stated                         the previous one       with the previous subgoal
valid, KEEP, no previous as stated                         as stated              as stated
``inadmissible_action``  as stated                         as if valid            as if valid
any other invalid kind   :data:`NO_ACTION`                 the previous one       none
======================== ================================= ====================== ==========================

Without a plan (:attr:`Form.ACTION`) there is the action's block alone, and what else a response holds is free. Every
such response says KEEP, and the subgoal is empty.

A response of the last row is never acted on in part: its three decisions stand or fall together. The environment does
not understand :data:`NO_ACTION`, and the turn is spent. An action that is well stated but not understood is a wrong
decision rather than a wrong form; it is counted as a kind of its own and told apart by :attr:`Parsed.format_valid`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import NamedTuple

from hiper.envs.base import Decision

KEEP, SWITCH = "KEEP", "SWITCH"
SWITCH_WORDS = (KEEP, SWITCH)

NO_ACTION = ""
"""What the environment is sent for a response whose form is invalid."""


class BlockName(StrEnum):
    """The blocks of a response, in order."""

    SWITCH = "switch"
    SUBGOAL = "subgoal"
    ACTION = "action"


class Form(StrEnum):
    """What a response has to state."""

    PLAN_EXECUTE = "plan-execute"
    """All three blocks."""
    ACTION = "action"
    """The action alone: an agent without subgoals."""


TAGS = tuple(tag for name in BlockName for tag in (f"<{name}>", f"</{name}>"))
"""The tags of a response, in order."""

_TAGS_OF = {Form.PLAN_EXECUTE: TAGS, Form.ACTION: TAGS[-2:]}
_BLOCK_OF_TAGS = {(f"<{name}>", f"</{name}>"): name for name in BlockName}
_TAG = re.compile("|".join(map(re.escape, TAGS)))


class InvalidKind(StrEnum):
    """Why a response is invalid. The first that applies, in this order."""

    CUT_OFF = "cut_off"
    """Ended by the token limit before </action>."""
    REPEATED_BLOCK = "repeated_block"
    """A tag stands there more than once."""
    MISSING_BLOCK = "missing_block"
    """A tag is missing."""
    WRONG_ORDER = "wrong_order"
    """All tags, each once, in another order."""
    EMPTY_BLOCK = "empty_block"
    """A block holds nothing."""
    UNKNOWN_SWITCH = "unknown_switch"
    """A switch word that is neither KEEP nor SWITCH."""
    INADMISSIBLE_ACTION = "inadmissible_action"
    """The form is right, but the environment would not understand the action."""


class Span(NamedTuple):
    """Characters ``start`` up to, not including, ``end``."""

    start: int
    end: int

    def of(self, text: str) -> str:
        """The characters themselves."""
        return text[self.start : self.end]


class Block(NamedTuple):
    """Where a block stands in its response."""

    outer: Span
    """With its tags."""
    inner: Span
    """Its content: without tags, and without white space around it."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a response says."""

    invalid: InvalidKind | None
    decision: Decision | None
    """What is done, with the subgoal really followed; None where the form is invalid."""
    stated_subgoal: str | None
    """The subgoal in the response's own words; None where the form is invalid."""
    previous_subgoal: str | None
    blocks: Mapping[BlockName, Block]
    """The blocks that stand there once and whole, also of an invalid response."""

    @property
    def format_valid(self) -> bool:
        """Whether the form is right, whatever the environment thinks of the action."""
        return self.decision is not None

    @property
    def action(self) -> str:
        """What is sent to the environment."""
        return NO_ACTION if self.decision is None else self.decision.action

    @property
    def subgoal(self) -> str | None:
        """The subgoal in force from now on."""
        return self.previous_subgoal if self.decision is None else self.decision.subgoal

    @property
    def boundary(self) -> bool:
        """Whether the subgoal in force was stated this turn. An episode's first turn begins a segment in any case."""
        return self.decision is not None and (self.decision.switch or self.previous_subgoal is None)

    @property
    def copy_differs(self) -> bool:
        """Whether the subgoal was kept but not copied word for word."""
        return self.decision is not None and not self.boundary and self.stated_subgoal != self.previous_subgoal


def response_text(decision: Decision, form: Form = Form.PLAN_EXECUTE) -> str:
    """The response that states ``decision``."""
    action = f"<action>{decision.action}</action>"
    if form is Form.ACTION:
        return action
    word = SWITCH if decision.switch else KEEP
    return f"<switch>{word}</switch>\n<subgoal>{decision.subgoal}</subgoal>\n{action}"


def parse_response(
    text: str,
    *,
    previous_subgoal: str | None,
    accepts: Callable[[str], bool] = lambda action: True,
    understand: Callable[[str], str] = lambda said: said,
    hit_limit: bool = False,
    form: Form = Form.PLAN_EXECUTE,
) -> Parsed:
    """Read a response.

    Args:
        text: the response without the token that ends it.
        previous_subgoal: the subgoal in force before it, None before the first.
        accepts: whether the environment would understand an action now.
        understand: the environment's action that is meant by what is said.
        hit_limit: whether generation was stopped by the token limit.
        form: what had to be stated.
    """
    tags = [tag for tag in _TAG.finditer(text) if tag[0] in _TAGS_OF[form]]
    blocks = _find_blocks(text, tags)
    contents = {name: block.inner.of(text) for name, block in blocks.items()}
    invalid = _check_form([tag[0] for tag in tags], contents, hit_limit, form)
    if invalid is not None:
        return Parsed(invalid, None, None, previous_subgoal, blocks)
    switch = contents.get(BlockName.SWITCH) == SWITCH
    stated = " ".join(contents.get(BlockName.SUBGOAL, "").split())  # it becomes a line of later prompts
    action = understand(contents[BlockName.ACTION])
    followed = stated if switch or previous_subgoal is None else previous_subgoal
    decision = Decision(switch=switch, subgoal=followed, action=action)
    refused = None if accepts(action) else InvalidKind.INADMISSIBLE_ACTION
    return Parsed(refused, decision, stated, previous_subgoal, blocks)


def stated_switch(text: str) -> str | None:
    """What stands in the switch block of a response, whatever its form; None where there is no such block."""
    block = _find_blocks(text, list(_TAG.finditer(text))).get(BlockName.SWITCH)
    return None if block is None else block.inner.of(text)


def _check_form(tags: list[str], contents: Mapping[BlockName, str], hit_limit: bool, form: Form) -> InvalidKind | None:
    expected = _TAGS_OF[form]
    if tags == list(expected):  # nearly always
        if not all(contents.values()):
            return InvalidKind.EMPTY_BLOCK
        if contents.get(BlockName.SWITCH, KEEP) not in SWITCH_WORDS:
            return InvalidKind.UNKNOWN_SWITCH
        return None
    if hit_limit and TAGS[-1] not in tags:
        return InvalidKind.CUT_OFF
    if len(set(tags)) < len(tags):
        return InvalidKind.REPEATED_BLOCK
    return InvalidKind.MISSING_BLOCK if len(tags) < len(expected) else InvalidKind.WRONG_ORDER


def _find_blocks(text: str, tags: list[re.Match[str]]) -> Mapping[BlockName, Block]:
    """The blocks whose tags stand there once, one right behind the other."""
    words = [tag[0] for tag in tags]
    return {
        _BLOCK_OF_TAGS[opening[0], closing[0]]: Block(
            outer=Span(opening.start(), closing.end()), inner=_content(text, opening.end(), closing.start())
        )
        for opening, closing in pairwise(tags)
        if (opening[0], closing[0]) in _BLOCK_OF_TAGS and words.count(opening[0]) == words.count(closing[0]) == 1
    }


def _content(text: str, start: int, end: int) -> Span:
    content = text[start:end].lstrip()
    return Span(end - len(content), end - len(content) + len(content.rstrip()))
