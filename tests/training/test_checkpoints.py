"""Checkpoints: whole or not at all, restored as they were saved."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
import torch

from hiper.config import load_config
from hiper.errors import UnwritableError, UserError
from hiper.rows import Row
from hiper.runs.folder import Run
from hiper.training.build import Parts, build
from hiper.training.checkpoints import load_checkpoint, save_checkpoint


def save(run: Run, parts: Parts, iteration: int) -> Path:
    return save_checkpoint(run, parts, iteration)


def files(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.mark.parametrize("failing", ["hiper.learner.checkpoint.save_file", "hiper.runs.policies.write_text"])
@pytest.mark.parametrize("iteration", [1, 2])
def test_a_disk_that_fills_up_leaves_what_was_there(
    empty_run: Run, tiny_parts: Parts, failing: str, iteration: int, monkeypatch: pytest.MonkeyPatch
):
    save(empty_run, tiny_parts, 1)
    before = files(empty_run.path)

    def full(*arguments: Any, **keywords: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(failing, full)
    with pytest.raises(UnwritableError, match=f"iter-0000{iteration}.*No space left"):
        save(empty_run, tiny_parts, iteration)
    assert files(empty_run.path) == before


def test_an_interrupt_while_saving_leaves_what_was_there(
    empty_run: Run, tiny_parts: Parts, monkeypatch: pytest.MonkeyPatch
):
    save(empty_run, tiny_parts, 1)
    before = files(empty_run.path)

    def interrupted(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save(empty_run, tiny_parts, 2)
    assert files(empty_run.path) == before


def test_loading_restores_all_that_was_saved(empty_run: Run, tiny_parts: Parts):
    path = save(empty_run, tiny_parts, 7)
    fresh = build(tiny_parts.config, path / "policy")
    assert load_checkpoint(empty_run, path, fresh) == 7
    rows = [Row((1, 2, 3), (4, 5), 1)]
    (score,), (before,) = fresh.learner.score(rows), tiny_parts.learner.score(rows)
    assert score.values.tolist() == before.values.tolist()
    assert score.logprobs.tolist() == before.logprobs.tolist()


@pytest.mark.parametrize("file", ["heads.safetensors", "trainer.pt"])
@pytest.mark.parametrize("damage", ["gone", "empty", "cut", "garbage"])
def test_a_damaged_checkpoint_is_named(empty_run: Run, tiny_parts: Parts, file: str, damage: str):
    path = save(empty_run, tiny_parts, 1)
    content = (path / file).read_bytes()
    (path / file).unlink()
    if damage != "gone":
        (path / file).write_bytes({"empty": b"", "cut": content[:-50], "garbage": b"\xff" * 200}[damage])
    with pytest.raises(UserError, match=f"{path} is damaged"):
        load_checkpoint(empty_run, path, tiny_parts)


def test_a_checkpoint_of_another_architecture_is_refused(empty_run: Run, tiny_parts: Parts, tiny_recipe: Path):
    path = save(empty_run, tiny_parts, 1)
    wider = build(load_config(tiny_recipe, ["model.nano.hidden=32"]))
    with pytest.raises(UserError, match="of another architecture"):
        load_checkpoint(empty_run, path, wider)
    own = build(load_config(tiny_recipe, ["model.critic=own"]))
    with pytest.raises(UserError, match=f"{path} is damaged or of another architecture"):
        load_checkpoint(empty_run, path, own)
