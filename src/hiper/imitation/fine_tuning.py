"""Supervised fine-tuning of the policy on demonstrations, with prompts and responses as in rollouts."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence

from transformers import PreTrainedTokenizerBase

from hiper.config import LAPSES, Lapse
from hiper.envs.base import Decision, EndReason, TextEnv
from hiper.episode import Episode
from hiper.errors import UserError
from hiper.imitation.demonstrations import demonstrate
from hiper.learner.imitation import Imitation
from hiper.plan_execute.prompts import PromptBuilder
from hiper.plan_execute.render import PromptContext
from hiper.plan_execute.tokenizer import encode_response
from hiper.processes import ALONE, Processes
from hiper.rollout.collector import contexts_of
from hiper.rows import Row
from hiper.seeding import derive_seed


def demonstration_rows(
    env: TextEnv,
    task_ids: Sequence[str],
    prompts: PromptBuilder,
    tokenizer: PreTrainedTokenizerBase,
    *,
    perturb: float,
    lapses: Sequence[Lapse] = LAPSES,
    lapses_too: bool = False,
    seed: int,
    on_task: Callable[[], None] = lambda: None,
    processes: Processes = ALONE,
) -> list[Row]:
    """Demonstrate each task once, and return one row for each decision to imitate.

    Args:
        env: The environment of the demonstrations.
        task_ids: The tasks to demonstrate.
        prompts: The builder of the imitator's prompts.
        tokenizer: The imitator's tokenizer.
        perturb: The probability of a lapse in each turn.
        lapses: The kinds of lapse that may happen.
        lapses_too: Whether lapses are imitated; see :func:`imitation_rows`.
        seed: The seed of the episodes and of the lapses.
        on_task: A function called after each task. An exception that it raises ends the demonstrations.
        processes: The processes that train together. Each demonstrates its share of the tasks.
    """

    def rows_of_tasks(share: Sequence[str]) -> list[list[Row]]:
        rows = []
        for task_id in share:
            episode = demonstrate(env, task_id, derive_seed(seed, task_id), perturb=perturb, lapses=lapses)
            rows.append(imitation_rows(episode, prompts, tokenizer, lapses_too=lapses_too))
            on_task()
        return rows

    return [row for rows in processes.share(task_ids, rows_of_tasks) for row in rows]


def imitation_rows(
    episode: Episode, prompts: PromptBuilder, tokenizer: PreTrainedTokenizerBase, *, lapses_too: bool = False
) -> list[Row]:
    """Return one row for each decision of an episode to imitate. An episode that was not won gives none.

    Args:
        episode: A demonstration, or any other episode.
        prompts: The builder of the imitator's prompts.
        tokenizer: The imitator's tokenizer.
        lapses_too: Whether lapses, and episodes that a lapse lost, are imitated as well.
    """
    if not (episode.won or (lapses_too and episode.end == EndReason.LOST)):
        return []
    return [
        imitation_row(context, Decision(turn.switch, turn.subgoal, turn.action), prompts, tokenizer)
        for turn, context in zip(episode.turns, contexts_of(episode), strict=True)
        if lapses_too or not turn.lapse
    ]


def imitation_row(
    context: PromptContext, decision: Decision, prompts: PromptBuilder, tokenizer: PreTrainedTokenizerBase
) -> Row:
    """Return the row of a decision to imitate: the prompt of a state, and the response that states the decision."""
    prompt = prompts.build(context)
    said = prompts.template.phrase(decision, context)
    opened = prompts.thinking if prompt.opens_thinking else None
    response = encode_response(tokenizer, said, prompts.template.form, opened)
    return Row(tuple(prompt.ids), tuple(response), None)


class FineTuning:
    """Imitation under a schedule: the learning rate rises briefly, then falls linearly to zero.

    Args:
        imitation: The object that makes the steps.
        steps: The total number of steps.
        lr: The highest learning rate.
        prompt_loss: The weight of the language-modelling loss on prompts.
        losses: The losses of the steps that were made already. Those of further steps are added to it.
    """

    def __init__(
        self,
        imitation: Imitation,
        steps: int,
        lr: float,
        prompt_loss: float = 0.0,
        losses: list[float] | None = None,
    ) -> None:
        self.imitation, self._steps, self._lr, self._prompt_loss = imitation, steps, lr, prompt_loss
        self.losses = [] if losses is None else losses
        """The losses of the steps so far, as :meth:`Imitation.step` returns them."""

    def step(self, rows: Sequence[Row]) -> None:
        """Make one step on a mini-batch of rows.

        Raises:
            UserError: The loss is NaN or infinite.
        """
        step = len(self.losses)
        lr = self._lr * lr_scale(step, self._steps)
        loss = self.imitation.step(rows, lr=lr, prompt_loss=self._prompt_loss)
        if not math.isfinite(loss):
            raise UserError(f"the warm start diverged at step {step}: its loss is {loss}; lower warm_start.lr")
        self.losses.append(loss)


def lr_scale(step: int, steps: int) -> float:
    """Return the factor on the highest learning rate at a step, counted from 0.

    The factor rises over a tenth of all steps, but at most 20. Then it falls linearly.
    """
    warmup = max(1, min(20, steps // 10))
    return min((step + 1) / warmup, (steps - step) / max(1, steps - warmup))


def shuffled_batches(rows: Sequence[Row], size: int, seed: int) -> Iterator[list[Row]]:
    """Yield endless mini-batches. Each pass over the rows has a new order; an incomplete last batch is dropped."""
    rng = random.Random(seed)
    while True:
        order = list(rows)
        rng.shuffle(order)
        for start in range(0, len(order) - size + 1, size) if len(order) > size else (0,):
            yield order[start : start + size]
