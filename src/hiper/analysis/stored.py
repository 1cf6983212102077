"""The stored episodes of a run as estimators see them, whatever estimator the run was trained with.

Values are those of the run's own critic, read at the places of each value head:

| the run's critic | V_low, V_high, V_switch  | value before the response | value before each token          |
|------------------|--------------------------|---------------------------|----------------------------------|
| decisions        | its own                  | V_switch                  | V_switch up to </subgoal>, V_low |
| token            | at the decisions' places | before the first token    | its own                          |
| turn             | -                        | its own                   | -                                |
| none             | -                        | -                         | -                                |

The decisions' places are: before the response (V_switch), before the subgoal (V_high), behind </subgoal> (V_low). If
the run's estimator did not train V_switch, only V_high and V_low are known.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hiper.advantages import HAE, Estimator, Floats, Head, TokenKind, Turns, on_grid
from hiper.advantages.values import HIGH, LOW, SWITCH, TOKEN, TURN
from hiper.config import Config
from hiper.episode import Episode, Turn
from hiper.errors import UserError
from hiper.runs.folder import Run
from hiper.training.assign import switch_probability, token_mask, turn_mask, turns_of


@dataclass(frozen=True)
class Stored:
    """The episodes of one iteration."""

    iteration: int
    episodes: list[Episode]
    turns: Turns
    """The same episodes as arrays, with every value that the run's critic can give."""

    def why_not(self, estimator: Estimator) -> str | None:
        """Return why an estimator cannot be called on these episodes; None if it can."""
        unknown = [head for head in estimator.heads if head.values_in(self.turns) is None]
        if unknown == [SWITCH]:
            return "the run's critic learned no V_switch"
        if unknown:
            return "the run's critic has no values for it"
        if estimator.grouped and not self._has_groups:
            return "no task was played twice from the same beginning"
        return None

    @property
    def _has_groups(self) -> bool:
        return len({(episode.task_id, episode.seed) for episode in self.episodes}) < len(self.episodes)


def read_stored(run: Run, iteration: int | None = None) -> Stored:
    """Read the episodes that an iteration learned from, the last iteration's by default.

    Raises:
        UserError: There are none, or they cannot be read.
    """
    stored = run.stored_iterations
    if not stored:
        if run.finished:
            raise UserError(f"{run.path} holds no training episodes: it was trained for 0 iterations")
        raise UserError(f"{run.path} holds no training episodes yet; continue it with: hiper train --resume {run.path}")
    chosen = max(stored) if iteration is None else iteration
    if chosen not in stored:
        raise UserError(f"{run.path} has no episodes of iteration {chosen}; there are {min(stored)} to {max(stored)}")
    # Episodes that dynamic sampling replaced were not learned from, and have no credit.
    episodes = [episode for episode in run.episodes(chosen) if episode.credit is not None]
    return Stored(chosen, episodes, stored_turns(episodes, run.config))


def with_settings_of(kind: type[Estimator], own: Estimator) -> Estimator:
    """Make an estimator of a class with a run's discount, trace decay and bootstrap, where it has such parameters.

    Settings that the run's own estimator does not have are those of HAE.
    """
    names = ("gamma", "lambda_turn", "bootstrap_truncated")
    known = {field.name for field in dataclasses.fields(kind)}
    return kind(**{name: getattr(own, name, getattr(HAE, name)) for name in names if name in known})


def two_scales(own: Estimator) -> HAE:
    """Return HAE as published, unscaled: a run's own, or with the settings of the run's estimator."""
    like = own if isinstance(own, HAE) else with_settings_of(HAE, own)
    assert isinstance(like, HAE)
    return like.unscaled().forms()["HAE"]


def stored_turns(episodes: Sequence[Episode], config: Config) -> Turns:
    """Lay out stored episodes as arrays, with every value that their critic can give. See the module's table."""
    said = [switch_probability(turn, turn.logprobs) for episode in episodes for turn in episode.turns]
    return turns_of(episodes, config.shaping, _values(episodes, config.advantages), said)[0]


def _values(episodes: Sequence[Episode], own: Estimator) -> dict[Head, Floats]:
    """Return the values by head: the stored ones, and those that they give at other places."""
    if any(episode.credit is None for episode in episodes):
        return {}  # evaluations are not scored
    mask_BT, mask_BK = turn_mask(episodes), token_mask(episodes)
    values: dict[Head, Floats] = {
        head: on_grid(
            [x for episode in episodes for x in _series(episode, head)], mask_BK if head.per_token else mask_BT
        )
        for head in own.heads
    }
    turns = [turn for episode in episodes for turn in episode.turns]
    if LOW in values and SWITCH in values:
        pairs = zip(turns, values[LOW][mask_BT], values[SWITCH][mask_BT], strict=True)
        values[TURN] = values[SWITCH]
        values[TOKEN] = on_grid([x for turn, *pair in pairs for x in _over_tokens(turn, *pair)], mask_BK)
    elif TOKEN in values:
        rows_N1 = np.nonzero(mask_BT)[0][:, None]
        of_places = values[TOKEN][rows_N1, np.array(_places(episodes))].T
        for head, of_head in zip((LOW, HIGH, SWITCH, TURN), (*of_places, of_places[2]), strict=True):
            values[head] = on_grid(of_head, mask_BT)
    return values


def _series(episode: Episode, head: Head) -> Sequence[float]:
    """Return an episode's stored values of a head."""
    assert episode.credit is not None
    series = episode.credit.series
    # Runs of turn-gae that are older than the head `turn` stored its values as those of `low`.
    return series["value/low"] if head is TURN and "value/turn" not in series else series[f"value/{head.name}"]


def _over_tokens(turn: Turn, low: float, switch: float) -> list[float]:
    """Return V_switch up to the token that completes the subgoal, and V_low from the next one on."""
    before = len(turn.response_ids) if turn.low_index is None else turn.low_index + 1
    return [switch] * before + [low] * (len(turn.response_ids) - before)


def _places(episodes: Sequence[Episode]) -> list[tuple[int, int, int]]:
    """Return, for each turn, the tokens of its episode before which V_low, V_high and V_switch are read."""
    places = []
    for episode in episodes:
        start = 0
        for turn in episode.turns:
            length = len(turn.response_ids)
            subgoal = turn.kinds.index(TokenKind.SUBGOAL) if TokenKind.SUBGOAL in turn.kinds else 0
            low = 0 if turn.low_index is None else min(turn.low_index + 1, length - 1)
            places.append((start + low, start + subgoal, start))
            start += length
    return places
