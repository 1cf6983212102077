"""The one record of what happened: it feeds training, the disk and every display.

An :class:`Episode` is written by the rollout, never changed, and later joined by its :class:`Credit`
(values, advantages, reward parts). On disk an episode is one JSON object per line, stamped with
:data:`RECORD_VERSION`.
"""

from __future__ import annotations

import dataclasses
import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TextIO

from hiper.errors import UserError
from hiper.files import atomic_file

RECORD_VERSION = 1


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn: what was shown, what was sampled, what it meant, what came of it."""

    observation: str
    """The environment's own text before the turn."""
    admissible: tuple[str, ...] | None
    prompt_ids: tuple[int, ...]
    """Exactly the tokens the policy read."""
    response_ids: tuple[int, ...]
    """Exactly the tokens the policy sampled, end-of-sequence token included if it was reached."""
    logprobs: tuple[float, ...]
    """The sampler's log-probability of each response token, at the sampling temperature."""
    kinds: tuple[int, ...]
    """The :class:`~hiper.advantages.TokenKind` of each response token."""
    low_index: int | None
    """Index of the response token that completes ``</subgoal>``; None where the form is invalid."""
    text: str
    """The response, decoded."""
    switch: bool
    """SWITCH was said (False too where the response is invalid)."""
    boundary: bool
    """A segment begins here: SWITCH was said, or it is the first turn."""
    subgoal: str
    """The subgoal followed from this turn on ('' where none was ever stated)."""
    action: str
    """What was sent to the environment."""
    invalid: str | None
    """Why the response is invalid (:class:`~hiper.plan_execute.parse.InvalidKind`); None where it is valid."""
    copy_differs: bool
    """KEEP was said, but the subgoal stated is not a copy of the previous one."""
    reward: float
    """From the environment, before shaping."""
    prompt_cut: bool = False
    """The prompt was longer than allowed and was shortened."""
    policy_version: int | None = None
    """The version of the weights that sampled the response; None where that is unknown, or nothing was sampled."""
    lapse: bool = False
    """A demonstrator's mistake on purpose, which is not to be imitated."""

    @property
    def format_valid(self) -> bool:
        """Whether the response had the right form, whatever the environment thought of its action."""
        return self.invalid in (None, "inadmissible_action")


@dataclass(frozen=True, slots=True)
class Credit:
    """What credit assignment made of one episode: sequences of one number per turn, by name.

    Names: ``value/<head>`` for each head of the critic (:mod:`hiper.advantages.values`); ``advantage/<name>`` for each
    of :meth:`hiper.advantages.Credit.advantages`; ``reward/<part>`` for each part of the shaped reward. ``value/token``
    and ``advantage/token`` hold one number per response token, turn after turn.
    """

    series: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class Episode:
    """One episode, whole."""

    task_id: str
    task_type: str
    seed: int
    goal: str
    turns: tuple[Turn, ...]
    terminated: bool
    truncated: bool
    won: bool
    end: str
    """Why it ended (:class:`~hiper.envs.base.EndReason`)."""
    score: float
    """Graded outcome in [0, 1]; 1 or 0 by success where the environment has no grades."""
    parts: Mapping[str, float] = field(default_factory=dict)
    """What the score is made of, by name, where the environment says so."""
    credit: Credit | None = None

    @property
    def total_reward(self) -> float:
        """Sum of the environment's rewards, before shaping."""
        return sum(turn.reward for turn in self.turns)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary, versioned."""
        turns = [_fields(turn) for turn in self.turns]
        credit = None if self.credit is None else _fields(self.credit)
        return {"version": RECORD_VERSION, **_fields(self), "turns": turns, "credit": credit}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Episode:
        """Read back what :meth:`to_json` wrote.

        Raises:
            UserError: the record is of another version or lacks a field.
        """
        try:
            fields = dict(record)
            version = fields.pop("version")
            if version != RECORD_VERSION:
                raise UserError(f"episode record of version {version}; this program reads version {RECORD_VERSION}")
            turns = tuple(Turn(**{k: _tupled(v) for k, v in turn.items()}) for turn in fields.pop("turns"))
            credit = fields.pop("credit")
            series = {k: tuple(v) for k, v in credit["series"].items()} if credit else None
            return cls(**fields, turns=turns, credit=Credit(series) if series is not None else None)
        except (KeyError, TypeError) as error:
            raise UserError(f"damaged episode record: {error}") from error


def _fields(record: Turn | Credit | Episode) -> dict[str, Any]:
    """The fields as they are: `dataclasses.asdict` copies every number of them, which takes ten times as long."""
    return {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _opened(path: Path, mode: Literal["rt", "wt"]) -> TextIO:
    # Scraped texts hold halves of characters, which UTF-8 knows nothing of.
    return gzip.open(path, mode, compresslevel=3, encoding="utf-8", errors="surrogatepass")


def write_episodes(path: Path, episodes: Iterable[Episode]) -> None:
    """Write episodes as gzipped JSON lines, whole or not at all."""
    with atomic_file(path) as partial, _opened(partial, "wt") as file:
        for episode in episodes:
            file.write(json.dumps(episode.to_json(), separators=(",", ":"), ensure_ascii=False) + "\n")


def read_episodes(path: Path) -> Iterator[Episode]:
    """Read what :func:`write_episodes` wrote.

    Raises:
        UserError: the file is missing, damaged, or of another version.
    """
    whole = 0
    try:
        with _opened(path, "rt") as file:
            for line in file:
                yield Episode.from_json(json.loads(line))
                whole += 1
    except FileNotFoundError:
        raise UserError(f"no episode file at {path}") from None
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise UserError(f"{path} cannot be read beyond episode {whole}: {error}") from error
