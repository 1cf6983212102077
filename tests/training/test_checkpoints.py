"""Checkpoints: whole or not at all, restored as they were saved."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest
import torch

from hiper.config import load_config
from hiper.errors import UnwritableError, UserError
from hiper.evaluation.saved import SavedPolicy
from hiper.files import CHECKSUMS
from hiper.rows import Row
from hiper.runs.folder import Run
from hiper.runs.policies import PolicyFolder
from hiper.training.build import Parts, build
from hiper.training.checkpoints import check_checkpoint, load_checkpoint, save_checkpoint


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


def flip(file: Path, at: float) -> None:
    content = bytearray(file.read_bytes())
    content[int(at * (len(content) - 1))] ^= 0x01
    file.write_bytes(content)


def test_every_changed_file_of_a_checkpoint_is_named_and_the_one_before_it_offered(empty_run: Run, tiny_parts: Parts):
    save(empty_run, tiny_parts, 1)
    path = save(empty_run, tiny_parts, 2)
    check_checkpoint(empty_run, path)
    originals = files(path)
    assert {"trainer.pt", "policy/model.safetensors", "policy/config.json", CHECKSUMS} <= originals.keys()
    for name, content in originals.items():
        for damage in (0.0, 0.3, 0.5, 0.9, 1.0, "empty", "gone"):
            if isinstance(damage, float):
                flip(path / name, damage)
            elif damage == "empty":
                (path / name).write_bytes(b"")
            else:
                (path / name).unlink()
            if damage == "gone" and name == CHECKSUMS:
                check_checkpoint(empty_run, path)  # as in checkpoints of older versions
            else:
                with pytest.raises(UserError, match=f"checkpoint {path}.* is damaged.*to resume from iter-00001"):
                    check_checkpoint(empty_run, path)
            (path / name).write_bytes(content)
    check_checkpoint(empty_run, path)


def test_a_changed_policy_is_not_played_or_trained_on(empty_run: Run, tiny_parts: Parts, tmp_path: Path):
    older = save(empty_run, tiny_parts, 1)
    path = save(empty_run, tiny_parts, 2)
    alone = tmp_path / "alone"
    shutil.copytree(path / "policy", alone)
    for folder, advice in ((path / "policy", f"the checkpoint before it is {older}"), (alone, "restore the file")):
        flip(folder / "model.safetensors", 0.7)
        changed = f"policy {folder} is damaged: model.safetensors is not as it was written .*; {advice}"
        with pytest.raises(UserError, match=changed):
            SavedPolicy.open(folder).load()
        model = tiny_parts.config.model.model_copy(update={"path": str(folder)})
        with pytest.raises(UserError, match=changed):
            build(tiny_parts.config.model_copy(update={"model": model}))
    (alone / CHECKSUMS).unlink()
    PolicyFolder(alone).check()


def test_files_of_a_checkpoint_have_the_permissions_of_the_users_umask(empty_run: Run, tiny_parts: Parts):
    before = os.umask(0o027)
    try:
        path = save(empty_run, tiny_parts, 1)
    finally:
        os.umask(before)
    modes = {file: stat.S_IMODE(file.stat().st_mode) for file in path.rglob("*") if file.is_file()}
    assert set(modes.values()) == {0o640}


def test_what_a_killed_process_left_of_checkpoints_is_deleted(empty_run: Run, tiny_parts: Parts):
    save(empty_run, tiny_parts, 1)
    for name in ("iter-00000.removed", "iter-00002.partial", "iter-00001.removed"):
        (empty_run.checkpoint(1).parent / name / "policy").mkdir(parents=True)
    assert [path.name for path in empty_run.checkpoints] == ["iter-00001"]
    save(empty_run, tiny_parts, 2)
    assert sorted(path.name for path in empty_run.checkpoint(1).parent.iterdir()) == ["iter-00001", "iter-00002"]
