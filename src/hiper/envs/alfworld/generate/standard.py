"""A game in ALFWorld's standard form: the JSON of a ``game.tw-pddl`` file, with domain, grammar, problem and plan."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib.resources import files
from itertools import permutations

from hiper.envs.alfworld.generate.contents import APPLIANCES, Goal, Item
from hiper.envs.alfworld.generate.household import household
from hiper.envs.alfworld.generate.scene import Receptacle, Scene

SENTENCES = {
    "pick_and_place_simple": ("put a {object} in {target}", "put some {object} on {target}"),
    "look_at_obj_in_light": ("look at {object} under the {target}", "examine the {object} with the {target}"),
    "pick_clean_then_place_in_recep": (
        "put a clean {object} in {target}",
        "clean some {object} and put it in {target}",
    ),
    "pick_heat_then_place_in_recep": ("put a hot {object} in {target}", "heat some {object} and put it in {target}"),
    "pick_cool_then_place_in_recep": ("put a cool {object} in {target}", "cool some {object} and put it in {target}"),
    "pick_two_obj_and_place": ("put two {object} in {target}", "find two {object} and put them in {target}"),
}
"""ALFWorld's wordings of a task, two per task type."""

_PLACED = """\
(exists (?r - receptacle)
        (exists (?o - object)
          (and {conditions})))"""

_TREATED = """\
({ability}able ?o) (objectType ?o {object}Type) (receptacleType ?r {target}Type)
               ({state} ?o) (inReceptacle ?o ?r)"""

_GOALS = {
    "pick_and_place_simple": _PLACED.format(
        conditions="(inReceptacle ?o ?r) (objectType ?o {object}Type) (receptacleType ?r {target}Type)"
    ),
    "look_at_obj_in_light": """\
(exists (?ot - object ?r - receptacle ?a - agent ?l - location)
        (and (objectType ?ot {target}Type) (toggleable ?ot) (isToggled ?ot)
             (receptacleAtLocation ?r ?l) (atLocation ?a ?l) (inReceptacle ?ot ?r)))
      (exists (?o - object ?a - agent)
        (and (objectType ?o {object}Type) (holds ?a ?o)))""",
    "pick_two_obj_and_place": """\
(exists (?r - receptacle)
        (exists (?o1 - object)
          (and (objectType ?o1 {object}Type) (receptacleType ?r {target}Type) (inReceptacle ?o1 ?r)
            (exists (?o2 - object)
              (and (not (= ?o1 ?o2))
                   (objectType ?o2 {object}Type) (receptacleType ?r {target}Type) (inReceptacle ?o2 ?r))))))""",
} | {
    f"pick_{ability}_then_place_in_recep": _PLACED.format(
        conditions=_TREATED.replace("{ability}", ability).replace("{state}", state)
    )
    for ability, state in (("clean", "isClean"), ("heat", "isHot"), ("cool", "isCool"))
}
"""Goals as the official games state them, conjunct by conjunct."""

_PREDICATES = {
    "clean": "cleanable",
    "heat": "heatable",
    "cool": "coolable",
    "slice": "sliceable",
    "light": "toggleable",
    "hold": "isReceptacleObject",
}
"""The names of abilities in the problem."""

_DOMAIN_TYPES = {"otype": ("ButterKnife", "Knife"), "rtype": ("Fridge", "Microwave", "SinkBasin")}
"""Types that the domain's actions name. Every problem must declare them."""


def game_text(scene: Scene, goal: Goal, items: Sequence[Item], name: str, wording: int) -> str:
    """Return the complete text of a game file."""
    sentence = SENTENCES[goal.task][wording].format(object=goal.object.lower(), target=goal.target.lower())
    return json.dumps(
        {
            "pddl_domain": _shipped("domain.pddl"),
            "grammar": _shipped("grammar.twl2").replace("UNKNOWN GOAL", sentence),
            "pddl_problem": _problem(scene, goal, items, name),
            "solvable": True,
            "walkthrough": walkthrough(scene, goal, items),
        }
    )


