"""The run folder: its state, its checkpoints, its episodes and its evaluations."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from helpers.made import make_card, outcome
from hiper.config import load_config
from hiper.errors import UserError
from hiper.evaluation.saved import SavedPolicy
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
