"""The PDDL problem of a game: its objects, the initial facts and the goal."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from hiper.errors import UserError, shortened

_COMMENT = re.compile(r";[^\n]*")
_NUMERIC = re.compile(r"\(\s*=\s*\([^()]*\)[^()]*\)")
_HEAD = re.compile(r"\s*\(\s*define\s*\(\s*problem\s+[^\s()]+\s*\)\s*\(\s*:domain\s+[^\s()]+\s*\)\s*")
_NAMES = re.compile(r"[^()]*\)\s*")
_FACTS = re.compile(r"\s*(?:\([^()]*\)\s*)*\)\s*")
TOKEN = re.compile(r"[()]|[^\s()]+")

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
"""The facts of initial states, with the sort of each argument: agent, location, receptacle, object or type.

Starting with an object in hand is not supported.
"""


@dataclass(frozen=True, slots=True)
class Problem:
    """A PDDL problem in lower case, as planners read it."""

    declared: frozenset[str]
    """The entities that facts may be about."""
    facts: Mapping[str, Sequence[list[str]]]
    """The facts of each predicate, each fact the predicate and its arguments."""
    goal: str
    """The goal, with one space between tokens."""

    @classmethod
    def read(cls, text: str) -> Problem:
        """Read the text of a problem.

        Raises:
            UserError: a part is missing, or a fact is unknown.
        """
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
        names = text[objects + len("(:objects") : init]
        if not (_HEAD.fullmatch(text[:objects]) and _NAMES.fullmatch(names) and _FACTS.fullmatch(initial)):
            raise UserError("the brackets of the PDDL problem are not in pairs, or not where they belong")
        facts: dict[str, list[list[str]]] = defaultdict(list)
        for fact in initial.replace("(", " ").split(")"):
            if words := fact.split():
                facts[words[0]].append(words)
        for predicate, found in facts.items():
            arity = len(_SIGNATURES.get(predicate, ()))
            if not arity or {*map(len, found)} != {1 + arity}:
                raise UserError(f"the initial fact '({shortened(' '.join(found[0]))})' is not one the engine knows")
        return cls(declared, facts, " ".join(TOKEN.findall(text[goal:])))

    def pairs(self, predicate: str) -> Iterable[tuple[str, str]]:
        """Return the two arguments of each fact of a predicate that takes two."""
        return [(first, second) for _, first, second in self.facts.get(predicate, ())]

    def entities(self) -> dict[str, str]:
        """Return the sort of everything that a fact mentions, types aside.

        Raises:
            UserError: something is of two sorts, or was not declared.
        """
        sorts: dict[str, str] = {}
        for predicate, found in self.facts.items():
            for position, sort in enumerate(_SIGNATURES[predicate], start=1):
                if sort in "alro":
                    for entity in {fact[position] for fact in found}:
                        if sorts.setdefault(entity, sort) != sort:
                            raise UserError(f"'{shortened(entity)}' is of two sorts in the PDDL problem")
        if unknown := sorts.keys() - self.declared:
            raise UserError(
                f"'{shortened(min(unknown))}' is in an initial fact, but not among the PDDL problem's objects"
            )
        return sorts

    def those(self, predicate: str) -> set[str]:
        """Return the first argument of each fact of a predicate."""
        return {fact[1] for fact in self.facts.get(predicate, ())}


def printed_names(ids: Collection[str]) -> dict[str, str]:
    """Return the printed name of each internal id: its type and a number.

    Numbers are dealt from the highest down, in the order of ids.
    """
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
