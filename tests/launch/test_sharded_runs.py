"""Whole runs with sharded weights: several processes do what one does, and runs resume with and without sharding."""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from helpers.together import forked
from hiper import api
from hiper.config import load_config
from hiper.display.console import Display
from hiper.episode import read_episodes
from hiper.learner.learner import Learner
from hiper.models.build import load_policy
from hiper.processes import ALONE, Processes
from hiper.runs.folder import Run
from hiper.training.begin import clone

SHARDED = ("learner.sharding=fsdp", "sampler={copy_weights: true}")
SETTINGS = (
    *("model.compute_dtype=float32", "model.critic=own", "warm_start.tasks=0", "evaluation.every=0"),
    *("learner.lr=1e-5", "learner.critic_lr=1e-5", "learner.kl_coef=0.05", "training.iterations=2"),
)


def quiet() -> Display:
    return Display(console=Console(file=StringIO()))


def check_same(ours: Run, theirs: Run) -> None:
    assert ours.finished
    for iteration in (1, 2):
        pairs = zip(*(read_episodes(run.training_episodes(iteration)) for run in (ours, theirs)), strict=True)
        for one, other in pairs:
            assert [turn.response_ids for turn in one.turns] == [turn.response_ids for turn in other.turns]
    weights = [load_file(run.checkpoints[-1] / "policy" / "model.safetensors") for run in (ours, theirs)]
    assert weights[0].keys() == weights[1].keys()
    for name, tensor in weights[1].items():
        # Gradients of the biases of keys are all but zero, and Adam makes whole steps along their rounding errors.
        torch.testing.assert_close(weights[0][name], tensor, atol=1e-5 if "k_proj.bias" in name else 1e-6, rtol=0)
    timed = re.compile("time/|speed/|seconds|padding")
    for found, known in zip(ours.iteration_metrics(), theirs.iteration_metrics(), strict=True):
        assert found.keys() == known.keys()
        for name in known:
            if not timed.search(name):
                assert found[name] == pytest.approx(known[name], abs=1e-4), name


def begun(tiny_recipe: Path, folder: Path, *settings: str, processes: Processes = ALONE) -> Run:
    config = load_config(tiny_recipe, [*SETTINGS, *settings])
    return api.train(config, out=folder, display=quiet(), processes=processes)


def go_on(folder: Path, count: int, recipe: Path, *settings: str) -> Run:
    """Resume a run to two iterations under other settings and another number of processes."""
    Run(folder, load_config(recipe, [*SETTINGS, *settings])).save_settings()
    if count == 1:
        return api.resume(folder, display=quiet())
    meeting = folder.with_name(f"{folder.name}-meeting")
    resumed = forked(count, meeting, lambda group: api.resume(folder, display=quiet(), processes=group))
    assert resumed == [""] * count
    return Run.open(folder)


def test_sharded_processes_do_what_one_does_and_resume(tiny_recipe: Path, tmp_path: Path):
    once = "training.iterations=1"
    alone = begun(tiny_recipe, tmp_path / "alone")
    begun(tiny_recipe, tmp_path / "from whole", once)

    def work(processes: Processes) -> None:
        begun(tiny_recipe, tmp_path / "sharded", *SHARDED, processes=processes)
        begun(tiny_recipe, tmp_path / "first", *SHARDED, once, processes=processes)

    assert forked(2, tmp_path / "meeting", work) == ["", ""]
    check_same(Run.open(tmp_path / "sharded"), alone)
    for copied in ("to three", "to whole"):
        shutil.copytree(tmp_path / "first", tmp_path / copied)
    check_same(go_on(tmp_path / "to three", 3, tiny_recipe, *SHARDED), alone)
    check_same(go_on(tmp_path / "to whole", 1, tiny_recipe), alone)
    check_same(go_on(tmp_path / "from whole", 2, tiny_recipe, *SHARDED), alone)


def in_one_process(folder: Path, work: Callable[[Processes], object]) -> str:
    """Do work in a process of its own; return what went wrong. It leaves threads of gloo, which no fork survives."""
    (said,) = forked(1, folder / "meeting", work)
    return said


def test_a_damaged_part_is_named(tiny_recipe: Path, tmp_path: Path):
    once = "training.iterations=1"
    assert not in_one_process(tmp_path, lambda alone: begun(tiny_recipe, tmp_path / "run", *SHARDED, once))
    part = next((Run.open(tmp_path / "run").checkpoints[-1] / "parts").glob("*.distcp"))
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)
    said = in_one_process(tmp_path, lambda alone: go_on(tmp_path / "run", 1, tiny_recipe, *SHARDED))
    assert re.search(r"UserError: .*parts/__0_0.distcp is not as it was written.*; delete it to resume from", said)


def test_sampling_from_parts_is_refused_with_the_ways_out(tiny_recipe: Path, tmp_path: Path):
    said = in_one_process(tmp_path, lambda alone: begun(tiny_recipe, tmp_path / "run", SHARDED[0]))
    assert re.search(r"UserError: .*use an engine \(sampler.type=vllm\), or, .* sampler.copy_weights=true", said)


def test_a_warm_start_alone_needs_no_sampler(tiny_recipe: Path, tmp_path: Path):
    config = load_config(tiny_recipe, [SHARDED[0], "warm_start.tasks=20", "warm_start.epochs=1"])
    work = lambda group: clone(config, tmp_path / "policy", quiet(), group)  # noqa: E731
    assert forked(2, tmp_path / "meeting", work) == ["", ""]
    assert load_policy(tmp_path / "policy", config.model)


def test_a_lost_process_is_noticed_inside_a_pass(tiny_recipe: Path, tmp_path: Path):
    def work(processes: Processes) -> None:
        if processes.rank == 1:
            signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
            update = Learner.update

            def dying(self: Learner, *args: Any, **settings: Any) -> dict[str, float]:
                signal.setitimer(signal.ITIMER_REAL, 0.2)
                return update(self, *args, **settings)

            Learner.update = dying  # type: ignore[method-assign]
        begun(tiny_recipe, tmp_path / "run", *SHARDED, "learner.epochs=1000", processes=processes)

    with pytest.raises(FileNotFoundError):  # the lost one says nothing
        forked(2, tmp_path / "meeting", work)
    said = (tmp_path / "meeting-0").read_text()
    assert "LostProcessError: another of the 2 processes ended" in said
