"""Whole runs, tiny ones: going on after any kind of stop gives what an uninterrupted run gives."""

from __future__ import annotations

import gzip
import json
import logging
import os
import re
import resource
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from helpers.made import Ended
from hiper import api, cli
from hiper.commands.study import run_study
from hiper.config import Config
from hiper.display.console import Advance, Display
from hiper.envs import Step
from hiper.envs.small.corridor import CorridorEnv, make
from hiper.episode import read_episodes
from hiper.errors import UnwritableError, UserError
from hiper.evaluation.saved import SavedPolicy
from hiper.launch.local import Command, Launch
from hiper.learner.learner import Learner
from hiper.rollout.tasks import assignments_of
from hiper.runs.cards import Card
from hiper.runs.folder import Run
from hiper.runs.policies import unfinished_file
from hiper.stopping import Stop, StoppedError, exit_code
from hiper.study.definition import MethodDefinition, Study
from hiper.training.build import build
from hiper.training.schedule import checkpoint_due, lr_scales, splits_due
from hiper.training.trainer import train

TINY: dict[str, Any] = {
    "name": "tiny",
    "env": {"name": "corridor", "cells": 3, "max_turns": 4},
    "prompt": {"template": "terse", "max_tokens": 90, "history_window": 1},
    "model": {
        "nano": {"layers": 2, "hidden": 32, "feed_forward": 32, "heads": 2, "kv_heads": 1, "max_positions": 128},
        "critic": "own",
        "compute_dtype": "float32",  # in bfloat16, which some CPUs choose, generation and training round differently
    },
    "warm_start": {"tasks": 12, "epochs": 40, "batch_turns": 16, "lr": 1e-2},
    "rollout": {"episodes": 8, "slots": 8, "max_response_tokens": 16},
    "learner": {"lr": 1e-3, "critic_lr": 1e-3, "minibatch_turns": 8, "kl_coef": 0.1},
    "evaluation": {"splits": ["held_out"], "every": 2, "tasks": 4, "final_tasks": 4},
    "training": {"iterations": 4, "checkpoint_every": 2, "keep_checkpoints": 2, "threads": 1},
}


def config(**changes: Mapping[str, Any]) -> Config:
    """The tiny settings with some sections changed."""
    return Config.model_validate(
        {k: v | dict(changes.get(k, {})) if isinstance(v, dict) else v for k, v in TINY.items()}
    )


class Quiet(Display):
    """Shows nothing, and does ``act`` when the moment ``at`` comes: (what happened, how often it had happened)."""

    def __init__(self, at: tuple[str, int] | None = None, act: Callable[[], None] = lambda: None) -> None:
        super().__init__("hiper train tiny", Console(file=StringIO()))
        self._at, self._act = at, act
        self.happened: Counter[str] = Counter()
        self.open: list[str] = []
        """The bars that are shown now."""

    def happen(self, what: str) -> None:
        self.happened[what] += 1
        if (what, self.happened[what]) == self._at:
            self._act()

    @contextmanager
    def bar(self, label: str, total: int | None = None, done: int = 0) -> Iterator[Advance]:
        """Bars of episodes count finished ones, as their words tell; others count calls."""
        finished = 0

        def advance(units: int = 1, words: str | None = None) -> None:
            nonlocal finished
            told = re.match(r"(\d+)/\d+ done", words or "")
            if told is None or int(told[1]) > finished:
                finished += 1
                self.happen(label)

        self.open.append(label)
        yield advance
        self.open.pop()

    def note(self, *lines: str) -> None:
        super().note(*lines)
        if re.match(r" *\d+/\d+ ", lines[-1]):
            self.happen("iteration")


def press_ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def content(run: Run) -> dict[str, Any]:
    """All that a run came to, but for times and dates."""
    timed = ("time/", "speed/")
    metrics = [{k: v for k, v in r.items() if not k.startswith(timed) and "seconds" not in k} for r in run.metrics()]
    newest = run.checkpoints[-1]
    trainer = torch.load(newest / "trainer.pt", weights_only=True)
    return {
        "metrics": metrics,
        "checkpoints": [checkpoint.name for checkpoint in run.checkpoints],
        "episodes": {file.name: list(read_episodes(file)) for file in sorted((run.path / "episodes").iterdir())},
        "cards": sorted(file.name for file in (run.path / "evaluations").iterdir()),
        "weights": {
            name: load_file(newest / name)
            for name in ("policy/model.safetensors", "heads.safetensors", "critic.safetensors")
        },
        "policy": {name: (newest / "policy" / name).read_bytes() for name in ("config.json", "tokenizer_config.json")},
        "optimizer": trainer["optimizer"]["state"],
        "iteration": trainer["iteration"],
    }


