"""Where an engine's environment lies, and how it is installed. Nothing is downloaded: steps are small commands."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from helpers.fake_engine import VERSION, fake_environment
from hiper.errors import UserError
from hiper.rollout.engines import environment, install
from hiper.rollout.engines.environment import VARIABLE, find_environment, inspect
from hiper.rollout.engines.install import CPU_REQUIREMENTS, GPU_REQUIREMENTS, Step

Hiper = Callable[..., Any]


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No engine of this machine is known."""
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "hiper"


@pytest.fixture
def ready(tmp_path: Path) -> Path:
    """An environment whose interpreter imports whatever it is asked to."""
    folder = fake_environment(tmp_path / "ready")
    (folder / "bin" / "python").write_text("#!/bin/sh\nexit 0\n")
    return folder


def test_what_a_machine_gets():
    cpu, gpu = (install.steps(Path("/env"), cpu) for cpu in (True, False))
    assert cpu[0].commands == gpu[0].commands == ((sys.executable, "-m", "venv", "/env"),)
    first, second = cpu[1].commands
    assert first[:4] == ("/env/bin/python", "-m", "pip", "install")
    assert set(CPU_REQUIREMENTS) <= set(first)
    assert second == (*first, "--extra-index-url", install.TORCH_INDEX)  # only if pip finds torch nowhere else
    assert cpu[2].commands[0][3:] == ("uninstall", "--yes", "torchvision", "torchaudio", "torchcodec")
    assert set(GPU_REQUIREMENTS) <= set(gpu[1].commands[0])
    assert len(gpu) == 2


def test_installing_stops_continues_and_is_found(
    hiper: Hiper, monkeypatch: pytest.MonkeyPatch, ready: Path, tmp_path: Path
):
    folder = tmp_path / "vllm"
    fails = [True]

    def steps(where: Path, cpu: bool) -> list[Step]:
        assert cpu
        say = "import sys; print('ERROR: no space left on the index'); sys.exit(1)"
        last = "import sys; sys.exit(0)" if not fails[0] else say
        copy = f"import shutil; shutil.copytree({str(ready)!r}, {str(where)!r}, dirs_exist_ok=True)"
        venv = f"open({str(where / 'pyvenv.cfg')!r}, 'w').close()"
        done = copy if not fails[0] else "pass"
        commands = [("making", venv), ("downloading vLLM", last), ("finishing", done)]
        return [Step(label, ((sys.executable, "-c", code),)) for label, code in commands]

    monkeypatch.setattr(install, "steps", steps)
    broken = hiper("engine", "install", folder, "--cpu")
    assert broken.code == 2
    assert "downloading vLLM failed: ERROR: no space left on the index" in broken.err
    assert f"{folder}/hiper-engine.log" in broken.err
    assert "the same command continues" in broken.err
    with pytest.raises(UserError, match="hiper engine install"):
        find_environment()
    fails[0] = False
    assert f"vLLM {VERSION} is installed (the build for CPUs)" in hiper("engine", "install", folder, "--cpu").out
    monkeypatch.setattr(install, "steps", lambda folder, cpu: 1 / 0)  # nothing is done again
    assert "is there already" in hiper("engine", "install", folder, "--cpu").out
    assert find_environment().folder == folder
    assert find_environment() == environment.Environment(folder, VERSION, cpu=True)


def test_the_order_in_which_engines_are_looked_for(monkeypatch: pytest.MonkeyPatch, ready: Path, tmp_path: Path):
    other, default = tmp_path / "other", environment.default_folder()
    assert default == tmp_path / "cache" / "hiper" / "engine"
    shutil.copytree(ready, other)
    shutil.copytree(ready, default)
    assert find_environment().folder == default
    environment.remember(other)
    assert find_environment().folder == other
    monkeypatch.setenv(VARIABLE, str(ready))
    assert find_environment().folder == ready
    assert find_environment(str(other)).folder == other


def test_a_second_command_is_tried_if_the_first_one_fails(tmp_path: Path):
    log = tmp_path / "log"
    say = "import sys; print('{}'); sys.exit({})"
    commands = tuple(
        (sys.executable, "-c", say.format(word, code)) for word, code in (("one", 1), ("two", 0), ("x", 1))
    )
    install._run(Step("downloading", commands), log)
    assert [line for line in log.read_text().splitlines() if line in ("one", "two", "x")] == ["one", "two"]


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(UserError, match=r"holds other files, such as thesis\.tex; name an empty or a new folder"):
        install.install(tmp_path, nullcontext, cpu=True)
    with pytest.raises(UserError, match="is a file; name a folder"):
        install.install(tmp_path / "thesis.tex", nullcontext, cpu=True)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_an_environment_of_something_else_is_left_alone(monkeypatch: pytest.MonkeyPatch, ready: Path, tmp_path: Path):
    """vLLM would replace its torch, numpy and transformers."""
    monkeypatch.setattr(install, "steps", lambda folder, cpu: 1 / 0)
    with pytest.raises(UserError, match=f"{sys.prefix} is the Python environment of hiper itself, and vLLM would"):
        install.install(Path(sys.prefix), nullcontext, cpu=True)
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "pyvenv.cfg").touch()
    with pytest.raises(UserError, match=r"theirs is a Python environment already, .*; name an empty or a new folder"):
        install.install(theirs, nullcontext, cpu=True)
    assert [path.name for path in theirs.iterdir()] == ["pyvenv.cfg"]
    (ready / "pyvenv.cfg").touch()
    assert install.install(ready, nullcontext, cpu=True).folder == ready  # it has vLLM, whoever made it


def test_a_full_disk_is_told_before(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=2**30))
    with pytest.raises(UserError, match=r"has 1\.0 GiB free, and an engine needs 5 GiB"):
        install.install(tmp_path / "new", nullcontext, cpu=True)


def test_a_machine_without_wheels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(UserError, match=r"vLLM has no wheels for .*sampler\.url"):
        install.install(tmp_path / "new", nullcontext)


def test_what_a_folder_holds(ready: Path, tmp_path: Path):
    assert inspect(tmp_path) is None
    (info,) = ready.glob("lib/*/site-packages/*.dist-info")
    info = info.rename(info.with_name("vllm-0.33.0.dist-info"))
    found = inspect(ready)
    assert (found.version, found.cpu) == ("0.33.0", False) if found else False
    info = info.rename(info.with_name("vllm-0.32.1+cpu.dist-info"))
    assert (found := inspect(ready)) is not None
    assert found.cpu
    info.rename(info.with_name("vllm_extras-0.1.dist-info"))
    assert inspect(ready) is None
