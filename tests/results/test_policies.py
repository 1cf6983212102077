"""Policies that ship can be played, and their cards are of these very weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hiper.evaluation.evaluate import evaluate
from hiper.evaluation.saved import SavedPolicy
from hiper.runs.records import read_archive

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
    published = read_archive(RESULTS / "cards.tar.xz")
    cards = [content for name, content in published.items() if name.startswith(f"{folder.name}/")]
    assert hashes & {json.loads(card).get("weights_sha256") for card in cards}