def assert_same(one: Any, other: Any) -> None:
    """Bit for bit."""
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    else:
        assert one == other


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """An uninterrupted run."""
    run = Run.create(tmp_path_factory.mktemp("whole") / "run", config())
    train(run, Quiet())
    return content(run)


def test_an_uninterrupted_run(whole: dict[str, Any]):
    trained = [record for record in whole["metrics"] if "policy/kl" in record]
    assert [record["iteration"] for record in trained] == [1, 2, 3, 4]
    evaluated = [record["iteration"] for record in whole["metrics"] if "eval/held_out/success" in record]
    assert evaluated == [0, 2, 4]
    assert whole["checkpoints"] == ["iter-00002", "iter-00004"]
    assert whole["iteration"] == 4
    assert trained[0]["policy/kl_reference"] < trained[-1]["policy/kl_reference"]
    assert max(record["mismatch/max_abs"] for record in trained) < 1e-4
    assert all(record["update/padding"] < 0.1 for record in trained)
    assert len(whole["episodes"]["iter-00003.jsonl.gz"]) == 8
    assert all(episode.credit for episode in whole["episodes"]["iter-00003.jsonl.gz"])


MOMENTS = {
    "after an iteration": ("iteration", 1),
    "after an iteration with a checkpoint": ("iteration", 2),
    "among the episodes": ("episodes", 19),
    "in an evaluation": ("evaluation on held_out", 6),
    "in the last evaluation": ("evaluation on held_out", 10),
    "in the warm start": ("warm start", 5),
}


