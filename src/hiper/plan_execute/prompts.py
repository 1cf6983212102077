"""Prompts as token ids that fit the model."""

from __future__ import annotations

import datetime
import hashlib
import inspect
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from hiper.config import Overflow, ThinkingConfig
from hiper.errors import UserError, first_line, shortened
from hiper.plan_execute.parse import TAGS
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
    opens_thinking: bool = False
    """Whether the prompt ends with the mark that opens a thinking block, so that the response begins inside it."""

    @property
    def complete(self) -> bool:
        """Whether nothing was left out."""
        return not self.dropped_turns and not self.cut_tokens


class PromptBuilder:
    """Builds prompts for one model.

    The prompt of a ``text`` template begins with the token that the model's texts begin with, if it has one. A chat
    template brings its own, see :class:`ChatTemplate`.

    Args:
        template: the prompt template.
        tokenizer: the tokenizer of the model.
        history_window: the number of last turns in a prompt.
        max_tokens: the maximum length of a prompt in tokens. None: no maximum.
        overflow: what to do with a longer prompt, see :data:`~hiper.config.prompts.Overflow`.
        chat_template_args: further arguments of the chat template.
        thinking: the marks of the thinking block that responses may begin with. None: there is none.
        plan_tokens: the maximum length of the list of subgoals in tokens, for a template that shows it.

    Raises:
        UserError: the template is for chat models, and the tokenizer has no chat template, or one that cannot be used.
            Or there are arguments for it that have no effect.
    """

    def __init__(
        self,
        template: Template,
        tokenizer: PreTrainedTokenizerBase,
        *,
        history_window: int,
        max_tokens: int | None,
        overflow: Overflow,
        chat_template_args: Mapping[str, Any] = MappingProxyType({}),
        thinking: ThinkingConfig | None = None,
        plan_tokens: int | None = None,
    ) -> None:
        if template.data.kind == "chat" and not tokenizer.chat_template:
            raise UserError(
                f"template {template.data.name} is for chat models, but the tokenizer {tokenizer.name_or_path!r} has "
                "no chat template: use a template of kind text, such as terse"
            )
        if thinking is not None and (taken := {thinking.open, thinking.close} & {*TAGS}):
            raise UserError(f"prompt.thinking: {min(taken)} is a tag of the answer; choose other marks")
        self.template = template
        self.tokenizer = tokenizer
        self.chat_template_args = dict(chat_template_args)
        """The arguments of the chat template."""
        self.thinking = thinking
        self.history_window = history_window
        self._encode_text = text_encoder(tokenizer)
        self._max_tokens = max_tokens
        self._plan_tokens = plan_tokens
        self._overflow = overflow
        self._begin = begins_texts(tokenizer) if template.data.kind == "text" else []
        self._chat = ChatTemplate(template, tokenizer, chat_template_args) if template.data.kind == "chat" else None
        if chat_template_args and self._chat is None:
            raise UserError(
                f"prompt.chat_template_args: template {template.data.name} is plain text and has no chat template; "
                "leave the arguments out, or use a template of kind chat, such as instruct"
            )
        if self._chat is not None and thinking is None and opens(self._chat.sample, marks := ThinkingConfig()):
            log.warning(
                "%s begins every response inside %s, and prompt.thinking is not set, so thoughts are read as a part of "
                "the answer: set prompt.thinking={credit: none}, or prompt.chat_template_args={enable_thinking: false} "
                "if the template reads it",
                self._chat,
                marks.open,
            )

    @property
    def label(self) -> str:
        """The template's label, for result cards. With a chat template, the hash of its rendering stands behind it."""
        shown = "" if self._chat is None else f"-{hashlib.sha256(self._chat.sample.encode()).hexdigest()[:8]}"
        plans = f"-plans-{self._plan_tokens}" if self.template.shows_plans else ""
        return f"{self.template.label}{shown}{plans}"

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of chat template arguments and thinking, for result cards. Those not set are left out."""
        thinking = {} if self.thinking is None else {"thinking": self.thinking.model_dump()}
        return ({"chat_template_args": self.chat_template_args} if self.chat_template_args else {}) | thinking

    def build(self, context: PromptContext) -> Prompt:
        """Build the prompt for a turn.

        Raises:
            PromptTooLongError: the prompt does not fit, and ``overflow`` allows no further cut.
        """
        history = context.history[max(0, len(context.history) - self.history_window) :]
        context = replace(context, plans=context.plans[self.dropped_plans(context) :])
        prompt = self._encode(replace(context, history=history))
        if self._overflow in ("drop_history", "shorten"):
            for dropped in range(1, len(history) + 1):
                if self._fits(prompt):
                    break
                prompt = replace(self._encode(replace(context, history=history[dropped:])), dropped_turns=dropped)
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

    def _encode(self, context: PromptContext) -> Prompt:
        rendered = self.template.render(context, self.thinking)
        if not isinstance(rendered, str):
            assert self._chat is not None
            rendered = self._chat.render(rendered)
        opened = self.thinking is not None and opens(rendered, self.thinking)
        return Prompt([*self._begin, *self._encode_text(rendered)], opens_thinking=opened)


def opens(prompt: str, thinking: ThinkingConfig) -> bool:
    """Whether a prompt ends with the mark that opens a thinking block."""
    return prompt.rstrip().endswith(thinking.open)


class ChatTemplate:
    """A tokenizer's chat template with its arguments, tried once.

    A chat template that writes the day is replaced, in the tokenizer, by one that keeps this day. So it is saved with a
    policy, and whatever plays or resumes the policy has the same prompts.

    Raises:
        UserError: It fails, leaves out a message, or reads none of the arguments.
    """

    def __init__(self, template: Template, tokenizer: PreTrainedTokenizerBase, arguments: Mapping[str, Any]) -> None:
        self._template, self._tokenizer, self._arguments = template, tokenizer, dict(arguments)
        self._check_arguments()
        days = self._try()
        if days > 1:
            self._keep_day()

    def __str__(self) -> str:
        return f"the chat template of the tokenizer {self._tokenizer.name_or_path!r}"

    @property
    def sample(self) -> str:
        """A rendering of the template's messages."""
        return self.render(self._messages)

    def render(self, messages: list[Message], source: str | None = None) -> str:
        """Render messages, by another source than the tokenizer's if one is given."""
        rendered = self._tokenizer.apply_chat_template(
            messages, chat_template=source, tokenize=False, add_generation_prompt=True, **self._arguments
        )
        return str(rendered)

    @property
    def _messages(self) -> list[Message]:
        system = self._template.data.system
        begin = [] if system is None else [{"role": "system", "content": system}]
        return [*begin, {"role": "user", "content": PROBE}]

    @property
    def _source(self) -> str:
        known = self._tokenizer.chat_template
        return str(known["default"] if isinstance(known, dict) else known)

    def _check_arguments(self) -> None:
        if isinstance(known := self._tokenizer.chat_template, dict) and "default" not in known:
            raise UserError(
                f"{self} has several variants ({', '.join(known)}), and none is called default: save the one that is "
                "meant as chat_template.jinja beside the tokenizer"
            )
        own = {"messages", *inspect.signature(self._tokenizer.apply_chat_template).parameters}
        for name in self._arguments:
            if name in own:
                raise UserError(f"prompt.chat_template_args: '{name}' is HiPER's own; leave it out")
            words = re.findall(r"[^\W\d]\w*", self._source)
            if name not in words:
                near = get_close_matches(name, words, n=1)
                meant = f"did you mean '{near[0]}'?" if near else "its text shows what it reads"
                raise UserError(
                    f"prompt.chat_template_args: {self} does not mention '{shortened(name)}', so it has no effect; "
                    f"{meant}"
                )

    def _try(self) -> int:
        """Render the messages on several days, and return how many renderings differ."""
        name, system = self._template.data.name, self._template.data.system
        remedy = "mend chat_template.jinja beside the tokenizer, or use a template of kind text, such as terse"
        if system is not None:
            remedy += f"; some models take no system message: then leave out `system` in {name}"
        try:
            renderings = {self.sample for _ in range(5)}
            days = {self.render(self._messages, _clock(day) + self._source) for day in DAYS if self._tells_time}
        except Exception as error:  # a template may raise anything
            raise UserError(
                f"{self} cannot render the messages of template {name}: {first_line(error)}; {remedy}"
            ) from error
        for message in self._messages:
            if any(message["content"].strip() not in rendered for rendered in renderings):
                raise UserError(f"{self} leaves out the {message['role']} message of template {name}; {remedy}")
        return max(len(renderings), len(days))

    @property
    def _tells_time(self) -> bool:
        return "strftime_now" in self._source

    def _keep_day(self) -> None:
        """Make the chat template keep this day. If it varies by more than the day, only warn."""
        now = datetime.datetime.now()
        kept = _clock(now) + self._source
        if self._tells_time and {self.render(self._messages, kept) for _ in range(5)} == {self.sample}:
            known = self._tokenizer.chat_template
            self._tokenizer.chat_template = known | {"default": kept} if isinstance(known, dict) else kept
            log.warning(
                "%s writes the date into prompts: they keep %s from here on, in the policies that are saved too, so "
                "that a resumed run has the same prompts",
                self,
                now.strftime("%d %B %Y"),
            )
            return
        log.warning(
            "%s writes something from outside into prompts: equal seeds give other prompts another time, as does a "
            "resumed run; result cards tell such prompts apart. For equal prompts, mend chat_template.jinja beside the "
            "tokenizer",
            self,
        )


def _clock(day: datetime.datetime) -> str:
    """Return the definition of ``strftime_now``, the clock of chat templates, for a moment."""
    filled = "".join(f" | replace('%{letter}', '{day.strftime('%' + letter)}')" for letter in "aAbBcdHIjmMpSUwWxXyYZ")
    return f"{{%- macro strftime_now(format) -%}}{{{{ format{filled} }}}}{{% endmacro +%}}"
