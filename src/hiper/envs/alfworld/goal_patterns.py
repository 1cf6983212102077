"""The goals of a game, read from its PDDL problem. An official game has one, and chores in a row have several."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hiper.envs.alfworld.game import Goal, Treatment, shared
from hiper.envs.alfworld.pddl import TOKEN, Problem
from hiper.errors import UserError


def _goal_pattern(text: str) -> re.Pattern[str]:
    """Make a pattern of a goal in PDDL, after a space. O, R and L stand for an object, a receptacle and a lamp type."""
    pattern = r"\s".join(re.escape(token) for token in TOKEN.findall(text))
    for letter in "ORL":
        first, *rest = pattern.split(letter)
        pattern = first + "".join(
            (f"(?P<{letter}>\\S+)" if i == 0 else f"(?P={letter})") + part for i, part in enumerate(rest)
        )
    return re.compile(r"\s" + pattern)


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
_GOALS = tuple((_goal_pattern(text), count, treatment) for text, count, treatment in _GOAL_SHAPES)
_BEGIN, _END = re.compile(r"\(\s:goal\s\(\sand"), re.compile(r"(?:\s\)){2,}")
ABLE = {"clean": "cleanable", "hot": "heatable", "cool": "coolable"}
"""The predicate of objects that a treatment works on."""


@dataclass(frozen=True, slots=True)
class StatedGoal:
    """A goal as PDDL states it: by types, in whatever room."""

    thing: str
    """The type of the object."""
    target: str
    """The type of the receptacle, or of the lamp."""
    lamp: bool = False
    """Whether the target is a lamp."""
    count: int = 1
    """The number of objects that must be in the same receptacle."""
    treatment: Treatment | None = None


def read_goals(text: str) -> tuple[StatedGoal, ...]:
    """Read the goals whose conjunction a problem states, in order.

    Args:
        text: the goal in PDDL, one space between tokens.

    Raises:
        UserError: one of them is of an unknown shape.
    """
    goals: list[StatedGoal] = []
    begin = _BEGIN.match(text)
    at = begin.end() if begin else 0
    while begin and (found := _goal_at(text, at)):
        goal, at = found
        goals.append(goal)
    if not goals or not _END.fullmatch(text, at):
        raise UserError(f"the goal is of a shape the engine does not know: {text[:160]}")
    return tuple(goals)


def state_goals(goals: Iterable[StatedGoal]) -> str:
    """Return the conjunction of goals in PDDL; the inverse of :func:`read_goals`."""
    tokens: list[str] = []
    for goal in goals:
        wanted = (goal.count, goal.treatment, goal.lamp)
        shape = next(text for text, n, how in _GOAL_SHAPES if (n, how, "?ot L)" in text) == wanted)
        types = {"O": goal.thing, "R": goal.target, "L": goal.target}
        tokens += (types.get(token, token) for token in TOKEN.findall(shape))
    return f"(:goal (and {' '.join(tokens)}))"


def _goal_at(text: str, at: int) -> tuple[StatedGoal, int] | None:
    """Return the goal that begins at a place in the text, and the place behind it."""
    for pattern, count, treatment in _GOALS:
        if match := pattern.match(text, at):
            kinds = match.groupdict()
            lamp = kinds.get("L")
            return StatedGoal(kinds["O"], lamp or kinds["R"], lamp is not None, count, treatment), match.end()
    return None


def bind(goal: StatedGoal, problem: Problem, objects: Mapping[str, int], receptacles: Mapping[str, int]) -> Goal:
    """Return a goal in the numbers of a game.

    Args:
        goal: the goal.
        problem: the problem of the game.
        objects: number of each object, by internal id.
        receptacles: number of each receptacle, by internal id.
    """

    def of_type(predicate: str, kind: str, numbers: Mapping[str, int]) -> frozenset[int]:
        return frozenset(numbers[e] for e, its in problem.pairs(predicate) if its == kind and e in numbers)

    def those(predicate: str) -> frozenset[int]:
        return frozenset(objects[o] for o in problem.those(predicate) if o in objects)

    candidates = of_type("objecttype", goal.thing, objects)
    if goal.treatment:
        candidates &= those(ABLE[goal.treatment])
    lamps = of_type("objecttype", goal.target, objects) & those("toggleable") if goal.lamp else frozenset()
    return Goal(
        objects=shared(candidates),
        receptacles=shared(frozenset() if goal.lamp else of_type("receptacletype", goal.target, receptacles)),
        count=goal.count,
        treatment=goal.treatment,
        lamps=shared(lamps),
    )
