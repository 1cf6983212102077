"""ALFWorld as a :class:`~hiper.envs.base.TextEnv`."""

from __future__ import annotations

import os
from typing import ClassVar

from hiper.envs.alfworld.data import Library, open_split
from hiper.envs.alfworld.engine import Engine
from hiper.envs.alfworld.expert import AlfworldExpert
from hiper.envs.base import EndReason, Observation, Start, Step, TextEnv
from hiper.errors import UserError


class AlfworldEnv(TextEnv):
    """Household tasks in text, as TextWorld prints them, byte for byte.

    The reward is ``reward`` at the turn that wins and zero otherwise. The command ``help`` is in the admissible
    list, as TextWorld has it; agents are not shown it.
    """

    name: ClassVar[str] = "alfworld"
    version: ClassVar[str] = "1"
    hidden_actions = ("help",)

    def __init__(self, library: Library, *, max_turns: int = 50, reward: float = 10.0) -> None:
        if max_turns < 1:
            raise UserError(f"max_turns is {max_turns}; an episode needs at least one turn")
        self.panel = library.panel
        self.dialect = library.dialect
        """ "move" or "put": how these games say to lay something down."""
        self.max_turns = max_turns
        self.reward = reward
        self._library = library
        self._engine: Engine

    @property
    def official(self) -> bool | None:
        """Whether these are exactly the official games of their split; None where no official panel is known."""
        return self._library.official

    def _reset(self, task_id: str, seed: int) -> Start:
        """Begin a game. Games have no chance in them, so ``seed`` changes nothing."""
        game = self._library.game(task_id)
        self._engine = Engine(game)
        return Start(game.task, Observation(self._engine.intro(), self._engine.admissible))

    def _step(self, action: str) -> Step:
        engine = self._engine
        text = engine.step(action)
        return Step.sparse(Observation(text, engine.admissible), EndReason.WON if engine.won else None, self.reward)

    def accepts(self, action: str, observation: Observation) -> bool:
        """Whether the game would understand ``action``; spaces around it do not matter."""
        return super().accepts(action.strip(), observation)

    def expert(self) -> AlfworldExpert:
        """A player that searches in one fixed order and remembers next to nothing: easy to imitate."""
        return AlfworldExpert(put_verb=self.dialect)


def make(
    split: str = "train",
    data: str | os.PathLike[str] | None = None,
    games: int | None = None,
    size: str = "small",
    max_turns: int = 50,
    reward: float = 10.0,
) -> AlfworldEnv:
    """ALFWorld over one split.

    Args:
        split: "train", "valid_seen", "valid_unseen" or whatever the data hold.
        data: folder or tar archive of games; "generated" for generated ones, which need no data; None: where
            ALFWORLD_DATA says, then ``~/.cache/alfworld``.
        games: play this many of them; None: all (of generated games, 600).
        size: how large generated games are.
        max_turns: turns until an unfinished game is truncated.
        reward: what winning pays.

    Raises:
        UserError: there are no such games.
    """
    return AlfworldEnv(open_split(split, data, games, size), max_turns=max_turns, reward=reward)
