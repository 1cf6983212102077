"""Whether a run fits its devices, and which settings would change that."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hiper.config import Config, apply_overrides, validate_config
from hiper.errors import UserError
from hiper.processes import Processes
from hiper.training.estimate.devices import Device, gigabytes, replace_count, this_machine
from hiper.training.estimate.memory import Estimate, engine_needs, estimate
from hiper.training.estimate.models import NANO_WORDS, has_bfloat16, shape_of_run
from hiper.training.estimate.sizes import Sizes, formats_of

SHARED_OUT = "learner.sharding=fsdp"
ENGINE = "sampler.type=vllm"
LORA = ("learner.lora={rank: 16, alpha: 32}", "model.param_dtype=bfloat16", "model.gradient_checkpointing=true")
MOST_GPUS = 16
"""The largest number of GPUs that is tried."""


@dataclass(frozen=True)
class Change:
    """Other settings, and what they would give."""

    settings: tuple[str, ...]
    processes: int
    estimate: Estimate
    fits: bool
    method: bool = False
    """Whether it is another method, with other results."""


def fits(found: Estimate, device: Device) -> bool:
    """Return whether an estimate fits. A device whose memory is not known fits everything."""
    return device.for_each is None or found.peak <= device.for_each


def estimate_for(config: Config, device: Device, words: int = NANO_WORDS) -> Estimate:
    """Estimate a run on devices.

    Args:
        config: The settings.
        device: The devices.
        words: The words of a nano model's tokenizer.

    Raises:
        UserError: The model's config cannot be read.
    """
    shape, _ = shape_of_run(config, words=words)
    import torch

    native = device.kind == "cuda" or has_bfloat16(torch.device("cpu"))
    kind = "cpu" if device.kind == "cpu" else "cuda"
    return estimate(config, shape, kind, device.count, native, device.memory)


def changes(config: Config, device: Device) -> list[Change]:
    """Estimate the settings that would need less memory: each alone; if none fits, then together as many as it takes.

    What would need more, or is in effect already, is left out.
    """
    before = estimate_for(config, device).peak
    tried = _tried(config, device)
    found = [change for change in tried if change.estimate.peak < 0.98 * before]
    if any(change.fits and not change.method for change in found):
        return found
    joined: dict[str, str] = {}
    for change in tried:
        if change.method or change.processes != device.count or SHARED_OUT in change.settings:
            continue
        joined |= {setting.partition("=")[0]: setting for setting in change.settings}
        together = _changed(config, device, tuple(joined.values()), device.count)
        if together is not None and together.fits:
            return [*found, together]
    return found


def _tried(config: Config, device: Device, words: int = NANO_WORDS) -> list[Change]:
    """Estimate every alternative that is possible."""
    changed = [_changed(config, device, *other, words=words) for other in _alternatives(config, device)]
    return [change for change in changed if change is not None]


def _alternatives(config: Config, device: Device) -> Iterator[tuple[tuple[str, ...], int, bool]]:
    """Yield settings, a number of processes, and whether they make another method."""
    row = config.prompt.max_tokens + config.rollout.max_response_tokens
    pretrained, lora = config.model.path is not None, config.learner.lora
    yield ("model.gradient_checkpointing=true",), device.count, False
    yield (f"learner.micro_batch_tokens={max(row, config.learner.micro_batch_tokens // 4)}",), device.count, False
    if config.sampler.type == "transformers":
        yield (f"sampler.batch_tokens={max(row, 32_768)}",), device.count, False
    if device.kind == "cuda":
        yield ("learner.optimizer=adamw_8bit",), device.count, False
    if pretrained and lora is None:
        yield LORA, device.count, False
        yield ("learner.lora={rank: 16, alpha: 32, quantize: 4bit}", *LORA[1:]), device.count, False
    elif lora is not None and lora.quantize == "none":
        yield ("learner.lora.quantize=4bit",), device.count, False
    if device.kind == "cuda":
        counts = [n for n in (2, 4, 8, MOST_GPUS) if n >= device.count] or [device.count]
        ways = {n: _sharded(config, device, n) for n in counts}
        tried = {n: _changed(config, device, way, n) for n, way in ways.items()}
        count = next((n for n, change in tried.items() if change is not None and change.fits), counts[-1])
        yield ways[count], count, False
        yield (*_sharded(config, device, device.count), "learner.offload=true"), device.count, False
    yield ("model.critic=shared",), device.count, True
    yield ("learner.kl_coef=0",), device.count, True


def _sharded(config: Config, device: Device, count: int) -> tuple[str, ...]:
    """Return the settings of sharding with engines that take no more of their GPUs than they need, by steps of 0.05.

    Args:
        config: The settings.
        device: The GPU.
        count: The number of GPUs. Each has an engine, which serves its share of the episodes.
    """
    shape, _ = shape_of_run(config)
    sizes = Sizes(config, shape, "cuda", count, formats_of(config, shape, "cuda"))
    share = min(0.95, math.ceil(20 * engine_needs(sizes) / (device.memory or math.inf)) / 20)
    return SHARED_OUT, ENGINE, f"sampler.gpu_memory_utilization={share}"


def _changed(
    config: Config,
    device: Device,
    settings: Sequence[str],
    processes: int,
    method: bool = False,
    words: int = NANO_WORDS,
) -> Change | None:
    """Estimate other settings. None: they contradict each other, or change nothing."""
    try:
        other = validate_config(apply_overrides(config.model_dump(mode="json"), settings), "other settings")
    except UserError:
        return None
    if other == config and processes == device.count:
        return None
    devices = replace_count(device, processes)
    found = estimate_for(other, devices, words)
    return Change(tuple(settings), processes, found, fits(found, devices), method)


def refuse_what_cannot_fit(
    config: Config, processes: Processes, policy: Path | None = None, *, imitating: bool = False
) -> None:
    """Refuse a run whose weights, gradients and moments alone are more than the memory that is free.

    Activations are not counted, so nothing that could fit is refused.

    Args:
        config: The settings.
        processes: The processes that train together.
        policy: The policy of the checkpoint that is continued from.
        imitating: Whether only the policy is trained, on demonstrations.

    Raises:
        UserError: It cannot fit. The message names the settings to change.
    """
    device = this_machine(config.training.device, processes.local_rank)
    if device.memory is None:
        return
    local = int(os.environ.get("LOCAL_WORLD_SIZE", processes.count)) if device.kind == "cpu" else 1
    there = device.memory / max(1, local)
    if imitating:
        tree = config.model_dump(mode="json")
        config = validate_config(apply_overrides(tree, ["model.critic=shared", "learner.kl_coef=0"]), "imitation")
    shape, _ = shape_of_run(config, policy, words=1)
    found = estimate(config, shape, device.kind, processes.count)
    if found.certain <= there:
        return
    others = [c for c in _tried(config, replace_count(device, processes.count), words=1) if c.estimate.certain <= there]
    best = " or ".join(f"{' '.join(map(_quoted, c.settings))} ({gigabytes(c.estimate.certain)})" for c in others[:3])
    each = f" in each of {local} processes" if local > 1 else ""
    advice = f"set {best}" if best else "choose a smaller model"
    raise UserError(
        f"{config.model.path or 'the nano model'} cannot be trained here: weights, gradients, moments, critic and "
        f"reference take {gigabytes(found.certain)}{each}, and {device.name} has {gigabytes(there)} free. Do one of "
        f"these: {advice}. `hiper check` shows every part; --force begins nevertheless"
    )


def _quoted(setting: str) -> str:
    key, _, value = setting.partition("=")
    return f"{key}='{value}'" if " " in value else setting
