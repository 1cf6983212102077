"""All checks that need a GPU, in one call of at most ten minutes, with one table at the end.

    python benchmarks/gpu.py                        # on a machine with a GPU, torch and transformers
    python benchmarks/gpu.py --device cpu --quick   # the same steps with tiny models, to see that they run

Models have random weights and the sizes of SmolLM2-135M, Qwen2.5-0.5B and Qwen2.5-1.5B, so nothing is downloaded. It
checks that scores, updates and sampled log-probabilities on the device equal those of the CPU in float32. It measures
tokens a second and the utilisation (MFU) of scoring, updating and sampling, whole and with LoRA, and the peak of memory
beside what `hiper check` estimates. If there is an engine (`hiper engine install`), a model samples through it: weights
travel in every way that the machine has, each load is probed, and its time is measured.
"""

from __future__ import annotations

import argparse
import copy
import gc
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from hiper.config import Config, load_config, validate_config
from hiper.errors import UserError, first_line
from hiper.learner.learner import Learner
from hiper.models.lora import checkpoint_gradients
from hiper.models.weights import PolicyWeights
from hiper.rollout.engines.environment import find_environment
from hiper.rollout.engines.sync import SyncName
from hiper.rollout.samplers import Request, SamplingParams, Workplace, sample_all
from hiper.rollout.samplers.transformers import TransformersOptions, TransformersSampler
from hiper.rollout.samplers.vllm import VllmOptions, VllmSampler
from hiper.rows import Row, TrainRow
from hiper.runs.metrics import ENGINE_LOAD_SECONDS, ENGINE_PROBE
from hiper.training.estimate.devices import gigabytes, this_machine
from hiper.training.estimate.memory import estimate
from hiper.training.estimate.models import KNOWN, shape_of
from hiper.training.estimate.sizes import Shape

SECONDS = 570.0
"""No case begins after this time."""
ENGINE_SECONDS = 120.0
"""The time that an engine needs to start and to end."""
MODELS = {
    "135M": "HuggingFaceTB/SmolLM2-135M-Instruct",
    "0.5B": "Qwen/Qwen2.5-0.5B-Instruct",
    "1.5B": "Qwen/Qwen2.5-1.5B-Instruct",
}
TINY: dict[str, Any] = {
    "vocab_size": 512,
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
}
CASES = ("full", "LoRA")
LORA = ["learner.lora={rank: 16, alpha: 32}", "model.param_dtype=bfloat16"]
MOST_DIFFERENCE = 2e-3
"""The most by which log-probabilities and weights may differ between the device and the CPU, both in float32. Sums of
another order differ by some 1e-5; a wrong mask or position by 0.1 and more."""


class PlainTokenizer:
    """What samplers ask of a tokenizer. Random models hardly ever end a response, so nearly all have full length."""

    pad_token_id = 0
    eos_token_id = 1


