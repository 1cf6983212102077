"""A chain of locked boxes: any number of subtasks, each of which needs the one before.

Rooms lie in a ring, and boxes of different colours stand in them. The agent begins with the key to one box. Each box
holds the key to the next, and the last box holds a treasure. Only the treasure is rewarded; it wins the episode. So the
number of boxes sets the number of dependent subtasks and changes nothing else. The environment serves to measure the
effect of long horizons on credit. A turn takes microseconds, and :func:`shortest` returns the least number of turns.
"""

from __future__ import annotations

import hashlib
import random
import re
from dataclasses import dataclass
from typing import ClassVar

from hiper.envs.base import MOST_TURNS, Decision, EndReason, Observation, Start, Step, TextEnv
from hiper.envs.panels import Panel, Task
from hiper.errors import NoSplitError, UserError

SPLITS = ("train", "held_out")
COLOURS = ("red", "blue", "green", "yellow", "black", "white", "brown", "pink")
GOAL = "open the boxes, one after the other, and find the treasure."
_KEY = re.compile(r"You hold the (\w+) key,")
_ROOM = re.compile(r"You are in room (\d+) of (\d+)\.")
_ID = re.compile(r"boxes/\w+/(\d+)rooms-start(\d+)((?:-[a-z]+\d+)+)")


@dataclass(frozen=True, slots=True)
class Layout:
    """The places of all things. Rooms are counted from zero."""

    rooms: int
    start: int
    boxes: tuple[tuple[str, int], ...]
    """Colour and room of each box, in the order in which they can be opened."""

    @property
    def id(self) -> str:
        """The layout as part of a task's id."""
        return f"{self.rooms}rooms-start{self.start}" + "".join(f"-{colour}{room}" for colour, room in self.boxes)

    @classmethod
    def read(cls, task_id: str) -> Layout:
        """Read the layout in a task's id."""
        found = _ID.fullmatch(task_id)
        assert found, task_id
        boxes = tuple((colour, int(room)) for colour, room in re.findall(r"-([a-z]+)(\d+)", found[3]))
        return cls(int(found[1]), int(found[2]), boxes)


class BoxesEnv(TextEnv):
    """The environment of this module. The reward is 1 for the treasure."""

    name: ClassVar[str] = "boxes"
    version: ClassVar[str] = "1"

    def __init__(self, panel: Panel, max_turns: int) -> None:
        self.panel = panel
        self.max_turns = max_turns
        self._layout: Layout
        self._room: int
        self._opened: int

    def _reset(self, task_id: str, seed: int) -> Start:
        """Begin an episode. There is no chance in it, so ``seed`` changes nothing."""
        self._layout = Layout.read(self.panel[task_id].id)
        self._room, self._opened = self._layout.start, 0
        return Start(GOAL, self._observe(""))

    def _step(self, action: str) -> Step:
        text = self._play(action) if action in self._admissible() else "Nothing happens. "
        return Step.sparse(self._observe(text), None if self._closed() else EndReason.WON)

    def expert(self) -> BoxesExpert:
        """Return a player that goes round the ring and opens each box when it holds the key."""
        return BoxesExpert()

    def _play(self, action: str) -> str:
        if action.startswith("go to room"):
            self._room = int(action.split()[-1]) - 1
            return ""
        colour, boxes = action.split()[2], self._layout.boxes
        if colour != boxes[self._opened][0]:
            return f"The {colour} box is locked. "
        self._opened += 1
        if self._opened == len(boxes):
            return f"You open the {colour} box and find the treasure. "
        return f"You open the {colour} box. "

    def _admissible(self) -> tuple[str, ...]:
        """Return the actions to open every closed box in the room and to go next door on either side."""
        rooms = self._layout.rooms
        doors = sorted({(self._room + way) % rooms for way in (1, -1)} - {self._room})
        return (
            *(f"open the {colour} box" for colour, room in sorted(self._closed()) if room == self._room),
            *(f"go to room {room + 1}" for room in doors),
        )

    def _closed(self) -> tuple[tuple[str, int], ...]:
        return self._layout.boxes[self._opened :]

    def _observe(self, before: str) -> Observation:
        here = [f"a {colour} box" for colour, room in sorted(self._closed()) if room == self._room]
        place, boxes = self._opened + 1, len(self._layout.boxes)
        held = f"You hold the {self._closed()[0][0]} key, {place} of {boxes}. " if self._closed() else ""
        seen = " and ".join(here) or "nothing"
        text = f"{before}You are in room {self._room + 1} of {self._layout.rooms}. {held}You see {seen} here."
        return Observation(text, self._admissible())


