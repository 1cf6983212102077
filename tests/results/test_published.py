"""The published records were tested as they are; the tests themselves take longer and run by `make test-records`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from hiper.evaluation.evaluate import evaluate
from hiper.evaluation.saved import SavedPolicy
from hiper.runs.records import RECORDS, read_archive, unpack

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


# --- Policies that ship can be played, and their cards are of these very weights ------------------------------------


RESULTS = Path(__file__).parents[2] / "results"
POLICIES = sorted(path.parent for path in RESULTS.glob("*/policy"))


def test_there_are_some():
    assert POLICIES


@pytest.mark.parametrize("folder", POLICIES, ids=lambda path: path.name)
def test_a_policy_that_ships_plays(folder: Path):
    without_data = ["env.data=generated"]
    saved = SavedPolicy.open(folder / "policy", overrides=without_data)
    agent = saved.load(1.0).agent
    played = evaluate(saved.env("train"), agent, tasks=4, slots=4, seed=0)
    assert len(played.episodes) == 4
    assert any(turn.format_valid for episode in played.episodes for turn in episode.turns)


@pytest.mark.parametrize("folder", POLICIES, ids=lambda path: path.name)
def test_its_card_is_of_its_weights(folder: Path):
    hashes = {SavedPolicy.open(folder / "policy").load().weights.sha256()}
    cards = [
        text for name, text in read_archive(RESULTS / "cards.tar.xz").items() if name.startswith(f"{folder.name}/")
    ]
    assert hashes & {json.loads(card).get("weights_sha256") for card in cards}
