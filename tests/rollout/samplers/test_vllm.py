"""The sampler vllm against a server that speaks as vLLM does. `test_engine.py` asks the real one."""

from __future__ import annotations

import itertools
import json
import math
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen2ForCausalLM

from helpers.fake_engine import Answer, FakeEngine, fake_environment, serving
from hiper.errors import DivergedError, UserError
from hiper.models.weights import PolicyWeights
from hiper.processes import Processes
from hiper.rollout.engines import export, network, probe, sync
from hiper.rollout.engines.environment import VARIABLE, Environment, check_version, find_environment
from hiper.rollout.engines.inside import hiper_weights
from hiper.rollout.engines.pool import kv_gib
from hiper.rollout.engines.process import INSIDE, Launch, told_trouble
from hiper.rollout.samplers import Request, SamplingParams, Workplace, make_sampler, sample_all
from hiper.rollout.samplers.transformers import TransformersOptions, TransformersSampler
from hiper.rollout.samplers.vllm import VllmOptions, VllmSampler
from hiper.seeding import derive_seed

MakeQwen2 = Callable[..., Qwen2ForCausalLM]
PARAMS = SamplingParams(temperature=0.8, max_tokens=12)


class Tokens:
    """All that the sampler asks of a tokenizer."""

    eos_token_id, pad_token_id = 1, 0

    def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
        return {"input_ids": [7, 8, 9]}


def asked(count: int, seed: int = 0, params: SamplingParams = PARAMS) -> list[Request]:
    prompts = [tuple(random.Random(n).choices(range(2, 40), k=3 + n % 9)) for n in range(count)]
    return [Request(prompt, params, derive_seed(seed, n)) for n, prompt in enumerate(prompts)]


def own(model: Qwen2ForCausalLM, requests: list[Request]) -> list[Any]:
    """What the sampler in this process answers."""
    sampler = TransformersSampler(cast(Any, Tokens()), TransformersOptions(batch_tokens=100_000))
    sampler.load(PolicyWeights(model), 0)
    return sample_all(sampler, requests)


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    with serving(FakeEngine()) as one:
        yield one


@pytest.fixture
def made() -> Iterator[Callable[..., VllmSampler]]:
    """Makes samplers that are closed at the end."""
    samplers: list[VllmSampler] = []

    def make(**options: Any) -> VllmSampler:
        sampler = VllmSampler(cast(Any, Tokens()), VllmOptions(**options))
        samplers.append(sampler)
        return sampler

    yield make
    for sampler in samplers:
        sampler.close()


Make = Callable[..., VllmSampler]


