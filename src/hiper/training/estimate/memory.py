"""The memory of each process of a run, by phase and by part, in bytes.

Nothing here touches a model or a device. `benchmarks/memory.py` compares the sums with a process's own peak.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from hiper.config import Config
from hiper.learner.gradients import BUCKET, MOST_IN_ORDER
from hiper.models.actor_critic import MOST_LOGITS
from hiper.rollout.samplers.decoding import DEFAULT_PREFILL_TOKENS, PREFILL_TOKENS
from hiper.training.estimate.activations import (
    LOGIT_COPIES,
    SCORED_LOGIT_COPIES,
    cache,
    logits,
    passing_layer,
    stored,
    stored_layer,
)
from hiper.training.estimate.sizes import BFLOAT16, FLOAT32, Shape, Sizes, formats_of

OVERHEAD = {"cpu": 500_000_000, "cuda": 1_000_000_000}
"""What a process takes before a model is loaded. CPU: Python, torch, transformers and the tasks, measured. GPU: the
context of CUDA and the workspaces of its libraries, as PyTorch's notes on CUDA state about half of it."""
FRAGMENTS = {"cpu": (0.6, 300_000_000), "cuda": (0.05, None)}
"""What an allocator holds beyond what is in use: a share of the largest micro-batch, and the most bytes. CPU: the holes
of glibc, of which 100 to 350 MB were measured. GPU: an assumption."""
HOST_PROCESS = 3e9
"""What a process takes in the machine's memory beside its GPU: Python, torch and the libraries of CUDA. It is an
assumption."""
ENGINE_SHARE = 0.45
"""The share of a GPU that an engine takes, where ``sampler.gpu_memory_utilization`` does not say."""
MOST_TURNS = 50
"""The turns of an episode, where the settings leave them to the environment."""
BYTES_OF_A_TOKEN = 80
"""What a token of an episode takes in Python: a number in a tuple, twice, because rows hold copies."""

Parts = Mapping[str, float]


@dataclass(frozen=True)
class Estimate:
    """The memory of one process."""

    phases: Mapping[str, Parts]
    """The parts by phase, on the device that computes."""
    host: Parts
    """The parts in the machine's memory, where the device is a GPU. Empty on a CPU."""
    certain: float
    """The bytes of what a learner holds on the device, whatever the episodes are: no activations, no cache."""

    @property
    def peak_phase(self) -> str:
        """The phase that needs most."""
        return max(self.phases, key=lambda phase: sum(self.phases[phase].values()))

    @property
    def peak(self) -> float:
        """The most bytes of any phase."""
        return sum(self.phases[self.peak_phase].values())

    @property
    def parts(self) -> list[str]:
        """The names of all parts, in order."""
        return list(dict.fromkeys(part for parts in self.phases.values() for part in parts))


def resident(sizes: Sizes) -> dict[str, float]:
    """Return the parts that stay between the phases. Gradients stay until the next mini-batch begins."""
    config = sizes.config
    parts = {
        "weights": sizes.weights,
        "critic": sizes.critic,
        "reference": sizes.reference,
        "gradients": sizes.gradients,
        "moments": sizes.moments,
    }
    copies = config.sampler.type == "transformers" and bool(config.sampler.options.get("copy_weights"))
    whole = {"copy to sample": float(sizes.shape.parameters * sizes.formats.computed)} if copies else {}
    return {part: size / sizes.shards for part, size in parts.items()} | whole


def updating(sizes: Sizes) -> Parts:
    """Return what updating adds: the largest micro-batch, or the optimizer's step where that needs more.

    Policy and critic are stored together, because one loss trains both. The backward pass begins with the critic.
    """
    config, shape, formats = sizes.config, sizes.shape, sizes.formats
    models = 1 + sizes.own_critic
    checkpointing = config.model.gradient_checkpointing
    activations = models * stored(shape, formats, sizes.tokens, sizes.read, checkpointing, sizes.row)
    activations += sizes.tokens * passing_layer(shape, formats)
    casts = models * sizes.casts(updating=True)
    if checkpointing:
        # One layer is computed again at a time. The copies of all weights are gone by then.
        again = sizes.tokens * stored_layer(shape, formats, sizes.row) + sizes.casts(updating=True) / shape.layers
        activations += max(again - casts, 0.0)
    scores = logits(shape, sizes.read, MOST_LOGITS, LOGIT_COPIES)
    batch = {
        "activations": activations,
        "bfloat16 copies": casts,
        "gathered layers": models * sizes.gathered,
        "logits": scores,
        "exchange": exchange(sizes),
        "fragments": fragments(sizes, activations + casts + scores),
    }
    step = optimizer_step(sizes)
    return batch if sum(batch.values()) >= step else {"optimizer step": step}


def fragments(sizes: Sizes, used: float) -> float:
    """Return what an allocator holds beyond what a micro-batch uses."""
    share, most = FRAGMENTS[sizes.device]
    return share * used if most is None else min(share * used, most)


def optimizer_step(sizes: Sizes) -> float:
    """Return the bytes that a step of the optimizer needs for a moment.

    On CPUs, torch steps one tensor at a time. On GPUs its plain AdamW takes the roots of all second moments of a group
    at once. The fused and the 8-bit ones keep nothing.
    """
    settings = sizes.config.learner
    if settings.optimizer != "adamw":
        return 0.0
    whole = 2 * sizes.shape.largest if sizes.device == "cpu" else max(sizes.trained)
    return float(sizes.trained_size * whole / sizes.shards)


