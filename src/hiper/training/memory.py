"""The memory that a run needs, by phase and by part, in bytes: arithmetic on the sizes of a model and on the settings.

Nothing here touches a model or a device. The formulas follow what the learner and the sampler keep. Tests count the
tensors that autograd stores for a real model, and `benchmarks/memory.py` compares the sums with a process's own peak.

Legend of the formulas: h hidden size, q and k widths of all queries and of all keys, f width of the feed-forward layer,
V vocabulary size, r bytes of a residual, c bytes of a computed number, a bytes of a number in attention.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from hiper.advantages import head_names
from hiper.config import Config
from hiper.learner.gradients import BUCKET, MOST_IN_ORDER
from hiper.models.actor_critic import MOST_LOGITS
from hiper.rollout.samplers.decoding import DEFAULT_PREFILL_TOKENS, PREFILL_TOKENS

FLOAT32, BFLOAT16 = 4, 2
MOMENTS = 8
"""AdamW keeps two float32 moments for each trained parameter (Kingma and Ba 2015; Loshchilov and Hutter 2019)."""
LOGIT_COPIES = 6
"""The float32 arrays of logits that are alive at once in the backward pass of a piece: the divided logits' gradient,
log-probabilities, probabilities, and three gradients (:func:`hiper.models.actor_critic.token_scores`)."""
SCORED_LOGIT_COPIES = 4
"""The same without a backward pass."""
OVERHEAD = {"cpu": 700_000_000, "cuda": 1_000_000_000}
"""What a process takes before a model is loaded. CPU: Python, torch, transformers and the tasks, measured. GPU: the
context of CUDA and the workspaces of its libraries, as PyTorch's notes on CUDA state about half of it."""
FRAGMENTS = 0.05
"""The share of activations that an allocator holds beyond what is in use. It is an assumption."""
BYTES_OF_A_TOKEN = 80
"""What a token of an episode takes in Python: a number in a tuple, twice, because rows hold copies."""

Parts = Mapping[str, float]


@dataclass(frozen=True)
class Shape:
    """The sizes of a causal language model, as far as memory and time depend on them."""

    layers: int
    hidden: int
    queries: int
    """The width of all queries of a token: heads times their size."""
    keys: int
    """The width of all keys of a token: key-value heads times their size."""
    feed_forward: int
    vocab: int
    parameters: int
    """The number of all parameters. Tied ones count once."""
    backbone: int
    """The number of parameters without a language head of its own, which is what a critic copies."""
    matrices: int
    """The number of parameters in the linear maps of all layers."""
    largest: int
    """The number of parameters of the largest tensor."""
    adapter: int = 0
    """The number of parameters of one adapter of LoRA."""
    rank: int = 0
    """The rank of an adapter. 0: there is none."""
    shortcut: bool = False
    """Whether :mod:`hiper.models.qwen2` runs it."""
    kernel: bool = True
    """Whether attention runs in a kernel that keeps no scores (FlashAttention, Dao et al. 2022)."""
    heads: int = 1
    """The number of attention heads."""
    head_norms: bool = False
    """Whether queries and keys are normalised too."""

    @property
    def layer(self) -> float:
        """The number of parameters in the linear maps of one layer."""
        return self.matrices / self.layers


@dataclass(frozen=True)
class Formats:
    """The sizes in bytes of the numbers of a computation."""

    weight: int
    """A weight, and a residual."""
    computed: int
    """A number in a forward pass."""
    attention: int
    """A number in attention."""

    @property
    def casts(self) -> bool:
        """Whether forward passes cast the weights (autocast)."""
        return self.weight != self.computed


@dataclass(frozen=True)
class Estimate:
    """The memory of one process."""

    phases: Mapping[str, Parts]
    """The parts by phase, on the device that computes."""
    host: Parts
    """The parts in the machine's memory, where the device is a GPU. Empty on a CPU."""
    certain: float
    """The bytes that updating needs whatever the episodes are. Activations and logits are not in it."""

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


