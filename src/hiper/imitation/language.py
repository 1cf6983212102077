"""The language of an environment, as a nano model must know it: what the expert reads and says on a sample of tasks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from hiper.envs.base import Decision, TextEnv
from hiper.errors import UserError
from hiper.imitation.demonstrations import demonstrate
from hiper.plan_execute.parse import response_text
from hiper.plan_execute.render import PromptContext, Template
from hiper.plan_execute.tokenizer import round_trip
from hiper.rollout.collector import contexts_of

LANGUAGE_TASKS = 400
"""Tasks played by the expert to learn the words of an environment's language."""


class Said(NamedTuple):
    """What was known before a turn, and what was decided."""

    context: PromptContext
    decision: Decision


def language(env: TextEnv) -> Iterator[Said]:
    """Yield what is read and said in an environment: the expert at play on a sample of tasks."""
    for task in env.panel.subset(min(LANGUAGE_TASKS, len(env.panel))):
        episode = demonstrate(env, task.id, perturb=0.2)
        for turn, context in zip(episode.turns, contexts_of(episode), strict=True):
            yield Said(context, Decision(turn.switch, turn.subgoal, turn.action))


def texts(template: Template, said: Said) -> tuple[str, str]:
    """The prompt and the response of a turn, in words."""
    response = response_text(template.phrase(said.decision, said.context), template.form)
    return str(template.render(said.context)), response


def check_sayable(env: TextEnv, template: Template, tokenizer: PreTrainedTokenizerBase, turns: list[Said]) -> None:
    """Make sure that a tokenizer can say every action.

    Raises:
        UserError: it cannot; one such action is named.
    """
    if unsaid := sorted({said.decision.action for said in turns if not _can_say(template, tokenizer, said)}):
        raise UserError(
            f"a nano model cannot say {len(unsaid)} actions of '{env.name}', such as {unsaid[0]!r}: it knows words "
            "with single spaces between them; use a template that words actions so, or name a model with a tokenizer "
            "of its own in model.path"
        )


def _can_say(template: Template, tokenizer: PreTrainedTokenizerBase, said: Said) -> bool:
    """Whether an action means itself once it has been said, or another that differs in white space alone."""
    action, listed = said.decision.action, said.context.admissible or ()
    spoken = round_trip(tokenizer, template.phrase(said.decision, said.context).action)
    understood = template.understand(spoken, said.context)
    alike = "".join(understood.split()) == "".join(action.split())
    return understood == action or (alike and (understood in listed or action not in listed))
