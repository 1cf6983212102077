"""Published records: pack those of a study into one file, and stamp those that are published.

    python tools/records.py pack runs/study-ablations results/ablations/records.tar.xz
    python tools/records.py stamp [--check]

The packed file has the settings, metrics and cards of all runs. Runs are in the order of the study's comparison, so
`hiper compare RECORDS` has the same reference. Those of a tuning and of each value of a sweep keep their folders. Their
tables are packed as well.

The stamp is a hash over the records, the documents whose tables come from them, and the code that makes the tables.
`make test-records` writes it once its tests have passed. With ``--check`` nothing is written. The exit code says if
it is up to date.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path

from hiper.runs.folder import Run
from hiper.runs.records import RECORDS, pack

ROOT = Path(__file__).parents[1]
STAMP = ROOT / "results" / "checked.sha256"
PATTERNS = (
    "results/**/*.tar.xz",
    "results/**/comparison.*",
    "results/**/sweep.*",
    "docs/results.md",
    "src/hiper/analysis/comparison/*.py",
    "src/hiper/display/tables.py",
    "src/hiper/outcomes.py",
    "src/hiper/study/sweep.py",
    "tests/results/test_records.py",
)
"""What the tests of the records rest on. Each pattern matches a file at least."""


def stamp() -> str:
    """Return the hash over names and contents of all files, in hexadecimal.

    Raises:
        FileNotFoundError: a pattern matches nothing.
    """
    digest = hashlib.sha256()
    for pattern in PATTERNS:
        files = sorted(file for file in ROOT.glob(pattern) if file.is_file())
        if not files:
            raise FileNotFoundError(f"nothing matches {pattern}: change PATTERNS in {__file__}")
        for file in files:
            content = hashlib.sha256(file.read_bytes()).hexdigest()
            digest.update(f"{file.relative_to(ROOT).as_posix()} {content}\n".encode())
    return digest.hexdigest()


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
    """Read the command line, then pack or stamp."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack", help="pack the records of a study")
    packing.add_argument("study", type=Path, help="the study's folder")
    packing.add_argument("records", type=Path, nargs="?", help=f"the file to write; by default STUDY/{RECORDS}")
    stamping = commands.add_parser("stamp", help="stamp the published records")
    stamping.add_argument("--check", action="store_true", help="only say whether the stamp is up to date")
    given = parser.parse_args()
    if given.command == "pack":
        records = given.records or given.study / RECORDS
        pack(runs_of(given.study), given.study, records, documents_of(given.study))
    elif not given.check:
        STAMP.write_text(f"{stamp()}\n", encoding="utf-8")
    elif not STAMP.is_file() or STAMP.read_text(encoding="utf-8").strip() != stamp():
        sys.exit("the published records, or what their tests rest on, have changed: run make test-records")


if __name__ == "__main__":
    main()
