"""Prompts as token ids that fit the model."""

from __future__ import annotations

import datetime
import hashlib
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from hiper.config import Overflow
from hiper.errors import UserError, first_line
from hiper.plan_execute.render import Message, PromptContext, Template
from hiper.plan_execute.tokenizer import begins_texts, text_encoder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

PROBE = "You are in a room. Find the mug."
"""The user message that a chat template is tried with."""

DAYS = (datetime.datetime(2001, 1, 1, 1, 1, 1), datetime.datetime(2034, 12, 30, 22, 58, 59))
"""Two moments that differ in every part."""


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

    The prompt of a ``text`` template begins with the token that the model's texts begin with, if it has one. A chat
    template brings its own.

    Args:
        template: the prompt template.
        tokenizer: the tokenizer of the model.
        history_window: the number of last turns in a prompt.
        max_tokens: the maximum length of a prompt in tokens. None: no maximum.
        overflow: what to do with a longer prompt, see :data:`~hiper.config.tree.Overflow`.
        plan_tokens: the maximum length of the list of subgoals in tokens, for a template that shows it.

    Raises:
        UserError: the template is for chat models, and the tokenizer has no chat template, or one that cannot be used.
    """

    def __init__(
        self,
        template: Template,
        tokenizer: PreTrainedTokenizerBase,
        *,
        history_window: int,
        max_tokens: int | None,
        overflow: Overflow,
        plan_tokens: int | None = None,
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
        self._plan_tokens = plan_tokens
        self._overflow = overflow
        self._begin = begins_texts(tokenizer) if template.data.kind == "text" else []
        self.label = template.label
        """The template's label, for result cards. With a chat template, the hash of its rendering stands behind it."""
        if template.data.kind == "chat":
            self.label += f"-{hashlib.sha256(self._try_chat_template().encode()).hexdigest()[:8]}"
        if template.shows_plans:
            self.label += f"-plans-{plan_tokens}"

    def build(self, context: PromptContext) -> Prompt:
        """Build the prompt for a turn.

        Raises:
            PromptTooLongError: the prompt does not fit, and ``overflow`` allows no further cut.
        """
        history = context.history[max(0, len(context.history) - self.history_window) :]
        context = replace(context, plans=context.plans[self.dropped_plans(context) :])
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
            ids = [*self._begin, *prompt.ids[cut + len(self._begin) :]]
            return replace(prompt, ids=ids, cut_tokens=cut)
        raise PromptTooLongError(
            f"turn {context.turn + 1} of {context.goal!r}: the prompt has {len(prompt.ids)} tokens"
            f"{' without any history' if prompt.dropped_turns else ''}, {self._max_tokens} are allowed; allow more "
            "(prompt.max_tokens), use a terser template (prompt.template), or shorten (prompt.overflow: shorten)"
        )

    def dropped_plans(self, context: PromptContext) -> int:
        """Return how many of the oldest subgoals are left out, so that the list of the others fits."""
        if not self.template.shows_plans:
            return 0
        kept, count = 0, len(context.plans)
        while kept < count and (
            self._plan_tokens is None
            or len(self._encode_text(self.template.list_plans(context.plans[count - kept - 1 :]))) <= self._plan_tokens
        ):
            kept += 1
        return count - kept

    def _fits(self, prompt: Prompt) -> bool:
        return self._max_tokens is None or len(prompt.ids) <= self._max_tokens

    def _encode(self, context: PromptContext) -> list[int]:
        rendered = self.template.render(context)
        if not isinstance(rendered, str):
            rendered = self._chat(rendered)
        return [*self._begin, *self._encode_text(rendered)]

    def _chat(self, messages: list[Message], **names: Any) -> str:
        rendered = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **names)
        return str(rendered)

    def _try_chat_template(self) -> str:
        """Render the chat template, and warn if the rendering depends on more than the messages.

        Raises:
            UserError: it fails, or leaves out a message.
        """
        name, system = self.template.data.name, self.template.data.system
        messages = [{"role": "user", "content": PROBE}]
        if system is not None:
            messages.insert(0, {"role": "system", "content": system})
        where = f"the chat template of the tokenizer {self.tokenizer.name_or_path!r}"
        remedy = "mend chat_template.jinja beside the tokenizer, or use a template of kind text, such as terse"
        if system is not None:
            remedy += f"; some models take no system message: then leave out `system` in {name}"
        if isinstance(known := self.tokenizer.chat_template, dict) and "default" not in known:
            raise UserError(
                f"{where} has several variants ({', '.join(known)}), and none is called default: save the one that is "
                "meant as chat_template.jinja beside the tokenizer"
            )
        try:
            rendered = self._chat(messages)
            same = len({rendered, *(self._chat(messages) for _ in range(4))}) == 1
            if "strftime_now" in str(known):
                plain = known["default"] if isinstance(known, dict) else str(known)
                same &= len({self._chat(messages, chat_template=_clock(day) + plain) for day in DAYS}) == 1
        except Exception as error:  # a template may raise anything
            problem = f"{where} cannot render the messages of template {name}"
            raise UserError(f"{problem}: {first_line(error)}; {remedy}") from error
        for message in messages:
            if message["content"].strip() not in rendered:
                raise UserError(f"{where} leaves out the {message['role']} message of template {name}; {remedy}")
        if not same:
            log.warning(
                "%s writes the date or something else from outside into prompts: equal seeds give other prompts on "
                "another day, as does a resumed run; result cards tell such prompts apart. For equal prompts, mend "
                "chat_template.jinja beside the tokenizer",
                where,
            )
        return rendered


def _clock(day: datetime.datetime) -> str:
    """Return the definition of ``strftime_now``, the clock of chat templates, for a moment."""
    filled = "".join(f" | replace('%{letter}', '{day.strftime('%' + letter)}')" for letter in "aAbBcdHIjmMpSUwWxXyYZ")
    return f"{{%- macro strftime_now(format) -%}}{{{{ format{filled} }}}}{{%- endmacro -%}}"
