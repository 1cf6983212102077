"""Packed records: the same bytes for the same runs, read like run folders, safe to unpack."""

from __future__ import annotations

import io
import json
import lzma
import tarfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from helpers.made import make_card, outcome
from hiper.config import load_config
from hiper.errors import UserError
from hiper.runs import records
from hiper.runs.folder import Run
from hiper.runs.records import open_runs, pack, read_archive, unpack, write_archive

PLACES = ("runs/b-seed0", "runs/a-seed0", "tuning/runs/b-trial0-seed9", "env.cells=3/runs/a-seed0")


@pytest.fixture
def study(tiny_recipe: Path, tmp_path: Path) -> list[Run]:
    """Runs in the folder of a study, with files that are no part of their records."""
    runs = []
    for number, place in enumerate(PLACES):
        run = Run.create(tmp_path / "study" / place, load_config(tiny_recipe, [f"seed={number}"]))
        run.save_settings()
        run.metrics_file.write_text('{"iteration": 1, "success/all": 0.5}\n')
        for iteration in (0, 2):
            make_card({"all": outcome("1" + "0" * number)}).write(run.card(iteration, "held_out"))
        run.training_episodes(1).parent.mkdir()
        run.training_episodes(1).write_bytes(b"large")
        run.checkpoint(2).mkdir(parents=True)
        runs.append(run)
    runs[1].set_diverged("training diverged in iteration 2")
    return runs


@pytest.fixture
def packed(study: list[Run], tmp_path: Path) -> Path:
    pack(study, tmp_path / "study", tmp_path / "records.tar.xz")
    return tmp_path / "records.tar.xz"


def test_records_hold_settings_metrics_cards_and_divergence(packed: Path, study: list[Run], tmp_path: Path):
    members = read_archive(packed)
    cards = [f"evaluations/eval-0000{iteration}-held_out.json" for iteration in (0, 2)]
    files = ("config.yaml", "metrics.jsonl", *cards)
    expected = {f"{place}/{file}" for place in PLACES for file in files} | {"runs/a-seed0/diverged"}
    assert set(members) == expected
    assert all((tmp_path / "study" / name).read_bytes() == content for name, content in members.items())


def test_the_same_runs_give_the_same_bytes(packed: Path, study: list[Run], tmp_path: Path):
    for file in (tmp_path / "study").rglob("*"):
        file.touch()
        file.chmod(0o700)
    pack([Run.open(run.path) for run in study], tmp_path / "study", tmp_path / "again.tar.xz")
    assert (tmp_path / "again.tar.xz").read_bytes() == packed.read_bytes()


def test_tar_unpacks_it(packed: Path, tmp_path: Path):
    with tarfile.open(packed) as archive:
        archive.extractall(tmp_path / "out", filter="data")
    assert Run.open(tmp_path / "out" / "runs" / "a-seed0").diverged is not None


def test_packed_runs_read_like_folders_in_the_order_packed(packed: Path, study: list[Run]):
    with open_runs([packed]) as runs:
        assert [run.shown_path for run in runs] == [packed / "runs" / "b-seed0", packed / "runs" / "a-seed0"]
        for run, original in zip(runs, study[:2], strict=True):
            assert run.config == original.config
            assert run.metrics() == original.metrics()
            assert run.evaluations() == original.evaluations()
            assert run.diverged == original.diverged
        paths = [run.path for run in runs]
    assert not any(path.exists() for path in paths)


@pytest.mark.parametrize(
    ("place", "names"),
    [
        ("runs", ["b-seed0", "a-seed0"]),
        ("runs/a-seed0", ["a-seed0"]),
        ("tuning", ["b-trial0-seed9"]),
        ("env.cells=3", ["a-seed0"]),
        ("env.cells=3/runs/a-seed0", ["a-seed0"]),
    ],
)
def test_a_path_leads_into_the_file(packed: Path, place: str, names: list[str]):
    with open_runs([packed / place]) as runs:
        assert [run.shown_path.name for run in runs] == names
        assert all(run.shown_path.is_relative_to(packed / place) for run in runs)


def test_packed_runs_stand_beside_folders(packed: Path, study: list[Run]):
    with open_runs([study[2].path, packed / "runs" / "a-seed0", packed / "tuning"]) as runs:
        assert [run.config.seed for run in runs] == [2, 1, 2]
        assert [run.origin is None for run in runs] == [True, False, False]
        assert runs[1].path.parents[1] == runs[2].path.parents[2]  # unpacked once


def test_a_place_without_runs_is_told_with_those_that_have_some(packed: Path):
    reason = r"records\.tar\.xz/env\.cells=4 holds no runs; there are runs in .*tuning/runs"
    with pytest.raises(UserError, match=reason), open_runs([packed / "env.cells=4"]):
        pass


def test_a_path_to_nothing(tmp_path: Path):
    with pytest.raises(UserError, match="is not a run or a policy of one"), open_runs([tmp_path / "nothing"]):
        pass
    with pytest.raises(UserError, match="there is no file of packed runs at"):
        read_archive(tmp_path / "nothing")


