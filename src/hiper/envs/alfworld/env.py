"""ALFWorld as a :class:`~hiper.envs.base.TextEnv`."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from functools import cache
from typing import ClassVar

from hiper.envs.alfworld.chores import TURNS_EACH, ChoresExpert
from hiper.envs.alfworld.engine import Engine
from hiper.envs.alfworld.expert import AlfworldExpert
from hiper.envs.alfworld.generate import DEFAULT_SIZE
from hiper.envs.alfworld.library import Library, open_split
from hiper.envs.base import MOST_TURNS, EndReason, Observation, Start, Step, TextEnv
from hiper.errors import UserError

log = logging.getLogger(__name__)


class AlfworldEnv(TextEnv):
    """Household tasks in text, as TextWorld prints them, byte for byte.

    The reward is ``reward`` at the turn that wins and zero otherwise. The command ``help`` is in the admissible
    list, as in TextWorld, but agents are not shown it. With several chores in a row, ``info.parts`` says which share of
    them holds after a turn. Agents are not shown that either.
    """

    name: ClassVar[str] = "alfworld"
    version: ClassVar[str] = "1"
    hidden_actions = ("help",)
    max_turns = TURNS_EACH
    reward = 10.0

    def __init__(self, library: Library, *, max_turns: int | None = None, reward: float = reward) -> None:
        if max_turns is None:
            max_turns = TURNS_EACH * library.chores
        if not 1 <= max_turns <= MOST_TURNS:
            raise UserError(
                f"max_turns is {max_turns}; an episode needs at least one turn, and has {MOST_TURNS:,} at most"
            )
        if abs(reward) > 1e6:
            raise UserError(f"reward is {reward}; give at most a million, so that sums and squares stay numbers")
        self.panel = library.panel
        self.dialect = library.dialect
        """ "move" or "put": the verb with which these games lay something down."""
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
        step = Step.sparse(Observation(text, engine.admissible), EndReason.WON if engine.won else None, self.reward)
        if len(engine.game.goals) == 1:
            return step
        return replace(step, info=replace(step.info, parts={"chores": engine.progress}))

    def accepts(self, action: str, observation: Observation) -> bool:
        """Whether the game would understand ``action``. Spaces around it do not matter."""
        return super().accepts(action.strip(), observation)

    def expert(self) -> AlfworldExpert:
        """Return a player that is easy to imitate: it searches in a fixed order and remembers next to nothing."""
        kind = AlfworldExpert if self._library.chores == 1 else ChoresExpert
        return kind(put_verb=self.dialect)


def make(
    split: str = "train",
    data: str | os.PathLike[str] | None = None,
    games: int | None = None,
    size: str = DEFAULT_SIZE,
    chores: int = 1,
    max_turns: int | None = None,
    reward: float = AlfworldEnv.reward,
) -> AlfworldEnv:
    """Make ALFWorld over one split.

    Args:
        split: "train", "valid_seen", "valid_unseen" or another split of the data.
        data: folder, tar or zip archive of games; "generated" for generated games, which need no data; None: the place
            that ALFWORLD_DATA names, or ``~/.cache/alfworld``.
        games: the number of games to play; None: all (of generated games, 600).
        size: the size of generated games: "tiny", "small", "medium" or "official".
        chores: how many games are joined into one task, all of whose goals must hold at the end, from 1 to 5.
        max_turns: turns until an unfinished game is truncated; None: 50 for each chore.
        reward: the reward for winning.

    Raises:
        UserError: there are no such games.
    """
    if chores > 1 and max_turns is not None and max_turns < TURNS_EACH * chores:
        _say_short(chores, max_turns)
    return AlfworldEnv(open_split(split, data, games, size, chores), max_turns=max_turns, reward=reward)


@cache
def _say_short(chores: int, max_turns: int) -> None:
    """Log once that chores in a row have fewer turns than usual, as recipes may set them for one chore."""
    log.warning(
        "%d chores in a row have %d turns; max_turns=null (env.max_turns in a recipe) gives %d for each, as for one",
        chores,
        max_turns,
        TURNS_EACH,
    )
