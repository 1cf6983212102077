"""From episodes and scores to training rows: shape rewards, estimate credit, spread it over tokens.

Data flow one way: episodes (B) -> arrays (B, T) -> credit (B, T) -> rows (N) of tokens. Row n is turn t of episode b,
episodes in order and turns in order within them. K is the most response tokens of an episode, turn after turn.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiper.advantages import (
    Credit,
    Critic,
    Estimator,
    ResponseTokens,
    Rewards,
    Shaping,
    TokenKind,
    Turns,
    shape,
    spread,
)
from hiper.episode import Credit as EpisodeCredit
from hiper.episode import Episode, Turn
from hiper.models.actor_critic import HEADS_OF
from hiper.plan_execute.parse import KEEP, stated_switch
from hiper.rows import Row, Scores, TrainRow


@dataclass(frozen=True)
class Assigned:
    """What credit assignment gives."""

    rows: list[TrainRow]
    episodes: list[Episode]
    """The same episodes, their credit filled in."""
    turns: Turns
    credit: Credit
    rewards: Rewards


def rows_of(episodes: Sequence[Episode]) -> list[Row]:
    """One row per turn, exactly as sampled."""
    return [
        Row(turn.prompt_ids, turn.response_ids, turn.low_index, turn.logprobs, turn.policy_version)
        for turn in _turns(episodes)
    ]


def assign_credit(
    episodes: Sequence[Episode], scores: Sequence[Scores], shaping: Shaping, estimator: Estimator
) -> Assigned:
    """Credit every token of every turn.

    Raises:
        ValueError: there is not exactly one score per turn, or a score's tokens are not the sampled ones.
    """
    _check_tokens(episodes, scores)
    values = _values(episodes, scores, estimator.critic)
    said = [switch_probability(t, s.logprobs) for t, s in zip(_turns(episodes), scores, strict=True)]
    turns, rewards = turns_of(episodes, shaping, values, said)
    credit = estimator(turns)
    rows = _train_rows(scores, turns, credit, estimator.critic, responses_of(episodes, turns))
    return Assigned(rows, _with_credit(episodes, values, turns, credit, rewards), turns, credit, rewards)


def turns_of(
    episodes: Sequence[Episode],
    shaping: Shaping,
    values: Mapping[str, NDArray[Any]],
    switch_prob_N: Sequence[float],
) -> tuple[Turns, Rewards]:
    """What an estimator sees of episodes, and their rewards part by part.

    Args:
        episodes: played in groups where tasks and seeds are equal.
        shaping: of their rewards.
        values: by value head, (B, T); ``token``: (B, K).
        switch_prob_N: beta of each turn.
    """
    grid = Grid([len(episode.turns) for episode in episodes])
    rewards = shape(
        shaping,
        mask_BT=grid.mask_BT,
        reward_BT=grid.of_turns(episodes, lambda turn: turn.reward),
        valid_BT=grid.of_turns(episodes, lambda turn: turn.format_valid, bool),
        keep_BT=grid.of_turns(episodes, _said_keep, bool),
        strayed_BT=grid.of_turns(episodes, lambda turn: turn.copy_differs, bool),
    )
    groups: dict[tuple[str, int], int] = {}
    turns = Turns(
        mask_BT=grid.mask_BT,
        reward_BT=rewards.total_BT,
        boundary_BT=grid.of_turns(episodes, lambda turn: turn.boundary, bool),
        terminated_B=np.array([episode.terminated for episode in episodes]),
        v_low_BT=values.get("low"),
        v_high_BT=values.get("high"),
        v_switch_BT=values.get("switch"),
        switch_prob_BT=grid.fill(switch_prob_N),
        said_switch_BT=grid.of_turns(episodes, lambda turn: turn.switch, bool),
        penalty_BT=rewards.total_BT - rewards.environment_BT,
        group_B=np.array([groups.setdefault((e.task_id, e.seed), len(groups)) for e in episodes]),
        observation_BT=grid.of_turns(episodes, lambda turn: turn.observation, object),
        tokens_BT=grid.of_turns(episodes, lambda turn: len(turn.response_ids), int),
        v_token_BK=values.get("token"),
    )
    return turns, rewards


def _said_keep(turn: Turn) -> bool:
    """Also in a response that is invalid: it would else be cheaper than a valid one."""
    return not turn.switch if turn.format_valid else stated_switch(turn.text) == KEEP


def _values(episodes: Sequence[Episode], scores: Sequence[Scores], critic: Critic) -> dict[str, NDArray[Any]]:
    """What the critic said, by value head: (B, T), and (B, K) of a critic of tokens."""
    if critic == "token":
        tokens = Grid([sum(len(turn.response_ids) for turn in episode.turns) for episode in episodes])
        return {"token": tokens.fill(np.concatenate([score.values for score in scores]))}
    grid = Grid([len(episode.turns) for episode in episodes])
    values_NH = np.stack([score.values for score in scores]).astype(np.float64)
    return {name: grid.fill(values_NH[:, h]) for h, name in enumerate(HEADS_OF[critic])}


def _check_tokens(episodes: Sequence[Episode], scores: Sequence[Scores]) -> None:
    """What is trained on is what was sampled, token for token."""
    rows = rows_of(episodes)
    if len(scores) != len(rows):
        raise ValueError(f"{len(scores)} scores for {len(rows)} turns")
    for n, (turn, row, score) in enumerate(zip(_turns(episodes), rows, scores, strict=True)):
        if score.row != row:
            raise ValueError(f"turn {n}: the tokens scored are not the tokens sampled")
        counts = len(row.response_ids), len(turn.logprobs), len(turn.kinds), len(score.logprobs)
        if len(set(counts)) > 1:
            raise ValueError("turn {}: {} tokens sampled, {} log-probabilities, {} kinds, {} scored".format(n, *counts))


def switch_probability(turn: Turn, logprobs_K: NDArray[Any]) -> float:
    """beta_t = P(SWITCH): what was said has the probability of its tokens, and the other word has the rest.

    An invalid response says neither; 0.5 then, which no estimator uses. Tags that belong to the switch block
    (``prompt.include_tags``) are among its tokens: while the form is not learned yet, that is not P(SWITCH) alone.
    """
    if not turn.format_valid:
        return 0.5
    said = np.asarray(turn.kinds) == TokenKind.SWITCH
    probability = float(np.exp(logprobs_K[said].sum(dtype=np.float64)))
    return min(1.0, probability) if turn.switch else 1.0 - min(1.0, probability)


class Grid:
    """Places one number per turn, episode after episode, in arrays (B, T)."""

    def __init__(self, lengths: Sequence[int]) -> None:
        self.mask_BT = np.arange(max(lengths)) < np.array(lengths)[:, None]

    def fill(self, values_N: Sequence[Any] | NDArray[Any], dtype: type = float) -> NDArray[Any]:
        """Row-major: zeros beyond each episode's end."""
        filled: NDArray[Any] = np.zeros(self.mask_BT.shape, dtype=dtype)
        filled[self.mask_BT] = values_N
        return filled

    def of_turns(self, episodes: Sequence[Episode], value: Callable[[Turn], Any], dtype: type = float) -> NDArray[Any]:
        """``value`` of every turn."""
        return self.fill([value(turn) for turn in _turns(episodes)], dtype)

    def rows(self, array_BT: NDArray[Any]) -> NDArray[Any]:
        """The reverse of :meth:`fill`."""
        return array_BT[self.mask_BT]


