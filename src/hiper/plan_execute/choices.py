"""The responses among which a policy may choose, as a regular expression."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from hiper.config import ThinkingConfig
from hiper.errors import UserError
from hiper.plan_execute.parse import SWITCH_WORDS, BlockName, Form

LONGEST_SUBGOAL = 100
"""The most characters of a subgoal."""
LONGEST_TEXT = 100
"""The most characters of a part of an action that is free, such as a search query."""

_PLACE = re.compile(r"<[^<>]*>")
"""The place of free text in an action, as in ``search[<your query>]``."""


def response_pattern(
    actions: Iterable[str],
    form: Form = Form.PLAN_EXECUTE,
    thinking: ThinkingConfig | None = None,
    opened: bool = False,
    write: Callable[[str], str | None] = lambda text: text,
) -> str:
    """Return a regular expression for the valid responses whose action is one of ``actions``.

    It uses only what engines understand too: characters, sets, groups, alternatives and repeats.

    Args:
        actions: The actions in the template's wording. A part in angle brackets stands for free text.
        form: What the response has to state.
        thinking: The marks of a thinking block before the answer. None: there is none.
        opened: Whether the prompt ends with the opening mark.
        write: How the tokenizer writes a text; None: it has no tokens for it. Word-level tokenizers put spaces around
            punctuation.

    Raises:
        UserError: The tokenizer can write none of the actions.
    """
    patterns = [pattern for action in dict.fromkeys(actions) if (pattern := _action_pattern(action, write))]
    if not patterns:
        raise UserError(
            "sampler.choose=admissible: the model's tokenizer has no words for any of the admissible actions; leave "
            "sampler.choose out"
        )
    said = "|".join(patterns)
    blocks = [_block(BlockName.ACTION, said)]
    if form is Form.PLAN_EXECUTE:
        subgoal = _free_text(LONGEST_SUBGOAL)
        blocks = [_block(BlockName.SWITCH, "|".join(SWITCH_WORDS)), _block(BlockName.SUBGOAL, subgoal), *blocks]
    answer = "".join(blocks)
    if thinking is None:
        return answer
    thought = rf"(.|\n)*{_escaped(thinking.close)}"
    return thought + answer if opened else f"({_escaped(thinking.open)}{thought})?{answer}"


def _block(name: BlockName, content: str) -> str:
    return rf"[ \n]?<{name}> ?({content}) ?</{name}>"


def _action_pattern(action: str, write: Callable[[str], str | None]) -> str | None:
    literals = [write(literal) for literal in _PLACE.split(action)]
    if any(literal is None for literal in literals):
        return None
    return f" ?{_free_text(LONGEST_TEXT)} ?".join(_escaped(literal or "") for literal in literals)


def _free_text(longest: int) -> str:
    """Return a pattern for one line without angle brackets that begins with no white space.

    White space is spelt out, because engines and Python mean different characters by a class of it.
    """
    return rf"[^<> \t\n\r][^<>\n]{{0,{longest - 1}}}"


def _escaped(text: str) -> str:
    """Escape the characters with a meaning in regular expressions, and no others: engines refuse needless escapes."""
    return re.sub(r"[][\\.^$*+?{}|()]", r"\\\g<0>", text)
