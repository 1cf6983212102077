"""Warm start: supervised fine-tuning of the policy on demonstrations, with prompts and responses as in rollouts."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from hiper.console import Display
from hiper.envs.base import EndReason, TextEnv
from hiper.errors import UserError
from hiper.models.actor_critic import Row, RowBatch, token_logprobs
from hiper.models.batches import micro_batches
from hiper.models.tokenizer import encode_response
from hiper.plan_execute.demonstrations import LAPSES, DemonstrationTurn, Lapse, demonstrate
from hiper.plan_execute.prompt import PromptBuilder
from hiper.seeding import derive_seed
from hiper.training.assembly import Assembly
from hiper.training.learner import Learner


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


def warm_start(parts: Assembly, display: Display, check: Callable[[], None] = lambda: None) -> None:
    """Fine-tune the policy on demonstrations of training tasks, then give the critic's backbone what it learned.

    Args:
        parts: of the run.
        display: where progress is shown.
        check: called between steps; what it raises ends the warm start.

    Raises:
        UserError: there is nothing to imitate, or the loss diverged.
    """
    config, last = parts.config.warm_start, parts.config.warm_start.imperfect
    stages = [_Stage("warm start", config.epochs, config.perturb, config.lapses, config.lr, lapses_too=False)]
    if last.epochs:
        lapses = config.lapses if last.lapses is None else last.lapses
        stages.append(_Stage("lapses too", last.epochs, last.perturb, lapses, last.lr, lapses_too=True))
    for stage in stages:
        _imitate(parts, stage, derive_seed(parts.config.seed, stage.name), display, check)
    parts.learner.model.copy_backbone()


class _Stage(NamedTuple):
    """Of the warm start: some passes over the demonstrated tasks, each played anew."""

    name: str
    epochs: float
    perturb: float
    lapses: Sequence[Lapse]
    lr: float
    lapses_too: bool


def _imitate(parts: Assembly, stage: _Stage, seed: int, display: Display, check: Callable[[], None]) -> None:
    config = parts.config.warm_start
    panel, passes = parts.env.panel, math.ceil(stage.epochs)
    tasks = [task.id for task in panel.subset(min(config.tasks, len(panel)))]
    rows: list[Row] = []
    with display.bar("demonstrations", passes) as advance:
        for epoch in range(passes):
            rows += demonstration_rows(
                parts.env,
                tasks,
                parts.prompts,
                parts.tokenizer,
                perturb=stage.perturb,
                lapses=stage.lapses,
                lapses_too=stage.lapses_too,
                seed=derive_seed(seed, epoch),
            )
            advance()
            check()
    if not rows:
        raise UserError(f"the expert solved none of the {len(tasks)} tasks it was to demonstrate: nothing to imitate")
    steps = max(1, round(len(rows) * stage.epochs / passes / config.batch_turns))
    batches = shuffled_batches(rows, config.batch_turns, seed)
    began = time.perf_counter()
    losses: list[float] = []
    with display.bar(stage.name, steps) as advance:

        def on_step(_: int, loss: float) -> None:
            losses.append(loss)
            advance()
            check()

        fine_tune(parts.learner, batches, steps, stage.lr, config.prompt_loss, on_step=on_step)
    display.note(
        f"{stage.name}: {len(tasks)} demonstrated tasks, {steps * config.batch_turns} turns in {steps} steps, "
        f"loss {np.mean(losses[-50:]):.3f}, {time.perf_counter() - began:.0f} s"
    )


def fine_tune(
    learner: Learner,
    batches: Iterator[Sequence[Row]],
    steps: int,
    lr: float,
    prompt_loss: float = 0.0,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
) -> None:
    """``steps`` AdamW steps on mini-batches of rows; the learning rate rises briefly, then falls linearly to zero.

    Args:
        learner: its policy is trained; its critic and its optimiser are left alone.
        batches: mini-batches, as many as steps at least.
        steps: how many.
        lr: learning rate at its highest.
        prompt_loss: weight of the language-modelling loss on the prompt.
        on_step: called with the step's number and its mean loss per response token.
    """
    policy = learner.model.policy
    optimizer = torch.optim.AdamW(policy.parameters(), lr=lr, betas=(0.9, 0.95), weight_decay=0.01)
    warmup = max(1, min(20, steps // 10))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, (steps - step) / max(1, steps - warmup))
    )
    policy.train()
    for step in range(steps):
        rows = next(batches)
        optimizer.zero_grad(set_to_none=True)
        loss = _accumulate(learner, rows, prompt_loss)
        if not math.isfinite(loss):
            raise UserError(f"the warm start diverged at step {step}: its loss is {loss}; lower warm_start.lr")
        torch.nn.utils.clip_grad_norm_(policy.parameters(), learner.config.max_grad_norm)
        optimizer.step()
        schedule.step()
        on_step(step, loss)


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