def formats_of(config: Config, shape: Shape, device: str, native: bool = True) -> Formats:
    """Return the number formats of a run.

    Args:
        config: The settings.
        shape: The model.
        device: ``cpu`` or ``cuda``.
        native: Whether the device has bfloat16 instructions, which ``compute_dtype: auto`` depends on.
    """
    weight = BFLOAT16 if config.model.param_dtype == "bfloat16" else FLOAT32
    compute = config.model.compute_dtype
    if compute == "auto":
        compute = "bfloat16" if native or weight == BFLOAT16 else "float32"
    computed = BFLOAT16 if compute == "bfloat16" else FLOAT32
    # The shortcut computes attention in float32 on CPUs (hiper.models.qwen2.ATTENTION).
    attention = FLOAT32 if device == "cpu" and shape.shortcut else computed
    return Formats(weight, computed, attention)


def stored_layer(shape: Shape, formats: Formats, row: int = 0) -> float:
    """Return the bytes a token that one layer stores for its backward pass.

    Both norms store their input and, if their weights are trained, the normalised states. Linear maps store their
    inputs. Maps of one input share it, unless autocast or an adapter casts it for each of them. Attention stores
    queries, keys, values, its result, and one float32 number for each head. The feed-forward layer stores both of its
    inner maps, and the activation of one of them.
    """
    h, q, k, f = shape.hidden, shape.queries, shape.keys, shape.feed_forward
    c, a, frozen = formats.computed, formats.attention, shape.rank > 0
    norm = FLOAT32 if frozen else FLOAT32 + formats.weight
    norms = norm * (2 * h + (q + k) * shape.head_norms)
    result_cast = c * q if a != c else 0
    if formats.casts:
        inputs = 5 * c * h + c * f + result_cast
    elif frozen and formats.weight == BFLOAT16:  # adapters are float32, and cast what they read
        inputs = FLOAT32 * (5 * h + q + f)
    else:
        inputs = 2 * c * h + c * f + result_cast
    attention = a * (2 * q + 2 * k) + FLOAT32 * shape.heads + 8
    if not shape.kernel:
        attention += 2 * FLOAT32 * shape.heads * row
    return norms + inputs + 3 * c * f + attention + 7 * shape.rank * FLOAT32


def passing_layer(shape: Shape, formats: Formats) -> float:
    """Return the bytes a token of one layer in a pass that stores nothing: two residuals, a norm, the feed-forward."""
    return 2 * formats.weight * shape.hidden + 2 * FLOAT32 * shape.hidden + 3 * formats.computed * shape.feed_forward


def stored(shape: Shape, formats: Formats, tokens: int, read: int, checkpointing: bool, row: int = 0) -> float:
    """Return the bytes that a forward pass stores for its backward pass.

    Args:
        shape: The model.
        formats: The number formats.
        tokens: The tokens of the micro-batch, with padding.
        read: The positions that are read. The shortcut computes the last layer there alone.
        checkpointing: Whether each layer stores its input alone (Chen et al. 2016, arXiv 1604.06174).
        row: The tokens of a row.
    """
    if checkpointing:
        return tokens * formats.weight * shape.hidden * (shape.layers + 1)
    layer = stored_layer(shape, formats, row)
    if not shape.shortcut:
        return tokens * (shape.layers * layer + 2 * FLOAT32 * shape.hidden)
    last = 3 * formats.weight * shape.hidden + 2 * formats.attention * shape.keys
    return tokens * ((shape.layers - 1) * layer + last) + min(read, tokens) * layer


def logits(shape: Shape, read: int, most: int, copies: int) -> float:
    """Return the bytes of the logits that are in memory at once: pieces of at most ``most`` numbers."""
    return FLOAT32 * copies * min(read * shape.vocab, max(most, shape.vocab))


def cache(shape: Shape, formats: Formats, tokens: int) -> float:
    """Return the bytes of keys and values of ``tokens`` slots, in all layers.

    Rows leave a batch once half of them have ended. What is kept is copied, keys first: a quarter more.
    """
    size = max(formats.attention, FLOAT32) if not shape.shortcut and formats.casts else formats.attention
    return 1.25 * 2 * shape.layers * shape.keys * size * tokens