@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
def test_an_interrupted_run_goes_on_as_if_nothing_had_been(
    whole: dict[str, Any], moment: tuple[str, int], tmp_path: Path
):
    run = Run.create(tmp_path / "run", config())
    display, before = Quiet(moment, press_ctrl_c), signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(run, display)
    assert display.happened[moment[0]] == moment[1] or moment[0] == "iteration"
    assert signal.getsignal(signal.SIGINT) is before
    train(Run.open(run.path), Quiet())
    assert_same(content(run) | {"checkpoints": whole["checkpoints"]}, whole)  # the stop left one more of them


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_closed_terminal_or_a_shutdown_stops_at_the_next_turn_and_saves(
    whole: dict[str, Any], number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Both may be sent several times. The stop comes in the middle of an episode."""
    turns, step = 0, CorridorEnv._step

    def stepped(env: CorridorEnv, action: str) -> Step:
        nonlocal turns
        turns += "episodes" in display.open
        if turns == 45:
            os.kill(os.getpid(), number)
            os.kill(os.getpid(), number)
        return step(env, action)

    run = Run.create(tmp_path / "run", config(training={"checkpoint_every": 100}))
    display = Quiet()
    before = signal.signal(number, signal.SIG_DFL)  # under nohup the tests ignore SIGHUP, and training with them
    try:
        with monkeypatch.context() as patch:
            patch.setattr(CorridorEnv, "_step", stepped)
            with pytest.raises(KeyboardInterrupt):
                train(run, display)
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, before)
    assert turns == 45
    assert display.happened["episodes"] % 8  # some of an iteration's episodes, not all
    assert run.checkpoints[-1].name == f"iter-{display.happened['iteration']:05d}" != "iter-00000"
    train(Run.open(run.path), Quiet())
    assert_same(content(run)["weights"], whole["weights"])


def test_a_hangup_that_is_ignored_stays_ignored(tmp_path: Path):
    """As under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Stop() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            stop.check()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_signal_that_a_library_turns_into_an_error_of_its_own_is_still_a_stop():
    """Modules in C do so while they are imported."""

    def interrupted(error: Exception) -> None:
        with Stop() as stop, stop.at_once():
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            except KeyboardInterrupt as interrupt:
                raise error from interrupt

    with pytest.raises(KeyboardInterrupt) as stopped:
        interrupted(ImportError("initialization failed"))
    assert exit_code(stopped.value) == 143
    with pytest.raises(UserError, match="disk"):
        interrupted(UserError("the disk is full"))
    assert exit_code(KeyboardInterrupt()) == 130


def test_a_signal_inside_a_destructor_comes_after_it(capfd: pytest.CaptureFixture[str]):
    class Dying:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            died.append(True)

    def die() -> None:
        with Stop() as stop, stop.at_once():
            Dying()
            time.sleep(30 if died else 0)

    died: list[bool] = []
    with pytest.raises(StoppedError):
        die()
    assert capfd.readouterr().err == ""


def test_a_stop_that_was_swallowed_is_known_inside():
    with Stop() as around:
        with suppress(KeyboardInterrupt), around.at_once():
            os.kill(os.getpid(), signal.SIGTERM)
        with Stop() as stop, pytest.raises(StoppedError, match="SIGTERM"):
            stop.check()


def test_checkpoints_by_time():
    due = partial(checkpoint_due, config(training={"checkpoint_every": 100, "checkpoint_minutes": 2}))
    assert [due(1, seconds) for seconds in (0.0, 119.0, 120.0)] == [False, False, True]
    never = config(training={"checkpoint_every": 100, "checkpoint_minutes": None})
    assert not checkpoint_due(never, 1, 1e9)
    assert checkpoint_due(never, 4, 0.0)


def test_a_run_saves_by_time(tmp_path: Path):
    always = config(training={"checkpoint_every": 100, "checkpoint_minutes": 0, "iterations": 2, "keep_checkpoints": 9})
    run = Run.create(tmp_path / "run", config(warm_start={"tasks": 0}, training=always.training.model_dump()))
    train(run, Quiet())
    assert [checkpoint.name for checkpoint in run.checkpoints] == ["iter-00000", "iter-00001", "iter-00002"]


def test_a_killed_run_goes_on_from_its_last_checkpoint(whole: dict[str, Any], tmp_path: Path):
    class PowerCut(BaseException):
        pass

    def cut() -> None:
        raise PowerCut

    run = Run.create(tmp_path / "run", config())
    with pytest.raises(PowerCut):
        train(run, Quiet(("iteration", 3), cut))
    assert run.checkpoints[-1].name == "iter-00002"
    assert [r["iteration"] for r in run.metrics() if "policy/kl" in r] == [1, 2, 3]
    train(Run.open(run.path), Quiet())
    assert_same(content(run), whole)


class Killed(BaseException):
    """The process is gone."""


class Killing:
    """Counts operations on files, and kills the process before one of them. A dead process changes no file any more.

    With ``act``, that is called instead, and the process lives on.
    """

    def __init__(self, at: int | None, patch: pytest.MonkeyPatch, act: Callable[[], None] | None = None) -> None:
        self.count, self._at, self._act = 0, at, act
        for name in ("replace", "rename", "unlink", "mkdir", "open", "chmod", "touch"):
            patch.setattr(Path, name, self._counted(getattr(Path, name), only_writing=name == "open"))
        patch.setattr(shutil, "rmtree", self._counted(shutil.rmtree))

    def _counted(self, original: Callable[..., Any], *, only_writing: bool = False) -> Callable[..., Any]:
        def operation(path: Path, *arguments: Any, **keywords: Any) -> Any:
            mode = str(arguments[0] if arguments else keywords.get("mode", "r"))
            if only_writing and not set(mode) & set("wa"):
                return original(path, *arguments, **keywords)
            self.count += 1
            if self._act is not None and self.count == self._at:
                self._act()
            if self._act is None and self._at is not None and self.count >= self._at:
                if self.count == self._at and original is rmtree and (files := sorted(path.rglob("*.*"))):
                    os.unlink(files[0])  # noqa: PTH108 (one of its files is gone already)
                raise Killed
            return original(path, *arguments, **keywords)

        rmtree = shutil.rmtree
        return operation


SHORT = config(
    warm_start={"epochs": 1},
    evaluation={"every": 1},
    training={"iterations": 2, "checkpoint_every": 1, "keep_checkpoints": 1, "trackers": ()},
)
"""A run of seconds that writes every kind of file, and deletes checkpoints."""
TWO_SPLITS = SHORT.model_copy(
    update={"evaluation": SHORT.evaluation.model_copy(update={"splits": ("held_out", "train")})}
)


def files_of(folder: Path) -> dict[str, bytes]:
    """The files of a folder, whole; cards and episodes by what they say, but for times."""
    found = {}
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = file.read_bytes()
        if file.suffix == ".json" and b'"card"' in content:
            card = json.loads(content)
            content = repr([value for key, value in card.items() if key not in ("date", "seconds", "crc32")]).encode()
        found[str(file.relative_to(folder))] = gzip.decompress(content) if file.suffix == ".gz" else content
    return found


def trained(settings: Config) -> Callable[[Path], dict[str, Any]]:
    """Train, or resume, a run of these settings."""

    def train_there(folder: Path) -> dict[str, Any]:
        train(Run.open(folder) if Run.exists(folder) else Run.create(folder, settings), Quiet())
        return content(Run.open(folder))

    return train_there


def cloned(folder: Path) -> dict[str, Any]:
    """`hiper sft`."""
    return files_of(api.clone_expert(SHORT, out=folder, display=Quiet()))


@pytest.fixture(scope="module")
def cloned_policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return api.clone_expert(SHORT, out=tmp_path_factory.mktemp("cloned") / "policy", display=Quiet())


@pytest.fixture
def killable(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Path], dict[str, Any]]:
    """Does all that is left of something in a folder, and returns what it came to."""
    if request.param == "evaluation":
        policy = request.getfixturevalue("cloned_policy")

        def evaluated(folder: Path) -> dict[str, Any]:
            api.evaluate(policy, splits=["held_out", "train"], tasks=4, out=folder, display=Quiet())
            return files_of(folder)

        return evaluated
    if request.param == "study":
        (tmp_path / "short.yaml").write_text(SHORT.to_yaml())
        definition = Study(
            name="short",
            recipe=str(tmp_path / "short.yaml"),
            seeds=(0,),
            methods={name: MethodDefinition(settings={"learner.epochs": n}) for n, name in enumerate("ab", 1)},
            settings={"training.iterations": 1},
        )
        monkeypatch.setattr("hiper.commands.study.local_processes", jobs_in_this_process)

        def studied(folder: Path) -> dict[str, Any]:
            run_study(definition, folder, Quiet())
            assert (folder / "comparison.png").exists()
            runs = {run.name: content(Run.open(run)) for run in sorted((folder / "runs").iterdir())}
            assert all((folder / "runs" / run / "report.md").exists() for run in runs)
            return {"warm starts": files_of(folder / "warm-starts"), **runs}

        return studied
    return {"run": trained(SHORT), "two splits": trained(TWO_SPLITS), "sft": cloned}[request.param]


