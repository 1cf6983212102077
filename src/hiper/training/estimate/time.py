"""The time and the disk that a run takes: from its own metrics, or from stated rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from hiper.config import Config
from hiper.runs import metrics as names
from hiper.training.estimate.devices import Device
from hiper.training.estimate.memory import MOST_TURNS
from hiper.training.estimate.sizes import FLOAT32, Shape, Sizes, formats_of

UTILISATION = 0.22
"""The share of a GPU's peak that training reaches: prime-rl's own benchmark of Qwen3-4B with LoRA at 16,384 tokens on
one H100."""
PROMPT_SHARE, RESPONSE_SHARE = 0.23, 0.1
"""The mean lengths of prompts and responses as shares of the longest ones allowed: 476 of 2,048 and about 50 of 512
tokens, with the template `instruct` on ALFWorld."""
SECONDS_OF_A_LAYER = 1.0e-3
"""The time that a GPU needs to be told one layer of one step of sampling, kernel by kernel. It is an assumption."""
BYTES_OF_A_TURN = 2_500
"""The bytes of a turn in a file of episodes, packed. It is an assumption, for prompts of about 500 tokens."""
PHASES = ("generation", "scoring", "update")


@dataclass(frozen=True)
class Pace:
    """The time of a run."""

    phases: Mapping[str, float]
    """The seconds of each phase of an iteration."""
    iterations: int
    source: str
    """Where the rates come from, in words."""

    @property
    def iteration(self) -> float:
        """The seconds of an iteration."""
        return sum(self.phases.values())

    @property
    def run(self) -> float:
        """The seconds of all iterations, without evaluations."""
        return self.iterations * self.iteration


@dataclass(frozen=True)
class Disk:
    """The disk that a run takes, in bytes."""

    checkpoint: float
    checkpoints: float
    """All that are kept, and the one that is being written."""
    episodes: float

    @property
    def run(self) -> float:
        """The whole run."""
        return self.checkpoints + self.episodes


def turns_of(config: Config) -> int:
    """Return the most turns of an iteration."""
    return config.rollout.episodes * int(config.env.options.get("max_turns") or MOST_TURNS)


def measured_pace(config: Config, iterations: Sequence[Mapping[str, Any]]) -> Pace | None:
    """Return the pace of a run by its own metrics. None: there are none."""
    timed = [found for found in iterations if names.ITERATION_SECONDS.name in found]
    if not timed:
        return None
    phases: dict[str, float] = {}
    prefix, suffix = names.PHASE_SHARE.name.split("<phase>")
    for key in dict.fromkeys(key for found in timed for key in found):
        if key.startswith(prefix) and key.endswith(suffix):
            phase = key.removeprefix(prefix).removesuffix(suffix)
            phases[phase] = fmean(found.get(key, 0.0) * found[names.ITERATION_SECONDS.name] for found in timed)
    return Pace(phases, config.training.iterations, f"measured in {len(timed)} iterations of this run")


def stated_pace(config: Config, shape: Shape, device: Device) -> Pace:
    """Estimate the pace from stated rates. All episodes are taken to last as long as they may, as untrained ones do.

    A forward pass costs 2 operations a parameter and token, a backward pass twice as many, and one more forward pass
    with checkpointing (Kaplan et al. 2020, arXiv 2001.08361, section 2.1). With LoRA the weights have no gradients,
    which saves a third of training. A step of sampling reads all weights, and takes a time for each layer.
    """
    sizes = Sizes(config, shape, device.kind, device.count, formats_of(config, shape, device.kind))
    prompt, response = PROMPT_SHARE * config.prompt.max_tokens, RESPONSE_SHARE * config.rollout.max_response_tokens
    turns = turns_of(config)
    tokens = turns * (prompt + response)
    operations, bandwidth = device.peaks
    speed = UTILISATION * operations * device.count
    models = 1 + sizes.own_critic
    forward = 2 * shape.parameters * tokens
    backward = (1 if shape.rank else 2) + config.model.gradient_checkpointing
    steps = turns / min(config.rollout.slots, config.rollout.episodes) * response * 2  # the longest of a batch ends it
    step = max(sizes.formats.computed * shape.parameters / bandwidth, SECONDS_OF_A_LAYER * shape.layers)
    return Pace(
        {
            "generation": steps * step + 2 * shape.parameters * turns * prompt / speed,
            "scoring": (models + bool(config.learner.kl_coef)) * forward / speed,
            "update": config.learner.epochs * models * (1 + backward) * forward / speed,
        },
        config.training.iterations,
        f"estimated for {device.name} from stated rates ({UTILISATION:.0%} of its peak), with episodes of full length",
    )


def disk_of(config: Config, shape: Shape, turns: float | None = None) -> Disk:
    """Return the disk of a run. A checkpoint holds policy, critic and moments; with LoRA, those of adapters alone.

    Args:
        config: The settings.
        shape: The model.
        turns: The turns of an iteration. None: as many as there may be.
    """
    sizes = Sizes(config, shape, "cpu", 1, formats_of(config, shape, "cpu"))
    policy = FLOAT32 * shape.adapter if shape.rank else sizes.weights
    checkpoint = policy + sizes.critic + sizes.moments
    kept = min(config.training.keep_checkpoints + 1, config.training.iterations + 1)
    episodes = config.training.iterations * (turns if turns is not None else turns_of(config)) * BYTES_OF_A_TURN
    return Disk(checkpoint, kept * checkpoint, episodes)
