"""The run directory: checkpoints whole or not at all, metrics without half lines."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from hiper.config import load_config
from hiper.errors import UnwritableError, UserError
from hiper.evaluation.saved import SavedPolicy
from hiper.rows import Row
from hiper.runs.folder import MetricsLog, Run, find_policy, read_metrics
from hiper.training.build import Parts, build
from hiper.training.checkpoints import load_checkpoint, save_checkpoint


@pytest.fixture(scope="module")
def parts(tiny_recipe: Path) -> Parts:
    return build(load_config(tiny_recipe))


@pytest.fixture
def run(parts: Parts, tmp_path: Path) -> Run:
    run = Run.create(tmp_path / "run", parts.config)
    run.save_settings()
    return run


def save(run: Run, parts: Parts, iteration: int) -> Path:
    return save_checkpoint(run, parts, iteration)


def files(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def test_the_newest_checkpoints_are_kept(run: Run, parts: Parts):
    for iteration in (0, 5, 9, 10, 100_000):
        save(run, parts, iteration)
    assert [path.name for path in run.checkpoints] == ["iter-00010", "iter-100000"]


def test_what_is_no_whole_checkpoint_is_none(run: Run, parts: Parts):
    path = save(run, parts, 1)
    for name in ("iter-00002.partial", "iter-", "notes"):
        shutil.copytree(path, path.parent / name)
    assert run.checkpoints == [path]


@pytest.mark.parametrize("failing", ["hiper.learner.checkpoint.save_file", "hiper.training.build.write_text"])
@pytest.mark.parametrize("iteration", [1, 2])
def test_a_disk_that_fills_up_leaves_what_was_there(
    run: Run, parts: Parts, failing: str, iteration: int, monkeypatch: pytest.MonkeyPatch
):
    save(run, parts, 1)
    before = files(run.path)

    def full(*arguments: Any, **keywords: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(failing, full)
    with pytest.raises(UnwritableError, match=f"iter-0000{iteration}.*No space left"):
        save(run, parts, iteration)
    assert files(run.path) == before


def test_an_interrupt_while_saving_leaves_what_was_there(run: Run, parts: Parts, monkeypatch: pytest.MonkeyPatch):
    save(run, parts, 1)
    before = files(run.path)

    def interrupted(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save(run, parts, 2)
    assert files(run.path) == before


def test_loading_restores_all_that_was_saved(run: Run, parts: Parts):
    path = save(run, parts, 7)
    fresh = build(parts.config, path / "policy")
    assert load_checkpoint(run, path, fresh) == 7
    rows = [Row((1, 2, 3), (4, 5), 1)]
    (score,), (before,) = fresh.learner.score(rows), parts.learner.score(rows)
    assert score.values.tolist() == before.values.tolist()
    assert score.logprobs.tolist() == before.logprobs.tolist()


@pytest.mark.parametrize("file", ["heads.safetensors", "trainer.pt"])
@pytest.mark.parametrize("damage", ["gone", "empty", "cut", "garbage"])
def test_a_damaged_checkpoint_is_named(run: Run, parts: Parts, file: str, damage: str):
    path = save(run, parts, 1)
    content = (path / file).read_bytes()
    (path / file).unlink()
    if damage != "gone":
        (path / file).write_bytes({"empty": b"", "cut": content[:-50], "garbage": b"\xff" * 200}[damage])
    with pytest.raises(UserError, match=f"{path} is damaged"):
        load_checkpoint(run, path, parts)


def test_a_checkpoint_of_another_architecture_is_refused(run: Run, parts: Parts, tiny_recipe: Path):
    path = save(run, parts, 1)
    wider = build(load_config(tiny_recipe, ["model.nano.hidden=32"]))
    with pytest.raises(UserError, match="of another architecture"):
        load_checkpoint(run, path, wider)
    own = build(load_config(tiny_recipe, ["model.critic=own"]))
    with pytest.raises(UserError, match=f"{path} is damaged or of another architecture"):
        load_checkpoint(run, path, own)


def test_a_policy_is_found_by_any_of_its_names(run: Run, parts: Parts, tmp_path: Path):
    with pytest.raises(UserError, match="neither a run with a checkpoint"):
        find_policy(run.path)
    path = save(run, parts, 3)
    assert find_policy(run.path) == find_policy(path) == find_policy(path / "policy") == path / "policy"
    parts.save_policy(tmp_path / "alone")
    assert find_policy(tmp_path / "alone") == tmp_path / "alone"


def test_a_run_is_not_made_twice(run: Run, parts: Parts):
    with pytest.raises(UserError, match="there is a run in"):
        Run.create(run.path, parts.config)
    assert Run.open(run.path).config == parts.config


def test_checkpoints_without_settings_are_no_new_run(run: Run, parts: Parts):
    save(run, parts, 1)
    (run.path / "config.yaml").unlink()
    with pytest.raises(UserError, match=r"holds checkpoints of a run whose config\.yaml is gone: choose another"):
        Run.create(run.path, parts.config)


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
    assert saved.load()[0].prompts.template.label == label
    assert build(parts.config, tmp_path / "policy").prompts.template.label == label
    chosen = SavedPolicy.open(tmp_path / "policy", overrides=["prompt.template=terse"])
    assert chosen.load()[0].prompts.template.data.name == "terse"


def test_metrics_of_later_iterations_are_dropped(run: Run):
    log = MetricsLog(run, after=0)
    for iteration in (0, 1, 2, 3):
        log.write(iteration, {"x": iteration / 2})
    log.close()
    log = MetricsLog(run, after=2)
    log.write(3, {"x": 9.0})
    log.close()
    assert [(r["iteration"], r["x"]) for r in read_metrics(run.path)] == [(0, 0.0), (1, 0.5), (2, 1.0), (3, 9.0)]


def test_a_half_written_line_of_metrics_is_left_out(run: Run):
    (run.path / "metrics.jsonl").write_text('{"iteration": 1, "x": 1.0}\n{"iteration": 2, "x"')
    assert read_metrics(run.path) == [{"iteration": 1, "x": 1.0}]
    log = MetricsLog(run, after=5)
    log.write(2, {"x": 2.0})
    log.close()
    assert [record["iteration"] for record in read_metrics(run.path)] == [1, 2]


def test_a_damaged_line_of_metrics_is_named_and_the_rest_is_not_thrown_away(run: Run):
    file = run.path / "metrics.jsonl"
    file.write_text('{"iteration": 1}\n{"iterat\n{"iteration": 3}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl:2 is damaged"):
        MetricsLog(run, after=3)
    assert len(file.read_text().splitlines()) == 3


def test_metrics_go_to_tensorboard(run: Run):
    log = MetricsLog(run, after=0)
    log.write(1, {"policy/kl": 0.5})
    log.close()
    assert any((run.path / "tensorboard").iterdir())
