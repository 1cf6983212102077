"""Measure where an iteration's time goes, and how fast generation and update are beside the plain way.

    python benchmarks/iteration.py [RECIPE] [dotted.key=value ...]

The plain way is what transformers offers out of the box. Generation is `generate()` on prompts padded at the left to
one width. The update reads rows in random order, padded to the longest of each batch, with the logits of every
position. Both sides have the same weights, prompts, rows, losses, optimizer and number format, and one thread. They
take turns, and the best time of each counts. On a CPU, time is processor time. So a busy machine does not tilt the
comparison.
"""

from __future__ import annotations

import copy
import io
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import numpy as np
import torch
from rich.console import Console
from torch import Tensor
from transformers.utils.logging import disable_progress_bar

from hiper.config import Config, load_config
from hiper.display.console import Display
from hiper.episode import write_episodes
from hiper.learner.learner import Learner
from hiper.learner.losses import policy_loss, value_loss
from hiper.models.batches import minibatches
from hiper.rollout.collector import collect
from hiper.rollout.samplers import Request, sample_all
from hiper.rollout.tasks import assignments_of
from hiper.rows import Row, TrainRow
from hiper.seeding import derive_seed
from hiper.stopping import Stop
from hiper.training.assign import assign_credit, rows_of
from hiper.training.begin import warm_start
from hiper.training.build import Parts, build

SETTINGS = (
    "env.games=200",
    "warm_start.tasks=100",
    "warm_start.epochs=1",
    "rollout.episodes=64",
    "learner.kl_coef=0",
    "learner.target_kl=null",
    "model.critic=shared",
    "training.threads=1",
)
PROMPTS, ROWS, ROUNDS = 128, 512, 4
PLAIN_BATCH = 64
"""The number of rows in one forward pass of the plain update."""
MOST_ENVIRONMENT, LEAST_RATIO = 0.02, 2.0
"""The targets: the environment's largest share of an iteration, and the least speed-up of both phases together."""
LEAST_SIMILARITY = 0.99
"""The least cosine similarity of the two updates' changes to the weights."""

T = TypeVar("T")


def main() -> int:
    """Print where time goes and both comparisons; return 1 if a target is missed."""
    disable_progress_bar()
    recipe, *overrides = sys.argv[1:] or ["quickstart"]
    config = load_config(recipe, [*SETTINGS, *overrides])
    parts = build(config)
    print("a short warm start, so that responses have their usual form ...", flush=True)
    with TemporaryDirectory() as folder:
        display = Display(console=Console(file=io.StringIO()))
        warm_start(parts, Path(folder) / "policy", display, Stop(display.note))

    seconds, rows = iteration(config, parts)
    share = seconds["environment"] / sum(seconds.values())
    print(f"\none iteration: {len(rows)} turns, {np.mean([len(row) for row in rows]):.0f} tokens each")
    for phase, spent in seconds.items():
        print(f"  {phase:<12}{spent:>8.2f} s{spent / sum(seconds.values()):>8.1%}")

    prompts = [row.row.prompt_ids for row in spread_out(rows, PROMPTS)]
    some = spread_out(rows, ROWS)
    plain = copy.deepcopy(parts.learner)
    check_same_step(parts.learner, some)
    generated = race(lambda: generate_plainly(parts, prompts), lambda: generate(parts, prompts))
    updated = race(lambda: update_plainly(plain, some), lambda: update(parts.learner, some))
    print(f"\n{'tokens/s':<12}{'plain':>10}{'ours':>10}{'ratio':>8}")
    for phase, (slow, fast) in (("generation", generated), ("update", updated)):
        print(f"  {phase:<10}{slow:>10,.0f}{fast:>10,.0f}{fast / slow:>7.1f}x")
    # Together: the time for all of the iteration's tokens.
    responses, tokens = sum(len(row.row.response_ids) for row in rows), sum(map(len, rows))
    before, after = (responses / generated[side] + tokens / updated[side] for side in (0, 1))
    print(f"  {'together':<30}{before / after:>7.2f}x   (required: {LEAST_RATIO:.2f}x)")
    print(f"environment: {share:.1%} of an iteration (at most {MOST_ENVIRONMENT:.0%})")
    return 0 if share <= MOST_ENVIRONMENT and before / after >= LEAST_RATIO else 1


# --- An iteration ---------------------------------------------------------------------------------------------------


