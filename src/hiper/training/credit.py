"""From episodes and scores to training rows: shape rewards, estimate credit, spread it over tokens.

Data flow one way: episodes (B) -> arrays (B, T) -> credit (B, T) -> rows (N) of tokens. Row n is turn t of episode b,
episodes in order and turns in order within them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiper.advantages import Credit, Estimator, ResponseTokens, Rewards, Shaping, Turns, shape, spread
from hiper.episode import Credit as EpisodeCredit
from hiper.episode import Episode, Turn
from hiper.models.actor_critic import HEADS, Row
from hiper.plan_execute.spans import TokenKind
from hiper.training.learner import Scores, TrainRow


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
    return [Row(turn.prompt_ids, turn.response_ids, turn.low_index) for e in episodes for turn in e.turns]


def assign_credit(
    episodes: Sequence[Episode], scores: Sequence[Scores], shaping: Shaping, estimator: Estimator
) -> Assigned:
    """Credit every token of every turn.

    Raises:
        ValueError: there is not exactly one score per turn, or a score's tokens are not the sampled ones.
    """
    _check_tokens(episodes, scores)
    grid = Grid([len(episode.turns) for episode in episodes])
    rewards = shape(
        shaping,
        mask_BT=grid.mask_BT,
        reward_BT=grid.of_turns(episodes, lambda turn: turn.reward),
        valid_BT=grid.of_turns(episodes, lambda turn: turn.format_valid, bool),
        keep_BT=grid.of_turns(episodes, lambda turn: turn.format_valid and not turn.switch, bool),
        strayed_BT=grid.of_turns(episodes, lambda turn: turn.copy_differs, bool),
    )
    values_N3 = np.stack([score.values for score in scores]).astype(np.float64)
    value_BT = {name: grid.fill(values_N3[:, h]) for h, name in enumerate(HEADS)}
    turns = Turns(
        mask_BT=grid.mask_BT,
        reward_BT=rewards.total_BT,
        boundary_BT=grid.of_turns(episodes, lambda turn: turn.boundary, bool),
        terminated_B=np.array([episode.terminated for episode in episodes]),
        v_low_BT=value_BT["low"],
        v_high_BT=value_BT["high"],
        v_switch_BT=value_BT["switch"],
        switch_prob_BT=grid.fill([switch_probability(t, s) for t, s in zip(_turns(episodes), scores, strict=True)]),
        said_switch_BT=grid.of_turns(episodes, lambda turn: turn.switch, bool),
    )
    credit = estimator(turns)
    rows = _train_rows(episodes, scores, turns, credit, grid)
    return Assigned(rows, _with_credit(episodes, value_BT, credit, rewards), turns, credit, rewards)


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


def switch_probability(turn: Turn, scores: Scores) -> float:
    """beta_t = P(SWITCH): what was said has the probability of its tokens, and the other word has the rest.

    An invalid response says neither; 0.5 then, which no estimator uses.
    """
    if not turn.format_valid:
        return 0.5
    said = np.asarray(turn.kinds) == TokenKind.SWITCH
    probability = float(np.exp(scores.logprobs[said].sum(dtype=np.float64)))
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


def _train_rows(
    episodes: Sequence[Episode], scores: Sequence[Scores], turns: Turns, credit: Credit, grid: Grid
) -> list[TrainRow]:
    places = zip(*np.nonzero(grid.mask_BT), strict=True)
    responses = [
        ResponseTokens(int(b), int(t), np.array(turn.kinds, dtype=np.int8), len(turn.response_ids), turn.format_valid)
        for (b, t), turn in zip(places, _turns(episodes), strict=True)
    ]
    tokens = spread(credit, turns, responses)
    # A head without a target of this estimator is not trained.
    returns = (credit.return_low_BT, credit.return_high_BT, credit.return_switch_BT)
    used = (grid.mask_BT, turns.boundary_BT, grid.mask_BT)
    zeros = np.zeros_like(grid.mask_BT)
    target_N3 = np.stack([grid.rows(zeros if r is None else r) for r in returns], 1).astype(np.float32)
    mask_N3 = np.stack([grid.rows(zeros if r is None else u) for r, u in zip(returns, used, strict=True)], 1)
    rows = []
    for n, (row, score, token) in enumerate(zip(rows_of(episodes), scores, tokens, strict=True)):
        rows.append(TrainRow(row, score, token.advantages.astype(np.float32), token.mask, target_N3[n], mask_N3[n]))
    return rows


def _with_credit(
    episodes: Sequence[Episode], value_BT: dict[str, NDArray[Any]], credit: Credit, rewards: Rewards
) -> list[Episode]:
    arrays = {
        **{f"value/{name}": array for name, array in value_BT.items()},
        "advantage/low": credit.low_BT,
        "advantage/high": credit.high_BT,
        "advantage/switch": credit.switch_BT,
        **{f"reward/{name}": array for name, array in rewards.parts().items()},
    }
    return [
        dataclasses.replace(
            episode,
            credit=EpisodeCredit(
                {name: tuple(array[b, : len(episode.turns)].round(6).tolist()) for name, array in arrays.items()}
            ),
        )
        for b, episode in enumerate(episodes)
    ]