def changed(model: Qwen2ForCausalLM, seed: int = 5) -> Qwen2ForCausalLM:
    """The same model after a large update."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


# --- Answers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_answers_are_those_of_the_sampler_in_this_process(
    engine: FakeEngine, made: Make, make_qwen2: MakeQwen2, temperature: float
):
    model, requests = make_qwen2(), asked(20, params=SamplingParams(temperature, 12))
    sampler = made(url=engine.url)
    for version in (3, 4):
        sampler.load(PolicyWeights(model), version)
        samples, expected = sample_all(sampler, requests), own(model, requests)
        assert [sample.ids for sample in samples] == [sample.ids for sample in expected]
        assert [sample.finished for sample in samples] == [sample.finished for sample in expected]
        assert {sample.version for sample in samples} == {version}
        for sample, other in zip(samples, expected, strict=True):
            assert sample.logprobs == pytest.approx(other.logprobs, abs=1e-5)
        changed(model)
    assert 0 < sum(sample.finished for sample in samples) < 20  # both ways to end occur


def test_hundreds_of_requests_are_under_way_at_once(engine: FakeEngine, made: Make, make_qwen2: MakeQwen2):
    sampler, all_there = made(url=engine.url), threading.Barrier(300)
    sampler.load(PolicyWeights(make_qwen2()), 0)

    def slowly(body: Answer) -> Answer:
        all_there.wait(60)  # nobody is answered before all have asked
        ids = [2 + body["token_ids"][0] % 30]
        content = [{"token_id": ids[0], "logprob": -1.0}]
        versions = [{"version": "0", "start": 0, "end": 1}]
        choice = {"token_ids": ids, "logprobs": {"content": content}, "finish_reason": "length"}
        return {"choices": [choice | {"weight_versions": versions}]}

    engine.generate = slowly  # type: ignore[method-assign]
    requests = asked(300, params=SamplingParams(1.0, 1))
    samples = sample_all(sampler, requests)
    assert [sample.ids for sample in samples] == [(2 + request.prompt[0] % 30,) for request in requests]


def test_requests_go_to_the_engine_with_the_fewest(made: Make, make_qwen2: MakeQwen2):
    with serving(FakeEngine()) as one, serving(FakeEngine()) as other:
        sampler, requests, model = made(url=[one.url, other.url]), asked(20), make_qwen2()
        sampler.load(PolicyWeights(model), 0)
        for each in (one, other):
            each.calls.clear()
        assert [s.ids for s in sample_all(sampler, requests)] == [s.ids for s in own(model, requests)]
        assert min(one.calls.count("/inference/v1/generate"), other.calls.count("/inference/v1/generate")) >= 5


def test_a_cancelled_request_and_a_closed_sampler(engine: FakeEngine, make_qwen2: MakeQwen2):
    sampler = VllmSampler(cast(Any, Tokens()), VllmOptions(url=engine.url))
    sampler.load(PolicyWeights(make_qwen2()), 0)
    engine.delay = lambda: 30.0
    futures: list[Future[Any]] = [sampler.submit(request) for request in asked(4)]
    assert futures[0].cancel()
    sampler.close()
    assert all(future.cancelled() for future in futures)
    sampler.close()  # twice is no harm


def test_without_weights_there_is_no_answer(engine: FakeEngine, made: Make):
    with pytest.raises(RuntimeError, match="call load"):
        made(url=engine.url).submit(asked(1)[0]).result()


# --- Weights and the probe ------------------------------------------------------------------------------------------


def test_weights_are_written_loaded_and_deleted(engine: FakeEngine, made: Make, make_qwen2: MakeQwen2, tmp_path: Path):
    (tmp_path / f"hiper-weights-{2**22 + 1}-killed").mkdir()  # no process has this number
    sampler = made(url=engine.url, folder=str(tmp_path))
    for version in range(3):
        sampler.load(PolicyWeights(make_qwen2(seed=version)), version)
        (home,) = tmp_path.iterdir()
        assert [path.name for path in home.iterdir()] == [f"weights-{version}"]
    assert [Path(folder).name for folder in engine.loads] == ["scrambled", "weights-0", "weights-1", "weights-2"]
    loading = engine.calls.index("/collective_rpc")
    assert engine.calls[loading : loading + 3] == ["/collective_rpc", "/update_weight_version", "/reset_prefix_cache"]
    assert sampler.metrics()["engine/probe"] < 1e-5
    sampler.close()
    assert not list(tmp_path.iterdir())


def test_a_head_that_stays_is_found_at_the_first_load(made: Make, make_qwen2: MakeQwen2):
    """The engine holds the learner's very weights, so a probe alone would find nothing until many updates later."""
    with serving(FakeEngine(stale_head=True)) as engine:
        with pytest.raises(UserError, match=r"embeddings are tied.* set sampler.untie=true"):
            made(url=engine.url).load(PolicyWeights(make_qwen2()), 0)
        with pytest.raises(UserError, match=r"differ by [1-9].* rounding in float32 explains 0.001"):
            made(url=engine.url, untie=True).load(PolicyWeights(make_qwen2()), 0)


def test_a_cache_of_older_weights_is_found(made: Make, make_qwen2: MakeQwen2):
    with serving(FakeEngine(stale_cache=True)) as engine, pytest.raises(UserError, match="does not compute what"):
        made(url=engine.url).load(PolicyWeights(make_qwen2()), 0)


def test_log_probabilities_without_the_temperature_are_found(made: Make, make_qwen2: MakeQwen2):
    with serving(FakeEngine(raw_logprobs=True)) as engine, pytest.raises(UserError, match="processed_logprobs"):
        made(url=engine.url).load(PolicyWeights(make_qwen2()), 0)


def test_weights_that_diverged_are_told_as_such(engine: FakeEngine, made: Make, make_qwen2: MakeQwen2):
    sampler, model = made(url=engine.url), make_qwen2()
    sampler.load(PolicyWeights(model), 0)
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight.fill_(math.nan)
    whole = FakeEngine(model=make_qwen2(), version="1")
    engine.generate = whole.generate  # type: ignore[method-assign]
    with pytest.raises(DivergedError, match="NaN"):
        sampler.load(PolicyWeights(model), 1)


def test_prompts_of_the_probe_fit_and_fill_a_block_of_the_cache():
    lengths = [len(request.prompt) for request in probe.requests(40, 512)]
    assert lengths[-1] == probe.LONGEST_PROMPT
    assert max(lengths) > 2 * 128
    for room in (2, 5, 40):
        for request in probe.requests(40, room):
            assert 1 <= len(request.prompt) <= room - request.params.max_tokens
            assert set(request.prompt) <= set(range(40))


def test_an_untied_copy_computes_the_same(make_qwen2: MakeQwen2, tmp_path: Path):
    model = make_qwen2()
    export.write_model(PolicyWeights(model), tmp_path / "one", untie=True)
    export.write_model(PolicyWeights(model), tmp_path / "other", untie=False)
    ids = torch.arange(2, 30).unsqueeze(0)
    for name, tied in (("one", False), ("other", True)):
        config = json.loads((tmp_path / name / "config.json").read_text())
        assert (config["tie_word_embeddings"], (tmp_path / name / export.HEAD_FILE).exists()) == (tied, not tied)
        loaded = AutoModelForCausalLM.from_pretrained(tmp_path / name)
        assert torch.equal(loaded(ids).logits, model(ids).logits)


