"""TextWorld and this project's engine behind one interface."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hiper.envs.alfworld import AlfworldEnv, Library
from hiper.envs.panels import Task


def missing_reason() -> str | None:
    """Return why TextWorld cannot run here, or None."""
    if sys.version_info >= (3, 13):
        return "TextWorld 1.7 does not run on Python 3.13: its grammars end in a NameError; use an older Python"
    missing = [module for module in ("textworld", "alfworld") if importlib.util.find_spec(module) is None]
    return f"{' and '.join(missing)} not installed: pip install 'hiper[textworld]'" if missing else None


@dataclass(frozen=True, slots=True)
class Frame:
    """The answer of one engine at a turn."""

    text: str
    admissible: tuple[str, ...]
    won: bool
    done: bool
    score: float

    def digest(self) -> str:
        """Return a short hash of all of it."""
        text = json.dumps([self.text, self.admissible, self.won, self.done, self.score])
        return hashlib.sha256(text.encode()).hexdigest()[:12]


class TextWorld:
    """TextWorld with the wrappers that users of the benchmark use."""

    def __init__(self, file: Path, max_turns: int) -> None:
        import textworld.gym
        from alfworld.agents.environment.alfred_tw_env import AlfredDemangler, AlfredInfos

        name = textworld.gym.register_games(
            [str(file)],
            textworld.EnvInfos(won=True, admissible_commands=True, extras=["gamefile"]),
            batch_size=1,
            asynchronous=False,
            max_episode_steps=max_turns,
            wrappers=[AlfredDemangler(), AlfredInfos],
        )
        self._env = textworld.gym.make(name)
        del textworld.gym.registry[name]

    def reset(self) -> Frame:
        """Begin the game."""
        texts, infos = self._env.reset()
        return self._frame(texts, [0], [False], infos)

    def step(self, command: str) -> Frame:
        """Play one command."""
        return self._frame(*self._env.step([command]))

    def close(self) -> None:
        """Release the game."""
        self._env.close()

    @staticmethod
    def _frame(texts: Any, scores: Any, dones: Any, infos: Any) -> Frame:
        return Frame(
            texts[0], tuple(infos["admissible_commands"][0]), bool(infos["won"][0]), bool(dones[0]), float(scores[0])
        )


class Ours:
    """This project's environment over one game."""

    name = "parity"

    def __init__(self, text: bytes, max_turns: int) -> None:
        self._text = text
        self._env = AlfworldEnv(Library(self), max_turns=max_turns, reward=1.0)

    def tasks(self) -> list[Task]:
        """See :class:`~hiper.envs.alfworld.GameSource`, also for the methods that follow."""
        return [Task("game", "parity")]

    def dialects(self) -> dict[str, str]:
        """Return an empty dialect, as the dialect does not matter here."""
        return {"game": ""}

    def read(self, task_id: str) -> bytes:
        """Return the game's text."""
        return self._text

    def where(self, task_id: str) -> str:
        """Return the game's name."""
        return task_id

    def reset(self) -> Frame:
        """Begin the game."""
        seen = self._env.reset("game").observation
        return Frame(seen.text, seen.admissible or (), False, False, 0.0)

    def step(self, command: str) -> Frame:
        """Play one command."""
        step = self._env.step(command)
        seen = step.observation
        return Frame(seen.text, seen.admissible or (), step.info.won, step.terminated or step.truncated, step.reward)
