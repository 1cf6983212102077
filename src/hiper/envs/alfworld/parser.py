"""The reader of game files: from the text of ``game.tw-pddl`` to a :class:`~hiper.envs.alfworld.game.Game`."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from hiper.envs.alfworld.dialect import Dialect, read_language
from hiper.envs.alfworld.game import NOWHERE, Appliance, Game, shared
from hiper.envs.alfworld.goal_patterns import bind, read_goals
from hiper.envs.alfworld.pddl import Problem, printed_names
from hiper.errors import UserError, shortened

_KNIVES = ("knifetype", "butterknifetype")
"""The types of objects that slice."""
_LONGEST = 4_000_000
"""The largest number of characters of a part; those of official games have some hundred thousand at most."""


def parse_game(text: str | bytes, where: str) -> Game:
    """Read a game file's text.

    Args:
        text: the JSON text.
        where: how to name the file in messages.

    Raises:
        UserError: the file is broken, or not a game the engine can play exactly.
    """
    data = _load(text, where)
    if not data["solvable"]:
        raise UserError(f"{where}: the game is marked as unsolvable; leave it out")
    dialect, task = read_language(data["pddl_domain"], data["grammar"], where)
    try:
        problem = Problem.read(data["pddl_problem"])
        return _build(problem, where, task, dialect, tuple(data.get("walkthrough") or ()))
    except (UserError, RecursionError, LookupError, ValueError, TypeError) as error:
        raise UserError(f"{where}: {_reason(error)}; only standard ALFWorld games can be played") from None


def _reason(error: Exception) -> str:
    return shortened(error, 300) if isinstance(error, UserError) else f"it cannot be read ({shortened(repr(error))})"


def _load(text: str | bytes, where: str) -> dict[str, Any]:
    try:
        data = json.loads(text.removeprefix("\ufeff") if isinstance(text, str) else text)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deep" if isinstance(error, RecursionError) else shortened(error)
        page = "; it looks like a web page" if text[:200].lstrip()[:1] in ("<", b"<") else ""
        raise UserError(
            f"{where}: not a complete JSON text ({reason}{page}); the file is truncated or no game file, fetch it again"
        ) from None
    if not isinstance(data, dict):
        raise UserError(f"{where}: holds a JSON {type(data).__name__}, not a game; is it a game.tw-pddl file?")
    for key, kind in (("pddl_domain", str), ("grammar", str), ("pddl_problem", str), ("solvable", bool)):
        value = data.get(key)
        if not isinstance(value, kind):
            state = "missing" if key not in data else f"not {'a text' if kind is str else 'true or false'}"
            raise UserError(f"{where}: the key '{key}' is {state}; is it a game.tw-pddl file?")
        if isinstance(value, str) and len(value) > _LONGEST:
            raise UserError(f"{where}: the key '{key}' has {len(value):,} characters, which is too much for a game")
    if not isinstance(data.get("walkthrough") or [], list):
        raise UserError(f"{where}: the key 'walkthrough' is not a list; is it a game.tw-pddl file?")
    return data


def _build(problem: Problem, where: str, task: str, dialect: Dialect, walkthrough: tuple[str, ...]) -> Game:
    sorts = problem.entities()
    names = printed_names(sorts.keys())
    objects, receptacles, locations = (
        {entity: number for number, entity in enumerate(sorted(e for e, sort in sorts.items() if sort == wanted))}
        for wanted in "orl"
    )

    def those(predicate: str, numbers: Mapping[str, int] = objects) -> frozenset[int]:
        return shared(frozenset([numbers[entity] for entity in problem.those(predicate)]))

    def grouped(predicate: str, owners: Mapping[str, int]) -> dict[int, tuple[int, ...]]:
        """Return the objects (first argument) of each owner (second argument), in order."""
        groups: dict[int, set[int]] = defaultdict(set)
        for entity, owner in problem.pairs(predicate):
            groups[owners[owner]].add(objects[entity])
        return {owner: shared(tuple(sorted(group))) for owner, group in groups.items()}

    stands_at = {receptacles[r]: locations[at] for r, at in problem.pairs("receptacleatlocation")}
    if len(stands_at) < len(problem.facts.get("receptacleatlocation", ())):
        raise UserError("a receptacle stands at two locations, which the engine does not support")
    starts = problem.facts.get("atlocation", ())
    if len(starts) != 1:
        raise UserError(f"there are {len(starts)} agents placed in the room instead of one")
    contents, inside = grouped("inreceptacle", receptacles), grouped("inreceptacleobject", objects)
    return Game(
        where=where,
        task=task,
        dialect=dialect,
        walkthrough=walkthrough,
        objects=shared(tuple(shared(names[entity]) for entity in objects)),
        receptacles=shared(tuple(shared(names[entity]) for entity in receptacles)),
        locations=shared(tuple(shared(names[entity]) for entity in locations)),
        numbers={shared(names[entity]): number for group in (objects, receptacles) for entity, number in group.items()},
        stands_at=tuple(stands_at.get(number, NOWHERE) for number in range(len(receptacles))),
        openable=those("openable", receptacles),
        appliances=_appliances(problem, dialect, receptacles),
        treatable={
            Appliance.SINK: those("cleanable"),
            Appliance.MICROWAVE: those("heatable"),
            Appliance.FRIDGE: those("coolable"),
        },
        fits=_fits(problem, objects, receptacles),
        pickupable=those("pickupable"),
        toggleable=those("toggleable"),
        sliceable=those("sliceable"),
        knives=shared(frozenset(objects[o] for o, kind in problem.pairs("objecttype") if kind in _KNIVES)),
        inside={objects[o]: inside.get(objects[o], ()) for o in problem.those("isreceptacleobject")},
        start=locations[starts[0][2]],
        contents=tuple(contents.get(number, ()) for number in range(len(receptacles))),
        lying=frozenset((objects[o], locations[at]) for o, at in problem.pairs("objectatlocation")),
        opened=those("opened", receptacles),
        clean=those("isclean"),
        hot=those("ishot"),
        cool=those("iscool"),
        toggled=those("istoggled"),
        sliced=those("issliced"),
        goals=tuple(bind(goal, problem, objects, receptacles) for goal in read_goals(problem.goal)),
    )


def _appliances(problem: Problem, dialect: Dialect, receptacles: Mapping[str, int]) -> dict[int, Appliance]:
    kinds = dict.fromkeys(dialect.sink_types, Appliance.SINK) | {
        "microwavetype": Appliance.MICROWAVE,
        "fridgetype": Appliance.FRIDGE,
    }
    return {receptacles[r]: kinds[kind] for r, kind in problem.pairs("receptacletype") if kind in kinds}


def _fits(problem: Problem, objects: Mapping[str, int], receptacles: Mapping[str, int]) -> tuple[frozenset[int], ...]:
    of_kind: dict[str, set[int]] = defaultdict(set)
    for receptacle, kind in problem.pairs("receptacletype"):
        of_kind[kind].add(receptacles[receptacle])
    takes: dict[str, set[int]] = defaultdict(set)
    for receptacle_kind, object_kind in problem.pairs("cancontain"):
        if receptacle_kind in of_kind:
            takes[object_kind] |= of_kind[receptacle_kind]
    fits: list[frozenset[int]] = [frozenset()] * len(objects)
    for entity, kind in problem.pairs("objecttype"):
        fits[objects[entity]] |= takes[kind]
    return tuple(shared(group) for group in fits)