def test_an_untied_copy_of_a_model_in_several_files(
    make_qwen2: MakeQwen2, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    model = make_qwen2()
    monkeypatch.setattr(model, "save_pretrained", partial(model.save_pretrained, max_shard_size="10KB"))
    export.write_model(PolicyWeights(model), tmp_path / "model", untie=True)
    assert len(list((tmp_path / "model").glob("*.safetensors"))) > 3
    ids = torch.arange(2, 30).unsqueeze(0)
    assert torch.equal(AutoModelForCausalLM.from_pretrained(tmp_path / "model")(ids).logits, model(ids).logits)


def test_scrambled_weights_differ_everywhere(make_qwen2: MakeQwen2, tmp_path: Path):
    model = make_qwen2()
    export.write_model(PolicyWeights(model), tmp_path / "scrambled", untie=False, scramble=True)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "scrambled").state_dict()
    for name, tensor in model.state_dict().items():
        if bool(tensor.any()):  # biases begin as zeros, which stay
            assert (loaded[name] != tensor).float().mean() > 0.99, name
        assert loaded[name].isfinite().all()


def test_weights_go_out_in_the_number_format_of_the_learners_passes(make_qwen2: MakeQwen2, tmp_path: Path):
    weights = PolicyWeights(make_qwen2(), autocast=torch.bfloat16)
    export.write_model(weights, tmp_path / "model", untie=True)
    assert json.loads((tmp_path / "model/config.json").read_text())["dtype"] == "bfloat16"
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype="auto")
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.bfloat16}


def with_adapter(make_qwen2: MakeQwen2) -> tuple[Qwen2ForCausalLM, Any]:
    from hiper.config import LoraConfig
    from hiper.models.lora import Adapters

    model = make_qwen2()
    adapters = Adapters(model, LoraConfig(rank=2, alpha=4))
    adapters.add("critic")
    for name, tensor in adapters.tensors("policy").items():
        torch.nn.init.normal_(tensor, std=0.3, generator=torch.Generator().manual_seed(len(name)))
    return model, adapters


def test_adapters_are_added_into_the_weights(make_qwen2: MakeQwen2, engine: FakeEngine, made: Make, tmp_path: Path):
    pytest.importorskip("peft")
    model, _ = with_adapter(make_qwen2)
    names = {name.removesuffix(".weight") for name, _ in export.whole(PolicyWeights(model))}
    assert not any("lora" in name or "base_layer" in name for name in names)
    sampler = made(url=engine.url)
    sampler.load(PolicyWeights(model), 0)  # the probe compares it with the model and its adapter
    requests = asked(5)
    assert [s.ids for s in sample_all(sampler, requests)] == [s.ids for s in own(model, requests)]
    assert model._hf_peft_config_loaded


def test_adapters_travel_alone(make_qwen2: MakeQwen2, engine: FakeEngine, made: Make, tmp_path: Path):
    """The base goes out once, without the adapter in it. Every load is probed."""
    pytest.importorskip("peft")
    model, adapters = with_adapter(make_qwen2)
    base = {name: tensor.clone() for name, tensor in export.whole(PolicyWeights(model), merged=False)}
    sampler, requests = made(url=engine.url, sync="adapter", folder=str(tmp_path)), asked(5)
    answers = []
    for version in range(3):
        sampler.load(PolicyWeights(model), version)
        answers.append([s.ids for s in sample_all(sampler, requests)])
        assert answers[-1] == [s.ids for s in own(model, requests)]
        assert sampler.metrics()["engine/probe"] < 1e-4
        (home,) = tmp_path.iterdir()
        assert sorted(path.name for path in home.iterdir()) == ["base", f"weights-{version}"]
        for tensor in adapters.tensors("policy").values():
            tensor.add_(0.3 * torch.randn(tensor.shape, generator=torch.Generator().manual_seed(version)))
    assert answers[0] != answers[1] != answers[2]
    names = [Path(folder).name for folder in engine.loads]
    assert names == ["scrambled", "base", "weights-0", "weights-1", "weights-2"]
    assert all(torch.equal(tensor, base[name]) for name, tensor in engine.model.state_dict().items() if name in base)
    assert len(base) > 20


def test_an_engine_that_keeps_the_adapter_before_is_found(make_qwen2: MakeQwen2, engine: FakeEngine, made: Make):
    pytest.importorskip("peft")
    model, adapters = with_adapter(make_qwen2)
    sampler = made(url=engine.url, sync="adapter")
    sampler.load(PolicyWeights(model), 0)
    for tensor in adapters.tensors("policy").values():
        tensor.mul_(3)
    engine.keeps_adapter = True
    with pytest.raises(UserError, match="does not compute what the learner computes"):
        sampler.load(PolicyWeights(model), 1)


