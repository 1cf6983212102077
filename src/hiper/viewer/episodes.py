"""Single episodes of a run, read on demand: the lines of the last files stay in memory, up to a limit."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from typing import Any

from hiper.episode import Episode, Turn, parse_episode, read_lines
from hiper.errors import UserError, unreadable
from hiper.viewer.folder import NotFoundError
from hiper.viewer.reading import EpisodeFile
from hiper.viewer.tokens import TokenTexts, words

DAMAGE = (ValueError, LookupError, TypeError, AttributeError, RecursionError)
"""What a damaged line of a file of episodes raises when it is parsed."""
MOST_CHARACTERS = 64 << 20
"""The most characters of lines in memory. The file read last stays, whatever its size."""


class Lines:
    """The lines of files of episodes."""

    def __init__(self) -> None:
        self._files: OrderedDict[tuple[str, tuple[int, int]], list[str]] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, file: EpisodeFile) -> list[str]:
        """Return the lines of a file, as many as can be read."""
        key = (str(file.path), file.stamp)
        with self._lock:
            if key in self._files:
                self._files.move_to_end(key)
                return self._files[key]
            lines: list[str] = []
            # What a damaged archive holds before its damage is kept. Its readers have errors of many kinds.
            with suppress(Exception):
                lines.extend(read_lines(file.path))
            self._files[key] = lines
            while len(self._files) > 1 and self._size() > MOST_CHARACTERS:
                self._files.popitem(last=False)
            return lines

    def _size(self) -> int:
        return sum(len(line) for lines in self._files.values() for line in lines)

    def count(self, file: EpisodeFile) -> int | None:
        """Return the number of readable episodes of a file; None: it was not read to its end yet."""
        with self._lock:
            lines = self._files.get((str(file.path), file.stamp))
        return None if lines is None else len(lines)

    def episode(self, file: EpisodeFile, number: int) -> Episode:
        """Return one episode of a file, counted from 0. A file that is not in memory is read up to there.

        Raises:
            NotFoundError: The file has no such episode that can be read.
        """
        line = self._line(file, number)
        if line is None:
            raise NotFoundError(
                f"{file.name} has {len(self.of(file))} readable episodes, and none has the number {number}"
            )
        try:
            return parse_episode(line)
        except DAMAGE as error:
            reason = error if isinstance(error, UserError) else unreadable(error)
            raise NotFoundError(f"episode {number} of {file.name} is damaged: {reason}") from error

    def _line(self, file: EpisodeFile, number: int) -> str | None:
        count = self.count(file)
        if count is not None:
            return self.of(file)[number] if number < count else None
        with suppress(Exception):
            return next(islice(read_lines(file.path), number, None), None)
        return None

    def slim(self, file: EpisodeFile) -> list[Episode | None]:
        """Return all episodes of a file without their prompts, which take most of the memory; None: a damaged one."""
        found: list[Episode | None] = []
        for line in self.of(file):
            try:
                record = json.loads(line)
                for turn in record["turns"]:
                    turn["prompt_ids"] = ()
                found.append(Episode.from_json(record))
            except DAMAGE:
                found.append(None)
        return found


def episode_json(episode: Episode, texts: TokenTexts | None) -> dict[str, Any]:
    """Return an episode for display. Prompts are left out, since :func:`prompt_json` gives them one by one."""
    series = {} if episode.credit is None else {name: list(x) for name, x in episode.credit.series.items()}
    per_token = {name: _by_turn(x, episode.turns) for name, x in series.items() if name.endswith("/token")}
    return {
        "task_id": episode.task_id,
        "task_type": episode.task_type,
        "seed": str(episode.seed),  # beyond the whole numbers of a browser
        "goal": episode.goal,
        "won": episode.won,
        "end": episode.end,
        "terminated": episode.terminated,
        "truncated": episode.truncated,
        "score": episode.score,
        "parts": dict(episode.parts),
        "reward": episode.total_reward,
        "decoded": texts is not None,
        "series": {name: x for name, x in series.items() if name not in per_token},
        "turns": [
            _turn_json(turn, texts) | {"series": {name: x[t] for name, x in per_token.items()}}
            for t, turn in enumerate(episode.turns)
        ],
    }


def _turn_json(turn: Turn, texts: TokenTexts | None) -> dict[str, Any]:
    return {
        "observation": turn.observation,
        "admissible": None if turn.admissible is None else list(turn.admissible),
        "text": turn.text,
        "thinking": turn.thinking,
        "tokens": words(texts, turn.response_ids),
        "ids": list(turn.response_ids),
        "logprobs": list(turn.logprobs),
        "kinds": list(turn.kinds),
        "low_index": turn.low_index,
        "switch": turn.switch,
        "boundary": turn.boundary,
        "subgoal": turn.subgoal,
        "action": turn.action,
        "invalid": turn.invalid,
        "copy_differs": turn.copy_differs,
        "reward": turn.reward,
        "prompt_tokens": len(turn.prompt_ids),
        "prompt_cut": turn.prompt_cut,
        "policy_version": turn.policy_version,
        "lapse": turn.lapse,
    }


def prompt_json(turn: Turn, texts: TokenTexts | None) -> dict[str, Any]:
    """Return the exact prompt of a turn: its tokens as texts, and their ids."""
    return {"tokens": words(texts, turn.prompt_ids), "ids": list(turn.prompt_ids), "cut": turn.prompt_cut}


def _by_turn(series: Sequence[float], turns: Sequence[Turn]) -> list[list[float]]:
    parts, done = [], 0
    for turn in turns:
        parts.append(list(series[done : done + len(turn.response_ids)]))
        done += len(turn.response_ids)
    return parts
