"""The estimators' opinions on a run's episodes, gathered for display and for the disk."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from hiper.advantages import GRPO, RLOO, Estimator, Floats, GiGPO, ReinforcePP, TokenGAE, TurnGAE, spread
from hiper.analysis.credit.opinions import Opinion, Summary, correlations, disagreement, summaries
from hiper.analysis.stored import Stored, read_stored, two_scales
from hiper.config import Config
from hiper.episode import Episode, Turn
from hiper.errors import UserError
from hiper.files import write_text
from hiper.models.build import load_tokenizer
from hiper.runs.folder import Run
from hiper.runs.policies import PolicyFolder
from hiper.training.assign import responses_of

DISPUTED = 8
"""Turns listed as those that estimators disagree on most."""


@dataclass(frozen=True)
class Disputed:
    """A turn that estimators disagree on."""

    episode: int
    turn: int
    row: int
    """Among all turns."""
    apart: float
    """How far apart its ranks are, see :func:`hiper.analysis.credit.opinions.disagreement`."""


@dataclass(frozen=True, eq=False)
class CreditReport:
    """See the module."""

    name: str
    iteration: int
    episodes: Sequence[Episode]
    opinions: Mapping[str, Opinion]
    summaries: Mapping[str, Sequence[Summary]]
    left_out: Mapping[str, str]
    """Estimators that cannot be asked, and why."""
    turn_correlation_EE: Floats
    token_correlation_EE: Floats
    disputed: Sequence[Disputed]
    """The most first."""
    shown: Disputed
    """The most disputed turn whose response is valid, if any is: its tokens differ."""
    tokens: Sequence[str]
    """Of the response shown, decoded one by one."""

    def turn(self, disputed: Disputed) -> Turn:
        """The turn itself."""
        return self.episodes[disputed.episode].turns[disputed.turn]

    def of_episode(self, episode: int) -> dict[str, Floats]:
        """What each estimator says of one episode, turn by turn."""
        starts = [0, *accumulate(len(e.turns) for e in self.episodes)]
        return {name: o.turn_N[starts[episode] : starts[episode + 1]] for name, o in self.opinions.items()}

    def to_json(self) -> dict[str, Any]:
        """All of it, with every turn of every episode, counted from 0, and the tokens of the disputed ones."""
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

    def write(self, path: Path) -> None:
        """As JSON."""
        write_text(path, json.dumps(self.to_json(), indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def estimators_for(config: Config) -> dict[str, Estimator]:
    """Every estimator with the run's own discount, trace decay and bootstrap where it has them, in units of reward.

    The run's own estimator keeps its settings, but that nothing is divided by a standard deviation, which would hide
    how credit varies; HAE is asked in three forms, whichever the run's is.
    """
    own = config.advantages
    hae = two_scales(own)
    bootstrap = hae.bootstrap_truncated
    estimators: dict[str, Estimator] = {
        "HAE": hae,
        "HAE, value-gap": dataclasses.replace(hae, switch_form="value-gap"),
        "HAE, one scale": dataclasses.replace(hae, time_scales="one", lambda_boundary=0.0),
        "turn GAE": TurnGAE(hae.gamma, hae.lambda_turn, bootstrap, normalize=False),
        "token GAE": TokenGAE(hae.gamma, 1.0, bootstrap, normalize=False),
        "GRPO": GRPO(scale=False),
        "RLOO": RLOO(),
        "GiGPO": GiGPO(hae.gamma, scale=False),
        "REINFORCE++": ReinforcePP(hae.gamma, scale=False),
    }
    if isinstance(own, TurnGAE | TokenGAE):
        own = dataclasses.replace(own, normalize=False)
    elif isinstance(own, GRPO | GiGPO | ReinforcePP):
        own = dataclasses.replace(own, scale=False)
    return {name: own if e.type == own.type != "hae" else e for name, e in estimators.items()}


def credit_report(run: Run, iteration: int | None = None) -> CreditReport:
    """Ask every estimator about the episodes of an iteration, the last one's by default.

    Raises:
        UserError: there are no episodes, or they cannot be read.
    """
    stored = read_stored(run, iteration)
    estimators = estimators_for(run.config)
    left_out = {name: why for name, estimator in estimators.items() if (why := stored.why_not(estimator))}
    opinions = {name: _opinion(stored, e) for name, e in estimators.items() if name not in left_out}
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
        summaries={name: summaries(opinion, stored.views["none"]) for name, opinion in opinions.items()},
        left_out=left_out,
        turn_correlation_EE=correlations({name: opinion.turn_N for name, opinion in opinions.items()}),
        token_correlation_EE=correlations({name: opinion.token_K for name, opinion in opinions.items()}),
        disputed=order[:DISPUTED],
        shown=shown,
        tokens=_decoded(run, stored.episodes[shown.episode].turns[shown.turn]),
    )


def _opinion(stored: Stored, estimator: Estimator) -> Opinion:
    turns = stored.views[estimator.critic]
    credit = estimator(turns)
    return Opinion(credit, spread(credit, turns, responses_of(stored.episodes, turns)))


def _decoded(run: Run, turn: Turn) -> list[str]:
    """The tokens of a response, each on its own; their ids where the run holds no tokenizer (any more)."""
    try:
        tokenizer: PreTrainedTokenizerBase = load_tokenizer(PolicyFolder.find(run.path).path)
    except UserError:
        return [str(token) for token in turn.response_ids]
    return [str(tokenizer.decode([token])) for token in turn.response_ids]


def _numbers(array: Floats) -> Any:
    """Nested lists, six digits behind the point, None for NaN."""
    rounded = np.round(array, 6).astype(object)
    rounded[~np.isfinite(array)] = None
    return rounded.tolist()
