"""Evaluation of a saved policy on the held-out tasks of some splits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import NamedTuple

from hiper.display.console import Display
from hiper.episode import Episode, write_episodes
from hiper.errors import UserError
from hiper.evaluation.evaluate import Evaluation, evaluate, result_card
from hiper.evaluation.saved import LoadedPolicy
from hiper.files import exclusive_lock, writing
from hiper.processes import ALONE, Processes
from hiper.runs.cards import Card


class EvaluatedSplit(NamedTuple):
    """The results of one split."""

    split: str
    """The name of the split."""
    evaluation: Evaluation
    """The episodes and their outcomes."""
    card: Card
    """The result card."""


def evaluate_splits(
    policy: LoadedPolicy,
    splits: Sequence[str],
    display: Display,
    *,
    tasks: int | None = None,
    seed: int | None = None,
    folder: Path | None = None,
    processes: Processes = ALONE,
) -> Iterator[EvaluatedSplit]:
    """Play the panel of each split, and yield the results one by one.

    Args:
        policy: The policy that plays.
        splits: The names of the splits.
        display: The display of progress.
        tasks: The size of a fixed subset of tasks in each split. None: all tasks.
        seed: The seed of sampling and environment. None: the policy's own seed.
        folder: The folder of ``SPLIT.json`` (the card) and ``SPLIT.jsonl.gz`` (the episodes). None: write nothing.
        processes: The processes that play together. The first one writes.

    Raises:
        UserError: A split does not exist or has fewer tasks. Or ``folder`` already holds a card, cannot be written, or
            is in use by another process.
        KeyboardInterrupt: The user stopped. Splits that were finished before have been written.
    """
    folder = folder if processes.first else None
    with exclusive_lock(folder) if folder else nullcontext():
        yield from _evaluate_splits(policy, splits, display, tasks, seed, folder, processes)


def _evaluate_splits(
    policy: LoadedPolicy,
    splits: Sequence[str],
    display: Display,
    tasks: int | None,
    seed: int | None,
    folder: Path | None,
    processes: Processes,
) -> Iterator[EvaluatedSplit]:
    if folder is not None:
        if existing := [path for split in splits if (path := folder / f"{split}.json").exists()]:
            raise UserError(f"{existing[0]} exists already; choose another folder with --out")
        with writing(folder):  # fail before playing if the folder cannot be written
            folder.mkdir(parents=True, exist_ok=True)
    envs = {split: policy.env(split) for split in splits}
    for env in envs.values():
        if tasks is not None and tasks > len(env.panel):
            raise UserError(f"{env.panel.name} has {len(env.panel)} tasks; {tasks} episodes were asked for")
    seed = policy.config.seed if seed is None else seed
    for split, env in envs.items():
        count = len(env.panel) if tasks is None else tasks
        with display.bar(split, len(processes.own(range(count)))) as advance:
            slots, on_episode = policy.config.rollout.slots, partial(_advance, advance)
            try:
                result = evaluate(
                    env,
                    policy.agent,
                    tasks=count,
                    slots=slots,
                    seed=seed,
                    on_episode=on_episode,
                    processes=processes,
                )
            except KeyboardInterrupt:
                display.note(f"stopped: {split} was not finished, so none of its results are written")
                raise
        card = result_card(
            result,
            env,
            policy.agent,
            checkpoint=str(policy.path),
            weights_sha256=policy.weights.sha256(),
            seed=seed,
            command=display.command,
        )
        if folder is not None:
            write_episodes(folder / f"{split}.jsonl.gz", result.episodes)
            card.write(folder / f"{split}.json")
        yield EvaluatedSplit(split, result, card)


def _advance(advance: Callable[[], None], _: Episode) -> None:
    advance()