def exchange(sizes: Sizes) -> float:
    """Return the bytes of the gradients on their way between processes (:mod:`hiper.learner.gradients`)."""
    if sizes.processes == 1:
        return 0.0
    if sizes.sharded:
        return 2.0 * FLOAT32 * sizes.shape.layer  # of one layer, before and after it is reduced
    trained = sum(sizes.trained)
    if trained > MOST_IN_ORDER:
        return 2.0 * sizes.trained_size * min(BUCKET, trained)
    batches = -(-sizes.config.learner.minibatch_turns * sizes.row // sizes.tokens)
    return float(sizes.trained_size * trained * -(-batches // sizes.processes))


def scoring(sizes: Sizes) -> Parts:
    """Return what scoring adds: a layer of the largest micro-batch, and its logits."""
    passing = sizes.tokens * passing_layer(sizes.shape, sizes.formats)
    scores = logits(sizes.shape, sizes.read, MOST_LOGITS, SCORED_LOGIT_COPIES)
    return {
        "activations": passing,
        "bfloat16 copies": (1 + sizes.own_critic) * sizes.casts(),
        "gathered layers": (1 + sizes.own_critic) * sizes.gathered,
        "logits": scores,
        "fragments": fragments(sizes, passing + scores),
    }


def sampling(sizes: Sizes) -> Parts:
    """Return what sampling adds: the cache of the largest batch, its prefill, and the logits of a step."""
    config, shape = sizes.config, sizes.shape
    if config.sampler.type != "transformers":
        return {"engine": engine(sizes)}
    rows = rows_at_once(sizes)
    batch = min(int(config.sampler.options.get("batch_tokens", 131_072)), rows * sizes.row)
    batch = max(batch, sizes.row)
    prompts = batch * config.prompt.max_tokens // sizes.row
    most = PREFILL_TOKENS.get(sizes.device, DEFAULT_PREFILL_TOKENS)
    prefill = min(prompts, most)
    # Log-probabilities in float32, and three arrays of them in double precision (`draw`).
    step = max(1, batch // sizes.row) * shape.vocab * (sizes.formats.computed + 2 * FLOAT32 + 3 * 8)
    return {
        "bfloat16 copies": sizes.casts(),
        "gathered layers": sizes.gathered,
        "cache": cache(shape, sizes.formats, batch),
        "prefill": prefill * passing_layer(shape, sizes.formats),
        "logits": float(step),
    }


def rows_at_once(sizes: Sizes) -> int:
    """Return the number of rows that a process samples at once."""
    return -(-min(sizes.config.rollout.slots, sizes.config.rollout.episodes) // sizes.processes)


def engine_needs(sizes: Sizes) -> float:
    """Return the bytes that an engine on each device needs: the policy once more, in bfloat16, and a cache for all."""
    shape = sizes.shape
    numbers = 2 * shape.layers * shape.keys * rows_at_once(sizes) * sizes.row
    split = int(sizes.config.sampler.options.get("tensor_parallel", 1))
    return float(BFLOAT16 * (shape.parameters / split + numbers) + OVERHEAD["cuda"])


def engine(sizes: Sizes) -> float:
    """Return the bytes that an engine on each device takes: what it needs, or its share of the device if that is more.

    It sleeps while the learner scores and updates. One that is named by its address is elsewhere.
    """
    options = sizes.config.sampler.options
    if options.get("url"):
        return 0.0
    share = float(options.get("gpu_memory_utilization", ENGINE_SHARE)) * (sizes.memory or 0.0)
    return max(engine_needs(sizes), share * (sizes.device == "cuda"))


def saving(sizes: Sizes) -> float:
    """Return the bytes that saving a checkpoint copies from a GPU to the machine's memory. Files are written whole."""
    whole = FLOAT32 * sizes.shape.adapter if sizes.shape.rank else sizes.weights
    return max(whole, sizes.critic, float(sizes.trained_size * sizes.shape.largest))


def estimate(
    config: Config,
    shape: Shape,
    device: str,
    processes: int = 1,
    native: bool = True,
    memory: float | None = None,
) -> Estimate:
    """Estimate the memory of each process of a run.

    Args:
        config: The settings.
        shape: The model, with LoRA if the settings have it.
        device: ``cpu`` or ``cuda``.
        processes: The number of processes.
        native: Whether the device has bfloat16 instructions.
        memory: The bytes of the device. None: they are not known.
    """
    if config.learner.sharding == "fsdp":
        shape = replace(shape, shortcut=False)
    sizes = Sizes(config, shape, device, processes, formats_of(config, shape, device, native), memory)
    process, kept = float(OVERHEAD[device]), resident(sizes)
    turns = config.rollout.episodes * int(config.env.options.get("max_turns") or MOST_TURNS)
    episodes = float(turns * sizes.row * BYTES_OF_A_TOKEN)
    if device == "cpu":
        kept = {"process": process, "episodes": episodes, **kept}
        host: Parts = {}
    else:
        rest = kept if config.learner.offload else {}
        host = {"process": HOST_PROCESS, "episodes": episodes, **rest, "copies": max(saving(sizes), sizes.weights)}
        kept = {"process": process, **({} if config.learner.offload else kept)}
    phases: dict[str, Parts] = {
        "sampling": {**kept, **sampling(sizes)},
        "scoring": {**kept, **scoring(sizes)},
        "updating": {**kept, **updating(sizes)},
        "saving": kept,
    }
    if device == "cpu":
        # The file is mapped while its tensors are copied, and its pages count as the process's own.
        phases["loading"] = {"process": process, "weights": sizes.weights, "copies": sizes.weights}
    certain = 0.0 if config.learner.offload else sum(resident(sizes).values())
    return Estimate(_without_zeros(phases), _without_zeros({"": host})[""], certain)


def _without_zeros(phases: Mapping[str, Parts]) -> dict[str, Parts]:
    return {phase: {part: size for part, size in parts.items() if size} for phase, parts in phases.items()}
