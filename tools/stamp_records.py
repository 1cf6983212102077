"""Stamp the published records: `make test-records` calls this once their tests have passed.

The stamp is a hash over the records, the documents whose tables come from them, and the code that makes the tables.
With ``--check`` nothing is written; the exit code says whether the stamp is up to date.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path

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


def main() -> None:
    """Write or check the stamp."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only say whether the stamp is up to date")
    if not parser.parse_args().check:
        STAMP.write_text(f"{stamp()}\n", encoding="utf-8")
    elif not STAMP.is_file() or STAMP.read_text(encoding="utf-8").strip() != stamp():
        sys.exit("the published records, or what their tests rest on, have changed: run make test-records")


if __name__ == "__main__":
    main()
