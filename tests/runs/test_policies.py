"""Policy folders: found by any of their names, with the settings and the template that they play under."""

from __future__ import annotations

from pathlib import Path

import pytest

from hiper.config import load_config
from hiper.errors import UserError
from hiper.evaluation.saved import SavedPolicy
from hiper.runs.folder import Run
from hiper.runs.policies import PolicyFolder
from hiper.training.build import Parts, build
from hiper.training.checkpoints import save_checkpoint


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
