"""Expectations of a searcher who knows households but not this room: where wanted objects usually are.

The table was counted over the 3,553 games of the official train split by this module::

    python -m hiper.envs.alfworld.priors json_2.1.1/train
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

CHANCE: dict[str, float] = {
    "desk": 0.464,
    "diningtable": 0.452,
    "toilet": 0.387,
    "dresser": 0.386,
    "coffeetable": 0.365,
    "countertop": 0.323,
    "tvstand": 0.283,
    "sidetable": 0.254,
    "sofa": 0.238,
    "cart": 0.222,
    "bed": 0.217,
    "fridge": 0.176,
    "bathtubbasin": 0.166,
    "armchair": 0.106,
    "shelf": 0.087,
    "garbagecan": 0.075,
    "sinkbasin": 0.071,
    "handtowelholder": 0.07,
    "microwave": 0.066,
    "coffeemachine": 0.061,
    "ottoman": 0.052,
    "stoveburner": 0.036,
    "toiletpaperhanger": 0.033,
    "safe": 0.03,
    "cabinet": 0.022,
    "drawer": 0.015,
    "laundryhamper": 0.0,
    "toaster": 0.0,
    "towelholder": 0.0,
}
"""The probability that a receptacle of the kind holds an object that the task asks for, at the start of a game."""

OPENABLE = frozenset({"cabinet", "drawer", "fridge", "microwave", "safe"})
"""Kinds that have to be opened first. To look into one costs two turns instead of one."""

UNKNOWN = 0.1
"""The probability for a kind that is not in the table. It ranks after large surfaces and before small places."""

_FACT = re.compile(r"\((objectType|pickupable|openable|receptacleAtLocation|inReceptacle) ([^\s()]+)(?: ([^\s()]+))?\)")
_GOAL_TYPE = re.compile(r"\(objectType \?\w+ (\w+)\)")


def worth(kind: str) -> float:
    """Return the probability of success per turn spent on one receptacle of this kind."""
    chance = CHANCE.get(kind, UNKNOWN)
    return chance / 2 if kind in OPENABLE else chance


def count(problems: Iterable[str]) -> tuple[dict[str, float], frozenset[str]]:
    """Return :data:`CHANCE` and :data:`OPENABLE` as counted in these PDDL problems."""
    instances, hits = Counter[str](), Counter[str]()
    openable: set[str] = set()
    for problem in problems:
        init, _, goal = problem.partition("(:goal")
        facts = defaultdict[str, list[tuple[str, str]]](list)
        for name, first, second in _FACT.findall(init):
            facts[name].append((first, second))
        asked_for = set(_GOAL_TYPE.findall(goal))
        portable = {entity for entity, _ in facts["pickupable"]}
        wanted = {entity for entity, kind in facts["objectType"] if kind in asked_for and entity in portable}
        instances.update(_kind(place) for place, _ in facts["receptacleAtLocation"])
        hits.update(_kind(place) for place in {place for entity, place in facts["inReceptacle"] if entity in wanted})
        openable.update(_kind(place) for place, _ in facts["openable"])
    chances = {kind: round(hits[kind] / total, 3) for kind, total in instances.items()}
    return dict(sorted(chances.items(), key=lambda item: -item[1])), frozenset(openable & set(chances))


def _kind(entity: str) -> str:
    """Return the game's name of the kind in a PDDL id: ``Sink_bar__..._bar_SinkBasin`` is a sinkbasin."""
    entity = entity.lower()
    kind = entity.split("_bar_")[0]
    return kind + "basin" if "basin" in entity and not kind.endswith("basin") else kind


def main(folder: str) -> None:
    """Count over all games under ``folder`` and write the table to standard output."""
    games = sorted(Path(folder).rglob("game.tw-pddl"))
    chances, openable = count(json.loads(game.read_text())["pddl_problem"] for game in games)
    rows = "".join(f"    {json.dumps(kind)}: {chance},\n" for kind, chance in chances.items())
    sys.stdout.write(f"{len(games)} games\nCHANCE = {{\n{rows}}}\nOPENABLE = {sorted(openable)}\n")


if __name__ == "__main__":
    main(sys.argv[1])