@cache
def _shipped(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8")


def _problem(scene: Scene, goal: Goal, items: Sequence[Item], name: str) -> str:
    """Return the game as a PDDL problem."""
    declared = "\n    ".join(_declarations(scene, items))
    facts = "\n    ".join(f"({fact})" for fact in _facts(scene, items))
    wanted = _GOALS[goal.task].format(object=goal.object, target=goal.target)
    return f"""\
(define (problem {name})
  (:domain alfred)
  (:objects
    {declared}
  )
  (:init
    {facts}
  )
  (:goal
    (and
      {wanted}))
)
"""


def _declarations(scene: Scene, items: Sequence[Item]) -> Iterator[str]:
    yield "agent1 - agent"
    yield from (f"{kind}Type - otype" for kind in _sorted_with(_DOMAIN_TYPES["otype"], _object_kinds(items)))
    yield from (f"{kind}Type - rtype" for kind in _sorted_with(_DOMAIN_TYPES["rtype"], _receptacle_kinds(scene)))
    yield from (f"{item.id} - object" for item in items)
    yield from (f"{receptacle.id} - receptacle" for receptacle in scene.receptacles)
    yield from (f"{location} - location" for location in _locations(scene))


def _facts(scene: Scene, items: Sequence[Item]) -> Iterator[str]:
    """Yield the facts at the start: those of the room, then those of its objects."""
    yield f"atLocation agent1 {scene.start}"
    for receptacle in scene.receptacles:
        yield f"receptacleType {receptacle.id} {receptacle.kind}Type"
        yield f"receptacleAtLocation {receptacle.id} {receptacle.location}"
        if household().receptacles[receptacle.kind].opens:
            yield f"openable {receptacle.id}"
    for place in _receptacle_kinds(scene):
        for name in _object_kinds(items):
            if place in household().objects[name].places:
                yield f"canContain {place}Type {name}Type"
    for item in items:
        yield f"objectType {item.id} {item.kind.name}Type"
        yield f"objectAtLocation {item.id} {item.place.location}"
        yield f"inReceptacle {item.id} {item.place.id}"
        if item.kind.portable:
            yield f"pickupable {item.id}"
        yield from (f"{name} {item.id}" for ability, name in _PREDICATES.items() if ability in item.kind.abilities)
        if item.cool:
            yield f"isCool {item.id}"


def _object_kinds(items: Sequence[Item]) -> list[str]:
    return sorted({item.kind.name for item in items})


def _receptacle_kinds(scene: Scene) -> list[str]:
    return sorted({receptacle.kind for receptacle in scene.receptacles})


def _locations(scene: Scene) -> list[str]:
    return sorted({receptacle.location for receptacle in scene.receptacles} | {scene.start})


def _sorted_with(first: Iterable[str], second: Iterable[str]) -> list[str]:
    return sorted({*first, *second})


def names(ids: Iterable[str]) -> dict[str, str]:
    """Return the printed name of each id, such as ``mug 2``. Numbers are dealt from the end of the sorted ids."""
    groups: dict[str, list[str]] = {}
    for entity in sorted(ids, key=str.lower):
        body = entity.lower().split("_bar_", 1)[0]
        groups.setdefault(body + "basin" * ("basin" in entity.lower()), []).append(entity)
    return {
        entity: f"{body} {number}"
        for body, group in groups.items()
        for number, entity in zip(range(len(group), 0, -1), group, strict=True)
    }


def walkthrough(scene: Scene, goal: Goal, items: Sequence[Item]) -> list[str]:
    """Return a shortest way to win for a player who knows where everything is."""
    return min(_solutions(scene, goal, items), key=len)


def _solutions(scene: Scene, goal: Goal, items: Sequence[Item]) -> Iterator[list[str]]:
    """Yield a solution for every choice of objects, appliance and target."""
    called = names([receptacle.id for receptacle in scene.receptacles] + [item.id for item in items])
    wanted = [item for item in items if item.kind.name == goal.object]
    verb, appliance = APPLIANCES.get(goal.task, ("", ""))
    for chosen in permutations(wanted, goal.needs):
        if goal.task == "look_at_obj_in_light":
            for lamp in (item for item in items if item.kind.name == goal.target):
                player = _Player(scene.start, called)
                player.take(chosen[0])
                player.go(lamp.place)
                player.commands.append(f"use {called[lamp.id]}")
                yield player.commands
            continue
        for target in scene.of_kind(goal.target):
            for tool in scene.of_kind(appliance) if appliance else [None]:
                player = _Player(scene.start, called)
                for item in chosen:
                    player.take(item)
                    if tool:
                        player.treat(verb, item, tool)
                    player.put(item, target)
                yield player.commands


class _Player:
    """A writer of commands that goes and opens only where needed."""

    def __init__(self, start: str, called: dict[str, str]) -> None:
        self.commands: list[str] = []
        self._location = start
        self._called = called
        self._opened: set[str] = set()

    def go(self, receptacle: Receptacle) -> None:
        if receptacle.location != self._location:
            self.commands.append(f"go to {self._called[receptacle.id]}")
            self._location = receptacle.location

    def reach(self, receptacle: Receptacle) -> None:
        self.go(receptacle)
        if household().receptacles[receptacle.kind].opens and receptacle.id not in self._opened:
            self.commands.append(f"open {self._called[receptacle.id]}")
            self._opened.add(receptacle.id)

    def take(self, item: Item) -> None:
        self.reach(item.place)
        self.commands.append(f"take {self._called[item.id]} from {self._called[item.place.id]}")

    def treat(self, verb: str, item: Item, tool: Receptacle) -> None:
        self.go(tool)
        self.commands.append(f"{verb} {self._called[item.id]} with {self._called[tool.id]}")

    def put(self, item: Item, target: Receptacle) -> None:
        self.reach(target)
        self.commands.append(f"move {self._called[item.id]} to {self._called[target.id]}")
