"""Pack the records of a study (settings, metrics, cards of all its runs) into one file.

    python tools/pack_records.py runs/study-ablations results/ablations/records.tar.xz

Runs are in the order of the study's comparison, so that `hiper compare RECORDS` has the same reference. Those of a
tuning and of each value of a sweep keep their folders, and so do their tables, which are packed as well.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from hiper.runs.folder import Run
from hiper.runs.records import RECORDS, pack


def runs_of(study: Path) -> list[Run]:
    """Open all runs in a study's folder, in the order of its comparisons."""
    folders = sorted(file.parent for file in study.rglob("config.yaml"))
    ranks = {folder: rank for parent in {f.parent for f in folders} for rank, folder in enumerate(_compared(parent))}
    folders.sort(key=lambda folder: (folder.parent, ranks.get(folder, len(ranks))))
    return [Run.open(folder) for folder in folders]


def documents_of(study: Path) -> list[Path]:
    """Find the numbers of a study's comparison, and the tables and figures of its tuning and of its sweep's values."""
    below = (*study.rglob("comparison.*"), *study.rglob("tuning.json"))
    files = {*study.glob("comparison.json"), *study.glob("sweep.json"), *(f for f in below if f.parent != study)}
    return sorted(files)


def _compared(runs: Path) -> list[Path]:
    """The runs in a folder that the comparison beside it names, in its order."""
    comparison = runs.parent / "comparison.json"
    if not comparison.is_file():
        return []
    methods = json.loads(comparison.read_text(encoding="utf-8"))["methods"].values()
    return [runs / Path(path).name for method in methods for path in method["runs"]]


def main() -> None:
    """Read the command line and pack."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, help="the study's folder")
    parser.add_argument("records", type=Path, nargs="?", help=f"the file to write; by default STUDY/{RECORDS}")
    given = parser.parse_args()
    records = given.records or given.study / RECORDS
    pack(runs_of(given.study), given.study, records, documents_of(given.study))


if __name__ == "__main__":
    main()
