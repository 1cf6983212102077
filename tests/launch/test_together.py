"""Several processes compute together what one computes alone; one that fails ends them all, and the run resumes."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from helpers.fake_engine import fake_environment
from helpers.together import forked
from hiper import api, processes
from hiper.config import Config, load_config
from hiper.display.console import Display
from hiper.episode import read_episodes
from hiper.errors import UserError
from hiper.processes import Processes, place
from hiper.runs.folder import Run

GROUPS = ("rollout.group_size=2", "rollout.dynamic_sampling=2", "advantages={type: grpo}")
"""Settings under which the tiny run compares groups and replaces those without spread."""


def quiet() -> Display:
    return Display(console=Console(file=StringIO()))


def trained(config: Config, folder: Path, count: int) -> Run:
    """The finished run of so many processes."""
    if count == 1:
        return api.train(config, out=folder, display=quiet())
    meeting = folder.with_name(f"{folder.name}-meeting")
    assert forked(count, meeting, lambda group: api.train(config, out=folder, display=quiet(), processes=group)) == (
        [""] * count
    )
    return Run.open(folder)


def responses(file: Path) -> list[list[tuple[int, ...]]]:
    return [[turn.response_ids for turn in episode.turns] for episode in read_episodes(file)]


def stored(run: Run) -> list[Path]:
    """The files of a run, without trackers' files and the report."""
    files = [file.relative_to(run.path) for file in run.path.rglob("*")]
    return sorted(f for f in files if f.parts[0] not in ("tensorboard", run.report_file.name, run.curve_file.name))


def check_same(alone: Run, together: Run) -> None:
    """The same episodes token by token, the same files, the same weights."""
    for run in (alone, together):
        assert run.finished
    files = stored(alone)
    assert files == stored(together)
    for file in (file for file in files if file.parts[0] == "episodes" and file.suffix == ".gz"):
        assert responses(alone.path / file) == responses(together.path / file)
    for file in (file for file in files if file.suffix == ".safetensors"):
        ours, theirs = load_file(alone.path / file), load_file(together.path / file)
        for name in ours:
            torch.testing.assert_close(ours[name], theirs[name], atol=1e-5, rtol=0)
    timed = re.compile("time/|speed/|seconds")
    for ours, theirs in zip(alone.metrics(), together.metrics(), strict=True):
        assert ours.keys() == theirs.keys()
        for name in ours:
            if not timed.search(name):
                assert ours[name] == pytest.approx(theirs[name], abs=1e-4), name


@pytest.mark.parametrize("settings", [(), GROUPS], ids=["hiper", "groups"])
def test_two_and_three_processes_do_what_one_does(tiny_recipe: Path, tmp_path: Path, settings: tuple[str, ...]):
    config = load_config(tiny_recipe, ["training.iterations=3", "model.compute_dtype=float32", *settings])
    alone = trained(config, tmp_path / "1", 1)
    for count in (2, 3):
        check_same(alone, trained(config, tmp_path / str(count), count))


def test_a_run_resumes_under_another_number_of_processes(tiny_recipe: Path, tmp_path: Path):
    config = load_config(tiny_recipe, ["training.iterations=3", "model.compute_dtype=float32"])
    alone = trained(config, tmp_path / "1", 1)
    stopped = tmp_path / "stopped"

    def stop_one_of_them(group: Processes) -> None:
        """Let one process get the signal, while it plays the second iteration."""

        class Stopping(Display):
            def bar(self, label: str, total: int | None = None, done: int = 0):
                if label == "episodes" and Run.exists(stopped) and Run.open(stopped).iteration_metrics():
                    os.kill(os.getpid(), signal.SIGTERM)
                return super().bar(label, total, done)

        with pytest.raises(KeyboardInterrupt):
            api.train(config, out=stopped, display=Stopping(console=Console(file=StringIO())), processes=group)

    assert forked(2, tmp_path / "m2", stop_one_of_them) == ["", ""]
    assert [folder.name for folder in Run.open(stopped).checkpoints][-1] == "iter-00001"
    resume = forked(3, tmp_path / "m3", lambda group: api.resume(stopped, display=quiet(), processes=group))
    assert resume == ["", "", ""]
    check_same(alone, Run.open(stopped))


