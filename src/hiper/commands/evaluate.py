"""`hiper eval`: a saved policy on held-out tasks, with a card and the episodes for each split."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from hiper.display.console import Display
from hiper.display.tables import Table
from hiper.display.transcript import TROUBLES
from hiper.evaluation.evaluate import Evaluation
from hiper.evaluation.saved import SavedPolicy
from hiper.evaluation.splits import evaluate_splits
from hiper.plan_execute.parse import InvalidKind
from hiper.processes import ALONE, Processes
from hiper.rollout.samplers.base import Workplace


def evaluate_policy(
    saved: SavedPolicy,
    splits: Sequence[str],
    folder: Path,
    display: Display,
    *,
    episodes: int | None = None,
    temperature: float | None = None,
    seed: int | None = None,
    processes: Processes = ALONE,
) -> None:
    """Play the panel of each split, show the outcomes, and write ``folder/SPLIT.json`` and ``folder/SPLIT.jsonl.gz``.

    Args:
        saved: the policy that plays.
        splits: the splits that are played.
        folder: where to write cards and episodes.
        display: where to show the outcomes.
        episodes: size of a fixed subset of tasks per split; None: all tasks.
        temperature: sampling temperature; None: that of evaluations in training.
        seed: seed of sampling and environment; None: the policy's own.
        processes: the processes that play together.

    Raises:
        UserError: see :func:`~hiper.evaluation.splits.evaluate_splits`.
        KeyboardInterrupt: the user stopped; splits that were played before have been written.
    """
    with display.bar("loading the model"):
        policy = saved.load(temperature, Workplace(folder, display.bar, processes))
    with closing(policy):
        for split, result, _ in evaluate_splits(
            policy, splits, display, tasks=episodes, seed=seed, folder=folder, processes=processes
        ):
            display.table(outcome_table(result))
            if reasons := invalid_reasons(result):
                display.note(reasons)
            display.note(f"card and episodes: {folder / split}.json, .jsonl.gz")


def invalid_reasons(result: Evaluation) -> str | None:
    """Return why turns were invalid, the most frequent reason first. None: all were valid."""
    shares = sorted(result.outcomes["all"].invalid.items(), key=lambda item: -item[1])
    told = [f"{TROUBLES[InvalidKind(kind)]} {share:.1%}" for kind, share in shares if share > 0]
    return f"invalid turns: {', '.join(told)}" if told else None


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
