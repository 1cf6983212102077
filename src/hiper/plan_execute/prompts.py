"""Prompts as token ids that fit the model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hiper.config import Overflow
from hiper.errors import UserError
from hiper.plan_execute.render import PromptContext, Template
from hiper.plan_execute.tokenizer import text_encoder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class PromptTooLongError(UserError):
    """A prompt does not fit, and ``prompt.overflow`` allows no further cut."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """The tokens that a model reads, and what was left out to make them fit."""

    ids: list[int]
    """The token ids."""
    dropped_turns: int = 0
    """Turns of the history window that were left out."""
    cut_tokens: int = 0
    """Tokens that were cut from the left."""

    @property
    def complete(self) -> bool:
        """Whether nothing was left out."""
        return not self.dropped_turns and not self.cut_tokens


class PromptBuilder:
    """Builds prompts for one model.

    Args:
        template: the prompt template.
        tokenizer: the tokenizer of the model.
        history_window: the number of last turns in a prompt.
        max_tokens: the maximum length of a prompt in tokens. None: no maximum.
        overflow: what to do with a longer prompt, see :data:`~hiper.config.tree.Overflow`.

    Raises:
        UserError: the template is for chat models, and the tokenizer has no chat template.
    """

    def __init__(
        self,
        template: Template,
        tokenizer: PreTrainedTokenizerBase,
        *,
        history_window: int,
        max_tokens: int | None,
        overflow: Overflow,
    ) -> None:
        if template.data.kind == "chat" and not tokenizer.chat_template:
            raise UserError(
                f"template {template.data.name} is for chat models, but the tokenizer {tokenizer.name_or_path!r} has "
                "no chat template: use a template of kind text, such as terse"
            )
        self.template = template
        self.tokenizer = tokenizer
        self.history_window = history_window
        self._encode_text = text_encoder(tokenizer)
        self._max_tokens = max_tokens
        self._overflow = overflow

    def build(self, context: PromptContext) -> Prompt:
        """Build the prompt for a turn.

        Raises:
            PromptTooLongError: the prompt does not fit, and ``overflow`` allows no further cut.
        """
        history = context.history[max(0, len(context.history) - self.history_window) :]
        prompt = Prompt(self._encode(replace(context, history=history)))
        if self._overflow in ("drop_history", "shorten"):
            for dropped in range(1, len(history) + 1):
                if self._fits(prompt):
                    break
                prompt = Prompt(self._encode(replace(context, history=history[dropped:])), dropped_turns=dropped)
        if self._fits(prompt):
            return prompt
        assert self._max_tokens is not None
        if self._overflow in ("truncate_left", "shorten"):
            cut = len(prompt.ids) - self._max_tokens
            return replace(prompt, ids=prompt.ids[cut:], cut_tokens=cut)
        raise PromptTooLongError(
            f"turn {context.turn + 1} of {context.goal!r}: the prompt has {len(prompt.ids)} tokens"
            f"{' without any history' if prompt.dropped_turns else ''}, {self._max_tokens} are allowed; allow more "
            "(prompt.max_tokens), use a terser template (prompt.template), or shorten (prompt.overflow: shorten)"
        )

    def _fits(self, prompt: Prompt) -> bool:
        return self._max_tokens is None or len(prompt.ids) <= self._max_tokens

    def _encode(self, context: PromptContext) -> list[int]:
        rendered = self.template.render(context)
        if not isinstance(rendered, str):
            rendered = str(self.tokenizer.apply_chat_template(rendered, tokenize=False, add_generation_prompt=True))
        return self._encode_text(rendered)
