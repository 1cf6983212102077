"""Credit for display: any estimator on the stored episodes of one iteration, under settings changed by hand.

Estimators are called on all episodes of the iteration, since groups and normalisation need them. Of the result, one
episode is shown.
"""

from __future__ import annotations

import dataclasses
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np

from hiper.advantages import Credit, Estimator, Floats, Turns, spread
from hiper.advantages.values import HEADS
from hiper.analysis.credit.opinions import DECISIONS, disagreement, opinion_of
from hiper.analysis.credit.report import estimators_for
from hiper.analysis.stored import Stored, stored_turns
from hiper.config import Config
from hiper.episode import Episode
from hiper.errors import UserError, first_line
from hiper.training.assign import responses_of
from hiper.viewer.episodes import Lines
from hiper.viewer.folder import NotFoundError
from hiper.viewer.reading import EpisodeFile, RunReader

MOST_ITERATIONS = 2
"""The most iterations whose episodes stay in memory."""
DIGITS = 5


@dataclass(frozen=True, eq=False)
class Laid:
    """The episodes of a file as estimators see them."""

    stored: Stored
    row_of: Mapping[int, int]
    """The row in the arrays of each episode, by its number in the file."""


class CreditDesk:
    """Calls estimators on stored episodes. The episodes of the last iterations stay in memory.

    Args:
        lines: The reader of episodes.
    """

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self._laid: OrderedDict[tuple[str, tuple[int, int]], Laid] = OrderedDict()
        self._lock = threading.Lock()

    def laid(self, config: Config, file: EpisodeFile) -> Laid:
        """Return the episodes of a file as arrays.

        Raises:
            UserError: None of them can be read.
        """
        key = (str(file.path), file.stamp)
        with self._lock:
            if key in self._laid:
                self._laid.move_to_end(key)
                return self._laid[key]
            laid = lay_out(self._lines.slim(file), config, file)
            self._laid[key] = laid
            while len(self._laid) > MOST_ITERATIONS:
                self._laid.popitem(last=False)
            return laid

    def answer(
        self,
        run: RunReader,
        file: EpisodeFile,
        number: int,
        changes: Mapping[str, Any],
        only: Collection[str] | None = None,
    ) -> dict[str, Any]:
        """Return what estimators make of one episode.

        Args:
            run: The run.
            file: The file of episodes.
            number: The episode's number in the file.
            changes: Settings by name, for every estimator that has a setting of this name.
            only: The titles of the estimators to call. The others are only named. None: all.

        Raises:
            UserError: The episode was not learned from, or a setting is out of range.
        """
        config = run.config
        laid = self.laid(config, file)
        if number not in laid.row_of:
            raise NotFoundError("this episode was replaced by dynamic sampling, or is damaged: it has no credit")
        began = time.perf_counter()
        row, estimators = laid.row_of[number], estimators_for(config)
        known = controls(estimators)
        called = {
            title: _shown(
                title, changed(estimator, changes, known), laid.stored, row, config, only is None or title in only
            )
            for title, estimator in estimators.items()
        }
        gamma = changes.get("gamma", getattr(config.advantages, "gamma", 1.0))
        return {
            "episodes": len(laid.stored.episodes),
            "of": self._lines.count(file),
            "own": own_title(config),
            "estimators": list(called.values()),
            "controls": known,
            "values": _values(laid.stored.turns, row, float(gamma)),
            "milliseconds": round(1000 * (time.perf_counter() - began), 1),
        }


def lay_out(episodes: Sequence[Episode | None], config: Config, file: EpisodeFile) -> Laid:
    """Lay out episodes as arrays. Damaged ones, and those that training did not learn from, are left out.

    Raises:
        UserError: None is left.
    """
    kept = {
        number: episode
        for number, episode in enumerate(episodes)
        if episode is not None and _can_be_credited(episode, file)
    }
    if not kept:
        raise NotFoundError(f"{file.name} holds no episodes with credit")
    chosen = list(kept.values())
    stored = Stored(file.iteration, chosen, stored_turns(chosen, config))
    return Laid(stored, {number: row for row, number in enumerate(kept)})


