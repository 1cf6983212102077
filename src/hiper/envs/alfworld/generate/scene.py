"""Rooms: their receptacles, where these stand, and the split of each room."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

from hiper.envs.alfworld.generate.household import RoomKind, household
from hiper.envs.dice import Dice

GENERATOR_VERSION = "1"
"""A part of every seed. It changes whenever the same arguments would give another game."""


@dataclass(frozen=True, slots=True)
class Size:
    """The size and clutter of games. Ranges include both ends."""

    receptacles: tuple[int, int]
    objects: tuple[int, int]
    closed: float
    """The largest share of receptacles that start closed (cabinets, drawers, ...)."""
    shared: float
    """The probability that a receptacle stands at the same location as the one before it."""
    spare: tuple[int, ...]
    """Weights of 0, 1, 2, ... spare objects of the wanted type."""
    kitchen: float = 1.0
    """The factor by which kitchens have more of everything."""


SIZES = {
    "tiny": Size(receptacles=(6, 8), objects=(6, 8), closed=0.4, shared=0.0, spare=(6, 3, 1)),
    "small": Size(receptacles=(9, 13), objects=(11, 15), closed=0.5, shared=0.05, spare=(6, 4, 2), kitchen=1.2),
    "medium": Size(receptacles=(11, 17), objects=(15, 21), closed=0.65, shared=0.1, spare=(6, 5, 3), kitchen=1.5),
    "official": Size(receptacles=(8, 24), objects=(16, 30), closed=0.8, shared=0.1, spare=(6, 5, 4, 3), kitchen=2.0),
}
"""Sizes from a first exercise to rooms like those of the official games, whose kitchens are twice as full."""

SPLITS = {"train": "train", "valid_seen": "train", "valid_unseen": "valid_unseen", "test": "test"}
"""Splits, each with the split whose rooms it plays in."""

_ROOMS = {"train": range(0, 600), "valid_unseen": range(600, 800), "test": range(800, 1000)}
"""Room numbers of each split. A split's share of furnishings is that of its numbers."""


@dataclass(frozen=True, slots=True)
class Receptacle:
    """One piece of furniture."""

    id: str
    kind: str
    location: str


@dataclass(frozen=True, slots=True)
class Scene:
    """A furnished room without the objects in it."""

    room: RoomKind
    number: int
    receptacles: tuple[Receptacle, ...]
    start: str
    """The location where the player stands at first, away from all receptacles."""

    @property
    def name(self) -> str:
        """The label, such as ``kitchen042``."""
        return f"{self.room.name}{self.number:03d}"

    def of_kind(self, kind: str) -> list[Receptacle]:
        """Return all receptacles of one type."""
        return [receptacle for receptacle in self.receptacles if receptacle.kind == kind]


def draw_scene(size: str, room: str, split: str, dice: Dice) -> Scene:
    """Draw one of the rooms of ``split``."""
    numbers = _ROOMS[SPLITS[split]]
    return _scene(size, room, dice.between(numbers[0], numbers[-1]))


def owner(room: str, furnishing: Counter[str]) -> str:
    """Return the split to which a furnishing belongs, whatever the size of the game.

    The multiset of receptacles is hashed. So rooms of different splits differ in what a player sees and not only in
    coordinates: no held-out room has the furniture of a training room.
    """
    signature = " ".join(f"{kind}:{count}" for kind, count in sorted(furnishing.items()))
    bucket = int.from_bytes(hashlib.sha256(f"{room} {signature}".encode()).digest()[:4]) % 1000
    return next(split for split, numbers in _ROOMS.items() if bucket in numbers)


@lru_cache(maxsize=4096)
def _scene(size: str, room: str, number: int) -> Scene:
    """Return room ``number`` of a type. It is furnished anew until the furnishing belongs to the number's split."""
    dice = Dice(GENERATOR_VERSION, "scene", size, room, number)
    kind = household().rooms[room]
    split = next(split for split, numbers in _ROOMS.items() if number in numbers)
    while owner(room, furnishing := _furnish(kind, SIZES[size], dice)) != split:
        pass
    return _arrange(kind, number, furnishing, SIZES[size], dice)


def _furnish(room: RoomKind, size: Size, dice: Dice) -> Counter[str]:
    """Draw the number of receptacles of each type."""
    low, high = (round(bound * (size.kitchen if room.name == "kitchen" else 1)) for bound in size.receptacles)
    count = dice.between(low, high)
    kinds = household().receptacles
    chosen = Counter(dice.pick(group) for group in room.core)
    while chosen.total() < count:
        closed = sum(n for kind, n in chosen.items() if kinds[kind].opens)
        may_close = closed + 1 <= size.closed * count
        choice = {
            kind: weight
            for kind, weight in room.furniture.items()
            if chosen[kind] < room.most[kind] and (may_close or not kinds[kind].opens)
        }
        if not choice:
            break
        chosen[dice.weighted(choice)] += 1
    return chosen


def _arrange(room: RoomKind, number: int, furnishing: Counter[str], size: Size, dice: Dice) -> Scene:
    """Give every receptacle an id and a location, named as by the simulator behind the official games."""
    used: set[str] = set()
    start = new_location(dice, used)
    receptacles: list[Receptacle] = []
    for kind in sorted(furnishing):
        for _ in range(furnishing[kind]):
            beside = receptacles and dice.chance(size.shared)
            location = receptacles[-1].location if beside else new_location(dice, used)
            receptacles.append(Receptacle(new_id(kind, dice, used), kind, location))
    return Scene(room, number, tuple(receptacles), start)


def new_id(kind: str, dice: Dice, used: set[str]) -> str:
    """Draw a fresh id of type and coordinates, such as ``Mug_bar__minus_00_dot_25_bar_...``.

    Basins are named as parts of a sink or bathtub.
    """
    body, part = (kind.removesuffix("Basin"), f"_bar_{kind}") if kind.endswith("Basin") else (kind, "")
    while True:
        position = "".join(_coordinate(dice.between(low, high)) for low, high in ((-399, 399), (0, 199), (-399, 399)))
        if (name := body + position + part) not in used:
            used.add(name)
            return name


def new_location(dice: Dice, used: set[str]) -> str:
    """Draw a fresh location: two steps on the floor grid, a heading and a pitch."""
    while True:
        parts = (dice.between(-16, 16), dice.between(-16, 16), dice.between(0, 3), dice.pick((0, 30, 45, 60)))
        name = "loc" + "".join(f"_bar_{part}" if part >= 0 else f"_bar__minus_{-part}" for part in parts)
        if name not in used:
            used.add(name)
            return name


def _coordinate(hundredths: int) -> str:
    sign = "_minus_" if hundredths < 0 else "_plus_"
    whole, rest = divmod(abs(hundredths), 100)
    return f"_bar_{sign}{whole:02d}_dot_{rest:02d}"