def heads_parameters(config: Config, shape: Shape) -> int:
    """Return the number of parameters of the value heads: a norm, a hidden layer and an output for each value."""
    values, h = len(head_names(config.advantages.critic)), shape.hidden
    return 2 * h + h * h + h + values * (h + 1) if values else 0


@dataclass(frozen=True)
class Sizes:
    """The sizes of a run that memory depends on, for one process."""

    config: Config
    shape: Shape
    device: str
    """``cpu`` or ``cuda``."""
    processes: int
    formats: Formats

    @property
    def own_critic(self) -> bool:
        """Whether the critic has a backbone of its own."""
        return self.config.model.critic == "own" and self.config.advantages.critic != "none"

    @property
    def row(self) -> int:
        """The tokens of the longest row."""
        return self.config.prompt.max_tokens + self.config.rollout.max_response_tokens

    @property
    def tokens(self) -> int:
        """The tokens of the largest micro-batch. A row that is longer than the setting has one of its own."""
        return max(self.config.learner.micro_batch_tokens, self.row)

    @property
    def read(self) -> int:
        """The positions of the largest micro-batch that are read: those of its responses."""
        return max(1, self.tokens * self.config.rollout.max_response_tokens // self.row)

    @property
    def trained(self) -> tuple[int, int]:
        """The numbers of trained parameters of the policy and of the critic."""
        adapters = self.shape.rank > 0
        policy = self.shape.adapter if adapters else self.shape.parameters
        critic = (self.shape.adapter if adapters else self.shape.backbone) if self.own_critic else 0
        return policy, critic + heads_parameters(self.config, self.shape)

    @property
    def trained_size(self) -> int:
        """The bytes of a trained parameter's weight. Adapters are float32."""
        return FLOAT32 if self.shape.rank else self.formats.weight

    @property
    def weights(self) -> float:
        """The bytes of the policy's weights, and of its adapter."""
        return self.formats.weight * self.shape.parameters + FLOAT32 * self.shape.adapter

    @property
    def critic(self) -> float:
        """The bytes of the critic's weights: a backbone or an adapter, and the heads."""
        backbone = FLOAT32 * self.shape.adapter if self.shape.rank else self.formats.weight * self.shape.backbone
        return backbone * self.own_critic + FLOAT32 * heads_parameters(self.config, self.shape)

    @property
    def reference(self) -> float:
        """The bytes of the reference policy. With LoRA it is an adapter beside the same base."""
        whole = FLOAT32 * self.shape.adapter if self.shape.rank else self.formats.weight * self.shape.parameters
        return whole * bool(self.config.learner.kl_coef)

    @property
    def casts(self) -> float:
        """The bytes of the bfloat16 copies that autocast makes of one model's weights, its language head included."""
        if not self.formats.casts:
            return 0.0
        return self.formats.computed * (self.shape.matrices + self.shape.vocab * self.shape.hidden)


def resident(sizes: Sizes) -> Parts:
    """Return the parts that stay between the phases. Gradients stay until the next mini-batch begins."""
    trained = sum(sizes.trained)
    return {
        "process": float(OVERHEAD[sizes.device]),
        "weights": sizes.weights,
        "critic": sizes.critic,
        "reference": sizes.reference,
        "gradients": float(sizes.trained_size * trained),
        "moments": MOMENTS / FLOAT32 * sizes.trained_size * trained,
    }


def updating(sizes: Sizes) -> Parts:
    """Return what updating adds: the largest micro-batch, or the optimizer's step where that needs more.

    Policy and critic are stored together, because one loss trains both. The backward pass begins with the critic.
    """
    config, shape, formats = sizes.config, sizes.shape, sizes.formats
    models = 1 + sizes.own_critic
    checkpointing = config.model.gradient_checkpointing
    activations = models * stored(shape, formats, sizes.tokens, sizes.read, checkpointing, sizes.row)
    activations += sizes.tokens * passing_layer(shape, formats)
    casts = models * sizes.casts
    if checkpointing:
        # One layer is computed again at a time. The copies of all weights are gone by then.
        again = sizes.tokens * stored_layer(shape, formats, sizes.row) + casts / models / shape.layers
        activations, casts = activations + max(again - casts, 0.0), casts
    scores = logits(shape, sizes.read, MOST_LOGITS, LOGIT_COPIES)
    step = sizes.trained_size * (2 * shape.largest if sizes.device == "cpu" else max(sizes.trained))
    batch = {
        "activations": activations,
        "bfloat16 copies": casts,
        "logits": scores,
        "fragments": FRAGMENTS * (activations + scores),
        "exchange": exchange(sizes),
    }
    return batch if sum(batch.values()) >= step else {"optimizer step": float(step)}


def exchange(sizes: Sizes) -> float:
    """Return the bytes of the gradients on their way between processes (:mod:`hiper.learner.gradients`)."""
    if sizes.processes == 1:
        return 0.0
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
        "bfloat16 copies": (1 + sizes.own_critic) * sizes.casts,
        "logits": scores,
        "fragments": FRAGMENTS * (passing + scores),
    }