def test_weights_travel_through_memory(venv: Path, made: Make, make_qwen2: MakeQwen2, monkeypatch: pytest.MonkeyPatch):
    """A GPU is not at hand: what torch would send in place of a tensor is the tensor. The conversation is vLLM's."""
    monkeypatch.setattr(sync, "gpu_of", lambda tensor: "GPU-0")
    monkeypatch.setattr(sync, "reduce_tensor", lambda tensor: (None, tensor.numpy()))
    monkeypatch.setattr(sync, "release", lambda: None)
    monkeypatch.setattr(sync, "shares_gpu", lambda weights: True)
    sampler, requests, model = made(venv=str(venv), sync="ipc"), asked(5), make_qwen2()
    sampler.settle(Workplace(tokens=100))
    for version in range(2):
        sampler.load(PolicyWeights(changed(model, version)), version)
        assert [s.ids for s in sample_all(sampler, requests)] == [s.ids for s in own(model, requests)]
    url = sampler._engines[0].client.url
    calls = httpx.get(f"{url}/calls", trust_env=False).json()["calls"]
    update = ["/init_weight_transfer_engine", "/start_weight_update", "/update_weights", "/finish_weight_update"]
    control = [call for call in calls if "weight" in call or call == "/collective_rpc"]
    assert control == 2 * [*update, "/update_weight_version"]
    with pytest.raises(httpx.HTTPError):
        httpx.post(f"{url}/die", json={}, trust_env=False)
    again = sample_all(sampler, requests)  # started from scrambled weights, it gets the present ones once more
    assert [s.ids for s in again] == [s.ids for s in own(model, requests)]


def test_memory_of_a_gpu_needs_a_gpu(make_qwen2: MakeQwen2, engine: FakeEngine, made: Make):
    with pytest.raises(UserError, match=r"sampler.sync=ipc needs a GPU .* use sampler.sync=folder"):
        made(url=engine.url, sync="ipc").load(PolicyWeights(make_qwen2()), 0)


def folder_of(model: Qwen2ForCausalLM, folder: Path) -> str:
    """A model of the same shape, as somebody starts an engine with."""
    export.write_model(PolicyWeights(model), folder, untie=False)
    return str(folder)


def test_weights_travel_over_the_network_to_an_engine_that_sees_no_folder(
    made: Make, engine: FakeEngine, make_qwen2: MakeQwen2, tmp_path: Path
):
    model, requests = make_qwen2(), asked(5)
    engine.load(folder_of(model, tmp_path / "model"))
    before = engine.model.state_dict()
    sampler = made(url=engine.url, sync="gloo")
    sampler.load(PolicyWeights(model), 0)
    assert engine.loads[1:] == ["network", "network"]  # scrambled weights, then those of the learner
    assert all(torch.equal(tensor, before[name]) for name, tensor in engine.model.state_dict().items())
    for version in range(1, 3):
        sampler.load(PolicyWeights(changed(model, version)), version)
        assert [s.ids for s in sample_all(sampler, requests)] == [s.ids for s in own(model, requests)]


def test_an_adapter_travels_over_the_network_within_the_weights(
    made: Make, engine: FakeEngine, make_qwen2: MakeQwen2, tmp_path: Path
):
    pytest.importorskip("peft")
    engine.load(folder_of(make_qwen2(), tmp_path / "model"))
    model, adapters = with_adapter(make_qwen2)
    sampler, requests = made(url=engine.url, sync="gloo"), asked(5)
    sampler.load(PolicyWeights(model), 0)
    for tensor in adapters.tensors("policy").values():
        tensor.mul_(3)
    sampler.load(PolicyWeights(model), 1)
    assert [s.ids for s in sample_all(sampler, requests)] == [s.ids for s in own(model, requests)]


def test_an_engine_that_starts_again_gets_weights_over_the_network(venv: Path, made: Make, make_qwen2: MakeQwen2):
    sampler, requests, model = made(venv=str(venv), sync="gloo"), asked(5), make_qwen2()
    sampler.settle(Workplace(tokens=100))
    sampler.load(PolicyWeights(model), 0)
    with pytest.raises(httpx.HTTPError):
        httpx.post(f"{sampler._engines[0].client.url}/die", json={}, trust_env=False)
    assert [s.ids for s in sample_all(sampler, requests)] == [s.ids for s in own(model, requests)]


def test_an_engine_without_the_extension_is_told_how_to_start(made: Make, engine: FakeEngine, make_qwen2: MakeQwen2):
    engine.extended = False
    with pytest.raises(UserError, match=r"--worker-extension-cls hiper_weights.Receiver, and with PYTHONPATH .*\.py"):
        made(url=engine.url, sync="gloo").load(PolicyWeights(make_qwen2()), 0)


def test_an_engine_that_fails_in_the_middle_of_a_delivery_is_named(
    made: Make, engine: FakeEngine, make_qwen2: MakeQwen2, tmp_path: Path
):
    model = make_qwen2()
    engine.load(folder_of(model, tmp_path / "model"))
    sampler = made(url=engine.url, sync="gloo")
    sampler.load(PolicyWeights(model), 0)
    engine.dies_receiving = 3
    with pytest.raises(UserError, match=r"failed while loading weights: .* no memory is left"):
        sampler.load(PolicyWeights(model), 1)


