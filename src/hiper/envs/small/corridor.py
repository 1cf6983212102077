"""A corridor with a key and a door: the smallest environment that needs two subgoals.

The agent stands in a row of cells. One cell holds a key, another a door. Opening the door wins. A locked door needs the
key: without it, an alarm sounds and the episode ends. The environment serves tests and examples. A turn takes
microseconds, and :func:`shortest` returns the least number of turns.
"""

from __future__ import annotations

import hashlib
import re
from typing import ClassVar

from hiper.envs.base import MOST_TURNS, Decision, EndReason, Observation, Start, Step, TextEnv
from hiper.envs.panels import Panel, Task
from hiper.errors import NoSplitError, UserError

SPLITS = ("train", "held_out")
GOALS = {"locked": "fetch the key and open the door.", "unlocked": "open the door, it is not locked."}
_ID = re.compile(r"corridor/(\w+)/(\w+)-(\d+)cells-start(\d+)-key(\d+)-door(\d+)")


class CorridorEnv(TextEnv):
    """The environment of this module. The reward is 1 for opening the door."""

    name: ClassVar[str] = "corridor"
    version: ClassVar[str] = "1"

    def __init__(self, panel: Panel, max_turns: int) -> None:
        self.panel = panel
        self.max_turns = max_turns
        self._end: EndReason | None
        self._carrying: bool

    def _reset(self, task_id: str, seed: int) -> Start:
        """Begin an episode. There is no chance in it, so ``seed`` changes nothing."""
        self._kind, self._cells, self._cell, self._key, self._door = _read_id(self.panel[task_id].id)
        self._end, self._carrying = None, False
        return Start(GOALS[self._kind], self._observe(""))

    def _step(self, action: str) -> Step:
        text = self._play(action) if action in self._admissible() else "Nothing happens."
        return Step.sparse(self._observe(text + " "), self._end)

    def expert(self) -> CorridorExpert:
        """Return a player that walks to the right end and then to the left, until it finds what it needs."""
        return CorridorExpert()

    def _play(self, action: str) -> str:
        match action:
            case "go left":
                self._cell -= 1
            case "go right":
                self._cell += 1
            case "take key":
                self._carrying = True
                return "You take the key."
            case "open door":
                allowed = self._carrying or self._kind == "unlocked"
                self._end = EndReason.WON if allowed else EndReason.LOST
                return "The door opens." if allowed else "The door is locked. An alarm sounds."
        return "You walk."

    def _admissible(self) -> tuple[str, ...]:
        return (
            *(("go left",) if self._cell > 0 else ()),
            *(("go right",) if self._cell < self._cells - 1 else ()),
            *(("open door",) if self._cell == self._door else ()),
            *(("take key",) if self._cell == self._key and not self._carrying else ()),
        )

    def _observe(self, before: str) -> Observation:
        admissible = self._admissible()
        seen = ["a door"] if "open door" in admissible else []
        seen += ["a key"] if "take key" in admissible else []
        what = " and ".join(seen) or "nothing"
        text = f"{before}You are in cell {self._cell + 1} of {self._cells}. You see {what} here."
        return Observation(text, admissible)


class CorridorExpert:
    """A player that finds the key, if it needs one, and then the door."""

    def __init__(self) -> None:
        self._needs_key = False
        self._direction = "go right"
        self._subgoal = ""

    def reset(self, start: Start) -> None:
        """Forget the last episode and read the new task."""
        self._needs_key = start.goal == GOALS["locked"]
        self._direction = "go right"
        self._subgoal = ""

    def act(self, observation: Observation) -> Decision:
        """Decide on the next turn."""
        admissible = observation.admissible or ()
        subgoal = "find the key" if self._needs_key else "find the door"
        switch, self._subgoal = subgoal != self._subgoal, subgoal
        target = "take key" if self._needs_key else "open door"
        if target in admissible:
            return Decision(switch, subgoal, target)
        if self._direction not in admissible:
            self._direction = "go left" if self._direction == "go right" else "go right"
        return Decision(switch, subgoal, self._direction)

    def acted(self, action: str, observation: Observation) -> None:
        """Learn the outcome of an action."""
        if "You take the key." in observation.text:
            self._needs_key = False


def _read_id(task_id: str) -> tuple[str, int, int, int, int]:
    found = _ID.fullmatch(task_id)
    assert found, task_id
    _, kind, *numbers = found.groups()
    cells, start, key, door = map(int, numbers)
    return kind, cells, start, key, door


def shortest(task_id: str) -> int:
    """Return the least number of turns that wins a task."""
    kind, _, start, key, door = _read_id(task_id)
    walk = abs(start - door) if kind == "unlocked" else abs(start - key) + 1 + abs(key - door)
    return walk + 1


def make(split: str = "train", cells: int = 5, max_turns: int = 20) -> CorridorEnv:
    """Make corridors of ``cells`` cells with every start, key and door. A quarter of them is held out.

    Args:
        split: "train" or "held_out".
        cells: the number of cells, three to fifty.
        max_turns: turns until an unfinished episode is truncated.

    Raises:
        UserError: the split is unknown, or the corridor is too short to hold key and door apart.
    """
    if split not in SPLITS:
        raise NoSplitError(f"the corridor has no split '{split}'; there are {', '.join(SPLITS)}")
    if not 3 <= cells <= 50 or not 1 <= max_turns <= MOST_TURNS:
        raise UserError(
            f"a corridor needs at least 3 cells and 1 turn, and has at most 50 cells and {MOST_TURNS:,} turns; "
            f"{cells} and {max_turns} were given"
        )
    tasks = [
        Task(f"corridor/{split}/{kind}-{cells}cells-start{start}-key{key}-door{door}", kind)
        for kind in GOALS
        for start in range(cells)
        for key in range(cells)
        for door in range(cells)
        if key != door and _split_of(kind, start, key, door) == split
    ]
    return CorridorEnv(Panel.of(f"corridor-{cells}/{split}", tasks), max_turns)


def _split_of(*layout: object) -> str:
    return "held_out" if hashlib.sha256(repr(layout).encode()).digest()[0] < 64 else "train"