def iteration(config: Config, parts: Parts) -> tuple[dict[str, float], list[TrainRow]]:
    """Return the seconds by phase of one iteration, and its rows."""
    assignments = assignments_of(config, parts.env.panel, 0)
    episodes, timing = collect(parts.env, assignments, parts.agent, slots=config.rollout.slots)
    scoring, scores = timed(lambda: parts.learner.score(rows_of(episodes)))
    estimator = config.advantages
    credit, assigned = timed(lambda: assign_credit(episodes, scores, config.shaping, estimator))
    learner = copy.deepcopy(parts.learner)
    update, _ = timed(lambda: learner.update(assigned.rows, seed=0))
    with TemporaryDirectory() as folder:
        writing, _ = timed(lambda: write_episodes(Path(folder) / "episodes.jsonl.gz", assigned.episodes))
    return {
        "environment": timing.environment,
        "prompts": timing.prompts,
        "generation": timing.generation,
        "scoring": scoring,
        "credit": credit,
        "update": update,
        "writing": writing,
    }, assigned.rows


def timed(work: Callable[[], T]) -> tuple[float, T]:
    """Return the wall time in seconds and the result of one call."""
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


def spread_out(rows: Sequence[TrainRow], count: int) -> list[TrainRow]:
    """Return at most ``count`` of the rows, evenly spaced over the iteration."""
    return [rows[i] for i in np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)]


# --- Both ways ------------------------------------------------------------------------------------------------------


def race(slow: Callable[[], int], fast: Callable[[], int]) -> tuple[float, float]:
    """Return the tokens per second of both sides: the best of several rounds, taken in turns.

    Each side returns the number of its tokens.
    """
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    best = [0.0, 0.0]
    for _ in range(ROUNDS):
        for side, work in enumerate((slow, fast)):
            began = clock()
            tokens = work()
            best[side] = max(best[side], tokens / (clock() - began))
    return best[0], best[1]


def generate(parts: Parts, prompts: Sequence[tuple[int, ...]]) -> int:
    """Sample with our sampler; return the number of tokens sampled."""
    agent = parts.agent
    requests = [Request(prompt, agent.params, seed) for seed, prompt in enumerate(prompts)]
    return sum(len(sample.ids) for sample in sample_all(agent.sampler, requests))


@torch.no_grad()
def generate_plainly(parts: Parts, prompts: Sequence[tuple[int, ...]]) -> int:
    """Sample with `generate()`, which gives no log-probabilities; return the number of tokens sampled."""
    policy: Any = parts.learner.weights().model.eval()
    pad, eos, params = parts.tokenizer.pad_token_id, parts.tokenizer.eos_token_id, parts.agent.params
    width = max(map(len, prompts))
    ids = torch.tensor([[pad] * (width - len(p)) + list(p) for p in prompts], device=policy.device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=policy.device)
    torch.manual_seed(0)
    with parts.learner._precision():
        whole = policy.generate(
            input_ids=ids,
            attention_mask=mask,
            do_sample=True,
            temperature=params.temperature,
            top_k=0,
            top_p=1.0,
            max_new_tokens=params.max_tokens,
            pad_token_id=pad,
            eos_token_id=eos,
        )
    sampled = whole[:, width:]
    ended = (sampled == eos).cumsum(1)
    return int((ended - (sampled == eos).long() == 0).sum())


def update(learner: Learner, rows: Sequence[TrainRow]) -> int:
    """Make our update; return the number of tokens read."""
    learner.update(rows, seed=0)
    return sum(map(len, rows))


def check_same_step(learner: Learner, rows: Sequence[TrainRow]) -> None:
    """Check that both updates move the weights in one direction.

    The amounts may differ, because AdamW turns rounding errors into whole steps. The check computes in float32 on
    every machine. In bfloat16, two ways of computing one gradient differ by more than the check allows.

    Raises:
        AssertionError: The directions differ, so the comparison would time two different computations.
    """
    moves = []
    for work in (update, update_plainly):
        moved = copy.deepcopy(learner)
        moved._autocast = None
        work(moved, rows)
        pairs = zip(moved._model.parameters(), learner._model.parameters(), strict=True)
        moves.append(torch.cat([(after - before).detach().flatten() for after, before in pairs]))
    similarity = float(torch.cosine_similarity(moves[0], moves[1], dim=0))
    assert similarity > LEAST_SIMILARITY, f"the two updates differ: their cosine similarity is {similarity:.4f}"