def test_workers_that_do_not_come_are_not_awaited_for_ever(
    made: Make, engine: FakeEngine, make_qwen2: MakeQwen2, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(hiper_weights, "JOIN_SECONDS", 0.5)
    monkeypatch.setattr(network, "ANSWER_SECONDS", 0.5)
    engine.stays_away = True
    began = time.monotonic()
    with pytest.raises(UserError, match=r"weights did not reach it \(1 of its 1 workers did not come to take them\)"):
        made(url=engine.url, sync="gloo").load(PolicyWeights(make_qwen2()), 0)
    assert time.monotonic() - began < 20  # the fake engine holds its answer back for 30 s
    engine.ended.set()


def test_a_delivery_ends_as_soon_as_the_engine_has_failed(
    made: Make, engine: FakeEngine, make_qwen2: MakeQwen2, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(hiper_weights, "JOIN_SECONDS", 60.0)
    engine.stays_away = True
    engine.ended.set()
    began = time.monotonic()
    with pytest.raises(UserError, match="the worker never came"):
        made(url=engine.url, sync="gloo").load(PolicyWeights(make_qwen2()), 0)
    assert time.monotonic() - began < 20


def test_nccl_needs_a_gpu_and_engines_elsewhere(make_qwen2: MakeQwen2, engine: FakeEngine, made: Make):
    with pytest.raises(UserError, match=r"sampler.sync=nccl .* sampler.sync=gloo works everywhere"):
        made(url=engine.url, sync="nccl").load(PolicyWeights(make_qwen2()), 0)


def test_the_engines_module_knows_nothing_of_hiper():
    """It is the only file of ours that an engine sees, so it must work where hiper is not installed."""
    code = "import sys, hiper_weights; assert not [m for m in sys.modules if m == 'hiper' or m.startswith('hiper.')]"
    subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(INSIDE)}, check=True)


def test_adapters_alone_need_lora(make_qwen2: MakeQwen2, engine: FakeEngine, made: Make):
    with pytest.raises(UserError, match=r"sampler.sync=adapter .* set learner.lora"):
        made(url=engine.url, sync="adapter").load(PolicyWeights(make_qwen2()), 0)


# --- What engines do wrong -------------------------------------------------------------------------------------------


def spoilt(**fields: Any) -> Callable[[Answer], Answer]:
    def spoil(answer: Answer) -> Answer:
        return {"choices": [answer["choices"][0] | fields]}

    return spoil


def with_logprob(value: float) -> Callable[[Answer], Answer]:
    def spoil(answer: Answer) -> Answer:
        answer["choices"][0]["logprobs"]["content"][0]["logprob"] = value
        return answer

    return spoil


def with_token(token: Any) -> Callable[[Answer], Answer]:
    def spoil(answer: Answer) -> Answer:
        choice = answer["choices"][0]
        choice["token_ids"][0] = choice["logprobs"]["content"][0]["token_id"] = token
        return answer

    return spoil


