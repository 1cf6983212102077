"""The goal of a game, read from its PDDL problem."""

from __future__ import annotations

import re
from collections.abc import Mapping

from hiper.envs.alfworld.game import Goal, Treatment, shared
from hiper.envs.alfworld.pddl import TOKEN, Problem
from hiper.errors import UserError


def _goal_pattern(text: str) -> re.Pattern[str]:
    """Make a pattern of a goal in PDDL. O, R and L in it stand for an object, a receptacle and a lamp type."""
    pattern = r"\s".join(re.escape(token) for token in TOKEN.findall(text))
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


def read_goal(text: str, problem: Problem, objects: Mapping[str, int], receptacles: Mapping[str, int]) -> Goal:
    """Read the goal of a game.

    Args:
        text: the goal in PDDL, one space between tokens.
        problem: the problem it belongs to.
        objects: number of each object, by internal id.
        receptacles: number of each receptacle, by internal id.

    Raises:
        UserError: the goal is of an unknown shape.
    """
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
            objects=shared(frozenset(candidates)),
            receptacles=shared(frozenset(of_type("receptacletype", kinds.get("R"), receptacles))),
            count=count,
            treatment=treatment,
            lamps=shared(frozenset(lamps & {objects[o] for o in problem.those("toggleable") if o in objects})),
        )
    raise UserError(f"the goal is of a shape the engine does not know: {text[:160]}")
