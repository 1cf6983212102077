"""The run folder: its state, its checkpoints, its episodes and its evaluations."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from helpers.made import make_card, outcome
from hiper.config import load_config
from hiper.errors import UserError
from hiper.evaluation.saved import SavedPolicy
from hiper.runs.cards import Card
from hiper.runs.folder import Run
from hiper.runs.policies import PolicyFolder
from hiper.training.build import Parts, build
from hiper.training.checkpoints import save_checkpoint


@pytest.fixture
def run(tiny_recipe: Path, tmp_path: Path) -> Run:
    run = Run.create(tmp_path / "run", load_config(tiny_recipe))
    run.save_settings()
    return run


def save(run: Run, iteration: int) -> Path:
    path = run.checkpoint(iteration)
    (path / "policy").mkdir(parents=True)
    return path


def test_the_newest_checkpoints_are_kept(run: Run):
    for iteration in (0, 5, 9, 10, 100_000):
        save(run, iteration)
    run.prune(keep=2)
    assert [path.name for path in run.checkpoints] == ["iter-00010", "iter-100000"]


def test_what_is_no_whole_checkpoint_is_none(run: Run):
    path = save(run, 1)
    for name in ("iter-00002.partial", "iter-", "notes"):
        shutil.copytree(path, path.parent / name)
    assert run.checkpoints == [path]


def test_a_run_is_not_made_twice(run: Run):
    with pytest.raises(UserError, match="there is a run in"):
        Run.create(run.path, run.config)
    assert Run.open(run.path).config == run.config


def test_checkpoints_without_settings_are_no_new_run(run: Run):
    save(run, 1)
    (run.path / "config.yaml").unlink()
    with pytest.raises(UserError, match=r"holds checkpoints of a run whose config\.yaml is gone: choose another"):
        Run.create(run.path, run.config)


def test_a_run_is_finished_when_its_last_iteration_is_saved_and_evaluated(run: Run):
    save(run, 2)
    assert not run.finished
    make_card({"all": outcome("10")}).write(run.card(2, "held_out"))
    assert run.finished
    save(run, 3)
    assert not run.finished


def test_a_divergence_is_noted_until_the_run_is_continued(run: Run):
    assert run.diverged is None
    run.set_diverged("training diverged in iteration 3")
    assert Run.open(run.path).diverged == "training diverged in iteration 3"
    run.set_diverged(None)
    assert run.diverged is None


def test_stored_iterations_are_found_by_their_files(run: Run):
    for iteration in (100_000, 2, 10):
        run.training_episodes(iteration).parent.mkdir(exist_ok=True)
        run.training_episodes(iteration).touch()
    run.evaluation_episodes(7, "held_out").touch()
    (run.episodes_folder / "iter-00003.jsonl.gz.partial").touch()
    assert run.stored_iterations == [2, 10, 100_000]


def test_evaluations_are_in_the_order_of_iterations(run: Run):
    for iteration, won in ((100_000, "11"), (2, "10"), (0, "00")):
        make_card({"all": outcome(won)}).write(run.card(iteration, "held_out"))
    make_card({"all": outcome("01")}).write(run.card(2, "valid-seen"))
    run.card(2, "other").with_suffix(".txt").touch()
    evaluations = run.evaluations()
    assert {split: [(e.iteration, e.overall.success) for e in of] for split, of in evaluations.items()} == {
        "held_out": [(0, 0.0), (2, 0.5), (100_000, 1.0)],
        "valid-seen": [(2, 0.5)],
    }
    first = evaluations["held_out"][0]
    assert first.panel == "corridor/held_out, sha256 0123456789ab"
    assert first.environment == "corridor version 1, at most 6 turns"


def test_a_folder_without_settings_is_no_run(run: Run, tmp_path: Path):
    assert Run.exists(run.path)
    assert not Run.exists(tmp_path)
    with pytest.raises(UserError, match=r"is not a run or a policy of one: it holds no config\.yaml"):
        Run.open(tmp_path)


# --- Policy folders: found by any of their names, with the settings and the template that they play under -----------


def test_a_policy_is_found_by_any_of_its_names(empty_run: Run, tiny_parts: Parts, tmp_path: Path):
    with pytest.raises(UserError, match="neither a run with a checkpoint"):
        PolicyFolder.find(empty_run.path)
    path = save_checkpoint(empty_run, tiny_parts, 3)
    assert {PolicyFolder.find(p) for p in (empty_run.path, path, path / "policy")} == {PolicyFolder(path / "policy")}
    tiny_parts.save_policy(tmp_path / "alone")
    assert PolicyFolder.find(tmp_path / "alone") == PolicyFolder(tmp_path / "alone")


def test_a_policy_keeps_the_template_it_was_trained_with(tiny_recipe: Path, tmp_path: Path):
    """Whatever becomes of the file that its settings name."""
    file = tmp_path / "own.yaml"
    content = "extends: terse\nname: own\nparts: ['{observation} .', '{actions} . do ☕', '{subgoal}']\n"
    file.write_text(content, encoding="utf-8")
    parts = build(load_config(tiny_recipe, [f"prompt.template={file}"]))
    parts.save_policy(tmp_path / "policy")
    label = parts.prompts.template.label
    file.unlink()
    saved = SavedPolicy.open(tmp_path / "policy")
    assert saved.load().agent.prompts.template.label == label
    assert build(parts.config, tmp_path / "policy").prompts.template.label == label
    chosen = SavedPolicy.open(tmp_path / "policy", overrides=["prompt.template=terse"])
    assert chosen.load().agent.prompts.template.data.name == "terse"


# --- Result cards: written and read back unchanged; refused where they are damaged or of another version --------------


CARD = make_card({"all": outcome("1011"), "locked": outcome("10"), "unlocked": outcome("11")})
KEYS = (
    *("card", "hiper", "date", "command", "checkpoint", "weights_sha256", "environment", "panel", "template"),
    *("history_window", "prompt", "sampling", "seed", "seconds", "machine", "outcomes"),
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


def test_an_older_card_without_settings_of_thinking_is_read(tmp_path: Path):
    record = CARD.to_json()
    assert record.pop("prompt") == {}
    (tmp_path / "card.json").write_text(json.dumps(record))
    assert Card.read(tmp_path / "card.json") == CARD


@pytest.mark.parametrize("missing", [key for key in KEYS if key != "prompt"])
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
