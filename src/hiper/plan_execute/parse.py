"""Parsing of responses: the written form of a decision, and the effect of an invalid response.

A decision is written as three blocks. The form is strict, so that nothing is guessed. Each block stands there exactly
once, in order, and is not empty. The switch word is exact. White space around blocks and inside tags is free. So is
text outside the blocks, for example a chain of thought before them, unless it holds one of the tags.

A response may begin with a thinking block, where the settings say so (``prompt.thinking``). It is set aside before
anything else is read, so tags in it mean nothing. It begins with its opening mark, or in the prompt, and ends with the
first closing mark. A block that never closes leaves no answer.

The effect of a response:

======================== ================================= ====================== ==========================
the response             action sent to the environment    subgoal from now on    ``decision``
======================== ================================= ====================== ==========================
valid, SWITCH            as stated                         as stated              as stated
valid, KEEP              as stated                         the previous one       with the previous subgoal
valid, KEEP, no previous as stated                         as stated              as stated
``inadmissible_action``  as stated                         as if valid            as if valid
any other invalid kind   :data:`NO_ACTION`                 the previous one       none
======================== ================================= ====================== ==========================

In the form without a plan (:attr:`Form.ACTION`), the action's block is the only one, and all other text is free. Such
a response always means KEEP, and its subgoal is empty.

A response of the last row has no effect at all, even if one of its blocks is valid. The environment does not understand
:data:`NO_ACTION`, so the turn is lost. An inadmissible action in a valid form is a wrong decision, not a wrong form. It
is counted as a kind of its own, and :attr:`Parsed.format_valid` tells the two apart.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import NamedTuple

from hiper.config import ThinkingConfig
from hiper.envs.base import Decision

KEEP, SWITCH = "KEEP", "SWITCH"
SWITCH_WORDS = (KEEP, SWITCH)

NO_ACTION = ""
"""The action that the environment gets for a response with an invalid form."""


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
    """The action alone, for an agent without subgoals."""


TAGS = tuple(tag for name in BlockName for tag in (f"<{name}>", f"</{name}>"))
"""The tags of a response, in order."""

_TAGS_OF = {Form.PLAN_EXECUTE: TAGS, Form.ACTION: TAGS[-2:]}
_BLOCK_OF_TAGS = {(f"<{name}>", f"</{name}>"): name for name in BlockName}
_TAG = re.compile("|".join(map(re.escape, TAGS)))


class InvalidKind(StrEnum):
    """Why a response is invalid. If several kinds apply, the first in this order counts."""

    UNCLOSED_THINKING = "unclosed_thinking"
    """The response begins with a thinking block that never closes."""
    CUT_OFF = "cut_off"
    """The token limit ended the response before </action>."""
    REPEATED_BLOCK = "repeated_block"
    """A tag is repeated."""
    MISSING_BLOCK = "missing_block"
    """A tag is missing."""
    WRONG_ORDER = "wrong_order"
    """Each tag appears once, but in another order."""
    EMPTY_BLOCK = "empty_block"
    """A block is empty."""
    UNKNOWN_SWITCH = "unknown_switch"
    """The switch word is neither KEEP nor SWITCH."""
    INADMISSIBLE_ACTION = "inadmissible_action"
    """The form is valid, but the environment does not accept the action."""


class Span(NamedTuple):
    """The characters from ``start`` up to, but not including, ``end``."""

    start: int
    end: int

    def of(self, text: str) -> str:
        """The characters of the span in ``text``."""
        return text[self.start : self.end]


class Block(NamedTuple):
    """The place of a block in its response."""

    outer: Span
    """The block with its tags."""
    inner: Span
    """The content of the block, without its tags and without white space around it."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """A parsed response."""

    invalid: InvalidKind | None
    """Why the response is invalid. None if it is valid."""
    decision: Decision | None
    """The decision, with the subgoal that is in force from now on. None if the form is invalid."""
    stated_subgoal: str | None
    """The subgoal as the response states it. None if the form is invalid."""
    previous_subgoal: str | None
    """The subgoal that was in force before the response. None before the first."""
    blocks: Mapping[BlockName, Block]
    """The blocks that are complete and appear once. An invalid response may have some too."""
    thinking: int = 0
    """The number of characters at the beginning of the response that are its thinking block."""

    @property
    def format_valid(self) -> bool:
        """Whether the form is valid. The action may still be inadmissible."""
        return self.decision is not None

    @property
    def action(self) -> str:
        """The action for the environment."""
        return NO_ACTION if self.decision is None else self.decision.action

    @property
    def subgoal(self) -> str | None:
        """The subgoal that is in force from now on."""
        return self.previous_subgoal if self.decision is None else self.decision.subgoal

    @property
    def boundary(self) -> bool:
        """Whether this response stated the subgoal in force. The first turn of an episode starts a segment anyway."""
        return self.decision is not None and (self.decision.switch or self.previous_subgoal is None)

    @property
    def copy_differs(self) -> bool:
        """Whether the response keeps the subgoal but states it in other words."""
        return self.decision is not None and not self.boundary and self.stated_subgoal != self.previous_subgoal


def response_text(decision: Decision, form: Form = Form.PLAN_EXECUTE) -> str:
    """The answer that states ``decision``."""
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
    thinking: ThinkingConfig | None = None,
    opened: bool = False,
) -> Parsed:
    """Read a response.

    Args:
        text: the response without its end-of-sequence token.
        previous_subgoal: the subgoal in force before the response. None before the first.
        accepts: whether the environment accepts an action now.
        understand: maps an action in the template's wording to the environment's action.
        hit_limit: whether the token limit ended the response.
        form: what the response has to state.
        thinking: the marks of a thinking block before the answer. None: there is none.
        opened: whether the prompt ends with the opening mark, so that the response begins inside the block.
    """
    begin = 0 if thinking is None else _end_of_thinking(text, thinking, opened)
    if begin is None:
        return Parsed(InvalidKind.UNCLOSED_THINKING, None, None, previous_subgoal, {}, len(text))
    tags = [tag for tag in _TAG.finditer(text, begin) if tag[0] in _TAGS_OF[form]]
    blocks = _find_blocks(text, tags)
    contents = {name: block.inner.of(text) for name, block in blocks.items()}
    invalid = _check_form([tag[0] for tag in tags], contents, hit_limit, form)
    if invalid is not None:
        return Parsed(invalid, None, None, previous_subgoal, blocks, begin)
    switch = contents.get(BlockName.SWITCH) == SWITCH
    stated = " ".join(contents.get(BlockName.SUBGOAL, "").split())  # later prompts show it on one line
    action = understand(contents[BlockName.ACTION])
    followed = stated if switch or previous_subgoal is None else previous_subgoal
    decision = Decision(switch=switch, subgoal=followed, action=action)
    refused = None if accepts(action) else InvalidKind.INADMISSIBLE_ACTION
    return Parsed(refused, decision, stated, previous_subgoal, blocks, begin)


def _end_of_thinking(text: str, marks: ThinkingConfig, opened: bool) -> int | None:
    """Where the thinking block at the beginning of a response ends. 0: there is no block. None: it never closes."""
    begin = len(text) - len(text.lstrip())
    if not opened and not text.startswith(marks.open, begin):
        return 0
    close = text.find(marks.close, 0 if opened else begin + len(marks.open))
    return None if close < 0 else close + len(marks.close)


def stated_switch(text: str) -> str | None:
    """The content of an answer's switch block, whether its form is valid or not. None if there is no such block."""
    block = _find_blocks(text, list(_TAG.finditer(text))).get(BlockName.SWITCH)
    return None if block is None else block.inner.of(text)


def _check_form(tags: list[str], contents: Mapping[BlockName, str], hit_limit: bool, form: Form) -> InvalidKind | None:
    expected = _TAGS_OF[form]
    if tags == list(expected):  # the usual case
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
    """The blocks whose tags appear once, with no other tag between them."""
    times = Counter(tag[0] for tag in tags)
    return {
        _BLOCK_OF_TAGS[opening[0], closing[0]]: Block(
            outer=Span(opening.start(), closing.end()), inner=_content(text, opening.end(), closing.start())
        )
        for opening, closing in pairwise(tags)
        if (opening[0], closing[0]) in _BLOCK_OF_TAGS and times[opening[0]] == times[closing[0]] == 1
    }


def _content(text: str, start: int, end: int) -> Span:
    """The span from ``start`` to ``end`` without white space around it."""
    content = text[start:end].lstrip()
    return Span(end - len(content), end - len(content) + len(content.rstrip()))