def update_plainly(learner: Learner, rows: Sequence[TrainRow]) -> int:
    """Make the same update on padded batches with all logits; return the number of tokens read."""
    learner._model.train()
    for group, lr in zip(learner._optimizer.param_groups, (learner.config.lr, learner.config.critic_lr), strict=True):
        group["lr"], group["weight_decay"] = lr, learner.config.weight_decay
    for chosen in minibatches(rows, learner.config.minibatch_turns, derive_seed(0, 0)):
        counts = sum(int(row.mask.sum()) for row in chosen), sum(row.mask.size for row in chosen)
        turns_3 = torch.tensor(np.stack([row.target_mask for row in chosen]).sum(0), device=learner._device)
        learner._optimizer.zero_grad(set_to_none=True)
        for start in range(0, len(chosen), PLAIN_BATCH):
            with learner._precision():
                loss = _plain_loss(learner, chosen[start : start + PLAIN_BATCH], counts, turns_3)
            loss.backward()
        for group in learner._optimizer.param_groups:
            torch.nn.utils.clip_grad_norm_(group["params"], learner.config.max_grad_norm)
        learner._optimizer.step()
    return sum(map(len, rows))


def _plain_loss(learner: Learner, rows: Sequence[TrainRow], counts: tuple[int, int], turns_3: Tensor) -> Tensor:
    """Compute this batch's part of the mini-batch's loss.

    Args:
        learner: The learner whose model is read.
        rows: The rows of the batch.
        counts: The numbers of credited tokens and of response tokens in the mini-batch.
        turns_3: The number of trained values of each head in the mini-batch.
    """
    model, config, device = learner._model, learner.config, learner._device
    width = max(map(len, rows))
    arrays = _padded([row.row for row in rows], width, learner._pad_id)
    ids, mask = (torch.tensor(arrays[name], device=device) for name in ("ids", "mask"))
    policy: Any = model.policy
    output = policy(input_ids=ids, attention_mask=mask, output_hidden_states=True, use_cache=False)
    logprobs_NLV = torch.log_softmax(output.logits[:, :-1].float(), -1)
    logprobs = logprobs_NLV.gather(2, ids[:, 1:, None]).squeeze(2)
    entropy = -(logprobs_NLV.exp() * logprobs_NLV).sum(-1)

    old, advantage, trained, responses = (torch.zeros_like(logprobs) for _ in range(4))
    for n, row in enumerate(rows):
        said = slice(len(row.row.prompt_ids) - 1, len(row) - 1)
        for padded, array in ((old, row.scores.logprobs), (advantage, row.advantages), (trained, row.mask)):
            padded[n, said] = torch.from_numpy(array.astype(np.float32))
        responses[n, said] = 1.0
    surrogate = policy_loss((logprobs - old).exp(), advantage, config.clip, config.dual_clip)
    credited, said_in_all = counts
    loss = (surrogate * trained).sum() / credited - config.entropy_coef * (entropy * responses).sum() / said_in_all

    places = torch.tensor(arrays["value places"], device=device)
    hidden = output.hidden_states[-1][torch.arange(len(rows), device=device).unsqueeze(1), places]
    targets, before, used = (
        torch.from_numpy(np.stack(part).astype(np.float32))
        for part in (
            [row.targets for row in rows],
            [row.scores.values for row in rows],
            [row.target_mask for row in rows],
        )
    )
    values = value_loss(model.heads(hidden), before.to(device), targets.to(device), config.value_clip)
    total: Tensor = loss + config.value_coef * (values * used.to(device) / turns_3).sum()
    return total


def _padded(rows: Sequence[Row], width: int, pad_id: int) -> Mapping[str, list[Any]]:
    """Pad rows at the end, and find the positions of their values."""
    whole = [[*row.prompt_ids, *row.response_ids] for row in rows]
    before = [len(row.prompt_ids) - 1 for row in rows]
    low = [at if row.low_index is None else at + 1 + row.low_index for at, row in zip(before, rows, strict=True)]
    return {
        "ids": [[*ids, *[pad_id] * (width - len(ids))] for ids in whole],
        "mask": [[1] * len(ids) + [0] * (width - len(ids)) for ids in whole],
        "value places": [[at_low, at, at] for at_low, at in zip(low, before, strict=True)],
    }


if __name__ == "__main__":
    raise SystemExit(main())
