"""The contents of a room: a goal that the room allows, the objects of the goal, and all other objects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from hiper.envs.alfworld.generate.household import ObjectKind, household
from hiper.envs.alfworld.generate.scene import Receptacle, Scene, Size, new_id
from hiper.envs.dice import Dice

APPLIANCES = {
    "pick_clean_then_place_in_recep": ("clean", "SinkBasin"),
    "pick_heat_then_place_in_recep": ("heat", "Microwave"),
    "pick_cool_then_place_in_recep": ("cool", "Fridge"),
}
"""The task types that treat an object: the ability that it needs, and the receptacle that treats it."""

LAMP = "DeskLamp"

_MOST_COPIES = 3
"""The largest number of copies of an object that the task does not name."""
_KINSHIP = 3
"""The factor by which objects of the target's family are more likely than others."""
_CHILLED = 0.1
"""The probability that food or crockery in the fridge is cool already, as in some official games."""


@dataclass(frozen=True, slots=True)
class Goal:
    """A task: its type, the object type and the receptacle type (the lamp's type for look_at_obj_in_light)."""

    task: str
    object: str
    target: str

    @property
    def needs(self) -> int:
        """The number of objects that it takes."""
        return 2 if self.task == "pick_two_obj_and_place" else 1


@dataclass(frozen=True, slots=True)
class Item:
    """An object in its first place."""

    id: str
    kind: ObjectKind
    place: Receptacle
    cool: bool


def possible_goals(task: str, scene: Scene) -> Mapping[str, list[Goal]]:
    """Return the goals of one task type that the room allows, by object type.

    An object must have somewhere to start other than the target, so that no goal holds at the start.
    """
    ability, appliance = APPLIANCES.get(task, (None, None))
    if appliance and not scene.of_kind(appliance):
        return {}
    goals = {}
    for name in scene.room.objects:
        kind = household().objects[name]
        if not kind.portable or (ability and ability not in kind.abilities):
            continue
        candidates = [Goal(task, name, target) for target in _targets(task, kind, scene) if target != appliance]
        if possible := [goal for goal in candidates if _starts(kind, scene, goal.target) >= goal.needs]:
            goals[name] = possible
    return goals


def draw_goal(goals: Mapping[str, list[Goal]], scene: Scene, dice: Dice) -> Goal:
    """Draw a goal: the object by its weight in the room, the target with equal probabilities."""
    return dice.pick(goals[dice.weighted({name: scene.room.objects[name] for name in goals})])


def fill(scene: Scene, goal: Goal, size: Size, dice: Dice) -> list[Item]:
    """Draw all objects of a game. Those of the goal come first."""
    objects = household().objects
    stock = _Stock(scene, dice)
    wanted = objects[goal.object]
    for _ in range(min(goal.needs + dice.weighted(dict(enumerate(size.spare))), _starts(wanted, scene, goal.target))):
        stock.add(wanted, avoid=goal.target)
    while goal.target == LAMP and not stock.add(objects[LAMP]):
        stock.drop()  # spare objects took the lamp's last place
    low, high = (round(bound * (size.kitchen if scene.room.name == "kitchen" else 1)) for bound in size.objects)
    _clutter(stock, goal, dice.between(low, high))
    return stock.items


def _targets(task: str, kind: ObjectKind, scene: Scene) -> list[str]:
    if task == "look_at_obj_in_light":
        return [LAMP] if _starts(household().objects[LAMP], scene) else []
    present = sorted({receptacle.kind for receptacle in scene.receptacles})
    return [name for name in present if name in kind.places and household().receptacles[name].target]


def _starts(kind: ObjectKind, scene: Scene, avoid: str = "") -> int:
    """Count the objects of a type that can start in the room outside receptacles of type ``avoid``."""
    return sum(
        household().receptacles[receptacle.kind].holds
        for receptacle in scene.receptacles
        if kind.places.get(receptacle.kind) and receptacle.kind != avoid
    )


def _clutter(stock: _Stock, goal: Goal, count: int) -> None:
    """Add objects that the goal is not about until there are ``count``."""
    objects = household().objects
    family = objects[goal.object].family
    weights = {
        name: weight * (_KINSHIP if objects[name].family == family else 1)
        for name, weight in stock.scene.room.objects.items()
        if name not in (goal.object, goal.target)
    }
    copies: Counter[str] = Counter()
    while weights and len(stock.items) < count:
        name = stock.dice.weighted(weights)
        copies[name] += stock.add(objects[name])
        full = not stock.room_for(objects[name])
        if full or copies[name] == (_MOST_COPIES if objects[name].portable else 1):
            del weights[name]


class _Stock:
    """The objects of a room while it is being filled."""

    def __init__(self, scene: Scene, dice: Dice) -> None:
        self.scene = scene
        self.dice = dice
        self.items: list[Item] = []
        self._ids = {receptacle.id for receptacle in scene.receptacles}
        self._free = {receptacle: household().receptacles[receptacle.kind].holds for receptacle in scene.receptacles}

    def room_for(self, kind: ObjectKind, avoid: str = "") -> dict[str, int]:
        """Return the receptacle types where an object of this type may still start, with weights."""
        free = {receptacle.kind for receptacle, left in self._free.items() if left}
        return {name: weight for name, weight in kind.places.items() if weight and name in free and name != avoid}

    def add(self, kind: ObjectKind, avoid: str = "") -> bool:
        """Put one more object somewhere sensible. Return False where there is no room left."""
        weights = self.room_for(kind, avoid)
        if not weights:
            return False
        name = self.dice.weighted(weights)
        place = self.dice.pick([receptacle for receptacle in self.scene.of_kind(name) if self._free[receptacle]])
        cool = name == "Fridge" and "cool" in kind.abilities and self.dice.chance(_CHILLED)
        self._free[place] -= 1
        self.items.append(Item(new_id(kind.name, self.dice, self._ids), kind, place, cool))
        return True

    def drop(self) -> None:
        """Take the newest object away again."""
        self._free[self.items.pop().place] += 1