@dataclass
class Result:
    """The rows of the last table."""

    rows: list[tuple[str, ...]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def add(self, case: str, what: str, value: str, note: str = "") -> None:
        """Add a row, and show it at once."""
        self.rows.append((case, what, value, note))
        print(f"{case:<12}{what:<38}{value:>16}  {note}", flush=True)

    def check(self, case: str, what: str, difference: float) -> None:
        """Add a comparison, which fails beyond :data:`MOST_DIFFERENCE`."""
        good = difference <= MOST_DIFFERENCE
        self.add(case, what, f"{difference:.1e}", "equal" if good else "DIFFERS")
        if not good:
            self.failed.append(f"{case}, {what}")


@dataclass(frozen=True)
class Setting:
    """What is measured, and how much of it."""

    device: torch.device
    quick: bool
    rows: int
    prompt: int
    response: int


def main() -> int:
    """Run all cases; return 1 if a comparison or a case failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="the torch device (default: cuda)")
    parser.add_argument("--quick", action="store_true", help="tiny models and few rows")
    given = parser.parse_args()
    if given.device.startswith("cuda") and not torch.cuda.is_available():
        sys.exit("there is no GPU that torch can use; --device cpu --quick tries the steps")
    device = torch.device(given.device)
    sizes = (8, 48, 8) if given.quick else (64, 480, 48)
    setting = Setting(device, given.quick, *sizes)
    torch.backends.cuda.matmul.allow_tf32 = False
    began, result = time.monotonic(), Result()
    about(result, device)
    guarded(result, "correct", lambda: check_correctness(setting, result))
    for name in MODELS:
        for case in CASES:
            if time.monotonic() - began > SECONDS:
                result.add(f"{name} {case}", "left out", "", "the ten minutes are over")
                continue
            guarded(result, f"{name} {case}", partial(measure, name, case, setting, result))
    for sync in ("folder", "adapter", "gloo", "ipc") if device.type == "cuda" else ("folder", "adapter", "gloo"):
        if time.monotonic() - began < SECONDS - ENGINE_SECONDS:
            guarded(result, f"vLLM {sync}", partial(measure_engine, sync, setting, result))
    show(result)
    return int(bool(result.failed))


def about(result: Result, device: torch.device) -> None:
    """Say what the machine is."""
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    result.add("machine", "device", "", where)
    for package in ("torch", "transformers", "peft", "vllm"):
        with suppress(metadata.PackageNotFoundError):
            result.add("machine", package, metadata.version(package))


def guarded(result: Result, case: str, work: Callable[[], None]) -> None:
    """Run a case. An error is a row of the table, so that the others are still measured."""
    try:
        work()
    except (torch.OutOfMemoryError, MemoryError) as error:  # a small GPU; the other cases count
        result.add(case, "out of memory", "", first_line(error))
    except (RuntimeError, UserError, ValueError, ImportError) as error:
        result.add(case, "FAILED", type(error).__name__, first_line(error))
        result.failed.append(case)
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


# --- Models, rows and learners --------------------------------------------------------------------------------------


def config_of(name: str, case: str, setting: Setting, *more: str) -> Config:
    """Return the settings of a case: those of the recipes, with rows of the benchmark's own sizes."""
    settings = [
        f"model.path={name}",
        f"prompt.max_tokens={setting.prompt}",
        f"rollout.max_response_tokens={setting.response}",
        f"rollout.episodes={setting.rows}",
        f"rollout.slots={setting.rows}",
        f"learner.minibatch_turns={setting.rows // 2}",
        f"learner.micro_batch_tokens={256 if setting.quick else 16_384}",
        f"training.device={setting.device}",
        *(LORA if case == "LoRA" else []),
        *more,
    ]
    config = load_config("alfworld-qwen2.5-0.5b", settings)
    return validate_config(config.model_dump(mode="json"), "benchmark")


def make_model(path: str, dtype: torch.dtype, quick: bool) -> PreTrainedModel:
    """Make a model of the sizes of ``path`` with random weights."""
    tree = {**KNOWN[path], **(TINY if quick else {})}
    architecture: Any = AutoConfig.for_model(tree.pop("model_type"), **tree)
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(architecture, dtype=dtype)
    return model  # type: ignore[no-any-return]


def make_rows(setting: Setting, vocab: int, seed: int = 0) -> list[Row]:
    """Make rows of random tokens, all of full length."""
    draw = np.random.default_rng(seed).integers(1, vocab, (setting.rows, setting.prompt + setting.response)).tolist()
    return [
        Row(tuple(ids[: setting.prompt]), tuple(ids[setting.prompt :]), 2, (0.0,) * setting.response) for ids in draw
    ]


def make_learner(policy: PreTrainedModel, config: Config, device: str) -> Learner:
    """Make a learner with critic and reference."""
    learner = Learner.of(
        policy,
        critic=config.advantages.critic,
        config=config.learner,
        model_config=config.model,
        device=device,
        pad_id=0,
        temperature=1.0,
    )
    learner.set_reference()
    return learner


def train_rows(learner: Learner, rows: list[Row]) -> list[TrainRow]:
    """Score rows, and give them advantages and targets."""
    generator = np.random.default_rng(1)
    return [
        TrainRow(
            score,
            advantages=generator.normal(size=len(score.logprobs)).astype(np.float32),
            mask=np.ones(len(score.logprobs), bool),
            targets=generator.normal(size=score.values.shape).astype(np.float32),
            target_mask=np.ones(score.values.shape, bool),
        )
        for score in learner.score(rows)
    ]


def sample(policy: PreTrainedModel, rows: list[Row], response: int, autocast: torch.dtype | None) -> list[Any]:
    """Sample a response to every prompt."""
    tokenizer: Any = PlainTokenizer()
    sampler = TransformersSampler(tokenizer, TransformersOptions())
    sampler.load(PolicyWeights(policy, autocast), 0)
    params = SamplingParams(1.0, response)
    return sample_all(sampler, [Request(row.prompt_ids, params, seed) for seed, row in enumerate(rows)])


# --- Correctness ----------------------------------------------------------------------------------------------------


def check_correctness(setting: Setting, result: Result) -> None:
    """Compare scores, an update and sampled log-probabilities with those of the CPU, in float32."""
    small = Setting(setting.device, True, 8, 48, 8)
    for path in (MODELS["135M"], MODELS["0.5B"]):
        kind = str(KNOWN[path]["model_type"])
        config = config_of(path, "full", small, "model.compute_dtype=float32", "learner.lr=1e-4")
        policy = make_model(path, torch.float32, quick=True)
        rows = make_rows(small, policy.config.vocab_size)
        there = make_learner(copy.deepcopy(policy), config, str(setting.device))
        here = make_learner(policy, config, "cpu")
        scored = [learner.score(rows) for learner in (here, there)]
        pairs = list(zip(*scored, strict=True))
        result.check(kind, "score, log-probabilities", max(float(abs(a.logprobs - b.logprobs).max()) for a, b in pairs))
        result.check(kind, "score, values", max(float(abs(a.values - b.values).max()) for a, b in pairs))
        drawn = sample(there.weights().model, rows, small.response, None)
        own = [Row(row.prompt_ids, item.ids, 2, item.logprobs) for row, item in zip(rows, drawn, strict=True)]
        differences = [float(abs(s.logprobs - np.array(s.row.sampled_logprobs)).max()) for s in here.score(own)]
        result.check(kind, "sampled log-probabilities", max(differences))
        for learner in (here, there):
            learner.update(train_rows(learner, rows), seed=0)
        after = [learner.score(rows) for learner in (here, there)]
        pairs = list(zip(*after, strict=True))
        result.check(kind, "score after an update", max(float(abs(a.logprobs - b.logprobs).max()) for a, b in pairs))


# --- Speed and memory -----------------------------------------------------------------------------------------------


def measure(name: str, case: str, setting: Setting, result: Result) -> None:
    """Measure one model, whole or with LoRA."""
    label, path = f"{name} {case}", MODELS[name]
    config = config_of(path, case, setting)
    dtype = torch.bfloat16 if config.model.param_dtype == "bfloat16" else torch.float32
    policy = make_model(path, dtype, setting.quick)
    if case == "full":  # adapters see to it themselves
        checkpoint_gradients(policy)
    shape = shape_of(policy, config.learner.lora)
    rows = make_rows(setting, shape.vocab)
    peaks = this_machine(str(setting.device)).peaks[0]
    learner = make_learner(policy, config, str(setting.device))
    tokens = sum(map(len, rows))
    forward = 2 * shape.parameters * tokens
    with peak_of(setting) as peak:
        ready = train_rows(learner, rows)  # warms up, and makes what the update needs
        seconds = timed(setting, lambda: learner.score(rows))
        rate(result, label, "scoring (policy, critic, reference)", tokens, seconds, 3 * forward / seconds / peaks)
        learner.update(ready, seed=0)
        seconds = timed(setting, lambda: learner.update(ready, seed=1))
        backward = 1 if shape.rank else 2
        rate(
            result, label, "updating (policy, critic)", tokens, seconds, 2 * (1 + backward) * forward / seconds / peaks
        )
        weights = learner.weights()
        sample(weights.model, rows[:2], 2, weights.autocast)
        seconds = timed(setting, lambda: sample(weights.model, rows, setting.response, weights.autocast))
        made = setting.rows * setting.response
        rate(result, label, "sampling", made, seconds, 2 * shape.parameters * made / seconds / peaks)
    compare_memory(result, label, config, shape, setting, peak)


def measure_engine(sync: SyncName, setting: Setting, result: Result) -> None:
    """Let an engine sample from a model of 0.5B, and measure two loads and the sampling."""
    label, path = f"vLLM {sync}", MODELS["0.5B"]
    try:
        find_environment()
    except UserError as error:
        result.add(label, "left out", "", first_line(error))
        return
    config = config_of(path, "LoRA" if sync == "adapter" else "full", setting)
    policy = make_model(path, torch.bfloat16, setting.quick)
    tokenizer: Any = PlainTokenizer()
    sampler = VllmSampler(tokenizer, VllmOptions(sync=sync, args=("--enforce-eager",)))
    sampler.settle(Workplace(tokens=setting.prompt + setting.response, slots=setting.rows))
    try:
        weights = make_learner(policy, config, str(setting.device)).weights()
        for version in range(2):
            sampler.load(weights, version)
        told = sampler.metrics()
        result.add(
            label, "load and probe", f"{told[ENGINE_LOAD_SECONDS.name]:.2f} s", f"probe {told[ENGINE_PROBE.name]:.1e}"
        )
        params = SamplingParams(1.0, setting.response)
        rows = make_rows(setting, policy.config.vocab_size)
        asked = [Request(row.prompt_ids, params, seed) for seed, row in enumerate(rows)]
        began = time.perf_counter()
        made = sum(len(drawn.ids) for drawn in sample_all(sampler, asked))
        result.add(label, "sampling", f"{made / (time.perf_counter() - began):,.0f} tok/s")
    finally:
        sampler.close()


def rate(result: Result, label: str, what: str, tokens: int, seconds: float, utilisation: float) -> None:
    """Add a row with tokens a second and the share of the device's peak."""
    result.add(label, what, f"{tokens / seconds:,.0f} tok/s", f"MFU {utilisation:.1%}")


def timed(setting: Setting, work: Callable[[], object]) -> float:
    """Return the seconds of one call."""
    synchronize(setting)
    began = time.perf_counter()
    work()
    synchronize(setting)
    return time.perf_counter() - began


def synchronize(setting: Setting) -> None:
    """Wait until the device has done what it was told."""
    if setting.device.type == "cuda":
        torch.cuda.synchronize(setting.device)


class peak_of:  # noqa: N801
    """A block whose peak of the GPU's memory is measured. On a CPU it stays 0."""

    def __init__(self, setting: Setting) -> None:
        self.cuda = setting.device.type == "cuda"
        self.bytes = 0

    def __enter__(self) -> peak_of:
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
        return self

    def __exit__(self, *error: object) -> None:
        if self.cuda:
            self.bytes = torch.cuda.max_memory_allocated()


def compare_memory(result: Result, label: str, config: Config, shape: Shape, setting: Setting, peak: peak_of) -> None:
    """Add the peak of memory, and what `hiper check` estimates of what torch allocates."""
    device = "cuda" if setting.device.type == "cuda" else "cpu"
    found = estimate(config, shape, device)
    # What torch allocates: without the context of CUDA, and without what its allocator keeps.
    apart = ("process", "fragments", "episodes")
    used = max(sum(size for part, size in parts.items() if part not in apart) for parts in found.phases.values())
    result.add(label, "memory by hiper check", gigabytes(used), found.peak_phase)
    if peak.bytes:
        result.add(label, "max_memory_allocated", gigabytes(peak.bytes), f"estimate {used / peak.bytes - 1:+.1%}")


def lines_of(result: Result) -> Iterator[str]:
    """Return the table in Markdown."""
    yield "| case | what | value | |"
    yield "|---|---|---:|---|"
    for row in result.rows:
        yield f"| {' | '.join(row)} |"


def show(result: Result) -> None:
    """Print the table, and what failed."""
    print()
    for line in lines_of(result):
        print(line)
    if result.failed:
        print(f"\nFAILED: {'; '.join(result.failed)}")


if __name__ == "__main__":
    raise SystemExit(main())