def _can_be_credited(episode: Episode, file: EpisodeFile) -> bool:
    """Whether training learned from an episode, or it is one of an evaluation, and its rewards are numbers."""
    learned = episode.credit is not None or file.split is not None
    return learned and bool(episode.turns) and all(math.isfinite(turn.reward) for turn in episode.turns)


def disputes(laid: Laid, config: Config) -> tuple[dict[int, tuple[float, int]], list[str]]:
    """Say where estimators differ most in each episode of a file.

    Returns:
        By the number of an episode, how far estimators differ at its most disputed turn, and which turn that is. How
        far is the range of the turn's ranks over estimators, from 0 to 1. Then notes on estimators that raised.
    """
    stored = laid.stored
    opinions, notes = [], []
    for title, estimator in estimators_for(config).items():
        if not stored.why_not(estimator):
            try:
                opinions.append(opinion_of(stored, estimator, config.prompt.credits_thinking))
            except Exception as error:  # an estimator of a user's own may raise anything; the others are compared
                notes.append(f"'{title}' is not compared: it raised {type(error).__name__}: {first_line(error)}")
    if len(opinions) < 2:
        return {}, notes
    apart_N = disagreement(np.array([opinion.turn_N for opinion in opinions]))
    cuts = np.cumsum([len(episode.turns) for episode in stored.episodes])[:-1]
    parts = np.split(apart_N, cuts)
    most = [(round(float(part.max()), 4), int(part.argmax())) for part in parts]
    return {number: most[row] for number, row in laid.row_of.items()}, notes


# Settings changed by hand


def controls(estimators: Mapping[str, Estimator]) -> list[dict[str, Any]]:
    """Return a control for each setting that can be changed, with the estimators that have it.

    A setting of the same name means the same in all estimators. Settings in which the forms of one class differ are
    left out: they are what tells these forms apart.
    """
    found: dict[str, dict[str, Any]] = {}
    for title, estimator in estimators.items():
        fixed = _telling_apart(estimator)
        for name, kind in _kinds(type(estimator)).items():
            if name not in fixed:
                control = found.setdefault(name, kind | {"name": name, "value": getattr(estimator, name), "of": []})
                control["of"].append(title)
    return list(found.values())


def changed(estimator: Estimator, changes: Mapping[str, Any], possible: Sequence[Mapping[str, Any]]) -> Estimator:
    """Return an estimator with those of the settings that it has.

    Args:
        estimator: The estimator.
        changes: Settings by name.
        possible: What :func:`controls` gave for this estimator and others.

    Raises:
        UserError: No estimator has the setting, or it is out of range.
    """
    known = {control["name"]: control for control in possible}
    own = _kinds(type(estimator)).keys() - _telling_apart(estimator)
    chosen = {}
    for name, value in changes.items():
        if name not in known:
            raise UserError(f"no estimator has the setting '{name}'")
        if name in own:
            chosen[name] = _typed(known[name], value)
    return dataclasses.replace(estimator, **chosen) if chosen else estimator


@cache
def _kinds(estimator: type[Estimator]) -> dict[str, dict[str, Any]]:
    """Return the settings that a control can change: numbers, switches and choices."""
    hints = get_type_hints(estimator)
    kinds: dict[str, dict[str, Any]] = {}
    for field in dataclasses.fields(estimator):
        hint = hints[field.name]
        if hint is bool:
            kinds[field.name] = {"kind": "switch"}
        elif hint is float:
            kinds[field.name] = {"kind": "number"}
        elif get_origin(hint) is Literal:
            kinds[field.name] = {"kind": "choice", "choices": list(get_args(hint))}
    return kinds


def _telling_apart(estimator: Estimator) -> set[str]:
    forms = list(estimator.forms().values())
    return {f.name for f in dataclasses.fields(estimator) if len({getattr(form, f.name) for form in forms}) > 1}


