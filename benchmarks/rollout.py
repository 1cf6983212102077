"""Compare episodes that advance independently with episodes in lockstep, when answers take lognormal times.

    python benchmarks/rollout.py

Both sides play the same 128 episodes through the same engine, a server of this process that answers after a time drawn
for the request. In lockstep every turn waits for the slowest answer, as a sampler does that takes whole batches.
"""

from __future__ import annotations

import sys
import time
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any

import numpy as np

from hiper.config import Config
from hiper.models.weights import PolicyWeights
from hiper.rollout.collector import collect
from hiper.rollout.players import Assignment
from hiper.rollout.samplers import Request, Sample, Sampler
from hiper.training.build import Parts, build

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from helpers.fake_engine import Answer, FakeEngine, serving

EPISODES, TURNS = 128, 20
MEDIAN_SECONDS, SIGMA = 0.25, 1.0
REQUIRED_RATIO = 0.6
"""The largest share of the lockstep time."""


class Lockstep:
    """A sampler that gives all answers of a round at once, when the last one has come."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler
        self._open: list[tuple[Future[Sample], Future[Sample]]] = []

    def load(self, weights: PolicyWeights, version: int) -> None:
        """See :class:`Sampler`."""
        self._sampler.load(weights, version)

    def submit(self, request: Request) -> Future[Sample]:
        """See :class:`Sampler`."""
        self._open.append((Future(), self._sampler.submit(request)))
        return self._open[-1][0]

    def run(self) -> None:
        """See :class:`Sampler`."""
        answered, self._open = self._open, []
        wait([inner for _, inner in answered])
        for outer, inner in answered:
            outer.set_result(inner.result())

    def close(self) -> None:
        """See :class:`Sampler`."""
        self._sampler.close()


class SlowEngine(FakeEngine):
    """An engine whose answers to episodes are fixed, and take times drawn from the seed of the request."""

    def generate(self, body: Answer) -> Answer:
        """Answer a probe as its model would, and an episode with one token."""
        params = body["sampling_params"]
        if not params["stop_token_ids"]:
            return super().generate(body)
        rng = np.random.Generator(np.random.Philox(key=params["seed"]))
        time.sleep(MEDIAN_SECONDS * rng.lognormal(0.0, SIGMA))
        end = params["stop_token_ids"][0]
        content = [{"token_id": end, "logprob": -0.5}]
        versions = [{"version": self.version, "start": 0, "end": 1}]
        choice: dict[str, Any] = {"token_ids": [end], "logprobs": {"content": content}, "finish_reason": "stop"}
        return {"choices": [choice | {"weight_versions": versions}]}


def made(url: str) -> Parts:
    """Build the parts of a tiny run whose sampler asks the engine."""
    nano = {"layers": 1, "hidden": 32, "feed_forward": 32, "heads": 2, "kv_heads": 1}
    settings: dict[str, Any] = {
        "env": {"name": "corridor", "cells": 4, "max_turns": TURNS},
        "prompt": {"template": "terse", "max_tokens": 90},
        "model": {"nano": nano, "compute_dtype": "float32"},
        "evaluation": {"splits": ["held_out"]},
        "sampler": {"type": "vllm", "url": url},
    }
    return build(Config.model_validate(settings))


def seconds(parts: Parts, sampler: Sampler) -> float:
    """Play the episodes, and return the wall time."""
    agent = parts.agent.at(1.0)
    agent.sampler = sampler
    tasks = parts.env.panel.tasks
    assigned = [Assignment(tasks[n % len(tasks)].id, n, n) for n in range(EPISODES)]
    began = time.perf_counter()
    episodes, _ = collect(parts.env, assigned, agent, slots=EPISODES)
    taken = time.perf_counter() - began
    assert sum(len(episode.turns) for episode in episodes) == EPISODES * TURNS
    return taken


def main() -> int:
    """Print both times. Return 1 if independent episodes take too long."""
    with serving(SlowEngine()) as engine:
        parts = made(engine.url)
        parts.learner.publish(parts.agent.sampler, 0)
        free = seconds(parts, parts.agent.sampler)
        lockstep = seconds(parts, Lockstep(parts.agent.sampler))
        parts.close()
    ratio = free / lockstep
    print(f"{EPISODES} episodes x {TURNS} turns, answers lognormal with median {MEDIAN_SECONDS} s and sigma {SIGMA}")
    print(f"lockstep {lockstep:.1f} s, independent {free:.1f} s: {ratio:.2f} (required: at most {REQUIRED_RATIO})")
    return 0 if ratio <= REQUIRED_RATIO else 1


if __name__ == "__main__":
    raise SystemExit(main())
