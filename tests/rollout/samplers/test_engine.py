"""The real engine: vLLM's build for CPUs, in an environment of its own. `make test-engines` installs it and runs these.

An engine takes most of a minute to start, so few tests start one.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from transformers import Qwen2ForCausalLM, Qwen2Tokenizer

from hiper import api
from hiper.config import Config
from hiper.display.console import Display
from hiper.episode import read_episodes
from hiper.errors import UserError
from hiper.models.actor_critic import ActorCritic, RowBatch
from hiper.models.weights import PolicyWeights
from hiper.plan_execute.choices import response_pattern
from hiper.plan_execute.parse import parse_response
from hiper.rollout.engines.environment import find_environment
from hiper.rollout.samplers import Request, SamplingParams, Workplace, sample_all
from hiper.rollout.samplers.vllm import VllmOptions, VllmSampler
from hiper.rows import Row
from hiper.runs.folder import Run
from hiper.seeding import derive_seed
from hiper.training.build import Parts, build

pytestmark = pytest.mark.engine

TINY: dict[str, Any] = {
    "name": "tiny",
    "env": {"name": "corridor", "cells": 3, "max_turns": 4},
    "prompt": {"template": "terse", "max_tokens": 90},
    "model": {
        # vLLM's build for CPUs has kernels for heads of 32, 64 and more.
        "nano": {"layers": 2, "hidden": 64, "feed_forward": 96, "heads": 2, "kv_heads": 1, "max_positions": 512},
        "critic": "shared",
        "compute_dtype": "float32",
    },
    "warm_start": {"tasks": 12, "epochs": 20, "batch_turns": 16, "lr": 1e-2},
    "rollout": {"episodes": 8, "slots": 8, "max_response_tokens": 12},
    "learner": {"lr": 3e-3, "critic_lr": 1e-3, "minibatch_turns": 8, "kl_coef": 0.0},
    "evaluation": {"splits": ["held_out"], "every": 0, "final_tasks": 4},
    "training": {"iterations": 2, "checkpoint_every": 1, "threads": 1},
}


def config(**changes: Any) -> Config:
    return Config.model_validate(TINY | changes)


@pytest.fixture(scope="module", autouse=True)
def environment() -> None:
    try:
        find_environment()
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def parts() -> Parts:
    """A tiny policy with tied embeddings, as those of SmolLM2 and Qwen2.5-0.5B are."""
    made = build(config())
    assert made.learner.weights().model.config.tie_word_embeddings
    return made


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("logs")


@pytest.fixture(scope="module")
def sampler(parts: Parts, logs: Path) -> Iterator[VllmSampler]:
    """An engine that gets weights over the network."""
    one = VllmSampler(parts.tokenizer, VllmOptions(sync="gloo"))
    one.settle(Workplace(logs, tokens=200, slots=64))
    one.load(parts.learner.weights(), 0)
    yield one
    one.close()


def asked(words: int, count: int, temperature: float = 0.7) -> list[Request]:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(3, 150, (count,), generator=generator).tolist()
    prompts = [tuple(torch.randint(2, words, (length,), generator=generator).tolist()) for length in lengths]
    return [Request(p, SamplingParams(temperature, 24), derive_seed("engine", n)) for n, p in enumerate(prompts)]


@torch.no_grad()
def difference(weights: PolicyWeights, requests: list[Request], samples: list[Any]) -> float:
    rows = [Row(tuple(r.prompt), s.ids, None) for r, s in zip(requests, samples, strict=True)]
    model = ActorCritic(weights.model.eval(), None, critic="none")
    own = model(RowBatch.of(rows, 0, torch.device("cpu")), requests[0].params.temperature).logprobs_K
    return float((own - torch.tensor([p for s in samples for p in s.logprobs])).abs().max())


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_log_probabilities_are_the_learners(parts: Parts, sampler: VllmSampler, temperature: float):
    weights = parts.learner.weights()
    requests = asked(len(parts.tokenizer), 64, temperature)
    samples = sample_all(sampler, requests)
    assert difference(weights, requests, samples) < 1e-4
    assert any(sample.finished for sample in samples) or not temperature
    assert all(len(sample.ids) == 24 or sample.finished for sample in samples)


def test_equal_seeds_give_equal_responses_whoever_shares_the_batch(parts: Parts, sampler: VllmSampler):
    requests = asked(len(parts.tokenizer), 32)
    together, alone = sample_all(sampler, requests), [sampler.submit(r).result() for r in requests[:4]]
    assert [sample.ids for sample in together[:4]] == [sample.ids for sample in alone]
    assert len({sample.ids for sample in together}) > 16


def test_new_weights_arrive(parts: Parts, sampler: VllmSampler):
    """Embeddings are tied, and prompts are cached from the test before."""
    weights, requests = parts.learner.weights(), asked(len(parts.tokenizer), 32)
    before = sample_all(sampler, requests)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for parameter in weights.model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    sampler.load(weights, 1)
    after = sample_all(sampler, requests)
    assert [s.ids for s in after] != [s.ids for s in before]
    assert {sample.version for sample in after} == {1}
    assert difference(weights, requests, after) < 1e-4
    assert sampler.metrics()["engine/probe"] < 1e-4


def test_a_run_through_the_engine_ends_like_one_without(sampler: VllmSampler, tmp_path: Path):
    """It uses the engine that runs already, which serves a model of the same shape."""

    def train(folder: str, **changes: Any) -> Run:
        display = Display("hiper train tiny", Console(file=StringIO()))
        return api.train(config(**changes), out=tmp_path / folder, display=display)

    own = train("without")
    url = sampler._engines[0].client.url
    # The engine was started from a folder that says its embeddings are not tied. Weights come from folders here.
    run = train("with", sampler={"type": "vllm", "url": url, "untie": True})
    told = [record for record in run.metrics() if "success/all" in record]
    assert max(record["mismatch/max_abs"] for record in told) < 1e-4
    assert max(record["engine/probe"] for record in told) < 1e-4
    for iteration in (1, 2):
        episodes = list(read_episodes(run.training_episodes(iteration)))
        assert [e.task_id for e in episodes] == [e.task_id for e in read_episodes(own.training_episodes(iteration))]
        assert {turn.policy_version for episode in episodes for turn in episode.turns} == {iteration - 1}
    ahead = {"rollout": TINY["rollout"] | {"ahead": 1}, "learner": TINY["learner"] | {"importance_cap": 2.0}}
    run = train("ahead", sampler={"type": "vllm", "url": url, "sync": "gloo"}, **ahead)
    assert [record["update/importance"] > 0 for record in run.metrics() if "success/all" in record] == [True, True]


def test_a_killed_engine_is_started_again_and_no_answer_is_lost(parts: Parts, sampler: VllmSampler, logs: Path):
    weights, requests = parts.learner.weights(), asked(len(parts.tokenizer), 200)
    sampler.load(weights, 2)
    before = sample_all(sampler, requests)
    futures = [sampler.submit(request) for request in requests]
    time.sleep(0.3)
    (core,) = [int(p.name) for p in Path("/proc").glob("[0-9]*") if _is_core(p, sampler)]
    os.kill(core, signal.SIGKILL)
    again = [future.result() for future in futures]
    assert [sample.ids for sample in again] == [sample.ids for sample in before]
    assert {sample.version for sample in again} == {2}
    assert sampler.metrics()["engine/restarts"] == 1
    sampler.load(weights, 3)
    assert sampler.submit(requests[0]).result().version == 3
    assert (logs / "engine-0.log").read_text(errors="replace").count("\n$ ") == 2


def _is_core(process: Path, sampler: VllmSampler) -> bool:
    """Whether a process is the engine's core, which computes. The server's process is another one."""
    try:
        if b"VLLM::EngineCore" not in (process / "cmdline").read_bytes():
            return False
        parent = int((process / "stat").read_text().rsplit(")", 1)[1].split()[1])
        port = sampler._engines[0].client.url.rsplit(":", 1)[1].encode()
        return port in Path(f"/proc/{parent}/cmdline").read_bytes()
    except OSError:
        return False


def test_the_probe_finds_a_tied_head_that_stays_at_old_weights(parts: Parts, logs: Path):
    """A fault of the build for CPUs: with tied embeddings, it answers that weights were loaded, and keeps its head."""
    one = VllmSampler(parts.tokenizer, VllmOptions(untie=False))
    one.settle(Workplace(logs / "tied", tokens=200, slots=8))
    with pytest.raises(UserError, match=r"does not compute what the learner computes.*set sampler\.untie=true"):
        one.load(parts.learner.weights(), 0)
    one.close()


def test_adapters_travel_alone_and_responses_match_their_pattern(
    make_qwen2: Callable[..., Qwen2ForCausalLM], bpe_tokenizer: Qwen2Tokenizer, logs: Path
):
    pytest.importorskip("peft")
    from hiper.config import LoraConfig
    from hiper.models.lora import Adapters

    words = len(bpe_tokenizer) + 7
    sizes = {"hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1, "initializer_range": 0.1}
    model = make_qwen2(vocab_size=words, max_position_embeddings=512, eos_token_id=bpe_tokenizer.eos_token_id, **sizes)
    adapters = Adapters(model, LoraConfig(rank=4, alpha=8))
    one = VllmSampler(bpe_tokenizer, VllmOptions(sync="adapter"))
    one.settle(Workplace(logs / "adapter", tokens=500, slots=16, patterns=True))
    try:
        requests = asked(words, 16)
        for version in range(3):
            one.load(PolicyWeights(model), version)
            samples = sample_all(one, requests)
            assert difference(PolicyWeights(model), requests, samples) < 1e-4
            for tensor in adapters.tensors("policy").values():
                tensor.add_(0.3 * torch.randn(tensor.shape, generator=torch.Generator().manual_seed(version)))
        actions = ["go to cabinet 3", "open fridge 1"]
        pattern = response_pattern([*actions, "search[<query>]"])
        params = SamplingParams(1.0, 300)
        chosen = sample_all(one, [Request(r.prompt, params, r.seed, pattern) for r in requests])
    finally:
        one.close()
    texts = [str(bpe_tokenizer.decode(list(sample.ids[:-1]))) for sample in chosen]
    assert all(sample.finished for sample in chosen)
    for text in texts:  # a random model writes bytes that are no text, so lengths may differ from the pattern's

        def accepts(action: str) -> bool:
            return action in actions or action.startswith("search[")

        assert parse_response(text, previous_subgoal=None, accepts=accepts).invalid is None, ascii(text)
