"""From episodes and scores to training rows: shape rewards, estimate credit, spread it over tokens.

Data flow one way: episodes (B) -> arrays (B, T) -> credit (B, T) -> rows (N) of tokens. Row n is turn t of episode b,
in the order of episodes and turns. K is the largest number of response tokens of an episode. H counts value heads, P
the places where they are read.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hiper.advantages import (
    HEADS_OF,
    Bools,
    Credit,
    Estimator,
    Floats,
    Head,
    ResponseTokens,
    Rewards,
    Shaping,
    TokenKind,
    Turns,
    on_grid,
    prefix_mask,
    shape,
    spread,
)
from hiper.advantages.checks import needed
from hiper.episode import Credit as EpisodeCredit
from hiper.episode import Episode, Turn
from hiper.plan_execute.parse import KEEP, stated_switch
from hiper.rollout.collector import contexts_of
from hiper.rollout.players import Move
from hiper.rows import Row, Scores, TrainRow

if TYPE_CHECKING:  # building prompts needs the library tokenizers, and readers of finished runs do not
    from hiper.plan_execute.prompts import PromptBuilder


@dataclass(frozen=True)
class Assigned:
    """The result of credit assignment."""

    rows: list[TrainRow]
    """One per turn, episodes in order."""
    episodes: list[Episode]
    """The same episodes with their credit."""
    turns: Turns
    credit: Credit
    rewards: Rewards


def rows_of(episodes: Sequence[Episode], critic_prompts: PromptBuilder | None = None) -> list[Row]:
    """Make one row per turn, with the tokens exactly as sampled.

    Args:
        episodes: The episodes.
        critic_prompts: The builder of the critic's prompts. None: the critic reads those of the policy.
    """
    rows = [
        Row(turn.prompt_ids, turn.response_ids, turn.low_index, turn.logprobs, turn.policy_version)
        for turn in _turns(episodes)
    ]
    if critic_prompts is None:
        return rows
    contexts = (context for episode in episodes for context in contexts_of(episode))
    return [
        dataclasses.replace(row, critic_prompt_ids=tuple(critic_prompts.build(context).ids))
        for row, context in zip(rows, contexts, strict=True)
    ]


def assign_credit(
    episodes: Sequence[Episode],
    scores: Sequence[Scores],
    shaping: Shaping,
    estimator: Estimator,
    *,
    thinking: bool = False,
) -> Assigned:
    """Credit every token of every turn.

    Args:
        episodes: The episodes.
        scores: The score of each turn.
        shaping: The shaping of their rewards.
        estimator: The estimator of credit.
        thinking: Whether thinking is credited, see :func:`hiper.advantages.spread`.

    Raises:
        ValueError: There is not exactly one score per turn, or a score's tokens are not the sampled ones.
    """
    _check_tokens(episodes, scores)
    heads = HEADS_OF[estimator.critic]
    values = _values(episodes, scores, heads)
    said = [switch_probability(t, s.logprobs) for t, s in zip(_turns(episodes), scores, strict=True)]
    turns, rewards = turns_of(episodes, shaping, values, said)
    credit = estimator(turns)
    tokens = spread(credit, turns, responses_of(episodes, turns), thinking=thinking)
    targets = _targets(turns, credit, heads)
    rows = [
        TrainRow(score, token.advantages.astype(np.float32), token.mask, target.astype(np.float32), mask)
        for score, token, target, mask in zip(scores, tokens, *targets, strict=True)
    ]
    computed = {"logprob/token": np.concatenate([score.logprobs for score in scores])}
    if all(score.entropy is not None for score in scores):
        computed["entropy/token"] = np.concatenate([score.entropy for score in scores])
    return Assigned(rows, _with_credit(episodes, heads, turns, credit, rewards, computed), turns, credit, rewards)


def turns_of(
    episodes: Sequence[Episode], shaping: Shaping, values: Mapping[Head, Floats], switch_prob_N: Sequence[float]
) -> tuple[Turns, Rewards]:
    """Lay out episodes as arrays for an estimator, and their rewards part by part.

    Args:
        episodes: The episodes. Those with the same task and seed form a group.
        shaping: The shaping of their rewards.
        values: The critic's values by head, (B, T), or (B, K) for a head per token.
        switch_prob_N: beta of each turn.
    """
    mask_BT = turn_mask(episodes)

    def of_turns(value: Callable[[Turn], Any], dtype: type = float) -> NDArray[Any]:
        return on_grid([value(turn) for turn in _turns(episodes)], mask_BT, dtype)

    rewards = shape(
        shaping,
        mask_BT=mask_BT,
        reward_BT=of_turns(lambda turn: turn.reward),
        valid_BT=of_turns(lambda turn: turn.format_valid, bool),
        keep_BT=of_turns(_said_keep, bool),
        strayed_BT=of_turns(lambda turn: turn.copy_differs, bool),
    )
    groups: dict[tuple[str, int], int] = {}
    by_field: dict[str, Any] = {head.values: array for head, array in values.items()}
    turns = Turns(
        mask_BT=mask_BT,
        reward_BT=rewards.total_BT,
        boundary_BT=of_turns(lambda turn: turn.boundary, bool),
        terminated_B=np.array([episode.terminated for episode in episodes]),
        switch_prob_BT=on_grid(switch_prob_N, mask_BT),
        said_switch_BT=of_turns(lambda turn: turn.switch, bool),
        penalty_BT=rewards.total_BT - rewards.environment_BT,
        group_B=np.array([groups.setdefault((e.task_id, e.seed), len(groups)) for e in episodes]),
        observation_BT=of_turns(lambda turn: turn.observation, object),
        tokens_BT=of_turns(lambda turn: len(turn.response_ids), int),
        **by_field,
    )
    return turns, rewards


def turn_mask(episodes: Sequence[Episode]) -> Bools:
    """Return the mask (B, T) of the turns played."""
    return prefix_mask([len(episode.turns) for episode in episodes])


def token_mask(episodes: Sequence[Episode]) -> Bools:
    """Return the mask (B, K) of the response tokens sampled, turn after turn."""
    return prefix_mask([sum(len(turn.response_ids) for turn in episode.turns) for episode in episodes])


def _said_keep(turn: Turn) -> bool:
    """Whether KEEP was said, in an invalid response too: otherwise an invalid one would cost less than a valid one."""
    return not turn.switch if turn.format_valid else stated_switch(turn.answer) == KEEP


def _values(episodes: Sequence[Episode], scores: Sequence[Scores], heads: Sequence[Head]) -> dict[Head, Floats]:
    """Return the critic's values by head: (B, T), or (B, K) for a head per token."""
    if not heads:
        return {}
    per_token = heads[0].per_token
    mask = token_mask(episodes) if per_token else turn_mask(episodes)
    values_PH = np.concatenate([score.values.reshape(-1, len(heads)) for score in scores]).astype(np.float64)
    return {head: on_grid(values_PH[:, h], mask) for h, head in enumerate(heads)}