def test_nothing_is_left_behind_when_reading_fails(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    with open_runs([packed]):
        assert any(temporary.iterdir())
    assert not any(temporary.iterdir())
    with pytest.raises(UserError, match="holds no runs"), open_runs([packed, packed / "nothing"]):
        pass
    assert not any(temporary.iterdir())


@pytest.mark.parametrize("damage", [lambda b: b[:-40], lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"no xz"])
def test_a_damaged_file_is_named(packed: Path, damage: Callable[[bytes], bytes]):
    packed.write_bytes(damage(packed.read_bytes()))
    with pytest.raises(UserError, match=r"records\.tar\.xz is no file of packed runs, or damaged"):
        read_archive(packed)


def odd(path: Path, *members: tuple[str, dict[str, Any]]) -> Path:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, attributes in members:
            member = tarfile.TarInfo(name)
            for key, value in attributes.items():
                setattr(member, key, value)
            archive.addfile(member, io.BytesIO(bytes(member.size)) if member.isreg() else None)
    path.write_bytes(lzma.compress(buffer.getvalue()))
    return path


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ([("../out", {})], "'../out' is not a plain relative path"),
        ([("runs/../../out", {})], "is not a plain relative path"),
        ([("/etc/out", {})], "'/etc/out' is not a plain relative path"),
        ([("a\\b", {})], "is not a plain relative path"),
        ([("./a", {})], "'./a' is not a plain relative path"),
        ([("link", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"})], "'link' is not a plain file"),
        ([("link", {"type": tarfile.LNKTYPE, "linkname": "a"})], "'link' is not a plain file"),
        ([("pipe", {"type": tarfile.FIFOTYPE})], "'pipe' is not a plain file"),
        ([("folder", {"type": tarfile.DIRTYPE})], "'folder' is not a plain file"),
        ([("a", {}), ("a", {})], "'a' is there twice"),
        ([("a", {}), ("a/b", {})], "'a' is a file and a folder"),
        ([("large", {"size": 600}), ("larger", {"size": 600})], "it holds more than"),
    ],
)
def test_odd_members_are_refused_before_anything_is_written(
    members: list[tuple[str, dict[str, Any]]], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(records, "LARGEST", 1000)
    file = odd(tmp_path / "odd.tar.xz", *members)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    with pytest.raises(UserError, match=r"odd\.tar\.xz is no file of packed runs: ") as refused, unpack(file):
        pass
    assert reason in str(refused.value)


def test_an_archive_is_read_in_the_order_written(tmp_path: Path):
    members = {"z/é.txt": "ü".encode(), "a": b"", "m": bytes(range(256)) * 100}
    write_archive(tmp_path / "a.tar.xz", members)
    assert list(read_archive(tmp_path / "a.tar.xz").items()) == list(members.items())


def test_documents_come_last(study: list[Run], tmp_path: Path):
    table = tmp_path / "study" / "tuning" / "tuning.json"
    table.write_text("{}")
    pack(study[:1], tmp_path / "study", tmp_path / "records.tar.xz", [table])
    assert list(read_archive(tmp_path / "records.tar.xz"))[-1] == "tuning/tuning.json"
    with open_runs([tmp_path / "records.tar.xz"]) as runs:
        assert [run.config.seed for run in runs] == [0]


def test_a_run_outside_the_study_is_not_packed(study: list[Run], tmp_path: Path):
    with pytest.raises(ValueError, match="is not in the subpath"):
        pack(study, tmp_path / "study" / "runs", tmp_path / "records.tar.xz")
    assert not (tmp_path / "records.tar.xz").exists()


def test_names_of_packed_runs(packed: Path):
    with unpack(packed) as unpacked:
        assert list(unpacked.names) == [PurePosixPath(place) for place in PLACES]


def test_comparing_packed_runs_is_comparing_their_folders(hiper: Callable[..., Any], study: list[Run], tmp_path: Path):
    for number, run in enumerate(study[:2]):
        run.set_diverged(None)
        lines = [{"iteration": n, "success/all": 0.5, "time/iteration": 2.0} for n in (1, 2)]
        run.metrics_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
        for iteration in (0, 2):
            make_card({"all": outcome("1100"[number:] + "0" * number)}).write(run.card(iteration, "held_out"))
    pack(study[:2], tmp_path / "study", tmp_path / "two.tar.xz")
    apart = hiper("compare", *(run.path for run in study[:2]), "--out", tmp_path / "apart")
    together = hiper("compare", tmp_path / "two.tar.xz", "--out", tmp_path / "together")
    assert apart.code == together.code == 0, apart.err + together.err
    text, expected = ((tmp_path / folder / "comparison.json").read_text() for folder in ("together", "apart"))
    assert f'"{tmp_path}/two.tar.xz/runs/b-seed0"' in text
    assert text.replace(f"{tmp_path}/two.tar.xz/", f"{tmp_path}/study/") == expected
    text, expected = ((tmp_path / folder / "comparison.md").read_text() for folder in ("together", "apart"))
    assert text == expected
