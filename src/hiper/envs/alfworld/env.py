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
    list, as TextWorld has it; prompts leave it out.
    """

    name: ClassVar[str] = "alfworld"
    version: ClassVar[str] = "1"

    def __init__(self, library: Library, *, max_turns: int = 50, reward: float = 10.0) -> None:
        if max_turns < 1:
            raise UserError(f"max_turns is {max_turns}; an episode needs at least one turn")
        self.panel = library.panel
        self.dialect = library.dialect
        """ "move" or "put": how these games say to lay something down."""
        self.max_turns = max_turns
        self.reward = reward
        self._library = library
        self._engine: Engine | None = None
        self._turn = 0

    @property
    def official(self) -> bool | None:
        """Whether these are exactly the official games of their split; None where no official panel is known."""
        return self._library.official

    def reset(self, task_id: str, seed: int = 0) -> Start:
        """Begin a game; games have no chance in them, so ``seed`` changes nothing."""
        game = self._library.game(task_id)
        self._engine = Engine(game)
        self._turn = 0
        return Start(game.task, Observation(self._engine.intro(), self._engine.admissible))

    def step(self, action: str) -> Step:
        """Play one turn."""
        engine = self._engine
        if engine is None or engine.won or self._turn >= self.max_turns:
            raise RuntimeError("the episode is over or was never begun: call reset first")
        text = engine.step(action)
        self._turn += 1
        late = EndReason.TURN_LIMIT if self._turn >= self.max_turns else None
        end = EndReason.WON if engine.won else late
        return Step.sparse(Observation(text, engine.admissible), end, self.reward)

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