FAULTS: dict[str, tuple[Callable[[Answer], Answer | None], str]] = {
    "no JSON": (lambda answer: {"raw": '{"choices": ['}, "no JSON"),
    "another form": (lambda answer: {"text": "hello"}, "another form"),
    "two choices": (lambda answer: {"choices": answer["choices"] * 2}, "another form"),
    "no tokens": (spoilt(token_ids=[], logprobs={"content": []}), "0 tokens"),
    "fewer log-probabilities": (spoilt(logprobs={"content": []}), "do not match"),
    "no log-probabilities": (spoilt(logprobs=None), "another form"),
    "NaN": (with_logprob(math.nan), "NaN or out of range"),
    "what vLLM writes for NaN": (with_logprob(-9999.0), "NaN or out of range"),
    "more than certain": (with_logprob(0.5), "NaN or out of range"),
    "a token beyond the vocabulary": (with_token(40), "beyond the model's 40: 40"),
    "a token of text": (with_token("hello"), "another form"),
    "another version": (spoilt(weight_versions=[{"version": "2", "start": 0, "end": 9}]), "version 2, not 7"),
    "two versions": (spoilt(weight_versions=[{"version": "6"}, {"version": "7"}]), "version 6, 7, not 7"),
    "no version": (spoilt(weight_versions=None), "another form"),
    "cut off": (spoilt(finish_reason="abort"), "ended a response"),
    "silence": (lambda answer: None, "cannot be reached"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_nonsense_of_an_engine_elsewhere_is_named(engine: FakeEngine, made: Make, make_qwen2: MakeQwen2, fault: str):
    sampler = made(url=engine.url)
    sampler.load(PolicyWeights(make_qwen2()), 7)
    engine.faults += [FAULTS[fault][0]] * 3
    with pytest.raises(UserError, match=FAULTS[fault][1]) as told:
        sampler.submit(asked(1)[0]).result()
    assert f"the engine at {engine.url} failed while sampling" in str(told.value)
    assert "start it anew, then resume" in str(told.value)


def test_a_connection_that_breaks_is_no_fault_of_the_engine(engine: FakeEngine, made: Make, make_qwen2: MakeQwen2):
    sampler, model, requests = made(url=engine.url), make_qwen2(), asked(10)
    sampler.load(PolicyWeights(model), 0)
    engine.faults += [lambda answer: None] * 2
    assert [sample.ids for sample in sample_all(sampler, requests)] == [sample.ids for sample in own(model, requests)]


def test_an_engine_that_stalls_is_named(engine: FakeEngine, made: Make, make_qwen2: MakeQwen2):
    sampler = made(url=engine.url, timeout=1.5)
    sampler.load(PolicyWeights(make_qwen2()), 0)
    engine.delay = lambda: 5.0
    with pytest.raises(UserError, match=r"no answer to /inference/v1/generate within 1\.5 s"):
        sampler.submit(asked(1)[0]).result()


# --- What is no engine, or the wrong one -----------------------------------------------------------------------------


def test_nobody_at_the_address(made: Make, make_qwen2: MakeQwen2):
    with pytest.raises(UserError, match=r"does not answer as vLLM does: is sampler.url right"):
        made(url="http://127.0.0.1:9").load(PolicyWeights(make_qwen2()), 0)


def test_a_wrong_address_shows_before_any_weights(engine: FakeEngine, made: Make):
    """A warm start of hours may come before the first weights."""
    with pytest.raises(UserError, match=r"127.0.0.1:9 does not answer as vLLM does"):
        made(url=[engine.url, "http://127.0.0.1:9"]).settle(Workplace())
    made(url="http://127.0.0.1:9").settle(Workplace(processes=Processes(rank=1, count=2)))  # the first process says it
    made(url=engine.url).settle(Workplace())


def test_another_program_at_the_address(engine: FakeEngine, made: Make, make_qwen2: MakeQwen2):
    engine.get = lambda path: (200, {"hello": "world"})  # type: ignore[method-assign]
    with pytest.raises(UserError, match="does not answer as vLLM does"):
        made(url=engine.url).load(PolicyWeights(make_qwen2()), 0)


def test_a_server_without_the_routes_that_load_weights(engine: FakeEngine, made: Make, make_qwen2: MakeQwen2):
    engine.post = lambda path, body: (404, {"detail": "Not Found"})  # type: ignore[method-assign]
    with pytest.raises(UserError, match=r"does not serve /collective_rpc: .*VLLM_SERVER_DEV_MODE=1"):
        made(url=engine.url).load(PolicyWeights(make_qwen2()), 0)


def test_a_version_that_does_not_fit(engine: FakeEngine, made: Make, make_qwen2: MakeQwen2):
    engine.vllm = "0.11.2"
    with pytest.raises(UserError, match=r"holds vLLM 0\.11\.2, and .* vLLM 0\.32 or later, below 0\.34"):
        made(url=engine.url).load(PolicyWeights(make_qwen2()), 0)


@pytest.mark.parametrize(
    ("version", "fits"), [("0.31.9", False), ("0.32.0", True), ("0.33.1+cpu", True), ("1.0", False)]
)
def test_versions_that_fit(version: str, fits: bool):
    if fits:
        check_version(version, "here")
    else:
        with pytest.raises(UserError, match="hiper engine install"):
            check_version(version, "here")


def test_another_tokenizer_than_the_learners(engine: FakeEngine, made: Make, make_qwen2: MakeQwen2):
    engine.tokens = [7, 8, 10]
    with pytest.raises(UserError, match=r"another tokenizer .*\[7, 8, 10\].*\[7, 8, 9\]"):
        made(url=engine.url).load(PolicyWeights(make_qwen2()), 0)
    engine.tokens = [7, 8, 9]
    made(url=engine.url).load(PolicyWeights(make_qwen2()), 0)


def test_a_folder_that_the_engine_does_not_see(engine: FakeEngine, made: Make, make_qwen2: MakeQwen2):
    engine.post = lambda path, body: (  # type: ignore[method-assign]
        (500, {"error": {"message": "no such folder"}}) if path == "/collective_rpc" else (200, {})
    )
    with pytest.raises(UserError, match=r"cannot load weights from .*no such folder.*sampler\.folder"):
        made(url=engine.url).load(PolicyWeights(make_qwen2()), 0)


def test_no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "none"))
    with pytest.raises(UserError, match=f"{tmp_path}/none is no Python environment: install one with `hiper engine"):
        make_sampler("vllm", cast(Any, Tokens()), {})
    folder = fake_environment(tmp_path / "old")
    (info,) = folder.glob("lib/*/site-packages/*.dist-info")
    info.rename(info.with_name("vllm-0.20.1.dist-info"))
    with pytest.raises(UserError, match=r"holds vLLM 0\.20\.1"):
        make_sampler("vllm", cast(Any, Tokens()), {"venv": str(folder)})
    info.with_name("vllm-0.20.1.dist-info").rename(info.with_name("other-1.0.dist-info"))
    with pytest.raises(UserError, match="has no vLLM in it"):
        find_environment(str(folder))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"launch": False}, "give its url"),
        ({"url": "localhost:8000"}, "does not begin with http://"),
        ({"url": "http://"}, "names no machine"),
        ({"url": "http://a b:80"}, "names no machine"),
        ({"url": "http://[bad"}, "is no address"),
        ({"url": ["http://127.0.0.1:8000", "http://127.0.0.1:99999"]}, "is no address: Port out of range"),
        ({"url": "http://127.0.0.1:eight"}, "is no address: Port could not be cast"),
        ({"timeout": 0}, "timeout"),
        ({"urll": "http://a"}, "did you mean 'url'"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], said: str):
    with pytest.raises(UserError, match=said):
        make_sampler("vllm", cast(Any, Tokens()), options)


