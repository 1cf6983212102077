"""The settings of prompts and of the form of responses, a part of the tree."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, JsonValue, model_validator

from hiper.validation import StrictModel

Overflow = Literal["drop_history", "shorten", "truncate_left", "error"]
"""What to do with a prompt that is too long.

- ``drop_history``: leave out the oldest turns; raise an error if that is not enough.
- ``shorten``: leave out the oldest turns; then cut tokens from the left if that is not enough.
- ``truncate_left``: cut tokens from the left.
- ``error``: raise an error.
"""


def _plain_json(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return arguments that JSON can write.

    Raises:
        ValueError: A number among them is NaN or infinite.
    """
    try:
        json.dumps(values, allow_nan=False)
    except ValueError:
        raise ValueError("numbers must be finite, as JSON has no others") from None
    return values


class ThinkingConfig(StrictModel):
    """The thinking block that a response may begin with.

    The block is set aside: it is stored with the turn, but it is no part of the answer or of later prompts. It is found
    between its two marks, or from the start of the response if the prompt ends with ``open``.

    By default this section is null: then such text is read like any other. ``prompt.thinking={}`` is enough to set it.
    """

    credit: Literal["none", "action"] = "none"
    """The advantage of the block's tokens.

    - ``none``: they have no policy loss.
    - ``action``: that of the action. See :mod:`hiper.advantages.spread` about its baseline.
    """
    open: str = Field("<think>", min_length=1, max_length=100)
    """The text that begins the block."""
    close: str = Field("</think>", min_length=1, max_length=100)
    """The text that ends the block."""

    @model_validator(mode="after")
    def _check_marks(self) -> Self:
        if self.open == self.close:
            raise ValueError("open and close must differ")
        for mark in (self.open, self.close):
            if mark != mark.strip():
                raise ValueError(f"{mark!r} must not begin or end with white space")
        return self


class PromptConfig(StrictModel):
    """How a turn is shown to the model, and how its response is read."""

    template: str = "instruct"
    """The name of a shipped prompt template, or the path of a YAML file."""
    history_window: int = Field(2, ge=0, le=10_000)
    """The number of last turns in the prompt."""
    max_tokens: int = Field(2048, ge=1, le=10_000_000)
    """The maximum length of a prompt in tokens."""
    overflow: Overflow = "drop_history"
    """What to do with a longer prompt. Metrics count such prompts in any case."""
    plan_memory: Literal["none", "critic", "both"] = "none"
    """Who reads the list of the agent's subgoals so far, each with the turn at which it began.

    - ``none``: nobody.
    - ``critic``: the critic alone. It needs a backbone of its own (``model.critic: own``).
    - ``both``: policy and critic.
    """
    plan_memory_tokens: int = Field(64, ge=1, le=10_000_000)
    """The maximum length of that list in tokens. The oldest subgoals are left out; metrics count them."""
    include_tags: bool = True
    """If true, the tags of a block share its advantage. Otherwise they count as text outside the blocks."""
    chat_template_args: Annotated[Mapping[str, JsonValue], AfterValidator(_plain_json)] = {}
    """Arguments of the tokenizer's chat template, for example ``{enable_thinking: false}``."""
    thinking: ThinkingConfig | None = None
    """The thinking block that responses may begin with. None: such text is read like any other."""

    @property
    def credits_thinking(self) -> bool:
        """Whether the tokens of thinking blocks have a policy loss."""
        return self.thinking is not None and self.thinking.credit == "action"