def test_processes_share_an_engine_that_samples_ahead(tiny_recipe: Path, tmp_path: Path):
    """The first process starts it and gives it weights; the other one learns its address."""
    engine = f"sampler={{type: vllm, venv: {fake_environment(tmp_path / 'venv')}}}"
    ahead = ("rollout.ahead=1", "learner.importance_cap=2", engine, "rollout.episodes=8", "warm_start.tasks=20")
    config = load_config(tiny_recipe, ["model.compute_dtype=float32", "evaluation.every=0", *ahead])
    alone = trained(config, tmp_path / "1", 1)
    check_same(alone, trained(config, tmp_path / "2", 2))
    assert (alone.path / "engine-0.log").is_file()


def test_a_process_without_rows_changes_nothing(tiny_recipe: Path, tmp_path: Path):
    """Two turns a batch leave nothing to the third process."""
    small = ["warm_start.batch_turns=2", "warm_start.turns=6", "warm_start.tasks=2"]
    config = load_config(
        tiny_recipe, ["training.iterations=1", "model.compute_dtype=float32", "learner.minibatch_turns=2", *small]
    )
    check_same(trained(config, tmp_path / "1", 1), trained(config, tmp_path / "3", 3))


def test_evaluation_is_shared(tiny_run: Path, tmp_path: Path):
    alone = api.evaluate(tiny_run, out=tmp_path / "1", display=quiet())
    assert forked(
        2,
        tmp_path / "meeting",
        lambda group: api.evaluate(tiny_run, out=tmp_path / "2", display=quiet(), processes=group),
    ) == ["", ""]
    for split, result in alone.items():
        card = json.loads((tmp_path / "2" / f"{split}.json").read_text())
        assert card["outcomes"] == json.loads((tmp_path / "1" / f"{split}.json").read_text())["outcomes"]
        found = read_episodes(tmp_path / "2" / f"{split}.jsonl.gz")
        assert [e.task_id for e in found] == [e.task_id for e in result.evaluation.episodes]


def test_unlike_processes_are_refused(tiny_recipe: Path, tmp_path: Path):
    config = load_config(tiny_recipe)

    def unlike(group: Processes) -> None:
        own = config.model_copy(update={"seed": group.rank})
        api.train(own, out=tmp_path / "run", display=quiet(), processes=group)

    for said in forked(2, tmp_path / "meeting", unlike):
        assert "UserError: the hash of all settings is" in said
        assert "all processes of a run need the same" in said


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, Processes()),
        ({"RANK": "0", "WORLD_SIZE": "1"}, Processes()),
        ({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}, Processes(3, 4, 1)),
        ({"WORLD_SIZE": "4"}, Processes()),
    ],
)
def test_the_place_among_the_processes(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: Processes):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert place() == expected


@pytest.mark.parametrize("variables", [{"RANK": "2", "WORLD_SIZE": "2"}, {"RANK": "x", "WORLD_SIZE": "2"}])
def test_a_contradictory_place_is_named(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=f"RANK={variables['RANK']}, WORLD_SIZE=2"):
        place()


# --- The command line: real processes -------------------------------------------------------------------------------

FRAGILE = """
import os
from pathlib import Path
from hiper.envs.small.corridor import CorridorEnv, make

class Fragile(CorridorEnv):
    def _step(self, action):
        training = Path("run/checkpoints").exists()
        if training and os.environ.get("RANK") == "1" and not Path("mended").exists():
            {fault}
        return super()._step(action)

def corridor(**options):
    env = make(**options)
    env.__class__ = Fragile
    return env
"""


