"""Supervised fine-tuning of the policy on demonstrations, with prompts and responses as in rollouts."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from hiper.config import LAPSES, Lapse
from hiper.envs.base import EndReason, TextEnv
from hiper.errors import UserError
from hiper.imitation.demonstrations import DemonstrationTurn, demonstrate
from hiper.learner.learner import Learner
from hiper.models.actor_critic import Row, RowBatch, token_logprobs
from hiper.models.batches import micro_batches
from hiper.plan_execute.prompts import PromptBuilder
from hiper.plan_execute.tokenizer import encode_response
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
) -> list[Row]:
    """One row per decision to be imitated, of one episode per task.

    Args:
        env: where they are demonstrated.
        task_ids: what is demonstrated.
        prompts: what the imitator reads.
        tokenizer: in what it is written.
        perturb: share of lapses.
        lapses: their kinds.
        lapses_too: imitate them as well, and what went before a lapse that lost the episode. Otherwise the expert's
            own decisions alone, of episodes that were won.
        seed: of the episodes and of the lapses.
    """
    rows: list[Row] = []
    for task_id in task_ids:
        episode = demonstrate(env, task_id, derive_seed(seed, task_id), perturb=perturb, lapses=lapses)
        if episode.info.won or (lapses_too and episode.info.end is EndReason.LOST):
            rows += [_row(turn, prompts, tokenizer) for turn in episode.turns if turn.target or lapses_too]
    return rows


def _row(turn: DemonstrationTurn, prompts: PromptBuilder, tokenizer: PreTrainedTokenizerBase) -> Row:
    said = prompts.template.phrase(turn.decision, turn.context)
    response = encode_response(tokenizer, said, prompts.template.form)
    return Row(tuple(prompts.build(turn.context).ids), tuple(response), None)


class FineTuning:
    """AdamW on demonstrations; the learning rate rises briefly, then falls linearly to zero.

    Args:
        learner: its policy is trained; its critic and its optimiser are left alone.
        steps: how many there will be.
        lr: learning rate at its highest.
        prompt_loss: weight of the language-modelling loss on the prompt.
    """

    def __init__(self, learner: Learner, steps: int, lr: float, prompt_loss: float = 0.0) -> None:
        self._learner, self._steps, self._lr, self._prompt_loss = learner, steps, lr, prompt_loss
        self._policy = learner.model.policy
        self._optimizer = torch.optim.AdamW(self._policy.parameters(), lr=lr, betas=(0.9, 0.95), weight_decay=0.01)
        self.losses: list[float] = []
        """Of the steps done, the mean per response token."""

    def step(self, rows: Sequence[Row]) -> None:
        """One step on a mini-batch of rows.

        Raises:
            UserError: the loss is no number.
        """
        step = len(self.losses)
        self._policy.train()
        self._optimizer.zero_grad(set_to_none=True)
        loss = _accumulate(self._learner, rows, self._prompt_loss)
        if not math.isfinite(loss):
            raise UserError(f"the warm start diverged at step {step}: its loss is {loss}; lower warm_start.lr")
        torch.nn.utils.clip_grad_norm_(self._policy.parameters(), self._learner.config.max_grad_norm)
        for group in self._optimizer.param_groups:
            group["lr"] = self._lr * lr_scale(step, self._steps)
        self._optimizer.step()
        self.losses.append(loss)

    def state(self) -> dict[str, Any]:
        """All that :meth:`restore` needs."""
        return {
            "losses": self.losses,
            "policy": self._policy.state_dict(),
            "optimizer": self._optimizer.state_dict(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where another one was."""
        self._policy.load_state_dict(state["policy"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.losses = list(state["losses"])


def lr_scale(step: int, steps: int) -> float:
    """Share of the highest learning rate at a step, counted from 0: up within a tenth of all or 20, then down."""
    warmup = max(1, min(20, steps // 10))
    return min((step + 1) / warmup, (steps - step) / max(1, steps - warmup))


def _accumulate(learner: Learner, rows: Sequence[Row], prompt_weight: float) -> float:
    """Add the gradient of :func:`imitation_loss` over all rows, micro-batch by micro-batch; the loss."""
    responses = sum(len(row.response_ids) for row in rows)
    prompts = sum(map(len, rows)) - responses - len(rows)
    total = 0.0
    for indices in micro_batches(list(map(len, rows)), learner.config.micro_batch_tokens):
        chosen = [rows[i] for i in indices]
        response_K, prompt_K = imitation_losses(learner, chosen, with_prompts=prompt_weight > 0)
        loss = response_K.sum() / responses + prompt_weight * prompt_K.sum() / max(1, prompts)
        loss.backward()
        total += float(loss.detach())
    return total


def imitation_losses(learner: Learner, rows: Sequence[Row], with_prompts: bool) -> tuple[Tensor, Tensor]:
    """Negative log-likelihoods: of each response token, and of each prompt token but the first of each row."""
    policy, device = learner.model.policy, learner.device
    # To a language model, all that follows a row's first token is a response.
    read = [Row(r.prompt_ids[:1], r.prompt_ids[1:] + r.response_ids, None) for r in rows] if with_prompts else rows
    with learner.precision():
        logprobs_K = token_logprobs(policy, RowBatch.of(read, learner.pad_id, device), temperature=1.0)
    lengths = [(len(whole.response_ids), len(row.response_ids)) for whole, row in zip(read, rows, strict=True)]
    said_K = torch.tensor([k >= whole - said for whole, said in lengths for k in range(whole)], device=device)
    return -logprobs_K[said_K], -logprobs_K[~said_K]


def shuffled_batches(rows: Sequence[Row], size: int, seed: int) -> Iterator[list[Row]]:
    """Mini-batches for ever, each pass over the rows in a new order."""
    rng = random.Random(seed)
    while True:
        order = list(rows)
        rng.shuffle(order)
        for start in range(0, len(order) - size + 1, size) if len(order) > size else (0,):
            yield order[start : start + size]