# --- Engines that this process starts --------------------------------------------------------------------------------


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    return fake_environment(tmp_path / "venv")


def test_a_killed_engine_is_started_again_and_answers_every_request(
    venv: Path, made: Make, make_qwen2: MakeQwen2, tmp_path: Path
):
    sampler, model, requests = made(venv=str(venv), folder=str(tmp_path)), make_qwen2(), asked(30)
    sampler.settle(Workplace(tmp_path / "run", tokens=60, slots=30))
    sampler.load(PolicyWeights(model), 0)
    expected = [sample.ids for sample in own(model, requests)]
    futures = [sampler.submit(request) for request in requests]
    with pytest.raises(httpx.HTTPError):
        httpx.post(f"{sampler._engines[0].client.url}/die", json={}, trust_env=False)
    assert [future.result().ids for future in futures] == expected
    assert sampler.metrics()["engine/restarts"] == 1
    sampler.load(PolicyWeights(changed(model)), 1)  # and takes weights as before
    assert sampler.submit(requests[0]).result().version == 1
    sampler._engines[0].client._timeout = 4.0
    httpx.post(f"{sampler._engines[0].client.url}/stall", json={}, trust_env=False)
    assert sampler.submit(requests[1]).result().ids == own(model, requests[:2])[1].ids
    assert sampler.metrics()["engine/restarts"] == 2
    log = (tmp_path / "run" / "engine-0.log").read_text()
    assert log.count("$ ") == 3
    assert "--logprobs-mode processed_logprobs" in log
    assert "--max-model-len 128" in log  # of the model: the probe would like more
    process = sampler._engines[0].process
    sampler.close()
    assert process is not None
    assert process.ended


def test_an_engine_that_fails_again_and_again_is_given_up(venv: Path, made: Make, make_qwen2: MakeQwen2):
    sampler = made(venv=str(venv))
    sampler.load(PolicyWeights(make_qwen2()), 0)
    pool = sampler._pool
    assert pool is not None
    pool.engines[0].restarts_since_load = 3
    with pytest.raises(httpx.HTTPError):
        httpx.post(f"{pool.engines[0].client.url}/die", json={}, trust_env=False)
    with pytest.raises(UserError, match=r"failed while sampling: it cannot be reached.*Its log is .*engine-0\.log"):
        sampler.submit(asked(1)[0]).result()


def test_an_engine_that_does_not_start(made: Make, make_qwen2: MakeQwen2, tmp_path: Path):
    said = "(EngineCore pid=7) ERROR 11-30 18:32:02 [core.py:1512] ValueError: model type qwen9 is not supported"
    folder = fake_environment(tmp_path / "venv", starts=f"echo '{said}'; exit 3")
    with pytest.raises(UserError, match="ended while it started: ValueError: model type qwen9 is not supported"):
        made(venv=str(folder)).load(PolicyWeights(make_qwen2()), 0)
    slow = fake_environment(tmp_path / "slow", starts="sleep 60")
    with pytest.raises(UserError, match="not ready after 1 s"):
        made(venv=str(slow), start_timeout=1).load(PolicyWeights(make_qwen2()), 0)


def test_a_port_that_is_taken(venv: Path, made: Make, make_qwen2: MakeQwen2):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} is taken by another program.*sampler.port"):
            made(venv=str(venv), port=port).load(PolicyWeights(make_qwen2()), 0)


