"""One game, read from a ``game.tw-pddl`` file into a small immutable record that the engine plays from."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal, TypeVar, cast

from hiper.envs.alfworld.dialect import Dialect, read_language
from hiper.errors import UserError

Treatment = Literal["clean", "hot", "cool"]

NOWHERE = -1
"""Location of a receptacle that stands nowhere."""


@dataclass(frozen=True, slots=True)
class Goal:
    """What wins the game: objects laid in one receptacle, or an object held in the light of a lamp."""

    objects: frozenset[int]
    """Any of these objects will do."""
    receptacles: frozenset[int] = frozenset()
    """Any of these receptacles will do; empty for a lamp goal."""
    count: int = 1
    """How many of the objects must be in the same receptacle."""
    treatment: Treatment | None = None
    lamps: frozenset[int] = frozenset()


class Appliance(Enum):
    """What a receptacle does to the object in hand; the value is the verb of its command."""

    SINK = "clean"
    MICROWAVE = "heat"
    FRIDGE = "cool"


@dataclass(frozen=True, slots=True)
class Place:
    """A location: what stands there and the commands that depend on nothing else."""

    receptacles: tuple[int, ...]
    examine: tuple[str, ...]
    """ "examine" every receptacle here."""
    go: tuple[str, ...]
    """ "go to" every receptacle that stands elsewhere, sorted."""


@dataclass(frozen=True, slots=True)
class Game:
    """A game: objects, receptacles and locations are numbered in the order of their internal ids.

    Equal parts are shared between games (see :func:`_shared`), so that a game costs a few kilobytes.
    """

    where: str
    """The file it was read from, for messages."""
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
    """Object and location: where objects lie at the start, which need not agree with their receptacle."""
    opened: frozenset[int]
    clean: frozenset[int]
    hot: frozenset[int]
    cool: frozenset[int]
    toggled: frozenset[int]
    sliced: frozenset[int]
    goal: Goal

    places: dict[int, Place] = field(default_factory=dict, repr=False, compare=False)
    """Filled by :meth:`place` as locations are visited."""

    def place(self, location: int) -> Place:
        """What stands at ``location``."""
        place = self.places.get(location)
        if place is None:
            here = tuple(r for r, at in enumerate(self.stands_at) if at == location)
            examine = tuple(f"examine {self.receptacles[r]}" for r in here)
            elsewhere = (r for r, at in enumerate(self.stands_at) if at not in (location, NOWHERE))
            away = sorted(f"go to {self.receptacles[r]}" for r in elsewhere)
            place = self.places[location] = Place(here, examine, tuple(away))
        return place


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
        problem = _Problem.read(data["pddl_problem"])
        return _build(problem, where, task, dialect, tuple(data.get("walkthrough") or ()))
    except UserError as error:
        raise UserError(f"{where}: {error}; only standard ALFWorld games can be played") from None


def _load(text: str | bytes, where: str) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except ValueError as error:
        raise UserError(
            f"{where}: not a complete JSON text ({error}); the file is truncated or no game file, fetch it again"
        ) from None
    if not isinstance(data, dict):
        raise UserError(f"{where}: holds a JSON {type(data).__name__}, not a game; is it a game.tw-pddl file?")
    for key, kind in (("pddl_domain", str), ("grammar", str), ("pddl_problem", str), ("solvable", bool)):
        if not isinstance(data.get(key), kind):
            state = "missing" if key not in data else f"not a {kind.__name__}"
            raise UserError(f"{where}: the key '{key}' is {state}; is it a game.tw-pddl file?")
    if not isinstance(data.get("walkthrough") or [], list):
        raise UserError(f"{where}: the key 'walkthrough' is not a list; is it a game.tw-pddl file?")
    return data


# --- the PDDL problem --------------------------------------------------------------------------------------------

_COMMENT = re.compile(r";[^\n]*")
_NUMERIC = re.compile(r"\(\s*=\s*\([^()]*\)[^()]*\)")
_TOKEN = re.compile(r"[()]|[^\s()]+")

_SIGNATURES = {
    "atlocation": "al",
    "receptacleatlocation": "rl",
    "objectatlocation": "ol",
    "openable": "r",
    "opened": "r",
    "inreceptacle": "or",
    "isreceptacleobject": "o",
    "inreceptacleobject": "oo",
    "checked": "?",
    "examined": "?",
    "wasinreceptacle": "or",
    "receptacletype": "rt",
    "cancontain": "tt",
    "objecttype": "ot",
    "full": "r",
    "isclean": "o",
    "cleanable": "o",
    "ishot": "o",
    "heatable": "o",
    "iscool": "o",
    "coolable": "o",
    "pickupable": "o",
    "moveable": "o",
    "toggleable": "o",
    "ison": "o",
    "istoggled": "o",
    "sliceable": "o",
    "issliced": "o",
}
"""Facts that an initial state may hold, and the sort of each argument: agent, location, receptacle, object, type.

