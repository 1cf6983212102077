"""Episodes: the one record of what happened, for training, for the disk and for every display.

The rollout writes an :class:`Episode`, and nothing changes it afterwards. Credit assignment attaches a :class:`Credit`
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
from typing import Any

from hiper.errors import UserError, shortened, unreadable
from hiper.files import atomic_file

RECORD_VERSION = 1
"""Raised when old records can no longer be read. A new field with a default leaves them readable."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn: the prompt, the response, its meaning, and the reward."""

    observation: str
    """The environment's text before the turn."""
    admissible: tuple[str, ...] | None
    """The actions that the environment lists; None: it lists none."""
    prompt_ids: tuple[int, ...]
    """The exact tokens that the policy read."""
    response_ids: tuple[int, ...]
    """The exact tokens that the policy sampled, with the end-of-sequence token if it came."""
    logprobs: tuple[float, ...]
    """The sampler's log-probability of each response token, at the sampling temperature."""
    kinds: tuple[int, ...]
    """The :class:`~hiper.advantages.TokenKind` of each response token."""
    low_index: int | None
    """Index of the response token that completes ``</subgoal>``; None where the form is invalid."""
    text: str
    """The response, decoded."""
    switch: bool
    """The response says SWITCH; False for an invalid response."""
    boundary: bool
    """A segment begins here: the response says SWITCH, or the turn is the first."""
    subgoal: str
    """The subgoal followed from this turn on; '' if none was stated yet."""
    action: str
    """The text sent to the environment."""
    invalid: str | None
    """Why the response is invalid (:class:`~hiper.plan_execute.parse.InvalidKind`); None: it is valid."""
    copy_differs: bool
    """The response says KEEP, but its subgoal is not a copy of the previous one."""
    reward: float
    """The environment's reward, before shaping."""
    prompt_cut: bool = False
    """The prompt was longer than allowed and was shortened."""
    policy_version: int | None = None
    """Version of the weights that sampled the response; None: unknown, or nothing was sampled."""
    lapse: bool = False
    """A demonstrator's mistake on purpose, which is not to be imitated."""
    thinking: int = 0
    """The number of characters at the beginning of ``text`` that were set aside as thinking."""

    @property
    def answer(self) -> str:
        """The response without its thinking block."""
        return self.text[self.thinking :]

    @property
    def format_valid(self) -> bool:
        """Whether the response has the required form, even if the environment refused its action."""
        return self.invalid in (None, "inadmissible_action")


@dataclass(frozen=True, slots=True)
class Credit:
    """The result of credit assignment for one episode: named sequences of one number per turn.

    Names are ``value/<head>`` for each head of the critic (:mod:`hiper.advantages.values`), ``advantage/<name>`` for
    each of :meth:`hiper.advantages.Credit.advantages`, and ``reward/<part>`` for each part of the shaped reward.
    ``logprob/token`` is the learner's log-probability of each token before the update; beside the sampler's in
    :attr:`Turn.logprobs` it shows their mismatch. ``entropy/token`` is the entropy in nats of its distribution. Series
    whose name ends in ``/token`` hold one number per response token.
    """

    series: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class Episode:
    """One complete episode."""

    task_id: str
    task_type: str
    seed: int
    goal: str
    turns: tuple[Turn, ...]
    terminated: bool
    truncated: bool
    won: bool
    end: str
    """Why the episode ended (:class:`~hiper.envs.base.EndReason`)."""
    score: float
    """Graded outcome in [0, 1]; without grades 1 for success, else 0."""
    parts: Mapping[str, float] = field(default_factory=dict)
    """Named parts of the score; empty if the environment names none."""
    credit: Credit | None = None

    @property
    def total_reward(self) -> float:
        """Sum of the environment's rewards, before shaping."""
        return sum(turn.reward for turn in self.turns)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary, stamped with the version."""
        turns = [_fields(turn) for turn in self.turns]
        credit = None if self.credit is None else _fields(self.credit)
        return {"version": RECORD_VERSION, **_fields(self), "turns": turns, "credit": credit}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Episode:
        """Rebuild an episode from what :meth:`to_json` returned.

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
            raise UserError(f"damaged episode record: {unreadable(error)}") from error


