"""How much lies about on each kind of receptacle: what a searcher who knows households, but not this one, expects.

The table was counted over the 3,553 games of the official train split by this module::

    python -m hiper.envs.alfworld.priors json_2.1.1/train
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

CONTENTS: dict[str, float] = {
    "diningtable": 9.22,
    "countertop": 6.09,
    "desk": 5.96,
    "fridge": 4.22,
    "coffeetable": 4.07,
    "bed": 4.05,
    "dresser": 3.95,
    "cart": 3.19,
    "tvstand": 2.72,
    "toilet": 2.45,
    "sofa": 2.44,
    "sidetable": 2.39,
    "sinkbasin": 1.55,
    "bathtubbasin": 1.38,
    "ottoman": 1.1,
    "microwave": 1.06,
    "shelf": 0.99,
    "towelholder": 0.87,
    "armchair": 0.84,
    "garbagecan": 0.83,
    "handtowelholder": 0.79,
    "stoveburner": 0.65,
    "drawer": 0.51,
    "safe": 0.48,
    "cabinet": 0.44,
    "coffeemachine": 0.39,
    "toiletpaperhanger": 0.23,
    "toaster": 0.0,
    "laundryhamper": 0.0,
}
"""Mean number of portable objects on or in one receptacle of the kind, at the start of a game."""

OPENABLE = frozenset({"fridge", "microwave", "drawer", "safe", "cabinet"})
"""Kinds that have to be opened first: looking into one costs two turns instead of one."""

UNKNOWN = 1.0
"""Expectation for a kind that is not in the table."""

_FACT = re.compile(r"\((inReceptacle|pickupable|openable|receptacleAtLocation) ([^\s()]+)(?: ([^\s()]+))?\)")


def worth(kind: str) -> float:
    """Objects a searcher expects to see per turn spent on one receptacle of this kind."""
    expected = CONTENTS.get(kind, UNKNOWN)
    return expected / 2 if kind in OPENABLE else expected


def count_contents(problems: Iterable[str]) -> tuple[dict[str, float], frozenset[str]]:
    """:data:`CONTENTS` and :data:`OPENABLE` as found in these PDDL problems."""
    instances, portables = Counter[str](), Counter[str]()
    openable: set[str] = set()
    for problem in problems:
        facts = _FACT.findall(problem.split("(:goal")[0])
        portable = {first for name, first, _ in facts if name == "pickupable"}
        for name, first, second in facts:
            if name == "receptacleAtLocation":
                instances[_kind(first)] += 1
            elif name == "openable":
                openable.add(_kind(first))
            elif name == "inReceptacle" and first in portable:
                portables[_kind(second)] += 1
    means = {kind: round(portables[kind] / count, 2) for kind, count in instances.items()}
    return dict(sorted(means.items(), key=lambda item: -item[1])), frozenset(openable & set(means))


def _kind(entity: str) -> str:
    """The kind in an entity's PDDL id, as the game calls it: ``Sink_bar__..._bar_SinkBasin`` is a sinkbasin."""
    entity = entity.lower()
    kind = entity.split("_bar_")[0]
    return kind + "basin" if "basin" in entity and not kind.endswith("basin") else kind


def main(folder: str) -> None:
    """Count over all games under ``folder`` and write the table to standard output."""
    games = sorted(Path(folder).rglob("game.tw-pddl"))
    means, openable = count_contents(json.loads(game.read_text())["pddl_problem"] for game in games)
    sys.stdout.write(f"{len(games)} games\nCONTENTS = {means}\nOPENABLE = {sorted(openable)}\n")


if __name__ == "__main__":
    main(sys.argv[1])
