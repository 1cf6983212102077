"""A report of what every estimator makes of a run's episodes, for display and for the disk."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np

from hiper.advantages import ESTIMATORS, Estimator, Floats
from hiper.analysis.credit.opinions import Opinion, Summary, correlations, disagreement, opinion_of, summaries
from hiper.analysis.stored import read_stored, with_settings_of
from hiper.config import Config
from hiper.episode import Episode, Turn
from hiper.errors import UserError
from hiper.plan_execute.tokenizer import load_tokenizer
from hiper.runs.folder import Run
from hiper.runs.policies import PolicyFolder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DISPUTED = 8
"""The number of turns listed as those that estimators disagree on most."""


@dataclass(frozen=True)
class Disputed:
    """A turn that estimators disagree on."""

    episode: int
    turn: int
    row: int
    """The turn's number among all turns of all episodes."""
    apart: float
    """The range of its ranks, see :func:`hiper.analysis.credit.opinions.disagreement`."""


@dataclass(frozen=True, eq=False)
class CreditReport:
    """The credit that estimators give the episodes of one iteration, and where they disagree."""

    name: str
    iteration: int
    episodes: Sequence[Episode]
    opinions: Mapping[str, Opinion]
    summaries: Mapping[str, Sequence[Summary]]
    left_out: Mapping[str, str]
    """The reason why an estimator cannot be called on these episodes, by its title."""
    turn_correlation_EE: Floats
    token_correlation_EE: Floats
    disputed: Sequence[Disputed]
    """The turns with the largest disagreement, in falling order."""
    shown: Disputed
    """The most disputed turn with a valid response, if there is one: its tokens have different credit."""
    tokens: Sequence[str]
    """The tokens of the response shown, decoded one by one."""

    def turn(self, disputed: Disputed) -> Turn:
        """Return the turn itself."""
        return self.episodes[disputed.episode].turns[disputed.turn]

    def of_episode(self, episode: int) -> dict[str, Floats]:
        """Return the credit of one episode by estimator, turn by turn."""
        starts = [0, *accumulate(len(e.turns) for e in self.episodes)]
        return {name: o.turn_N[starts[episode] : starts[episode + 1]] for name, o in self.opinions.items()}

    def to_json(self) -> dict[str, Any]:
        """Return the report with every turn of every episode, counted from 0, and the tokens of the disputed turns."""
        return {
            "run": self.name,
            "iteration": self.iteration,
            "estimators": {name: [dataclasses.asdict(s) for s in parts] for name, parts in self.summaries.items()},
            "left_out": dict(self.left_out),
            "rank_correlation": {
                "order": list(self.opinions),
                "turns": _numbers(self.turn_correlation_EE),
                "tokens": _numbers(self.token_correlation_EE),
            },
            "disputed": [
                dataclasses.asdict(d)
                | {
                    "action": self.turn(d).action,
                    "subgoal": self.turn(d).subgoal,
                    "token_ids": self.turn(d).response_ids,
                }
                | {"tokens": {name: _numbers(o.token_K_of(d.row)) for name, o in self.opinions.items()}}
                for d in {d.row: d for d in (*self.disputed, self.shown)}.values()
            ],
            "episodes": [
                {"task_id": e.task_id, "won": e.won, "actions": [turn.action for turn in e.turns]}
                | {"credit": {name: _numbers(turn_N) for name, turn_N in self.of_episode(b).items()}}
                for b, e in enumerate(self.episodes)
            ],
        }


def estimators_for(config: Config) -> dict[str, Estimator]:
    """Return every registered estimator and the run's own, by title, in units of reward.

    They have the run's discount, trace decay and bootstrap (:func:`hiper.analysis.stored.with_settings_of`). The run's
    own estimator keeps all its settings. None divides by a standard deviation, which would hide how credit varies.
    """
    own = config.advantages
    asked = [own if type(own) is kind else with_settings_of(kind, own) for kind in ESTIMATORS.values()]
    if type(own) not in ESTIMATORS.values():
        asked.append(own)
    estimators: dict[str, Estimator] = {}
    for estimator in asked:
        for title, form in estimator.unscaled().forms().items():
            estimators[title if title not in estimators else f"{title} ({estimator.type})"] = form
    return estimators


def credit_report(run: Run, iteration: int | None = None) -> CreditReport:
    """Call every estimator on the episodes of an iteration, the last one's by default.

    Raises:
        UserError: There are no episodes, or they cannot be read.
    """
    stored = read_stored(run, iteration)
    estimators = estimators_for(run.config)
    left_out = {name: why for name, estimator in estimators.items() if (why := stored.why_not(estimator))}
    thinking = run.config.prompt.credits_thinking
    opinions = {name: opinion_of(stored, e, thinking) for name, e in estimators.items() if name not in left_out}
    apart_N = disagreement(np.array([opinion.turn_N for opinion in opinions.values()]))
    places = [(b, t) for b, episode in enumerate(stored.episodes) for t in range(len(episode.turns))]
    order = [
        Disputed(places[row][0], places[row][1], row, round(float(apart_N[row]), 6))
        for row in np.argsort(-apart_N, kind="stable").tolist()
    ]
    valid = (d for d in order if stored.episodes[d.episode].turns[d.turn].format_valid)
    shown = next(valid, order[0])
    return CreditReport(
        name=f"{run.config.name}, seed {run.config.seed}",
        iteration=stored.iteration,
        episodes=stored.episodes,
        opinions=opinions,
        summaries={name: summaries(opinion, stored.turns) for name, opinion in opinions.items()},
        left_out=left_out,
        turn_correlation_EE=correlations({name: opinion.turn_N for name, opinion in opinions.items()}),
        token_correlation_EE=correlations({name: opinion.token_K for name, opinion in opinions.items()}),
        disputed=order[:DISPUTED],
        shown=shown,
        tokens=_decoded(run, stored.episodes[shown.episode].turns[shown.turn]),
    )


def _decoded(run: Run, turn: Turn) -> list[str]:
    """Decode the tokens of a response one by one; return their ids if the run has no tokenizer."""
    try:
        tokenizer: PreTrainedTokenizerBase = load_tokenizer(PolicyFolder.find(run.path).path)
    except UserError:
        return [str(token) for token in turn.response_ids]
    return [str(tokenizer.decode([token])) for token in turn.response_ids]


def _numbers(array: Floats) -> Any:
    """Return nested lists with six digits after the point and None for NaN."""
    rounded = np.round(array, 6).astype(object)
    rounded[~np.isfinite(array)] = None
    return rounded.tolist()
