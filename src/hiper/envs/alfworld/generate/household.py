"""The knowledge of ``household.yaml`` as typed tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import yaml


@dataclass(frozen=True, slots=True)
class ReceptacleKind:
    """A type of furniture."""

    name: str
    opens: bool = False
    """Whether it starts closed and must be opened."""
    holds: int = 5
    """The largest number of objects at the start. A player may add any number."""
    target: bool = True
    """Whether a task may ask to put something here."""


@dataclass(frozen=True, slots=True)
class ObjectKind:
    """A type of object."""

    name: str
    family: str
    """Objects of one family are easily confused."""
    abilities: frozenset[str]
    """Its abilities: clean, heat, cool, slice, light, hold (things in it). "fixed": it cannot be taken."""
    places: Mapping[str, int]
    """Receptacle types that it may be put in, each with the weight of starting there."""

    @property
    def portable(self) -> bool:
        """Whether it can be taken."""
        return "fixed" not in self.abilities


@dataclass(frozen=True, slots=True)
class RoomKind:
    """A type of room: its furniture and its objects."""

    name: str
    core: tuple[tuple[str, ...], ...]
    """Groups of receptacle types. One type of each group is always there."""
    furniture: Mapping[str, int]
    """Further receptacle types, by weight."""
    most: Mapping[str, int]
    """The largest number of receptacles of each type."""
    objects: Mapping[str, int]
    """Object types, by weight."""


@dataclass(frozen=True, slots=True)
class Household:
    """All tables."""

    receptacles: Mapping[str, ReceptacleKind]
    objects: Mapping[str, ObjectKind]
    rooms: Mapping[str, RoomKind]
    tasks: Mapping[str, Mapping[str, int]]
    """The rooms of each task type, with weights."""


@cache
def household() -> Household:
    """Return the shipped tables. They are read once."""
    tables = yaml.safe_load((files(__package__) / "household.yaml").read_text(encoding="utf-8"))
    return Household(
        receptacles={name: ReceptacleKind(name, **row) for name, row in tables["receptacles"].items()},
        objects={
            name: ObjectKind(name, row["kind"], frozenset(row["can"]), row["in"])
            for name, row in tables["objects"].items()
        },
        rooms={name: _room(name, row) for name, row in tables["rooms"].items()},
        tasks=tables["tasks"],
    )


def _room(name: str, row: Mapping[str, Any]) -> RoomKind:
    return RoomKind(
        name=name,
        core=tuple((group,) if isinstance(group, str) else tuple(group) for group in row["core"]),
        furniture={kind: weight for kind, (weight, _) in row["furniture"].items()},
        most={kind: most for kind, (_, most) in row["furniture"].items()},
        objects=row["objects"],
    )
