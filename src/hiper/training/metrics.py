"""The metrics of one iteration, each averaged over the episodes, turns or tokens it is about."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from hiper.advantages import HEADS, Bools, Floats, TokenKind
from hiper.episode import Episode, Turn
from hiper.outcomes import summarize
from hiper.rollout.collector import contexts_of
from hiper.rollout.groups import Collected, groups_without_spread
from hiper.rollout.samplers.base import RemoteSampler, Sampler
from hiper.rows import Scores
from hiper.runs import metrics as names
from hiper.training.assign import Assigned

if TYPE_CHECKING:  # building prompts needs the library tokenizers, and readers of finished runs do not
    from hiper.plan_execute.prompts import PromptBuilder


def rollout_metrics(episodes: Sequence[Episode], unknown_id: int | None = None) -> dict[str, float]:
    """Compute success, length, and how plans were made and followed.

    Args:
        episodes: One episode at least.
        unknown_id: The token for words that the tokenizer does not know, if it has one.
    """
    turns = [turn for episode in episodes for turn in episode.turns]
    outcomes = summarize(episodes)
    return {
        **{names.SUCCESS_OF_TYPE.of(name): outcome.success for name, outcome in outcomes.items()},
        names.RETURN.name: _mean([episode.total_reward for episode in episodes]),
        names.SCORE.name: outcomes["all"].score,
        names.TURNS.name: outcomes["all"].turns,
        names.TRUNCATED.name: outcomes["all"].truncated / len(episodes),
        names.INVALID.name: _mean([turn.invalid is not None for turn in turns]),
        names.INVALID_FORM.name: _mean([not turn.format_valid for turn in turns]),
        **{names.INVALID_OF_KIND.of(kind): share for kind, share in outcomes["all"].invalid.items()},
        **(_plan_metrics(episodes) if any(turn.subgoal for turn in turns) else {}),
        names.REPEATED_ACTIONS.name: _mean([_repeats(episode.turns) for episode in episodes]),
        names.PROMPT_CUT.name: _mean([turn.prompt_cut for turn in turns]),
        names.PROMPT_UNKNOWN.name: sum(turn.prompt_ids.count(unknown_id) for turn in turns if unknown_id is not None)
        / sum(len(turn.prompt_ids) for turn in turns),
        names.PROMPT_TOKENS.name: _mean([len(turn.prompt_ids) for turn in turns]),
        names.RESPONSE_TOKENS.name: _mean([len(turn.response_ids) for turn in turns]),
        **(
            {names.THINKING_TOKENS.name: _mean([turn.kinds.count(TokenKind.THINKING) for turn in turns])}
            if any(turn.thinking for turn in turns)
            else {}
        ),
    }


def _plan_metrics(episodes: Sequence[Episode]) -> dict[str, float]:
    """Compute how subgoals were followed, for episodes that stated some."""
    turns = [turn for episode in episodes for turn in episode.turns]
    later = [turn for episode in episodes for turn in episode.turns[1:] if turn.format_valid]
    kept = [turn for turn in turns if turn.format_valid and not turn.boundary]
    longer = [episode for episode in episodes if len(episode.turns) > 1]
    return {
        # The first turn is always a boundary, so it says nothing about how often the policy switches.
        names.SWITCH_RATE.name: _mean([turn.switch for turn in later]),
        names.SEGMENT_TURNS.name: len(turns) / max(1, sum(turn.boundary for turn in turns)),
        names.NEVER_SWITCHED.name: _mean([not any(t.switch for t in episode.turns[1:]) for episode in longer]),
        names.COPIES_THAT_DIFFER.name: _mean([turn.copy_differs for turn in kept]),
    }


def plan_memory_metrics(episodes: Sequence[Episode], prompts: PromptBuilder) -> dict[str, float]:
    """Compute how many subgoals the list of subgoals left out; empty where prompts show no such list."""
    if not prompts.template.shows_plans:
        return {}
    dropped = [prompts.dropped_plans(context) for episode in episodes for context in contexts_of(episode)]
    return {names.PLANS_DROPPED.name: _mean(dropped)}


def group_metrics(collected: Collected, size: int) -> dict[str, float]:
    """Compute the share of groups with nothing to compare, and how many were replaced; empty without groups."""
    if size == 1:
        return {}
    groups = len(collected.episodes) // size
    return {
        names.GROUPS_WITHOUT_SPREAD.name: len(groups_without_spread(collected.episodes, size)) / groups,
        names.GROUPS_REPLACED.name: len(collected.replaced) / size,
        names.EPISODES_PLAYED.name: float(len(collected.played)),
    }


def credit_metrics(assigned: Assigned) -> dict[str, float]:
    """Compute the metrics of rewards by part, of values by head, and of advantages.

    Each is averaged over the turns or tokens that use it. An advantage with a target is target - value here, as it was
    before normalisation. Where tokens have advantages of their own, these stand for their turns'.
    """
    turns, credit = assigned.turns, assigned.credit
    metrics = {
        names.REWARD.of(name): float(part_BT.sum() / len(part_BT)) for name, part_BT in assigned.rewards.parts().items()
    }
    advantages = credit.advantages(turns)
    if "token" in advantages:
        advantages = {"token": advantages["token"]}
    for head in HEADS:
        values, targets = head.values_in(turns), head.targets_in(credit)
        if values is None or targets is None:
            continue
        used = head.trained_in(turns)
        metrics[names.EXPLAINED_VARIANCE.of(head.name)] = explained_variance(values, targets, used)
        metrics[names.VALUE.of(head.name)] = float(values[used].mean())
        if head.baseline_of in advantages:
            advantages[head.baseline_of] = targets - values, used
    for name, (advantage, used) in advantages.items():
        metrics[names.ADVANTAGE_MEAN.of(name)] = float(advantage[used].mean())
        metrics[names.ADVANTAGE_STD.of(name)] = float(advantage[used].std())
    return metrics


def explained_variance(value_BT: Floats, return_BT: Floats, used_BT: Bools) -> float:
    """Return 1 - Var(return - value) / Var(return) over the entries used; 0 where returns do not vary."""
    variance = float(return_BT[used_BT].var())
    return 1.0 - float((return_BT - value_BT)[used_BT].var()) / variance if variance > 1e-12 else 0.0


def mismatch_metrics(scores: Sequence[Scores]) -> dict[str, float]:
    """Measure how far the sampler's log-probabilities are from the learner's, over all sampled tokens.

    ``kl`` is the k3 estimate of KL(sampler || learner).
    """
    sampler = np.concatenate([np.asarray(score.row.sampled_logprobs) for score in scores])
    learner = np.concatenate([score.logprobs for score in scores]).astype(np.float64)
    difference = learner - sampler
    return {
        names.MISMATCH_KL.name: float((np.exp(difference) - 1 - difference).mean()),
        names.MISMATCH_MEAN.name: float(np.abs(difference).mean()),
        names.MISMATCH_MAX.name: float(np.abs(difference).max()),
    }


def engine_metrics(sampler: Sampler) -> dict[str, float]:
    """Return what a sampler outside this process measured; empty for others."""
    return dict(sampler.metrics()) if isinstance(sampler, RemoteSampler) else {}


class Clock:
    """A stopwatch that adds up seconds by phase.

    Args:
        seconds: The seconds of phases measured elsewhere. Timed phases are added to this mapping.
    """

    def __init__(self, seconds: dict[str, float]) -> None:
        self.seconds = seconds

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Time the block as part of ``phase``. A block that raises is not counted."""
        began = time.perf_counter()
        yield
        self.seconds[phase] = self.seconds.get(phase, 0.0) + time.perf_counter() - began


def time_metrics(seconds: Mapping[str, float], tokens: int, generated: int, generation: float) -> dict[str, float]:
    """Compute the seconds of an iteration, the share of each phase, and tokens per second of generation and update.

    Args:
        seconds: The seconds of each phase.
        tokens: The tokens of the update.
        generated: The tokens that were sampled.
        generation: The seconds in which they were sampled. Sampling ahead is no phase, because it takes no extra time.
    """
    total = sum(seconds.values())
    return {
        names.ITERATION_SECONDS.name: total,
        **{names.PHASE_SHARE.of(name): part / total for name, part in seconds.items()},
        names.GENERATION_SPEED.name: generated / max(generation, 1e-9),
        names.UPDATE_SPEED.name: tokens / max(seconds["update"], 1e-9),
    }


def _repeats(turns: Sequence[Turn]) -> float:
    """Return the share of turns whose action was already played on the same observation in this episode."""
    pairs = Counter((turn.observation, turn.action) for turn in turns)
    return 1.0 - len(pairs) / len(turns)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else 0.0
