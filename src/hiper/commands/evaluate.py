"""`hiper eval`: a saved policy on held-out tasks, with a card and the episodes for each split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hiper.display.console import Display
from hiper.episode import write_episodes
from hiper.errors import UserError
from hiper.evaluation.evaluate import evaluate, result_card
from hiper.evaluation.saved import SavedPolicy
from hiper.files import alone_at, writing


def evaluate_policy(
    saved: SavedPolicy,
    splits: Sequence[str],
    folder: Path,
    display: Display,
    *,
    episodes: int | None = None,
    temperature: float | None = None,
    seed: int | None = None,
) -> None:
    """Play each split's panel; write ``folder/SPLIT.json`` and ``folder/SPLIT.jsonl.gz``.

    Args:
        saved: who plays.
        splits: what is played.
        folder: where cards and episodes go.
        display: where the outcomes are shown.
        episodes: play a fixed subset of so many tasks per split; None: all.
        temperature: of the sampling; None: as the policy was evaluated in training.
        seed: of the sampling; None: the policy's own.

    Raises:
        UserError: there is no such split, it has fewer tasks, or ``folder`` holds a card, cannot be written, or is
            another process's.
        KeyboardInterrupt: stopped while a split was played; those before it have been written.
    """
    with alone_at(folder):
        if there := [path for split in splits if (path := folder / f"{split}.json").exists()]:
            raise UserError(f"there is a card already: {there[0]}; choose another folder with --out")
        config = saved.config
        seed = config.seed if seed is None else seed
        agent = saved.agent(config.evaluation.temperature if temperature is None else temperature)
        envs = {split: saved.env(split) for split in splits}
        for env in envs.values():
            if episodes is not None and episodes > len(env.panel):
                raise UserError(f"{env.panel.name} has {len(env.panel)} tasks; {episodes} episodes were asked for")
        with writing(folder):  # what cannot be kept is not played
            folder.mkdir(parents=True, exist_ok=True)
        for split, env in envs.items():
            count = len(env.panel) if episodes is None else episodes
            with display.bar(split, count) as advance:
                slots, on_episode = config.rollout.slots, lambda _: advance()
                try:
                    result = evaluate(env, agent, tasks=count, slots=slots, seed=seed, on_episode=on_episode)
                except KeyboardInterrupt:
                    display.note(f"stopped: {split} was not played to its end, and nothing is written of it")
                    raise
            display.outcomes(f"{result.panel.name}, sha256 {result.panel.hash[:12]}", result)
            write_episodes(folder / f"{split}.jsonl.gz", result.episodes)
            card = result_card(result, env, agent, checkpoint=str(saved.path), seed=seed, command=display.command)
            card.write(folder / f"{split}.json")
            display.note(f"card and episodes: {folder / split}.json, .jsonl.gz")
