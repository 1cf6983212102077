"""Compare what `hiper check` says of memory with the high-water mark of processes that do an iteration.

    python benchmarks/memory.py [NAME ...]

Each configuration runs in a process of its own: it builds everything, plays, scores, updates and saves. The update has
two mini-batches, because the moments of the optimizer come with its first step. The mark is VmHWM of
/proc/self/status, the most pages that the process ever had in memory. It counts pages of mapped files too, and memory
that the C library has not given back. glibc serves large blocks by maps of their own, and returns them at once. Blocks
below a threshold, which grows to 32 MiB by itself, come from arenas and leave holes. So there are two marks: with a
threshold so low that there are no holes, which shows what is in use, and with the usual one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hiper.config import Config, load_config

MOST_ERROR = 0.10
"""The most that the estimate may differ, as a share of what was measured."""

EXACT = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
"""The environment variables under which glibc leaves no holes."""

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
    "training.threads=1",
)
NANO = "model.nano={layers: 6, hidden: 512, feed_forward: 1536, heads: 8, kv_heads: 4, max_positions: 512}"
CONFIGURATIONS: dict[str, tuple[str, ...]] = {
    "full, own critic": (NANO, "learner.kl_coef=0", "model.compute_dtype=float32"),
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
"""The settings of each configuration. The model `base` is a nano model of :data:`NANO` in a folder."""


def main() -> int:
    """Print a table of the configurations; return 1 if an estimate is off by more than :data:`MOST_ERROR`."""
    worst = 0.0
    print(f"{'configuration':<44}{'phase':>10}{'holes':>7}{'estimated':>12}{'measured':>12}{'error':>8}")
    for name in sys.argv[1:] or list(CONFIGURATIONS):
        for holes, variables in (("no", EXACT), ("yes", {})):
            told = measure(CONFIGURATIONS[name], variables)
            estimated = told["used" if variables else "estimated"]
            error = estimated / told["measured"] - 1
            worst = max(worst, abs(error))
            sizes = f"{estimated / 1e6:>9,.0f} MB{told['measured'] / 1e6:>9,.0f} MB"
            print(f"{name:<44}{told['phase']:>10}{holes:>7}{sizes}{error:>+8.1%}", flush=True)
    return int(worst > MOST_ERROR)


def measure(settings: Sequence[str], variables: Mapping[str, str]) -> dict[str, Any]:
    """Run a configuration under environment variables, and return what its process told."""
    with TemporaryDirectory() as folder:
        if "model.path=base" in settings:
            child(folder, ("make", *COMMON, NANO), variables)
        return child(folder, ("run", *COMMON, *settings), variables)


def child(folder: str, arguments: Sequence[str], variables: Mapping[str, str]) -> dict[str, Any]:
    """Run this file in a process of its own, in ``folder``, and return what it told."""
    command = [sys.executable, str(Path(__file__).resolve()), "--child", *arguments]
    done = subprocess.run(command, cwd=folder, env=os.environ | variables, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
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
    used = max(sum(parts.values()) - parts.get("fragments", 0.0) for parts in estimated.phases.values())
    return {"estimated": estimated.peak, "used": used, "measured": measured, "phase": estimated.peak_phase}


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
    assignments = assignments_of(config, parts.env.panel, 0)
    episodes, _ = collect(parts.env, assignments, parts.agent, slots=config.rollout.slots)
    scores = parts.learner.score(rows_of(episodes))
    rows = assign_credit(episodes, scores, config.shaping, config.advantages).rows
    parts.learner.update(rows, seed=0)
    parts.save_policy(Path("checkpoint"))
    parts.learner.save(Path("checkpoint"), 1)
    return len(parts.tokenizer)


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