def test_an_engine_on_the_learners_gpu_sleeps_while_it_learns(
    made: Make, make_qwen2: MakeQwen2, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """The order of the calls alone: no GPU is here."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    sampler = made(venv=str(fake_environment(tmp_path / "venv", package="vllm")))
    sampler.settle(Workplace(tmp_path / "run"))
    model = make_qwen2()
    sampler.load(PolicyWeights(model), 0)
    sampler.rest()
    sampler.load(PolicyWeights(changed(model)), 1)
    calls = httpx.get(f"{sampler._engines[0].client.url}/calls", trust_env=False).json()["calls"]
    between = calls[calls.index("/sleep?level=2&mode=wait") :]
    assert between[:6] == [
        "/sleep?level=2&mode=wait",
        "/wake_up?tags=weights",
        "/collective_rpc",
        "/wake_up?tags=kv_cache",
        "/update_weight_version",
        "/reset_prefix_cache",
    ]
    assert sampler.submit(asked(1)[0]).result().version == 1
    assert "--enable-sleep-mode" in (tmp_path / "run/engine-0.log").read_text()


def launch(environment: Environment, **settings: Any) -> Launch:
    usual: dict[str, Any] = {"most_tokens": 640, "sequences": 128, "kv_gib": 2, "memory": 0.4}
    return Launch(environment=environment, dtype=torch.bfloat16, **usual | settings)


def test_how_an_engine_is_started(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    monkeypatch.setenv("RANK", "3")
    gpu = launch(Environment(Path("/env"), "0.33.0", cpu=False), gpus=(1, 2), extra=("--max-num-seqs", "7"))
    command = gpu.command(Path("/weights"), 8000)
    assert command[:3] == ["/env/bin/python", "-m", "vllm.entrypoints.openai.api_server"]
    pairs = set(itertools.pairwise(command))
    assert {("--dtype", "bfloat16"), ("--tensor-parallel-size", "2"), ("--gpu-memory-utilization", "0.4")} <= pairs
    assert command[-2:] == ["--max-num-seqs", "7"]
    variables = gpu.variables()
    assert (variables["CUDA_VISIBLE_DEVICES"], variables["VLLM_SERVER_DEV_MODE"]) == ("5,6", "1")
    assert "RANK" not in variables
    assert "--skip-tokenizer-init" in command
    assert "--enable-lora" not in command
    more = replace(gpu, adapter_rank=20, tokenizer=Path("/words"))
    command = more.command(Path("/weights"), 8000)
    assert {("--max-lora-rank", "32"), ("--tokenizer", "/words")} <= set(itertools.pairwise(command))
    assert "--skip-tokenizer-init" not in command
    assert more.variables()["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "1"
    cpu = launch(Environment(Path("/env"), "0.32.0", cpu=True), most_tokens=9_000)
    pairs = set(itertools.pairwise(cpu.command(Path("/weights"), 8000)))
    assert ("--max-num-batched-tokens", "9000") in pairs  # at least one whole prompt, as it is not read in parts
    assert cpu.variables()["VLLM_CPU_KVCACHE_SPACE"] == "2"
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "9")
    assert cpu.variables()["VLLM_CPU_KVCACHE_SPACE"] == "9"


def test_memory_for_keys_and_values(make_qwen2: MakeQwen2):
    weights = PolicyWeights(make_qwen2())  # two layers, with two heads of size 8 for keys and values
    each = 2 * 2 * 2 * 8 * 4  # keys and values, layers, heads, size, bytes
    assert kv_gib(weights, 2**30 // each, 3) == 3
    assert kv_gib(weights, 100, 1) == 1
    assert kv_gib(weights, 2**40, 2**10) * 4 <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30 + 4


KILLED = """
import sys, time
sys.path.insert(0, {tests!r})
from pathlib import Path
from transformers import AutoModelForCausalLM
from hiper.models.weights import PolicyWeights
from hiper.rollout.samplers import Workplace
from hiper.rollout.samplers.vllm import VllmOptions, VllmSampler
from rollout.samplers.test_vllm import Tokens

sampler = VllmSampler(Tokens(), VllmOptions(venv={venv!r}, folder={folder!r}))
sampler.settle(Workplace(Path({folder!r}) / "run"))
sampler.load(PolicyWeights(AutoModelForCausalLM.from_pretrained({model!r}).eval()), 0)
print(sampler._engines[0].client.url, flush=True)
time.sleep(600)
"""


def test_a_killed_trainer_leaves_no_engine_and_no_weights(venv: Path, make_qwen2: MakeQwen2, tmp_path: Path):
    make_qwen2().save_pretrained(tmp_path / "model")
    (tmp_path / "weights").mkdir()
    names = {"tests": str(Path(__file__).parents[2]), "venv": str(venv), "folder": str(tmp_path / "weights")}
    code = KILLED.format(model=str(tmp_path / "model"), **names)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as trainer:
        assert trainer.stdout is not None
        url = trainer.stdout.readline().strip()
        assert httpx.get(f"{url}/health", trust_env=False).status_code == 200
        assert list((tmp_path / "weights").glob("hiper-weights-*"))
        os.kill(trainer.pid, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while list((tmp_path / "weights").glob("hiper-weights-*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not list((tmp_path / "weights").glob("hiper-weights-*"))
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/health", trust_env=False)


def test_the_cause_stands_before_what_follows_from_it():
    log = "\n".join(
        [
            "(APIServer pid=9) WARNING 11-30 18:32:00 [system_utils.py:255] It can cause `OSError: [Errno 24]`",
            "(Worker pid=7) ERROR 11-30 18:32:02 [multiproc_executor.py:1063] Traceback (most recent call last):",
            "(Worker pid=7) ERROR 11-30 18:32:02 [multiproc_executor.py:1063] RuntimeError: Unsupported head_dim=16",
            "(EngineCore pid=8) ERROR 11-30 18:32:02 [core.py:1512] RuntimeError: Worker failed with error "
            "'Unsupported head_dim=16', please check the stack trace above for the root cause",
            "(APIServer pid=9) EngineDeadError: EngineCore encountered an issue. See stack trace (above).",
        ]
    )
    assert told_trouble(log) == "RuntimeError: Unsupported head_dim=16"
    assert told_trouble("") == "it said nothing"
    assert told_trouble("one\ntwo\n\n") == "two"
