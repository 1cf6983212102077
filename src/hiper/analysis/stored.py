"""The episodes of a run as estimators see them, whatever the run was trained with.

Values are those that the run's own critic said, read at the places that an estimator asks for:

| the run's critic | for decisions            | for turns              | for tokens                       |
|------------------|--------------------------|------------------------|----------------------------------|
| decisions        | its own                  | V_switch               | V_switch up to </subgoal>, V_low |
| token            | at the decisions' places | before the first token | its own                          |
| turn             | -                        | its own                | -                                |
| none             | -                        | -                      | -                                |

The decisions' places: before the response (V_switch), before the subgoal (V_high), behind </subgoal> (V_low). Where the
run's form of the switch advantage gave V_switch nothing to learn, there are V_high and V_low alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hiper.advantages import HAE, Critic, Estimator, Floats, TokenKind, Turns
from hiper.config import Config
from hiper.episode import Episode, Turn
from hiper.errors import UserError
from hiper.runs.folder import Run
from hiper.training.assign import Grid, switch_probability, turns_of


@dataclass(frozen=True)
class Stored:
    """Episodes of one iteration."""

    iteration: int
    episodes: list[Episode]
    views: Mapping[Critic, Turns]
    """By what an estimator asks of a critic, as far as the run's critic can say it."""

    def why_not(self, estimator: Estimator) -> str | None:
        """What keeps an estimator from being asked about these episodes; None: nothing."""
        if estimator.critic not in self.views:
            return "the run's critic has no values for it"
        wants_switch = isinstance(estimator, HAE) and estimator.switch_form == "termination-value"
        if wants_switch and self.views["decisions"].v_switch_BT is None:
            return "the run's critic learned no V_switch"
        if estimator.grouped and not self._has_groups:
            return "no task was played twice from the same beginning"
        return None

    @property
    def _has_groups(self) -> bool:
        return len({(episode.task_id, episode.seed) for episode in self.episodes}) < len(self.episodes)


def read_stored(run: Run, iteration: int | None = None) -> Stored:
    """The episodes that an iteration learned from, the last one's by default.

    Raises:
        UserError: there are none, or they cannot be read.
    """
    stored = run.stored_iterations
    if not stored:
        raise UserError(f"{run.path} holds no training episodes yet; continue it with: hiper train --resume {run.path}")
    chosen = max(stored) if iteration is None else iteration
    if chosen not in stored:
        raise UserError(f"{run.path} has no episodes of iteration {chosen}; there are {min(stored)} to {max(stored)}")
    # What dynamic sampling replaced was not learned from, and has no credit.
    episodes = [episode for episode in run.episodes(chosen) if episode.credit is not None]
    return Stored(chosen, episodes, views_of(episodes, run.config))


def two_scales(own: Estimator) -> HAE:
    """HAE with the discount, trace decay and bootstrap of a run's own estimator where it has them; not normalised."""
    taken = {name: getattr(own, name) for name in ("gamma", "lambda_turn", "bootstrap_truncated") if hasattr(own, name)}
    like = own if isinstance(own, HAE) else HAE(**taken)
    return replace(like, normalize=False, switch_form="termination-value", time_scales="two")


def views_of(episodes: Sequence[Episode], config: Config) -> dict[Critic, Turns]:
    """See the module."""
    own = config.advantages
    learned_switch = not isinstance(own, HAE) or own.switch_form == "termination-value"
    said = [switch_probability(turn, np.asarray(turn.logprobs)) for episode in episodes for turn in episode.turns]
    return {
        critic: turns_of(episodes, config.shaping, values, said)[0]
        for critic, values in _values(episodes, own.critic, learned_switch).items()
    }


def _values(episodes: Sequence[Episode], critic: Critic, learned_switch: bool) -> dict[Critic, dict[str, Floats]]:
    """The values of each view, by value head."""
    grid = Grid([len(episode.turns) for episode in episodes])
    tokens = Grid([sum(len(turn.response_ids) for turn in episode.turns) for episode in episodes])

    def series(name: str, of: Grid = grid) -> Floats:
        return of.fill([x for e in episodes if e.credit is not None for x in e.credit.series[f"value/{name}"]])

    views: dict[Critic, dict[str, Floats]] = {"none": {}}
    if critic == "decisions" and not learned_switch:
        views["decisions"] = {"low": series("low"), "high": series("high")}
    elif critic == "decisions":
        low, high, switch = series("low"), series("high"), series("switch")
        turns = [turn for episode in episodes for turn in episode.turns]
        pairs = zip(turns, grid.rows(low), grid.rows(switch), strict=True)
        views["decisions"] = {"low": low, "high": high, "switch": switch}
        views["turn"] = {"low": switch}
        views["token"] = {"token": tokens.fill([x for turn, *values in pairs for x in _over_tokens(turn, *values)])}
    elif critic == "turn":
        views["turn"] = {"low": series("low")}
    elif critic == "token":
        token = series("token", tokens)
        places = np.array(_places(episodes))
        rows, columns = np.repeat(np.arange(len(episodes)), grid.mask_BT.sum(axis=1))[:, None], places
        low_N, high_N, switch_N = token[rows, columns].T
        views["decisions"] = {"low": grid.fill(low_N), "high": grid.fill(high_N), "switch": grid.fill(switch_N)}
        views["turn"] = {"low": grid.fill(switch_N)}
        views["token"] = {"token": token}
    return views


def _over_tokens(turn: Turn, low: float, switch: float) -> list[float]:
    """V_switch up to the token that completes the subgoal, V_low from the next one on."""
    before = len(turn.response_ids) if turn.low_index is None else turn.low_index + 1
    return [switch] * before + [low] * (len(turn.response_ids) - before)


def _places(episodes: Sequence[Episode]) -> list[tuple[int, int, int]]:
    """For each turn, the tokens of its episode before which V_low, V_high and V_switch are read."""
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