def _typed(control: Mapping[str, Any], value: Any) -> Any:
    kind, name = control["kind"], control["name"]
    if kind == "switch" and isinstance(value, bool):
        return value
    if kind == "number" and isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e6:
        return float(value)
    if kind == "choice" and value in control["choices"]:
        return value
    raise UserError(f"{name} cannot be {str(value)[:40]!r}")


def own_title(config: Config) -> str:
    """Return the title under which the run's own estimator is shown."""
    own = config.advantages.unscaled()
    return next((t for t, e in estimators_for(config).items() if e == own), config.advantages.title)


# What is shown of one episode


def _shown(title: str, estimator: Estimator, stored: Stored, row: int, config: Config, called: bool) -> dict[str, Any]:
    shown: dict[str, Any] = {"title": title, "type": estimator.type}
    if why := stored.why_not(estimator):
        return shown | {"why_not": why}
    if not called:
        return shown
    try:
        return shown | _credited(estimator, stored, row, config)
    except Exception as error:  # an estimator of a user's own may raise anything; the others are shown
        return shown | {"why_not": f"it raised {type(error).__name__}: {first_line(error)}"}


def _credited(estimator: Estimator, stored: Stored, row: int, config: Config) -> dict[str, Any]:
    credit = estimator(stored.turns)
    length = int(stored.turns.length_B[row])
    advantages = credit.advantages(stored.turns)
    kinds = {"response": "low"} if credit.undivided else DECISIONS
    used = np.concatenate([advantages[name][0][advantages[name][1]] for name in kinds.values()])
    return {
        "decisions": {
            kind: _numbers(np.where(mask_BT[row, :length], advantage_BT[row, :length], np.nan))
            for kind, (advantage_BT, mask_BT) in ((kind, advantages[name]) for kind, name in kinds.items())
        },
        "tokens": _tokens(credit, stored, row, config.prompt.credits_thinking),
        # Colours are relative to the credit of nearly all decisions, so that a single outlier does not hide them.
        "scale": max(float(np.quantile(np.abs(used), 0.98)), 1e-9) if used.size else 1.0,
    }


def _tokens(credit: Credit, stored: Stored, row: int, thinking: bool) -> list[list[float | None]]:
    turns, episode = _alone(stored.turns, row), stored.episodes[row]
    spread_N = spread(_alone(credit, row, stored.turns), turns, responses_of([episode], turns), thinking=thinking)
    return [_numbers(np.where(token.mask, token.advantages, np.nan)) for token in spread_N]


def _alone(arrays: Any, row: int, turns: Turns | None = None) -> Any:
    """Return one episode of a record of arrays, without padding. The suffix of a field's name tells its axes."""
    turns = arrays if turns is None else turns
    length = int(turns.length_B[row])
    tokens = 0 if turns.tokens_BT is None else int(turns.tokens_BT[row].sum())
    cuts = {"BT": (slice(row, row + 1), slice(length)), "BK": (slice(row, row + 1), slice(tokens))}
    cut: dict[str, Any] = {}
    for field in dataclasses.fields(arrays):
        array, axes = getattr(arrays, field.name), field.name.rpartition("_")[2]
        if array is not None and axes in ("B", "BT", "BK"):
            cut[field.name] = array[cuts.get(axes, slice(row, row + 1))]
    return dataclasses.replace(arrays, **cut)


def _values(turns: Turns, row: int, gamma: float) -> dict[str, list[float | None]]:
    """Return the values of each head per turn, and the discounted return from each turn to the episode's end."""
    length = int(turns.length_B[row])
    found = {
        head.name: _numbers(values[row, :length])
        for head in HEADS
        if not head.per_token and (values := head.values_in(turns)) is not None
    }
    total, returns = 0.0, []
    for reward in turns.reward_BT[row, :length][::-1].tolist():
        total = reward + gamma * total
        returns.append(total)
    return found | {"return": _numbers(np.array(returns[::-1]))}


def _numbers(array: Floats) -> list[float | None]:
    return [round(x, DIGITS) if np.isfinite(x) else None for x in array.tolist()]
