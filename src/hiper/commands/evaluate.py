"""`hiper eval`: a saved policy on held-out tasks, with a card and the episodes for each split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hiper.display.console import Display
from hiper.display.tables import Table
from hiper.episode import write_episodes
from hiper.errors import UserError
from hiper.evaluation.evaluate import Evaluation, evaluate, result_card
from hiper.evaluation.saved import SavedPolicy
from hiper.files import exclusive_lock, writing


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
    """Play the panel of each split; write ``folder/SPLIT.json`` and ``folder/SPLIT.jsonl.gz``.

    Args:
        saved: the policy that plays.
        splits: the splits that are played.
        folder: where to write cards and episodes.
        display: where to show the outcomes.
        episodes: size of a fixed subset of tasks per split; None: all tasks.
        temperature: sampling temperature; None: that of evaluations in training.
        seed: seed of sampling and environment; None: the policy's own.

    Raises:
        UserError: a split does not exist or has fewer tasks, or ``folder`` holds a card, cannot be written, or is in
            use by another process.
        KeyboardInterrupt: the user stopped; splits that were played before have been written.
    """
    with exclusive_lock(folder):
        if existing := [path for split in splits if (path := folder / f"{split}.json").exists()]:
            raise UserError(f"there is a card already: {existing[0]}; choose another folder with --out")
        config = saved.config
        seed = config.seed if seed is None else seed
        agent, weights = saved.load()
        agent = agent if temperature is None else agent.at(temperature)
        envs = {split: saved.env(split) for split in splits}
        for env in envs.values():
            if episodes is not None and episodes > len(env.panel):
                raise UserError(f"{env.panel.name} has {len(env.panel)} tasks; {episodes} episodes were asked for")
        with writing(folder):  # a folder that cannot be written is refused before anything is played
            folder.mkdir(parents=True, exist_ok=True)
        for split, env in envs.items():
            count = len(env.panel) if episodes is None else episodes
            with display.bar(split, count) as advance:
                slots, on_episode = config.rollout.slots, lambda _: advance()
                try:
                    result = evaluate(env, agent, tasks=count, slots=slots, seed=seed, on_episode=on_episode)
                except KeyboardInterrupt:
                    display.note(f"stopped: {split} was not played to its end, and nothing of it is written")
                    raise
            display.table(outcome_table(result))
            write_episodes(folder / f"{split}.jsonl.gz", result.episodes)
            card = result_card(
                result,
                env,
                agent,
                checkpoint=str(saved.path),
                weights_sha256=weights.sha256(),
                seed=seed,
                command=display.command,
            )
            card.write(folder / f"{split}.json")
            display.note(f"card and episodes: {folder / split}.json, .jsonl.gz")


def outcome_table(result: Evaluation) -> Table:
    """Return the outcome of an evaluation by task type; a score is shown where it differs from success."""
    graded = any(outcome.graded for outcome in result.outcomes.values())
    rows = []
    for name, outcome in result.outcomes.items():
        low, high = outcome.interval
        row = (name, str(outcome.episodes), f"{outcome.success:.1%}", f"{low:.1%} - {high:.1%}")
        score = [f"{outcome.score:.3f}"] * graded
        rows.append([*row, *score, f"{outcome.turns:.1f}", f"{sum(outcome.invalid.values()):.1%}"])
    headings = ("task type", "episodes", "success", "95% interval", *["score"] * graded, "turns", "invalid")
    return Table(f"{result.panel.name}, sha256 {result.panel.hash[:12]}", headings, rows, total="all")