def _check_tokens(episodes: Sequence[Episode], scores: Sequence[Scores]) -> None:
    """Check that the tokens scored are the tokens sampled."""
    rows = rows_of(episodes)
    if len(scores) != len(rows):
        raise ValueError(f"{len(scores)} scores for {len(rows)} turns")
    for n, (turn, row, score) in enumerate(zip(_turns(episodes), rows, scores, strict=True)):
        if dataclasses.replace(score.row, critic_prompt_ids=None) != row:
            raise ValueError(f"turn {n}: the tokens scored are not the tokens sampled")
        counts = len(row.response_ids), len(turn.logprobs), len(turn.kinds), len(score.logprobs)
        if len(set(counts)) > 1:
            raise ValueError("turn {}: {} tokens sampled, {} log-probabilities, {} kinds, {} scored".format(n, *counts))


def switch_probability(turn: Turn | Move, logprobs_K: ArrayLike) -> float:
    """Return beta_t = P(SWITCH): the probability of the tokens of the word said, or 1 minus it where KEEP was said.

    An invalid response says neither word. It gets 0.5, which no estimator uses. With ``prompt.include_tags``, the tags
    of the switch block count among its tokens. Until the form is learned, the result is then not P(SWITCH) alone.
    """
    if not turn.format_valid:
        return 0.5
    said = np.asarray(turn.kinds) == TokenKind.SWITCH
    probability = float(np.exp(np.asarray(logprobs_K)[said].sum(dtype=np.float64)))
    return min(1.0, probability) if turn.switch else 1.0 - min(1.0, probability)


