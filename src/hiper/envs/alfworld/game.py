"""One game as a small immutable record that the engine plays from."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal, TypeVar, cast

from hiper.envs.alfworld.dialect import Dialect

Treatment = Literal["clean", "hot", "cool"]

NOWHERE = -1
"""Location of a receptacle that stands nowhere."""


@dataclass(frozen=True, slots=True)
class Goal:
    """The state that wins: objects laid in one receptacle, or an object held in the light of a lamp."""

    objects: frozenset[int]
    """Any of these objects will do."""
    receptacles: frozenset[int] = frozenset()
    """Any of these receptacles will do. Empty for a lamp goal."""
    count: int = 1
    """The number of objects that must be in the same receptacle."""
    treatment: Treatment | None = None
    lamps: frozenset[int] = frozenset()


class Appliance(Enum):
    """A receptacle's effect on the object in hand. The value is the verb of its command."""

    SINK = "clean"
    MICROWAVE = "heat"
    FRIDGE = "cool"


@dataclass(frozen=True, slots=True)
class Place:
    """A location: its receptacles and the commands that depend on nothing else."""

    receptacles: tuple[int, ...]
    examine: tuple[str, ...]
    """The commands "examine" for every receptacle here."""
    go: tuple[str, ...]
    """The commands "go to" for every receptacle elsewhere, sorted."""


@dataclass(frozen=True, slots=True)
class Game:
    """A game. Objects, receptacles and locations are numbered in the order of their internal ids.

    Games share equal parts (see :func:`shared`), so a game costs a few kilobytes.
    """

    where: str
    """The file of the game, for messages."""
    task: str
    """The task sentence, as the game prints it after "Your task is to: "."""
    dialect: Dialect
    walkthrough: tuple[str, ...]
    """A shortest solution: privileged information, for tests only."""

    objects: tuple[str, ...]
    """Object names ("apple 1")."""
    receptacles: tuple[str, ...]
    locations: tuple[str, ...]
    numbers: Mapping[str, int]
    """Name to number, for objects and receptacles."""

    stands_at: tuple[int, ...]
    """Location of each receptacle."""
    openable: frozenset[int]
    appliances: Mapping[int, Appliance]
    treatable: Mapping[Appliance, frozenset[int]]
    fits: tuple[frozenset[int], ...]
    """For each object, the receptacles it can be put in or on."""
    pickupable: frozenset[int]
    toggleable: frozenset[int]
    sliceable: frozenset[int]
    knives: frozenset[int]
    inside: Mapping[int, tuple[int, ...]]
    """For each object that is itself a vessel, the objects inside it."""

    start: int
    contents: tuple[tuple[int, ...], ...]
    """For each receptacle, the objects in or on it at the start."""
    lying: frozenset[tuple[int, int]]
    """Pairs of object and location at the start. The location need not agree with the object's receptacle."""
    opened: frozenset[int]
    clean: frozenset[int]
    hot: frozenset[int]
    cool: frozenset[int]
    toggled: frozenset[int]
    sliced: frozenset[int]
    goals: tuple[Goal, ...]
    """All of them must hold. Official games have one."""

    places: dict[int, Place] = field(default_factory=dict, repr=False, compare=False)
    """A cache that :meth:`place` fills as locations are visited."""

    def place(self, location: int) -> Place:
        """Return what stands at ``location``."""
        place = self.places.get(location)
        if place is None:
            here = tuple(r for r, at in enumerate(self.stands_at) if at == location)
            examine = tuple(f"examine {self.receptacles[r]}" for r in here)
            elsewhere = (r for r, at in enumerate(self.stands_at) if at not in (location, NOWHERE))
            away = sorted(f"go to {self.receptacles[r]}" for r in elsewhere)
            place = self.places[location] = Place(here, examine, tuple(away))
        return place


_interned: dict[Any, Any] = {}


T = TypeVar("T", bound=Hashable)


def shared(value: T) -> T:
    """Return one object for all equal values, so that thousands of games share their common parts."""
    return cast(T, _interned.setdefault(value, value))
