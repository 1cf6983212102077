"""Result cards: written and read back unchanged; refused where they are damaged or of another version."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from helpers.made import make_card, outcome
from hiper.errors import UserError
from hiper.runs.cards import Card

CARD = make_card({"all": outcome("1011"), "locked": outcome("10"), "unlocked": outcome("11")})
KEYS = (
    *("card", "hiper", "date", "command", "checkpoint", "weights_sha256", "environment", "panel", "template"),
    *("history_window", "sampling", "seed", "seconds", "machine", "outcomes"),
)


def test_a_card_is_read_back_as_it_was_written(tmp_path: Path):
    CARD.write(tmp_path / "card.json")
    assert Card.read(tmp_path / "card.json") == CARD
    assert CARD.overall.won == 3


def test_the_form_of_the_file(tmp_path: Path):
    CARD.write(tmp_path / "card.json")
    text = (tmp_path / "card.json").read_text()
    record = json.loads(text)
    assert tuple(record) == (*KEYS, "crc32")
    assert record["card"] == 3
    assert record["environment"] == {"name": "corridor", "version": "1", "max_turns": 6, "options": {"cells": 3}}
    assert record["panel"]["official"] is None
    assert record["outcomes"]["locked"]["interval"] == [0.0, 1.0]
    assert text == json.dumps(record, indent=2) + "\n"


def test_a_card_that_was_changed_is_named_and_one_without_checksum_is_read(tmp_path: Path):
    file = tmp_path / "card.json"
    CARD.write(file)
    changed = file.read_text().replace('"seed": 7', '"seed": 8')
    file.write_text(changed)
    with pytest.raises(UserError, match=r"card\.json is not a readable result card \(it was changed since"):
        Card.read(file)
    file.write_text(json.dumps(CARD.to_json()))
    assert Card.read(file) == CARD


def test_cards_of_a_run_are_written_unchanged(tiny_run: Path, tmp_path: Path):
    for file in (tiny_run / "evaluations").iterdir():
        Card.read(file).write(tmp_path / file.name)
        assert (tmp_path / file.name).read_bytes() == file.read_bytes()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"card": 1}, "is a result card of version 1, and this hiper reads version 3"),
        ({"card": 1, "outcomes": {}}, "is a result card of version 1, and this hiper reads version 3"),
        ({"card": None}, "is a result card of version None"),
        ({"surprise": 1}, r"is not a readable result card \(.*surprise"),
        ({"panel": {"name": "x"}}, "is not a readable result card .*tasks"),
        ({"outcomes": {}}, "its outcomes lack 'all'"),
        ({"outcomes": {"all": {"interval": [0, 1]}}}, "is not a readable result card .*episodes"),
    ],
)
def test_a_card_that_cannot_be_used_is_named(change: dict[str, object], reason: str, tmp_path: Path):
    (tmp_path / "card.json").write_text(json.dumps(CARD.to_json() | change))
    with pytest.raises(UserError, match=rf"card\.json {reason}|card\.json.*{reason}"):
        Card.read(tmp_path / "card.json")


@pytest.mark.parametrize("key", ["success", "episodes", "turns", "score", "interval", "invalid"])
@pytest.mark.parametrize("value", ["many", None, [1], {"a": "b"}])
def test_an_outcome_of_odd_kinds_is_named(key: str, value: object, tmp_path: Path):
    record = CARD.to_json()
    record["outcomes"]["all"][key] = value
    (tmp_path / "card.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"card\.json is not a readable result card"):
        Card.read(tmp_path / "card.json")


@pytest.mark.parametrize("missing", KEYS)
def test_every_key_is_needed(missing: str, tmp_path: Path):
    record = CARD.to_json()
    del record[missing]
    (tmp_path / "card.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=f"not a readable result card.*{missing}"):
        Card.read(tmp_path / "card.json")


@pytest.mark.parametrize("won_by_task", ["101", "1010", "10112"])
def test_outcomes_at_odds_with_themselves_are_refused(won_by_task: str, tmp_path: Path):
    record = CARD.to_json()
    record["outcomes"]["all"]["won_by_task"] = won_by_task
    (tmp_path / "card.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match="won_by_task of 'all' contradicts its episodes and won"):
        Card.read(tmp_path / "card.json")


@pytest.mark.parametrize("content", ["{half", "[]", "3", "null", '"card"', "[" * 100_000, "9" * 10_000])
def test_what_is_no_card_is_named(content: str, tmp_path: Path):
    (tmp_path / "card.json").write_text(content)
    with pytest.raises(UserError, match=r"card\.json is not a readable result card"):
        Card.read(tmp_path / "card.json")
    with pytest.raises(UserError, match=r"gone\.json is not a readable result card"):
        Card.read(tmp_path / "gone.json")
