"""Devices, what fits them, which settings would change that, and refusal before launch."""

from __future__ import annotations

from pathlib import Path

import pytest

from hiper import api
from hiper.config import load_config
from hiper.errors import UserError
from hiper.processes import ALONE, Processes
from hiper.training.estimate import devices, fit
from hiper.training.estimate.devices import Device, named_device
from hiper.training.estimate.fit import changes, estimate_for, fits, refuse_what_cannot_fit


@pytest.mark.parametrize(
    ("text", "count", "size"),
    [("1x80GB", 1, 80e9), ("4x24GB", 4, 24e9), ("141gb", 1, 141e9), ("8 x 40 GB", 8, 40e9), ("2x79.5GiB", 2, 79.5e9)],
)
def test_devices_by_their_names(text: str, count: int, size: float):
    device = named_device(text)
    assert (device.kind, device.count, device.memory, device.for_each) == ("cuda", count, size, size)


@pytest.mark.parametrize("text", ["", "gpu", "0x80GB", "4x", "x80GB", "-1x80GB", "80TB", "4x0GB", "1e9x1GB"])
def test_other_texts_are_no_devices(text: str):
    with pytest.raises(UserError, match="such as 1x80GB or 4x24GB, or cpu"):
        named_device(text)


def test_each_process_needs_a_gpu_of_its_own():
    with pytest.raises(UserError, match="names 2 GPUs, and --processes 4"):
        named_device("2x80GB", 4)
    assert named_device("80GB", 4).count == 4


def test_processes_share_the_machine_s_memory():
    assert Device("cpu", 4, 32e9, "").for_each == 8e9


def test_a_container_s_limit_counts(tmp_path: Path):
    """An inner group without a limit lies in one of 4 GB, of which 3 GB are used, half a GB of it by cached files."""
    inner = tmp_path / "root" / "outer" / "inner"
    inner.mkdir(parents=True)
    (inner / "memory.max").write_text("max\n")
    (inner / "memory.current").write_text("1\n")
    (inner.parent / "memory.max").write_text("4000000000\n")
    (inner.parent / "memory.current").write_text("3000000000\n")
    (inner.parent / "memory.stat").write_text("anon 2500000000\ninactive_file 500000000\n")
    groups = tmp_path / "cgroup"
    groups.write_text("0::/outer/inner\n")
    assert list(devices._group_limits(tmp_path / "root", groups)) == [(4e9, 2.5e9)]
    groups.write_text("nonsense\n")
    assert list(devices._group_limits(tmp_path / "root", groups)) == []
    available = devices.available_memory()
    assert available is not None
    assert available > 0


def test_changes_say_what_they_would_give():
    config, device = load_config("alfworld-qwen2.5-7b"), named_device("1x80GB")
    assert not fits(estimate_for(config, device), device)
    found = changes(config, device)
    for change in found:
        assert change.fits == (change.estimate.peak <= 80e9)
        again = load_config("alfworld-qwen2.5-7b", change.settings)
        devices_of_it = devices.replace_count(device, change.processes)
        assert estimate_for(again, devices_of_it).peak == change.estimate.peak
    lora = next(change for change in found if any("lora" in setting for setting in change.settings))
    assert lora.fits
    assert lora.estimate.peak < 50e9
    shared = next(change for change in found if change.processes > 1)
    assert shared.fits
    assert "learner.sharding=fsdp" in shared.settings
    assert [change.method for change in found if "model.critic=shared" in change.settings] == [True]


def test_engines_of_several_gpus_need_less_of_each():
    """Each holds the cache of its share of the episodes. So four GPUs hold 4B, and the smallest number is named."""
    config, device = load_config("alfworld-qwen3-4b"), named_device("1x80GB")
    sharded = [c for c in changes(config, device) if "learner.sharding=fsdp" in c.settings and c.processes > 1]
    assert [(change.processes, change.fits) for change in sharded] == [(4, True)]
    half = estimate_for(load_config("alfworld-qwen3-4b", sharded[0].settings), named_device("2x80GB"))
    assert half.peak > 80e9


@pytest.mark.parametrize("gpus", ["32x1GB", "100x1GB"])
def test_more_gpus_than_are_tried(gpus: str):
    device = named_device(gpus)
    found = changes(load_config("alfworld-qwen3-4b"), device)
    assert {change.processes for change in found} == {device.count}


def test_small_savings_are_joined_where_none_is_enough():
    """7B with LoRA on 24 GB: neither smaller batches nor 4 bits alone."""
    found = changes(load_config("alfworld-qwen2.5-7b-lora"), named_device("1x24GB"))
    alone, together = found[:-1], found[-1]
    assert not any(change.fits for change in alone if not change.method)
    assert together.fits
    assert len(together.settings) > 1


@pytest.fixture
def tiny_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "this_machine", lambda name, index: Device("cpu", 1, 1_200_000, "the CPU's memory"))


@pytest.mark.usefixtures("tiny_memory")
def test_what_cannot_fit_is_refused_before_anything_is_written(tiny_recipe: Path, tmp_path: Path):
    """The tiny model's 40 thousand weights and more, 16 bytes each, and a critic's of the same size."""
    out = tmp_path / "run"
    settings = ("model.critic=own", "learner.kl_coef=0.1")
    with pytest.raises(UserError, match=r"cannot be trained here: .* 1 MB free.*--force") as told:
        api.train(tiny_recipe, *settings, out=out)
    assert "model.critic=shared" in str(told.value)
    assert not out.exists()
    config = load_config(tiny_recipe, settings)
    refuse_what_cannot_fit(config, ALONE, imitating=True)  # the policy alone is small enough
    refuse_what_cannot_fit(load_config(tiny_recipe), ALONE)
    with pytest.raises(UserError, match="in each of 2 processes"):
        refuse_what_cannot_fit(load_config(tiny_recipe), Processes(0, 2))


@pytest.mark.usefixtures("tiny_memory")
def test_force_begins_nevertheless(tiny_recipe: Path, tmp_path: Path):
    settings = ("model.critic=own", "learner.kl_coef=0.1", "training.iterations=0")
    run = api.train(tiny_recipe, *settings, out=tmp_path / "run", force=True)
    assert run.checkpoints
    with pytest.raises(UserError, match="cannot be trained here"):
        refuse_what_cannot_fit(run.config, ALONE, run.checkpoints[-1] / "policy")


def test_devices_of_unknown_memory_refuse_nothing(monkeypatch: pytest.MonkeyPatch, tiny_recipe: Path):
    monkeypatch.setattr(fit, "this_machine", lambda name, index: Device("mps", 1, None, "mps"))
    refuse_what_cannot_fit(load_config(tiny_recipe), ALONE)
