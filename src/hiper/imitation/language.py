"""The language of an environment: the prompts and responses of its expert on a sample of tasks."""

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


class Said(NamedTuple):
    """The state before a turn, and the expert's decision."""

    context: PromptContext
    decision: Decision


def language(env: TextEnv, tasks: int) -> Iterator[Said]:
    """Yield the turns of the expert on a sample of this many tasks, or on all."""
    for task in env.panel.subset(min(tasks, len(env.panel))):
        episode = demonstrate(env, task.id, perturb=0.2)
        for turn, context in zip(episode.turns, contexts_of(episode), strict=True):
            yield Said(context, Decision(turn.switch, turn.subgoal, turn.action))


def texts(template: Template, said: Said) -> tuple[str, str]:
    """Return the prompt and the response of a turn as text."""
    response = response_text(template.phrase(said.decision, said.context), template.form)
    return str(template.render(said.context)), response


def check_sayable(env: TextEnv, template: Template, tokenizer: PreTrainedTokenizerBase, turns: list[Said]) -> None:
    """Check that a tokenizer can express every action.

    Raises:
        UserError: It cannot. The message names one such action.
    """
    if unsaid := sorted({said.decision.action for said in turns if not _can_say(template, tokenizer, said)}):
        raise UserError(
            f"a nano model cannot say {len(unsaid)} actions of '{env.name}', such as {unsaid[0]!r}: it knows only "
            "words with single spaces between them; use a template that words actions so, or set model.path to a model "
            "with its own tokenizer"
        )


def _can_say(template: Template, tokenizer: PreTrainedTokenizerBase, said: Said) -> bool:
    """Return whether an action survives encoding and decoding, up to differences in white space."""
    action, listed = said.decision.action, said.context.admissible or ()
    spoken = round_trip(tokenizer, template.phrase(said.decision, said.context).action)
    understood = template.understand(spoken, said.context)
    alike = "".join(understood.split()) == "".join(action.split())
    return understood == action or (alike and (understood in listed or action not in listed))