@contextmanager
def started(folder: Path, *arguments: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """`hiper` in a process of its own, which is ended with the block."""
    environment = os.environ | {"PYTHONPATH": f"{folder}:{Path(api.__file__).parents[1]}"} | variables
    process = subprocess.Popen(
        [sys.executable, "-m", *arguments],
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.parametrize(
    ("fault", "said", "code"),
    [
        ("raise OSError('the world is broken')", "environment 'corridor'", 2),
        ("os.kill(os.getpid(), 9)", "process 1 of 2 was ended by SIGKILL", 137),
    ],
    ids=["error", "killed"],
)
def test_a_process_that_fails_ends_the_others_and_is_named(
    tiny_recipe: Path, tmp_path: Path, fault: str, said: str, code: int
):
    (tmp_path / "fragile.py").write_text(FRAGILE.format(fault=fault))
    first = (str(tiny_recipe), "env={name: fragile:corridor, cells: 3, max_turns: 4}", "training.iterations=1")
    settings = (*first, "warm_start.tasks=0", "evaluation.final_tasks=2")
    train = ("hiper", "train", *settings, "--out", "run", "--processes", "2")
    with started(tmp_path, *train) as process:
        out, err = process.communicate(timeout=120)
    assert process.returncode == code
    assert said in err
    if code == 2:
        assert "the world is broken" in err
        assert "process 1 of 2 failed:" in err
    (tmp_path / "mended").touch()
    resume = ("hiper", "train", "--resume", "run", "--processes", "2")
    with started(tmp_path, *resume) as process:
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert out.count("credit     ") <= 1  # one of them shows


def test_the_processes_end_with_their_launcher(tiny_recipe: Path, tmp_path: Path):
    train = ("hiper", "train", str(tiny_recipe), "training.iterations=100000", "--out", "run", "--processes", "2")
    with started(tmp_path, *train) as process:
        wait_for(lambda: (tmp_path / "run" / "metrics.jsonl").exists())
        children = children_of(process.pid)
        assert len(children) == 2
        process.kill()
        wait_for(lambda: not any(Path(f"/proc/{child}").exists() for child in children))
    assert Run.open(tmp_path / "run").checkpoints


def test_torchrun_on_two_machines(tiny_recipe: Path, tmp_path: Path):
    """Two launchers that know nothing but an address, as on two machines, meet there."""
    config = load_config(tiny_recipe, ["training.iterations=1", "model.compute_dtype=float32"])
    alone = trained(config, tmp_path / "1", 1)
    with free_port() as port:
        meeting = ("--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d", f"--rdzv-endpoint=localhost:{port}")
    given = (str(tiny_recipe), "training.iterations=1", "model.compute_dtype=float32", "--out", "2")
    command = ("torch.distributed.run", *meeting, "--monitor-interval=0.1", "-m", "hiper", "train", *given)
    with started(tmp_path, *command) as one, started(tmp_path, *command) as other:
        for process in (one, other):
            _, err = process.communicate(timeout=180)
            assert process.returncode == 0, err
    check_same(alone, Run.open(tmp_path / "2"))


@pytest.mark.parametrize("rank", ["0", "1"])
def test_processes_that_do_not_meet(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, rank: str):
    """They wait for each other for minutes, say so, and end. A long patience begins when all are there."""
    with free_port() as port:
        variables = {"RANK": rank, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    for name, value in {**variables, "TORCH_CPP_LOG_LEVEL": "ERROR"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(processes, "MEETING", timedelta(seconds=1))
    monkeypatch.setattr(processes, "TELL_SECONDS", 0.1)
    with (
        pytest.raises(UserError, match=rf"process {rank} of 2 cannot meet the others at .* = 127\.0\.0\.1:{port} "),
        processes.together(),
    ):
        pass
    assert f"waiting for the other processes at MASTER_ADDR:MASTER_PORT = 127.0.0.1:{port}" in caplog.text


def test_a_process_that_waits_for_others_can_be_stopped(tiny_recipe: Path, tmp_path: Path):
    with free_port() as port:
        variables = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    script = "import hiper.processes as p; p.TELL_SECONDS = 0.1; from hiper.cli import main; main()"
    command = [sys.executable, "-c", script, "train", str(tiny_recipe), "--out", "run"]
    environment = os.environ | variables | {"COLUMNS": "200"}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "waiting for the other processes" in process.stderr.readline()
        process.terminate()
        assert process.wait(timeout=30) == 128 + signal.SIGTERM
    assert not (tmp_path / "run").exists()


def test_a_port_that_another_program_has(monkeypatch: pytest.MonkeyPatch):
    with free_port() as port:
        variables = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        for name, value in {**variables, "TORCH_CPP_LOG_LEVEL": "ERROR"}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(processes, "MEETING", timedelta(seconds=1))
        with pytest.raises(UserError, match="is the port taken by another program"), processes.together():
            pass


@contextmanager
def free_port() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("localhost", 0))
        yield taken.getsockname()[1]


def wait_for(condition: Callable[[], bool], seconds: float = 90.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_processes_beside_torchrun_are_refused(tiny_recipe: Path, tmp_path: Path):
    with started(tmp_path, "hiper", "train", str(tiny_recipe), "--processes", "2", RANK="0", WORLD_SIZE="2") as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "leave out --processes" in err
