"""Metrics of one iteration, each averaged over what it is about."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from hiper.advantages import Bools, Floats
from hiper.episode import Episode, Turn
from hiper.learner.learner import Scores
from hiper.outcomes import summarize
from hiper.rollout.groups import Collected, groups_without_spread
from hiper.runs import metrics as names
from hiper.training.assign import Assigned


def rollout_metrics(episodes: Sequence[Episode], unknown_id: int | None = None) -> dict[str, float]:
    """Success, length, and how plans were made and followed.

    Args:
        episodes: one at least.
        unknown_id: the token that stands for words a tokenizer does not know, if it has one.
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
    }


def _plan_metrics(episodes: Sequence[Episode]) -> dict[str, float]:
    """How subgoals were followed, where any were stated."""
    turns = [turn for episode in episodes for turn in episode.turns]
    later = [turn for episode in episodes for turn in episode.turns[1:] if turn.format_valid]
    kept = [turn for turn in turns if turn.format_valid and not turn.boundary]
    longer = [episode for episode in episodes if len(episode.turns) > 1]
    return {
        # The first turn is a boundary whatever is said, so it says nothing about the habit of switching.
        names.SWITCH_RATE.name: _mean([turn.switch for turn in later]),
        names.SEGMENT_TURNS.name: len(turns) / max(1, sum(turn.boundary for turn in turns)),
        names.NEVER_SWITCHED.name: _mean([not any(t.switch for t in episode.turns[1:]) for episode in longer]),
        names.COPIES_THAT_DIFFER.name: _mean([turn.copy_differs for turn in kept]),
    }


def group_metrics(collected: Collected, size: int) -> dict[str, float]:
    """How many groups there is nothing to compare in, and how many were replaced. Nothing without groups."""
    if size == 1:
        return {}
    groups = len(collected.episodes) // size
    return {
        names.GROUPS_WITHOUT_SPREAD.name: len(groups_without_spread(collected.episodes, size)) / groups,
        names.GROUPS_REPLACED.name: len(collected.replaced) / size,
        names.EPISODES_PLAYED.name: float(len(collected.played)),
    }


def credit_metrics(assigned: Assigned) -> dict[str, float]:
    """Rewards by part, advantages over the turns that use them, explained variance over each head's own turns.

    An advantage with a target is target - value here, as it was before it may have been normalised.
    """
    turns, credit = assigned.turns, assigned.credit
    metrics = {
        names.REWARD.of(name): float(part_BT.sum() / len(part_BT)) for name, part_BT in assigned.rewards.parts().items()
    }
    heads = {"low": (credit.low_BT, credit.return_low_BT, turns.v_low_BT, turns.mask_BT)}
    if credit.token_BK is not None:
        heads = {"token": (credit.token_BK, credit.return_token_BK, turns.v_token_BK, turns.token_mask_BK)}
    elif not credit.undivided:
        heads["high"] = (credit.high_BT, credit.return_high_BT, turns.v_high_BT, turns.boundary_BT)
        heads["switch"] = (credit.switch_BT, credit.return_switch_BT, turns.v_switch_BT, turns.mask_BT)
    for name, (advantage_BT, return_BT, value_BT, used_BT) in heads.items():
        if return_BT is not None and value_BT is not None:
            advantage_BT = return_BT - value_BT
            metrics[names.EXPLAINED_VARIANCE.of(name)] = explained_variance(value_BT, return_BT, used_BT)
            metrics[names.VALUE.of(name)] = float(value_BT[used_BT].mean())
        metrics[names.ADVANTAGE_MEAN.of(name)] = float(advantage_BT[used_BT].mean())
        metrics[names.ADVANTAGE_STD.of(name)] = float(advantage_BT[used_BT].std())
    return metrics


def explained_variance(value_BT: Floats, return_BT: Floats, used_BT: Bools) -> float:
    """1 - Var(return - value) / Var(return) over the entries used; 0 where returns do not vary."""
    variance = float(return_BT[used_BT].var())
    return 1.0 - float((return_BT - value_BT)[used_BT].var()) / variance if variance > 1e-12 else 0.0


def mismatch_metrics(episodes: Sequence[Episode], scores: Sequence[Scores]) -> dict[str, float]:
    """How far the sampler's log-probabilities are from the learner's, over all sampled tokens.

    ``kl`` is the k3 estimate of KL(sampler || learner).
    """
    sampler = np.concatenate([np.asarray(turn.logprobs) for e in episodes for turn in e.turns])
    learner = np.concatenate([score.logprobs for score in scores]).astype(np.float64)
    difference = learner - sampler
    return {
        names.MISMATCH_KL.name: float((np.exp(difference) - 1 - difference).mean()),
        names.MISMATCH_MEAN.name: float(np.abs(difference).mean()),
        names.MISMATCH_MAX.name: float(np.abs(difference).max()),
    }


def time_metrics(seconds: Mapping[str, float], tokens: int, generated: int) -> dict[str, float]:
    """Seconds and shares of an iteration's phases, and tokens per second of generation and update."""
    total = sum(seconds.values())
    return {
        names.ITERATION_SECONDS.name: total,
        **{names.PHASE_SHARE.of(name): part / total for name, part in seconds.items()},
        names.GENERATION_SPEED.name: generated / max(seconds["generation"], 1e-9),
        names.UPDATE_SPEED.name: tokens / max(seconds["update"], 1e-9),
    }


def _repeats(turns: Sequence[Turn]) -> float:
    """Share of turns whose action was already played on the same observation in this episode."""
    pairs = Counter((turn.observation, turn.action) for turn in turns)
    return 1.0 - len(pairs) / len(turns)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else 0.0
