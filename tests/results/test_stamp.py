"""The published records were tested as they are; the tests themselves take longer and run by `make test-records`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hiper.runs.records import RECORDS, unpack

ROOT = Path(__file__).parents[2]


def test_the_records_were_tested_since_they_changed():
    command = [sys.executable, str(ROOT / "tools" / "stamp_records.py"), "--check"]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr


@pytest.mark.parametrize("file", sorted(ROOT.glob(f"results/*/{RECORDS}")), ids=lambda file: file.parent.name)
def test_published_settings_are_still_understood(file: Path):
    """Whatever happens to the tree of settings."""
    with unpack(file) as packed:
        (run,) = packed.at(packed.names[0])
        assert run.evaluations()
        assert run.shown_path == file / packed.names[0]
