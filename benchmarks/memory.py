"""Compare what `hiper check` says of memory with the high-water mark of processes that do an iteration.

    python benchmarks/memory.py [NAME ...]

Each configuration runs in a process of its own: it builds everything, plays, scores, updates and saves. The update has
two mini-batches, because the moments of the optimizer come with its first step. The mark is VmHWM of
/proc/self/status, the most pages that the process ever had in memory. It counts pages of mapped files too, and memory
that the allocator of the C library has not given back. glibc serves large blocks by maps of their own, and returns them
at once. Blocks below a threshold, which grows to 32 MiB, come from arenas and may stay.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hiper.config import Config, load_config
from hiper.rows import TrainRow

MOST_ERROR = 0.10
"""The most that the estimate may differ, as a share of what was measured."""

COMMON = (
    "warm_start.tasks=0",
    "env.games=64",
    "env.max_turns=6",
    "prompt.max_tokens=240",
    "rollout.episodes=8",
    "rollout.slots=8",
    "rollout.max_response_tokens=16",
    "learner.minibatch_turns=24",
    "learner.micro_batch_tokens=512",
    "model.nano={layers: 6, hidden: 512, feed_forward: 1536, heads: 8, kv_heads: 4, max_positions: 512}",
)
CONFIGURATIONS: dict[str, tuple[str, ...]] = {
    "full, own critic": ("learner.kl_coef=0", "model.compute_dtype=float32"),
    "full, own critic, reference, checkpointing": (
        "model.path=base",
        "model.gradient_checkpointing=true",
        "model.compute_dtype=bfloat16",
    ),
    "LoRA, own critic, reference": (
        "model.path=base",
        "learner.lora={rank: 16, alpha: 32}",
        "model.compute_dtype=float32",
    ),
}
"""The settings of each configuration. The model `base` is a nano model in a folder."""


def main() -> int:
    """Print a table of the configurations; return 1 if an estimate is off by more than :data:`MOST_ERROR`."""
    names = sys.argv[1:] or list(CONFIGURATIONS)
    worst = 0.0
    print(f"{'configuration':<46}{'phase':>10}{'estimated':>12}{'measured':>12}{'error':>8}")
    for name in names:
        estimated, measured, phase = measure(CONFIGURATIONS[name])
        error = estimated / measured - 1
        worst = max(worst, abs(error))
        print(f"{name:<46}{phase:>10}{estimated / 1e6:>9,.0f} MB{measured / 1e6:>9,.0f} MB{error:>+8.1%}", flush=True)
    return int(worst > MOST_ERROR)


def measure(settings: tuple[str, ...]) -> tuple[float, float, str]:
    """Return the estimated and the measured peak in bytes, and the phase of the estimated one."""
    with TemporaryDirectory() as folder:
        if "model.path=base" in settings:
            child(folder, ("make", *COMMON))
        told = child(folder, ("run", *COMMON, *settings))
    return told["estimated"], told["measured"], told["phase"]


def child(folder: str, arguments: tuple[str, ...]) -> dict[str, Any]:
    """Run this file in a process of its own, in ``folder``, and return what it told."""
    command = [sys.executable, str(Path(__file__).resolve()), "--child", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    sys.stderr.write(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def in_child(task: str, settings: list[str]) -> dict[str, Any]:
    """Make the base model, or run the iteration, in this process."""
    config = load_config("quickstart", settings)
    if task == "make":
        from hiper.training.build import build

        build(config).save_policy(Path("base"))
        return {}
    words = iterate(config)
    measured = high_water_mark()  # before anything else is computed

    from hiper.models.build import choose_device
    from hiper.training.estimate.memory import estimate
    from hiper.training.estimate.models import has_bfloat16, shape_of_run

    shape, _ = shape_of_run(config, words=words)
    device = choose_device(config.training.device)
    estimated = estimate(config, shape, device.type, native=has_bfloat16(device))
    return {
        "estimated": estimated.peak,
        "measured": measured,
        "phase": estimated.peak_phase,
        "phases": estimated.phases,
    }


def iterate(config: Config) -> int:
    """Do what an iteration does, and save a checkpoint; return the size of the vocabulary."""
    from hiper.rollout.collector import collect
    from hiper.rollout.tasks import assignments_of
    from hiper.training.assign import assign_credit, rows_of
    from hiper.training.build import build

    parts = build(config)
    if config.learner.kl_coef:
        parts.learner.set_reference()
    parts.learner.publish(parts.agent.sampler, 0)
    episodes, _ = collect(
        parts.env, assignments_of(config, parts.env.panel, 0), parts.agent, slots=config.rollout.slots
    )
    scores = parts.learner.score(rows_of(episodes))
    rows = assign_credit(episodes, scores, config.shaping, config.advantages).rows
    print(f"largest micro-batch: {largest(config, rows)} tokens", file=sys.stderr)
    parts.learner.update(rows, seed=0)
    parts.save_policy(Path("checkpoint"))
    parts.learner.save(Path("checkpoint"), 1)
    return len(parts.tokenizer)


def largest(config: Config, rows: Sequence[TrainRow]) -> int:
    """Return the tokens of the largest micro-batch of an update."""
    from hiper.models.batches import micro_batches, minibatches
    from hiper.seeding import derive_seed

    sizes = []
    for chosen in minibatches(rows, config.learner.minibatch_turns, derive_seed(0, 0)):
        lengths = list(map(len, chosen))
        batches = micro_batches(lengths, config.learner.micro_batch_tokens)
        sizes += [len(batch) * max(lengths[i] for i in batch) for batch in batches]
    return max(sizes)


def high_water_mark() -> int:
    """Return the most bytes that this process ever had in memory."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("the kernel does not tell the high-water mark")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(in_child(sys.argv[2], sys.argv[3:])))
        raise SystemExit(0)
    raise SystemExit(main())