def _turns(episodes: Sequence[Episode]) -> list[Turn]:
    return [turn for episode in episodes for turn in episode.turns]


def responses_of(episodes: Sequence[Episode], turns: Turns) -> list[ResponseTokens]:
    """The response of each turn, in order, as credit is spread over it."""
    places = zip(*np.nonzero(turns.mask_BT), strict=True)
    return [
        ResponseTokens(int(b), int(t), np.array(turn.kinds, dtype=np.int8), len(turn.response_ids), turn.format_valid)
        for (b, t), turn in zip(places, _turns(episodes), strict=True)
    ]


def _train_rows(
    scores: Sequence[Scores], turns: Turns, credit: Credit, critic: Critic, responses: Sequence[ResponseTokens]
) -> list[TrainRow]:
    targets, masks = _targets(turns, credit, critic)
    return [
        TrainRow(score, token.advantages.astype(np.float32), token.mask, target.astype(np.float32), mask)
        for score, token, target, mask in zip(scores, spread(credit, turns, responses), targets, masks, strict=True)
    ]


def _targets(turns: Turns, credit: Credit, critic: Critic) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
    """What each row's values are to be, and which of them are trained: not those of a head without a target."""
    mask_BT = turns.mask_BT
    if critic == "token" and credit.return_token_BK is not None and turns.tokens_BT is not None:
        cuts = np.cumsum(turns.tokens_BT[mask_BT])[:-1]
        target_K = credit.return_token_BK[turns.token_mask_BK]
        return np.split(target_K, cuts), np.split(np.ones(len(target_K), dtype=bool), cuts)
    heads = {
        "low": (credit.return_low_BT, mask_BT),
        "high": (credit.return_high_BT, turns.boundary_BT),
        "switch": (credit.return_switch_BT, mask_BT),
    }
    used = [heads[name] for name in HEADS_OF[critic]]
    target_NH = np.zeros((int(mask_BT.sum()), len(used)))
    mask_NH = np.zeros(target_NH.shape, dtype=bool)
    for h, (return_BT, used_BT) in enumerate(used):
        if return_BT is not None:
            target_NH[:, h], mask_NH[:, h] = return_BT[mask_BT], used_BT[mask_BT]
    return list(target_NH), list(mask_NH)


def _with_credit(
    episodes: Sequence[Episode], values: Mapping[str, NDArray[Any]], turns: Turns, credit: Credit, rewards: Rewards
) -> list[Episode]:
    advantages = {"low": credit.low_BT}
    if not credit.undivided:
        advantages |= {"high": credit.high_BT, "switch": credit.switch_BT}
    if credit.token_BK is not None:
        advantages |= {"token": credit.token_BK}
    arrays = {
        **{f"value/{name}": array for name, array in values.items()},
        **{f"advantage/{name}": array for name, array in advantages.items()},
        **{f"reward/{name}": array for name, array in rewards.parts().items()},
    }
    lengths_B = turns.mask_BT.sum(axis=1)
    tokens_B = lengths_B if turns.tokens_BT is None else turns.tokens_BT.sum(axis=1)
    return [
        dataclasses.replace(
            episode,
            credit=EpisodeCredit(
                {
                    name: tuple(array[b, : (tokens_B if name.endswith("/token") else lengths_B)[b]].round(6).tolist())
                    for name, array in arrays.items()
                }
            ),
        )
        for b, episode in enumerate(episodes)
    ]