class BoxesExpert:
    """A player that goes round in one direction and opens each box when it holds the key."""

    def __init__(self) -> None:
        self._subgoal = ""

    def reset(self, start: Start) -> None:
        """Forget the last episode."""
        self._subgoal = ""

    def act(self, observation: Observation) -> Decision:
        """Decide on the next turn."""
        key, place = _KEY.search(observation.text), _ROOM.search(observation.text)
        assert key, observation.text
        assert place, observation.text
        subgoal = f"find the {key[1]} box"
        switch, self._subgoal = subgoal != self._subgoal, subgoal
        target = f"open the {key[1]} box"
        if target in (observation.admissible or ()):
            return Decision(switch, subgoal, target)
        room, rooms = int(place[1]), int(place[2])
        return Decision(switch, subgoal, f"go to room {room % rooms + 1}")

    def acted(self, action: str, observation: Observation) -> None:
        """Do nothing: the next observation tells everything."""


def shortest(task_id: str) -> int:
    """Return the least number of turns that wins a task: the shorter way to each box and a turn to open it."""
    layout = Layout.read(task_id)
    turns, at = 0, layout.start
    for _, room in layout.boxes:
        way = (room - at) % layout.rooms
        turns, at = turns + min(way, layout.rooms - way) + 1, room
    return turns


def make(
    split: str = "train", boxes: int = 3, rooms: int = 6, games: int = 400, max_turns: int | None = None
) -> BoxesEnv:
    """Make chains of ``boxes`` boxes in ``rooms`` rooms. A quarter of all layouts is held out.

    Args:
        split: "train" or "held_out".
        boxes: the number of dependent subtasks, up to eight.
        rooms: the number of rooms in the ring, up to 100.
        games: the number of layouts. There may be fewer where there are few boxes.
        max_turns: turns until an unfinished episode is truncated; None: one and a half rounds for each box.

    Raises:
        UserError: the split is unknown, or a size is out of range.
    """
    if split not in SPLITS:
        raise NoSplitError(f"the boxes have no split '{split}'; there are {', '.join(SPLITS)}")
    sizes = 1 <= boxes <= len(COLOURS) and 2 <= rooms <= 100 and 1 <= games <= 100_000
    if not sizes or not 1 <= (1 if max_turns is None else max_turns) <= MOST_TURNS:
        raise UserError(
            f"there can be 1 to {len(COLOURS)} boxes, in 2 rooms or more (up to 100), in 1 game or more (up to "
            f"100,000) of 1 turn or more (up to {MOST_TURNS:,}); boxes {boxes}, rooms {rooms}, games {games} "
            f"and max_turns {max_turns} were given"
        )
    rng = random.Random(f"{boxes} boxes in {rooms} rooms")
    layouts: dict[str, None] = {}
    for _ in range(100 * games):
        places = tuple((colour, rng.randrange(rooms)) for colour in rng.sample(COLOURS, boxes))
        layout = Layout(rooms, rng.randrange(rooms), places)
        if (hashlib.sha256(layout.id.encode()).digest()[0] < 64) == (split == "held_out"):
            layouts[layout.id] = None
        if len(layouts) == games:
            break
    tasks = [Task(f"boxes/{split}/{layout}", f"{boxes} boxes") for layout in layouts]
    turns = boxes * (rooms * 3 // 2 + 1) if max_turns is None else max_turns
    return BoxesEnv(Panel.of(f"boxes-{boxes}-{rooms}/{split}", tasks), turns)
