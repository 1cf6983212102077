"""Evaluation of a saved policy on the held-out tasks of some splits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

from hiper.display.console import Display
from hiper.envs.base import TextEnv
from hiper.envs.panels import Panel
from hiper.episode import read_episodes, write_episodes
from hiper.errors import UserError
from hiper.evaluation.evaluate import Evaluation, evaluate, panel_of, result_card
from hiper.evaluation.saved import LoadedPolicy
from hiper.files import exclusive_lock, writing
from hiper.processes import ALONE, Processes
from hiper.rollout.environment import open_splits
from hiper.rollout.progress import episodes_bar
from hiper.runs.cards import Card
from hiper.stopping import Stop


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

    A split whose card lies in ``folder`` already is not played again if it would be the same evaluation. So the same
    call continues after a stop.

    Args:
        policy: The policy that plays.
        splits: The names of the splits.
        display: The display of progress.
        tasks: The size of a fixed subset of tasks in each split. None: all tasks.
        seed: The seed of sampling and environment. None: the policy's own seed.
        folder: The folder of ``SPLIT.json`` (the card) and ``SPLIT.jsonl.gz`` (the episodes). None: write nothing.
        processes: The processes that play together. The first one writes.

    Raises:
        UserError: A split does not exist or has fewer tasks. Or ``folder`` holds the card of another evaluation, cannot
            be written, or is in use by another process.
        KeyboardInterrupt: The user stopped, at the next turn. Splits that were finished before have been written.
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
        with writing(folder):  # fail before playing if the folder cannot be written
            folder.mkdir(parents=True, exist_ok=True)
    envs = dict(zip(splits, open_splits(policy.config, splits, display), strict=True))
    for env in envs.values():
        if tasks is not None and tasks > len(env.panel):
            raise UserError(f"{env.panel.name} has {len(env.panel)} tasks; {tasks} episodes were asked for")
    seed = policy.config.seed if seed is None else seed
    weights_sha256 = policy.weights.sha256()

    def card_of(result: Evaluation, env: TextEnv) -> Card:
        return result_card(
            result,
            env,
            policy.agent,
            checkpoint=str(policy.path),
            weights_sha256=weights_sha256,
            seed=seed,
            command=display.command,
        )

    stored = {}
    for split, env in envs.items():
        if folder is not None and (folder / f"{split}.json").exists():
            nothing = Evaluation(panel_of(env, tasks), [], {}, 0.0)
            stored[split] = _stored(folder, split, nothing.panel, card_of(nothing, env))
    stored = processes.agree(stored)
    for split, env in envs.items():
        if split in stored:
            display.note(f"{split} is done already")
            yield EvaluatedSplit(split, *stored[split])
            continue
        try:
            result = _play(policy, env, split, display, tasks, seed, processes)
        except KeyboardInterrupt:
            display.note(f"stopped: {split} was not finished, so none of its results are written")
            if folder is not None:
                display.note(f"splits that were finished are in {folder}; give the same command again for what is left")
            raise
        card = card_of(result, env)
        if folder is not None:
            write_episodes(folder / f"{split}.jsonl.gz", result.episodes)
            card.write(folder / f"{split}.json")
        yield EvaluatedSplit(split, result, card)


def _play(
    policy: LoadedPolicy,
    env: TextEnv,
    split: str,
    display: Display,
    tasks: int | None,
    seed: int,
    processes: Processes,
) -> Evaluation:
    """Play a split. A stop comes at the next turn."""
    own = len(processes.own(range(len(panel_of(env, tasks)))))
    with Stop(display.note) as stop, episodes_bar(display, split, own, env.max_turns, stop.check) as watch:
        return evaluate(
            env,
            policy.agent,
            tasks=tasks,
            slots=policy.config.rollout.slots,
            seed=seed,
            on_turn=watch.turn,
            on_episode=watch.episode,
            processes=processes,
        )


def _stored(folder: Path, split: str, panel: Panel, planned: Card) -> tuple[Evaluation, Card]:
    """Read the card and the episodes that an earlier call wrote.

    Raises:
        UserError: They are damaged, or of another evaluation than the planned one.
    """
    path = folder / f"{split}.json"
    card = Card.read(path)
    if other := card.differs_from(planned):
        raise UserError(f"{path} exists already, with another {other}; choose another folder with --out")
    episodes = list(read_episodes(folder / f"{split}.jsonl.gz"))
    return Evaluation(panel, episodes, dict(card.outcomes), card.seconds), card