@contextmanager
def jobs_in_this_process(folder: Path) -> Iterator[Launch]:
    """Jobs that a kill of the launcher kills too."""

    def launch(job: Command, log: Path) -> Ended:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("hiper.cli.train.make_display", lambda stderr=False: Quiet())
            cli.app(job.arguments, standalone_mode=False)
        return Ended(0)

    yield launch


def samples(count: int, taken: int) -> range:
    """Numbers from 1 to ``count``, so many of them; HIPER_EVERY_KILL=1 takes all, HIPER_EVERY_KILL=5 each fifth."""
    step = int(os.environ.get("HIPER_EVERY_KILL", max(1, count // taken)))
    return range(1 + count % step, count + 1, step)


@pytest.mark.parametrize(
    ("killable", "taken"),
    [("run", 8), ("two splits", 2), ("sft", 3), ("evaluation", 3), ("study", 2)],
    indirect=["killable"],
)
def test_what_is_killed_before_any_operation_on_files_goes_on_as_if_nothing_had_been(
    killable: Callable[[Path], dict[str, Any]], taken: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as patch:
        operations = Killing(None, patch)
        whole = killable(tmp_path / "whole" / "run")
    assert operations.count > 10
    for at in samples(operations.count, taken):
        folder = tmp_path / f"killed{at}" / "run"
        with monkeypatch.context() as patch:
            Killing(at, patch)
            with pytest.raises(Killed):
                killable(folder)
        assert_same(killable(folder), whole)
        endings = (".partial", ".removed", ".unfinished", ".hiper-lock")
        left = [path.name for path in folder.parent.rglob("*") if path.name.endswith(endings)]
        assert not left, f"killed before operation {at}"
        shutil.rmtree(folder)
    told = f"killed before {len(samples(operations.count, taken))} of {operations.count} operations; all end equal"
    logging.getLogger(__name__).info(told)  # pytest --log-cli-level=INFO shows it


def fill(run: Path) -> None:
    """No file can grow any more, but for a part of a line. To whoever writes, this looks like a full disk."""
    metrics = run / "metrics.jsonl"
    size = metrics.stat().st_size + 40 if metrics.exists() else 40
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def test_a_disk_that_is_full_from_any_operation_on_is_told_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as patch:
        operations = Killing(None, patch)
        whole = trained(TWO_SPLITS)(tmp_path / "whole" / "run")
    failed = Counter[str]()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    for at in samples(operations.count, 6):
        folder = tmp_path / f"full{at}" / "run"
        message = None
        with monkeypatch.context() as patch:
            Killing(at, patch, partial(fill, folder))
            try:
                came = trained(TWO_SPLITS)(folder)
            except UserError as error:
                message = str(error)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        if message is not None:  # nothing is written after the last operations
            told = re.match(r"cannot write (\S+): File too large", message)
            assert told, f"full from operation {at}: {message}"
            assert "Free some space, then resume with: hiper train --" in message or not Run.exists(folder)
            failed[Path(told[1]).name] += 1
            came = trained(TWO_SPLITS)(folder)
        assert_same(came, whole)
        assert not list(folder.rglob("*.partial"))
        shutil.rmtree(folder)
    assert len(failed) > 3
    logging.getLogger(__name__).info(f"full from {len(samples(operations.count, 6))} operations on: {failed}")


def test_what_was_learned_before_an_error_is_kept(tmp_path: Path):
    def fail() -> None:
        raise UserError("something is wrong with a task")

    run = Run.create(tmp_path / "run", config(training={"checkpoint_every": 100}))
    message = r"wrong with a task\nsaved up to iter-00001; fix this .*may be edited\), then resume with: hiper train"
    with pytest.raises(UserError, match=message):
        train(run, Quiet(("iteration", 1), fail))
    assert [checkpoint.name for checkpoint in run.checkpoints] == ["iter-00000", "iter-00001"]


def test_a_policy_that_went_beyond_numbers_is_told(tmp_path: Path):
    run = Run.create(tmp_path / "run", config(learner={"lr": 1e30}))
    display = Quiet()
    again = rf"a lower learner\.lr and model\.path={run.warm_start} warm_start\.tasks=0"
    with pytest.raises(UserError, match=again):
        train(run, display)
    # What resuming would only meet again is not advised, and not saved.
    assert isinstance(display.console.file, StringIO)
    assert "--resume" not in display.console.file.getvalue()
    assert [checkpoint.name for checkpoint in run.checkpoints] == ["iter-00000"]
    assert run.diverged is not None
    assert "a lower learner.lr" in run.diverged

    Run(run.path, config()).save_settings()
    train(Run.open(run.path), Quiet())
    assert run.finished
    assert run.diverged is None


def test_a_disk_that_is_full_at_the_episodes_costs_no_iteration(
    whole: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run = Run.create(tmp_path / "run", config(training={"checkpoint_every": 100}))
    (run.path / "episodes" / "iter-00003.jsonl.gz.partial").mkdir(parents=True)
    with pytest.raises(
        UserError, match=r"iter-00003.*; saved up to iter-00002\. Free some space, then resume with: hiper"
    ):
        train(run, Quiet())
    (run.path / "episodes" / "iter-00003.jsonl.gz.partial").rmdir()
    train(Run.open(run.path), Quiet())
    assert_same(content(run)["weights"], whole["weights"])


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you ..."
        ),
        MemoryError(),
    ],
    ids=["cuda", "cpu", "python"],
)
@pytest.mark.parametrize("place", ["score", "_loss"])
def test_out_of_memory_says_what_to_lower_and_costs_no_iteration(
    whole: dict[str, Any], error: BaseException, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run = Run.create(tmp_path / "run", config(training={"checkpoint_every": 100}))
    original = getattr(Learner, place)

    def scarce(self: Learner, *arguments: Any, **keywords: Any) -> Any:
        if len(run.iteration_metrics()) == 2:
            raise error
        return original(self, *arguments, **keywords)

    with monkeypatch.context() as patched:
        patched.setattr(Learner, place, scarce)
        with pytest.raises(
            UserError, match=r"^out of memory .*learner\.micro_batch_tokens.*\n.*saved up to iter-00002;"
        ):
            train(run, Quiet())
    train(Run.open(run.path), Quiet())
    assert_same(content(run)["weights"], whole["weights"])


def test_a_warm_start_is_kept_until_there_is_a_checkpoint(whole: dict[str, Any], tmp_path: Path):
    run = Run.create(tmp_path / "run", config())
    (run.path / "checkpoints").parent.mkdir()
    (run.path / "checkpoints").write_text("in the way")
    with pytest.raises(UserError, match=r"the warm start's progress is saved\. Free some space"):
        train(run, Quiet())
    (run.path / "checkpoints").unlink()
    again = Quiet()
    train(Run.open(run.path), again)
    assert again.happened["warm start"] == 0
    assert_same(content(run), whole)
    assert not unfinished_file(run.warm_start).exists()


@pytest.mark.parametrize("place", ["in the update", "before the iteration is written down"])
def test_stopping_at_once_never_saves_the_weights_of_no_iteration(
    whole: dict[str, Any], place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    calls = 0
    target: Any = Learner if place == "in the update" else Run
    name = "update" if place == "in the update" else "write_episodes"
    original = getattr(target, name)

    def interrupted(*arguments: Any, **keywords: Any) -> Any:
        nonlocal calls
        calls += 1
        if (name, calls) in {("update", 3), ("write_episodes", 5)}:  # three iterations, two evaluations
            if name == "update":
                original(*arguments, **keywords)
            press_ctrl_c()
            press_ctrl_c()
        return original(*arguments, **keywords)

    run = Run.create(tmp_path / "run", config())
    with monkeypatch.context() as patch:
        patch.setattr(target, name, interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(run, Quiet())
    assert run.checkpoints[-1].name == "iter-00002"
    train(Run.open(run.path), Quiet())
    assert_same(content(run), whole)


@pytest.mark.parametrize(("every", "saved"), [(1, 2), (100, 3)])
def test_a_stop_in_an_update_drops_it_only_if_that_loses_no_other_iteration(
    whole: dict[str, Any], every: int, saved: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Right after a checkpoint the stop comes before the next optimizer step. Otherwise the update is finished."""
    steps: list[int] = []
    update, step = Learner.update, Learner._step

    def updating(self: Learner, *arguments: Any, **keywords: Any) -> dict[str, float]:
        steps.append(0)
        return update(self, *arguments, **keywords)

    def stepping(self: Learner, *arguments: Any) -> None:
        step(self, *arguments)
        steps[-1] += 1
        if len(steps) == 3 and steps[-1] == 2:
            press_ctrl_c()

    run = Run.create(tmp_path / "run", config(training={"checkpoint_every": every}))
    with monkeypatch.context() as patch:
        patch.setattr(Learner, "update", updating)
        patch.setattr(Learner, "_step", stepping)
        with pytest.raises(KeyboardInterrupt):
            train(run, Quiet())
    assert (steps[2] == 2) == (saved == 2)
    assert run.checkpoints[-1] == run.checkpoint(saved)
    train(Run.open(run.path), Quiet())
    assert_same(content(run) | {"checkpoints": whole["checkpoints"]}, whole)


def test_a_stop_in_the_scoring_comes_after_the_batch(
    whole: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    score, scored = Learner.score, 0

    def scoring(self: Learner, rows: Any, on_rows: Callable[[int], None]) -> Any:
        nonlocal scored
        scored += 1
        if scored == 2:
            press_ctrl_c()
        return score(self, rows, on_rows)

    run = Run.create(tmp_path / "run", config(training={"checkpoint_every": 100}))
    with monkeypatch.context() as patch:
        patch.setattr(Learner, "score", scoring)
        with pytest.raises(KeyboardInterrupt):
            train(run, Quiet())
    assert run.checkpoints[-1] == run.checkpoint(1)
    assert not run.training_episodes(2).exists()
    train(Run.open(run.path), Quiet())
    assert_same(content(run)["weights"], whole["weights"])


def test_a_policy_from_scratch_is_held_on_to_after_a_resume_too(tmp_path: Path):
    """Without a warm start and without a path, nothing but the run itself knows what the reference was."""
    scratch = config(warm_start={"tasks": 0}, training={"iterations": 2})
    runs = [Run.create(tmp_path / name, scratch) for name in ("whole", "stopped")]
    train(runs[0], Quiet())
    with pytest.raises(KeyboardInterrupt):
        train(runs[1], Quiet(("iteration", 1), press_ctrl_c))
    train(Run.open(runs[1].path), Quiet())
    assert_same(content(runs[1])["metrics"], content(runs[0])["metrics"])


def test_the_policy_held_on_to_must_be_there_after_a_resume(tmp_path: Path):
    """Nothing else is taken in its place."""
    first = Run.create(tmp_path / "first", config(training={"iterations": 1}))
    train(first, Quiet())
    moved = tmp_path / "moved"
    onward = config(model={"path": str(first.warm_start)}, warm_start={"tasks": 0})
    for number, (settings, message) in enumerate(
        (
            (
                onward,
                r"first/warm-start, the reference .* is missing; restore it, or set model\.path in .*config\.yaml",
            ),
            (
                config(model={"path": str(first.warm_start)}),
                r"run1/warm-start, the reference .* is missing; restore the folder",
            ),
        )
    ):
        run = Run.create(tmp_path / f"run{number}", settings)
        with pytest.raises(KeyboardInterrupt):
            train(run, Quiet(("iteration", 1), press_ctrl_c))
        gone = run.warm_start if run.warm_start.exists() else first.warm_start
        gone.rename(moved)
        with pytest.raises(UserError, match=message):
            train(run, Quiet())
        moved.rename(gone)
        train(run, Quiet())
        assert run.finished


def test_a_run_whose_policy_never_learns_is_told(tmp_path: Path):
    told: list[str] = []
    display = Quiet()
    display.note = lambda *lines: told.extend(lines)  # type: ignore[method-assign]
    settings = config(training={"iterations": 1}, learner={"critic_warmup_iterations": 1}, warm_start={"tasks": 0})
    train(Run.create(tmp_path / "run", settings), display)
    assert "the policy will not learn: learner.critic_warmup_iterations (1) takes every iteration" in told


def test_what_an_evaluation_came_to_is_logged_before_its_card_says_it_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run = Run.create(tmp_path / "run", config(training={"iterations": 1}, warm_start={"tasks": 0}))

    def full(*args: Any) -> None:
        raise UnwritableError("cannot write the card: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Card, "write", full)
        with pytest.raises(UserError, match="No space left"):
            train(run, Quiet())
    train(run, Quiet())
    evaluated = [r["iteration"] for r in run.metrics() if "eval/held_out/success" in r]
    assert evaluated[-1] == 1
    assert run.finished


def test_an_error_says_how_to_go_on_once_it_is_mended(tmp_path: Path):
    run = Run.create(tmp_path / "run", config(warm_start={"tasks": 0}))
    with pytest.raises(KeyboardInterrupt):
        train(run, Quiet(("iteration", 3), press_ctrl_c))
    older, newest = run.checkpoints
    (newest / "trainer.pt").write_bytes(b"")
    with pytest.raises(UserError, match=rf"damaged: trainer\.pt .*; delete it to resume from {older.name}\n.*fix this"):
        train(run, Quiet())
    shutil.rmtree(newest)
    train(run, Quiet())
    assert run.finished


def test_metrics_that_are_gone_are_told(tmp_path: Path):
    run = Run.create(tmp_path / "run", config(warm_start={"tasks": 0}))
    with pytest.raises(KeyboardInterrupt):
        train(run, Quiet(("iteration", 3), press_ctrl_c))
    run.metrics_file.unlink()
    with pytest.raises(UserError, match=r"metrics\.jsonl is missing: restore it, or make an empty file"):
        train(run, Quiet())
    run.metrics_file.touch()
    display = Quiet()
    train(run, display)
    assert isinstance(display.console.file, StringIO)
    told = " ".join(display.console.file.getvalue().split())
    assert "the metrics of iteration 1, 2, 3 are missing" in told
    assert run.finished


def test_a_lost_line_of_the_newest_evaluation_is_made_again(tmp_path: Path):
    """The card alone is there. Before the first iteration this may be the whole file."""
    scratch = config(warm_start={"tasks": 0}, training={"iterations": 1})
    whole = trained(scratch)(tmp_path / "whole" / "run")
    run = Run.create(tmp_path / "killed" / "run", scratch)
    with pytest.raises(KeyboardInterrupt):
        train(run, Quiet(("episodes", 1), press_ctrl_c))
    assert run.card(0, "held_out").exists()
    run.metrics_file.unlink()
    assert_same(trained(scratch)(run.path), whole)


def test_seeds_make_runs_differ(whole: dict[str, Any], tmp_path: Path):
    run = Run.create(tmp_path / "run", Config.model_validate(config().model_dump() | {"seed": 1}))
    train(run, Quiet())
    assert content(run)["metrics"] != whole["metrics"]


def test_a_run_in_another_thread_takes_no_signals(tmp_path: Path):
    run = Run.create(tmp_path / "run", config(training={"iterations": 1}, warm_start={"tasks": 0}))
    failures: list[BaseException] = []

    def work() -> None:
        try:
            train(run, Quiet())
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not failures
    assert run.finished


# --- What is played, evaluated and how fast is learned ----------------------------------------------------------------


def test_tasks_come_in_shuffled_passes():
    panel = make("train", 3).panel
    settings = config(rollout={"episodes": 8})
    played = [a.task_id for i in range(40) for a in assignments_of(settings, panel, i)]
    assert len(played) == 320
    for start in range(0, 320 - len(panel), len(panel)):
        assert sorted(played[start : start + len(panel)]) == [task.id for task in panel]
    assert played[: len(panel)] != played[len(panel) : 2 * len(panel)]
    assert [a.task_id for a in assignments_of(settings, panel, 17)] == played[17 * 8 : 18 * 8]


def test_a_group_plays_one_task_from_one_beginning():
    panel = make("train", 3).panel
    assignments = assignments_of(config(rollout={"episodes": 8, "group_size": 4}), panel, 3)
    assert [len({(a.task_id, a.seed) for a in assignments[i : i + 4]}) for i in (0, 4)] == [1, 1]
    assert len({a.seed for a in assignments}) == len({a.task_id for a in assignments}) == 2
    assert len({a.sampling_seed for a in assignments}) == 8


def test_a_fixed_subset_of_the_tasks_can_be_trained_on():
    """Demonstrations and episodes are of these alone; the words of a nano model are of all."""
    parts = build(config(env={"train_tasks": 5}))
    assert [task.id for task in parts.env.panel] == [task.id for task in make("train", 3).panel.subset(5)]
    assert parts.tokenizer.get_vocab() == build(config()).tokenizer.get_vocab()


def test_when_to_evaluate():
    assert [done for done in range(5) if splits_due(config(evaluation={"every": 3}), done)] == [0, 3, 4]
    assert [done for done in range(5) if splits_due(config(evaluation={"every": 0}), done)] == [0, 4]


def test_schedule():
    settings = config(
        learner={"warmup_iterations": 1, "critic_warmup_iterations": 1, "final_lr_fraction": 0.5},
        training={"iterations": 5},
    )
    scales = [lr_scales(settings, i) for i in range(5)]
    assert [critic for _, critic in scales] == pytest.approx([1.0, 0.875, 0.75, 0.625, 0.5])
    assert [policy for policy, _ in scales] == pytest.approx([0.0, 0.4375, 0.75, 0.625, 0.5])


@pytest.mark.parametrize("memory", ["critic", "both"])
def test_a_run_with_a_memory_of_the_plan_goes_on_and_its_policy_plays_with_it(memory: str, tmp_path: Path):
    settings = config(prompt={"plan_memory": memory, "plan_memory_tokens": 6}, training={"iterations": 2})
    whole, stopped = (Run.create(tmp_path / name, settings) for name in ("whole", "stopped"))
    train(whole, Quiet())
    with pytest.raises(KeyboardInterrupt):
        train(stopped, Quiet(("iteration", 1), press_ctrl_c))
    train(Run.open(stopped.path), Quiet())
    assert_same(content(stopped) | {"checkpoints": content(whole)["checkpoints"]}, content(whole))
    assert all(record["prompt/plans_dropped"] > 0 for record in whole.metrics() if "policy/kl" in record)
    policy = SavedPolicy.open(whole.path)
    assert policy.config.prompt.plan_memory == memory
    agent = policy.load().agent
    assert agent.prompts.template.shows_plans == (memory == "both")
    assert Card.read(whole.card(2, "held_out")).template == agent.prompts.label