def _fields(record: Turn | Credit | Episode) -> dict[str, Any]:
    """Return the fields without copying them: `dataclasses.asdict` copies every number and takes ten times as long."""
    return {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


_TEXT: dict[str, Any] = {"encoding": "utf-8", "errors": "surrogatepass"}
"""Scraped texts hold lone surrogates, which strict UTF-8 refuses."""


_LONGEST_LINE = 1 << 29
"""The largest number of bytes of an episode."""


def write_episodes(path: Path, episodes: Iterable[Episode]) -> None:
    """Write episodes as gzipped JSON lines, whole or not at all. The archive keeps the name of its file."""
    with atomic_file(path) as partial, gzip.open(partial, "wt", compresslevel=3, **_TEXT) as file:
        for episode in episodes:
            file.write(json.dumps(episode.to_json(), separators=(",", ":"), ensure_ascii=False) + "\n")


def read_lines(path: Path) -> Iterator[str]:
    """Read the lines of a file of episodes, without parsing them.

    Raises:
        EOFError: Its end is missing.
        ValueError: Something follows its end. The module gzip reads that as more of the text.
    """
    inflate, rest = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS), b""
    with path.open("rb") as file:
        while not inflate.eof:
            if not (packed := file.read(1 << 16)):
                raise EOFError("its end is missing")
            *lines, rest = (rest + inflate.decompress(packed)).split(b"\n")
            if len(rest) > _LONGEST_LINE:
                raise ValueError("it is too long for an episode")
            for line in lines:
                yield line.decode(**_TEXT)
        if rest or inflate.unused_data or file.read(1):
            raise ValueError("something that is no episode stands at its end")


def parse_episode(line: str) -> Episode:
    """Read one line of a file of episodes.

    Raises:
        ValueError: It is no episode. Damaged records may raise LookupError, TypeError, AttributeError too.
    """
    return Episode.from_json(json.loads(line))


def read_episodes(path: Path) -> Iterator[Episode]:
    """Read episodes one by one.

    Raises:
        UserError: the file is missing, damaged, or of another version.
    """
    whole = 0
    try:
        for line in read_lines(path):
            yield parse_episode(line)
            whole += 1
    except FileNotFoundError:
        raise UserError(f"no episode file at {path}") from None
    except (OSError, EOFError, zlib.error, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        reason = error if isinstance(error, UserError) else unreadable(error)
        raise UserError(f"{path} cannot be read beyond episode {whole}: {reason}") from error


def read_own_episodes(path: Path) -> Iterator[Episode]:
    """Read the episodes that a run wrote into this file.

    Raises:
        UserError: the file is missing or damaged, or was written under another name.
    """
    if path.is_file() and (problem := other_name(path)):
        raise UserError(problem)
    return read_episodes(path)


def other_name(path: Path) -> str | None:
    """Say if a file of episodes was written under another name, as when files were swapped. None: it was not."""
    with path.open("rb") as file:
        head = file.read(300)  # the name stands in the head of the archive
    if head[:3] != b"\x1f\x8b\x08" or len(head) < 4 or not head[3] & 8:
        return None
    name = head[10:].partition(b"\0")[0].decode(errors="replace").removesuffix(".partial")
    if name == path.name:
        return None
    return f"{path} holds the episodes of '{shortened(name)}': put the files back under their names, or move it away"


def problem_of(path: Path) -> str | None:
    """Say what is wrong with a file of a run's episodes; None: its checksum and its name are right.

    Nothing is parsed.
    """
    try:
        with gzip.open(path) as file:
            while file.read(1 << 20):
                pass
    except (OSError, EOFError, zlib.error) as error:
        return f"{path} is damaged ({error}); its episodes are lost to reports"
    return other_name(path)