Starting with an object in hand is not supported.
"""

T = TypeVar("T", bound=Hashable)


@dataclass(frozen=True, slots=True)
class _Problem:
    """A PDDL problem, lower-cased as planners read it."""

    declared: frozenset[str]
    """What its facts may be about."""
    facts: Mapping[str, Sequence[list[str]]]
    """The facts of each predicate, each fact the predicate and its arguments."""
    goal: str
    """One space between tokens."""

    @classmethod
    def read(cls, text: str) -> _Problem:
        text = text.lower()
        if ";" in text:
            text = _COMMENT.sub("", text)
        objects, init, goal = (text.find(part) for part in ("(:objects", "(:init", "(:goal"))
        if not 0 <= objects < init < goal:
            raise UserError("the PDDL problem lacks '(:objects' or, after it, '(:init' and '(:goal'")
        declared = frozenset(text[objects + len("(:objects") : init].replace(")", " ").split())
        initial = text[init + len("(:init") : goal]
        if "=" in initial:
            initial = _NUMERIC.sub("", initial)
        facts: dict[str, list[list[str]]] = defaultdict(list)
        for fact in initial.replace("(", " ").split(")"):
            if words := fact.split():
                facts[words[0]].append(words)
        for predicate, found in facts.items():
            arity = len(_SIGNATURES.get(predicate, ()))
            if not arity or {*map(len, found)} != {1 + arity}:
                raise UserError(f"the initial fact '({' '.join(found[0])})' is not one the engine knows")
        return cls(declared, facts, " ".join(_TOKEN.findall(text[goal:])))

    def pairs(self, predicate: str) -> Iterable[tuple[str, str]]:
        return [(first, second) for _, first, second in self.facts.get(predicate, ())]

    def entities(self) -> dict[str, str]:
        """Everything that a fact mentions, types aside, and its sort."""
        sorts: dict[str, str] = {}
        for predicate, found in self.facts.items():
            for position, sort in enumerate(_SIGNATURES[predicate], start=1):
                if sort in "alro":
                    for entity in {fact[position] for fact in found}:
                        if sorts.setdefault(entity, sort) != sort:
                            raise UserError(f"'{entity}' is of two sorts in the PDDL problem")
        if unknown := sorts.keys() - self.declared:
            raise UserError(f"'{min(unknown)}' is in an initial fact, but not among the PDDL problem's objects")
        return sorts

    def those(self, predicate: str) -> set[str]:
        return {fact[1] for fact in self.facts.get(predicate, ())}


def _names(ids: Collection[str]) -> dict[str, str]:
    """The printed name of each internal id: its type and a number, dealt from the highest down in the order of ids."""
    kinds = {}
    for entity in sorted(ids):
        kind, bar, _ = entity.partition("_bar_")
        if bar:
            kinds[entity] = kind + "basin" if "basin" in entity else kind
    left = Counter(kinds.values())
    names = {entity: f"{entity} " for entity in ids}
    for entity, kind in kinds.items():
        names[entity] = f"{kind} {left[kind]}"
        left[kind] -= 1
    return names


# --- the goal ----------------------------------------------------------------------------------------------------


def _goal_pattern(text: str) -> re.Pattern[str]:
    """A pattern from a goal in PDDL, in which O, R and L stand for an object, a receptacle and a lamp type."""
    pattern = r"\s".join(re.escape(token) for token in _TOKEN.findall(text))
    for letter in "ORL":
        first, *rest = pattern.split(letter)
        pattern = first + "".join(
            (f"(?P<{letter}>\\S+)" if i == 0 else f"(?P={letter})") + part for i, part in enumerate(rest)
        )
    return re.compile(pattern + r"(?:\s\))*")


_PUT = "(exists (?r - receptacle) (exists (?o - object) (and {})))"
_TREATED = "({0}able ?o) (objecttype ?o O) (receptacletype ?r R) ({1} ?o) (inreceptacle ?o ?r)"
_GOAL_SHAPES: tuple[tuple[str, int, Treatment | None], ...] = (
    (_PUT.format("(inreceptacle ?o ?r) (objecttype ?o O) (receptacletype ?r R)"), 1, None),
    (_PUT.format(_TREATED.format("clean", "isclean")), 1, "clean"),
    (_PUT.format(_TREATED.format("heat", "ishot")), 1, "hot"),
    (_PUT.format(_TREATED.format("cool", "iscool")), 1, "cool"),
    (
        "(exists (?r - receptacle) (exists (?o1 - object)"
        " (and (objecttype ?o1 O) (receptacletype ?r R) (inreceptacle ?o1 ?r)"
        " (exists (?o2 - object)"
        " (and (not (= ?o1 ?o2)) (objecttype ?o2 O) (receptacletype ?r R) (inreceptacle ?o2 ?r))))))",
        2,
        None,
    ),
    (
        "(exists (?ot - object ?r - receptacle ?a - agent ?l - location)"
        " (and (objecttype ?ot L) (toggleable ?ot) (istoggled ?ot) (receptacleatlocation ?r ?l)"
        " (atlocation ?a ?l) (inreceptacle ?ot ?r)))"
        " (exists (?o - object ?a - agent) (and (objecttype ?o O) (holds ?a ?o)))",
        1,
        None,
    ),
)
_GOALS = tuple((_goal_pattern(f"(:goal (and {text}))"), count, treatment) for text, count, treatment in _GOAL_SHAPES)
_ABLE = {"clean": "cleanable", "hot": "heatable", "cool": "coolable"}


def _read_goal(text: str, problem: _Problem, objects: Mapping[str, int], receptacles: Mapping[str, int]) -> Goal:
    for pattern, count, treatment in _GOALS:
        if not (found := pattern.fullmatch(text)):
            continue
        kinds = found.groupdict()

        def of_type(predicate: str, kind: str | None, numbers: Mapping[str, int]) -> set[int]:
            return {numbers[entity] for entity, its in problem.pairs(predicate) if its == kind and entity in numbers}

        candidates = of_type("objecttype", kinds.get("O"), objects)
        if treatment:
            candidates &= {objects[o] for o in problem.those(_ABLE[treatment]) if o in objects}
        lamps = of_type("objecttype", kinds.get("L"), objects)
        return Goal(
            objects=_shared(frozenset(candidates)),
            receptacles=_shared(frozenset(of_type("receptacletype", kinds.get("R"), receptacles))),
            count=count,
            treatment=treatment,
            lamps=_shared(frozenset(lamps & {objects[o] for o in problem.those("toggleable") if o in objects})),
        )
    raise UserError(f"the goal is of a shape the engine does not know: {text[:160]}")


# --- putting it together -----------------------------------------------------------------------------------------

_interned: dict[Any, Any] = {}


def _shared(value: T) -> T:
    """One object for all equal values, so that thousands of games share their common parts."""
    return cast(T, _interned.setdefault(value, value))


def _build(problem: _Problem, where: str, task: str, dialect: Dialect, walkthrough: tuple[str, ...]) -> Game:
    sorts = problem.entities()
    names = _names(sorts.keys())
    objects, receptacles, locations = (
        {entity: number for number, entity in enumerate(sorted(e for e, sort in sorts.items() if sort == wanted))}
        for wanted in "orl"
    )

    def those(predicate: str, numbers: Mapping[str, int] = objects) -> frozenset[int]:
        return _shared(frozenset([numbers[entity] for entity in problem.those(predicate)]))

    def grouped(predicate: str, owners: Mapping[str, int]) -> dict[int, tuple[int, ...]]:
        """For each owner (second argument), its objects (first argument) in order."""
        groups: dict[int, set[int]] = defaultdict(set)
        for entity, owner in problem.pairs(predicate):
            groups[owners[owner]].add(objects[entity])
        return {owner: _shared(tuple(sorted(group))) for owner, group in groups.items()}

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
        objects=_shared(tuple(_shared(names[entity]) for entity in objects)),
        receptacles=_shared(tuple(_shared(names[entity]) for entity in receptacles)),
        locations=_shared(tuple(_shared(names[entity]) for entity in locations)),
        numbers={
            _shared(names[entity]): number for group in (objects, receptacles) for entity, number in group.items()
        },
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
        knives=_shared(
            frozenset(objects[o] for o, kind in problem.pairs("objecttype") if kind in ("knifetype", "butterknifetype"))
        ),
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
        goal=_read_goal(problem.goal, problem, objects, receptacles),
    )


def _appliances(problem: _Problem, dialect: Dialect, receptacles: Mapping[str, int]) -> dict[int, Appliance]:
    kinds = dict.fromkeys(dialect.sink_types, Appliance.SINK) | {
        "microwavetype": Appliance.MICROWAVE,
        "fridgetype": Appliance.FRIDGE,
    }
    return {receptacles[r]: kinds[kind] for r, kind in problem.pairs("receptacletype") if kind in kinds}


def _fits(problem: _Problem, objects: Mapping[str, int], receptacles: Mapping[str, int]) -> tuple[frozenset[int], ...]:
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
    return tuple(_shared(group) for group in fits)