def sampling(sizes: Sizes) -> Parts:
    """Return what sampling adds: the cache of the largest batch, its prefill, and the logits of a step."""
    config, shape = sizes.config, sizes.shape
    rows = -(-min(config.rollout.slots, config.rollout.episodes) // sizes.processes)
    batch = min(int(config.sampler.options.get("batch_tokens", 131_072)), rows * sizes.row)
    batch = max(batch, sizes.row)
    prompts = batch * config.prompt.max_tokens // sizes.row
    most = PREFILL_TOKENS.get(sizes.device, DEFAULT_PREFILL_TOKENS)
    prefill = min(prompts, most) if shape.shortcut else prompts
    # Log-probabilities in float32, and three arrays of them in double precision (`draw`).
    step = max(1, batch // sizes.row) * shape.vocab * (sizes.formats.computed + 2 * FLOAT32 + 3 * 8)
    return {
        "bfloat16 copies": sizes.casts,
        "cache": cache(shape, sizes.formats, batch),
        "prefill": prefill * passing_layer(shape, sizes.formats),
        "logits": float(step),
    }


def saving(sizes: Sizes) -> float:
    """Return the bytes that saving a checkpoint copies to the machine's memory: safetensors writes from one copy."""
    whole = FLOAT32 * sizes.shape.adapter if sizes.shape.rank else sizes.weights
    return max(whole, sizes.critic, sizes.trained_size * sizes.shape.largest)


def estimate(config: Config, shape: Shape, device: str, processes: int = 1, native: bool = True) -> Estimate:
    """Estimate the memory of each process of a run.

    Args:
        config: The settings.
        shape: The model, with LoRA if the settings have it.
        device: ``cpu`` or ``cuda``.
        processes: The number of processes.
        native: Whether the device has bfloat16 instructions.
    """
    if config.model.gradient_checkpointing:
        shape = replace(shape, shortcut=False)
    sizes = Sizes(config, shape, device, processes, formats_of(config, shape, device, native))
    kept = resident(sizes)
    phases = {
        "sampling": {**kept, **sampling(sizes)},
        "scoring": {**kept, **scoring(sizes)},
        "updating": {**kept, **updating(sizes)},
    }
    turns = config.rollout.episodes * int(config.env.options.get("max_turns") or 50)
    episodes = float(turns * sizes.row * BYTES_OF_A_TOKEN)
    if device == "cpu":
        phases["saving"] = {**kept, "copies": saving(sizes)}
        phases["loading"] = {"process": kept["process"], "weights": sizes.weights, "files": sizes.weights}
        phases = {phase: {**parts, "episodes": episodes} for phase, parts in phases.items()}
        host: Parts = {}
    else:
        host = {"process": 3e9, "episodes": episodes, "copies": max(saving(sizes), sizes.weights)}
    return Estimate(_without_zeros(phases), host, sum(kept.values()))


def _without_zeros(phases: Mapping[str, Parts]) -> dict[str, Parts]:
    return {phase: {part: size for part, size in parts.items() if size} for phase, parts in phases.items()}