def _turns(episodes: Sequence[Episode]) -> list[Turn]:
    return [turn for episode in episodes for turn in episode.turns]


def responses_of(episodes: Sequence[Episode], turns: Turns) -> list[ResponseTokens]:
    """Return the tokens of each turn's response, in order, for credit to be spread over."""
    places = zip(*np.nonzero(turns.mask_BT), strict=True)
    return [
        ResponseTokens(int(b), int(t), np.array(turn.kinds, dtype=np.int8), len(turn.response_ids), turn.format_valid)
        for (b, t), turn in zip(places, _turns(episodes), strict=True)
    ]


def _targets(turns: Turns, credit: Credit, heads: Sequence[Head]) -> tuple[list[Floats], list[Bools]]:
    """Return the regression target of each row's values, and the mask of the values that are trained.

    Both are (H,) for each row, or (K,) for a critic of tokens. A head without a target is not trained.
    """
    per_token = any(head.per_token for head in heads)
    places = turns.token_mask_BK if per_token else turns.mask_BT
    target_PH = np.zeros((int(places.sum()), len(heads)))
    mask_PH = np.zeros(target_PH.shape, dtype=bool)
    for h, head in enumerate(heads):
        if (target := head.targets_in(credit)) is not None:
            target_PH[:, h], mask_PH[:, h] = target[places], head.trained_in(turns)[places]
    if not per_token:
        return list(target_PH), list(mask_PH)
    tokens_BT = needed(turns.tokens_BT, "tokens_BT", "a critic of tokens")
    cuts = np.cumsum(tokens_BT[turns.mask_BT])[:-1]
    return np.split(target_PH[:, 0], cuts), np.split(mask_PH[:, 0], cuts)


def _with_credit(
    episodes: Sequence[Episode],
    heads: Sequence[Head],
    turns: Turns,
    credit: Credit,
    rewards: Rewards,
    computed: Mapping[str, NDArray[Any]],
) -> list[Episode]:
    """Return the episodes with values, advantages, reward parts, and what the learner computed for each token.

    Args:
        episodes: The episodes.
        heads: The value heads.
        turns: The same episodes as arrays.
        credit: Their credit.
        rewards: Their rewards by part.
        computed: Numbers of every token, end to end, by the name of their series.
    """
    series: dict[str, tuple[Floats, Bools]] = {
        name: (on_grid(number_K.astype(np.float64), turns.token_mask_BK), turns.token_mask_BK)
        for name, number_K in computed.items()
    }
    for head in heads:
        values = needed(head.values_in(turns), head.values, "stored credit")
        series[f"value/{head.name}"] = (values, turns.token_mask_BK if head.per_token else turns.mask_BT)
    for name, (advantage, _) in credit.advantages(turns).items():
        places = turns.token_mask_BK if name == "token" else turns.mask_BT
        series[f"advantage/{name}"] = (advantage, places)
    for name, part_BT in rewards.parts().items():
        series[f"reward/{name}"] = (part_BT, turns.mask_BT)
    return [
        dataclasses.replace(
            episode,
            credit=EpisodeCredit(
                {name: tuple(array[b, places[b]].round(6).tolist()) for name, (array, places) in series.items()}
            ),
        )
        for b, episode in enumerate(episodes)
    ]
