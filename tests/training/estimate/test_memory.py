"""The memory of a run: numbers worked by hand, and a process's own peak."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from hiper.config import Config, load_config
from hiper.training.estimate.memory import Estimate, estimate
from hiper.training.estimate.models import KNOWN, shape_of_run

ROOT = Path(__file__).parents[3]
GB = 1e9


def estimated(recipe: str, *settings: str, processes: int = 1, memory: float | None = None) -> Estimate:
    config = load_config(recipe, settings)
    return estimate(config, shape_of_run(config)[0], "cuda", processes, memory=memory)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("Qwen/Qwen2.5-0.5B-Instruct", 494_032_768),
        ("Qwen/Qwen2.5-1.5B-Instruct", 1_543_714_304),
        ("Qwen/Qwen2.5-7B-Instruct", 7_615_616_512),
        ("Qwen/Qwen3-4B", 4_022_468_096),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", 134_515_008),
    ],
)
def test_the_known_sizes_give_the_published_numbers_of_parameters(name: str, parameters: int):
    """0.49, 1.54, 7.61, 4.0 billion and 135 million, as the model cards state."""
    assert name in KNOWN
    assert shape_of_run(Config.model_validate({"model": {"path": name}}))[0].parameters == parameters


def test_7b_with_lora():
    """The base is 7.616e9 * 2 = 15.23 GB. An adapter of rank 16 has, in each of 28 layers, 16 times both widths:

    q 7168, k and v 4096 each, o 7168, gate, up and down 22528 each: 90,112 * 16 * 28 = 40,370,176. Policy and critic
    train one each and the heads: 3584 * 2 + 3584^2 + 3584 + 3 * 3585 = 12,866,563. The reference is one more adapter.
    """
    parts = estimated("alfworld-qwen2.5-7b-lora").phases["updating"]
    adapter, heads = 40_370_176, 12_866_563
    trained = 2 * adapter + heads
    assert parts["weights"] == 15_231_233_024 + 4 * adapter
    assert parts["critic"] == 4 * (adapter + heads)
    assert parts["reference"] == 4 * adapter
    assert parts["gradients"] == 4 * trained
    assert parts["moments"] == 8 * trained


def test_1_5b_whole():
    """Policy 1.5437e9, critic backbone the same as it is tied, heads 1536 * 2 + 1536^2 + 1536 + 3 * 1537 = 2,368,515.

    So 6.17 GB each for policy, critic and reference, 12.36 GB of gradients, 24.72 GB of moments: 55.6 GB.
    """
    found = estimated("alfworld-qwen2.5-1.5b")
    parts = found.phases["scoring"]
    whole, heads = 1_543_714_304, 2_368_515
    assert (parts["weights"], parts["reference"]) == (4 * whole, 4 * whole)
    assert parts["gradients"] == 4 * (2 * whole + heads)
    assert found.certain == pytest.approx(55.6 * GB, rel=0.001)
    # bfloat16 copies of both models: the layers' 1.310e9, and the tied head 151,936 * 1536, 2 bytes each.
    assert parts["bfloat16 copies"] == 2 * 2 * (1_310_195_712 + 151_936 * 1536)


def test_what_each_setting_saves():
    """Per process: a quarter of everything in 4 shards, moments of 2 bytes, 4 bits and a scale for the layers."""
    whole = estimated("alfworld-qwen2.5-7b").phases["scoring"]
    shared = estimated("alfworld-qwen2.5-7b", "learner.sharding=fsdp", "sampler.type=vllm", processes=4)
    for part in ("weights", "critic", "reference", "gradients", "moments"):
        assert shared.phases["scoring"][part] == whole[part] / 4
    small = estimated("alfworld-qwen2.5-7b", "learner.optimizer=adamw_8bit").phases["scoring"]
    assert small["moments"] == whole["moments"] / 4
    four = estimated("alfworld-qwen2.5-7b-lora", "learner.lora.quantize=4bit").phases["scoring"]
    assert four["weights"] == pytest.approx(
        0.5625 * 6_525_288_448 + 2 * (7_615_616_512 - 6_525_288_448) + 4 * 40_370_176
    )
    apart = estimated("alfworld-qwen2.5-7b", "learner.sharding=fsdp", "learner.offload=true", "sampler.type=vllm")
    assert "moments" not in apart.phases["updating"]
    assert apart.host["moments"] == whole["moments"]
    assert (
        estimated("alfworld-qwen2.5-7b", "learner.kl_coef=0").peak
        == estimated("alfworld-qwen2.5-7b").peak - whole["reference"]
    )
    shallow = estimated("alfworld-qwen2.5-1.5b", "learner.micro_batch_tokens=4096").phases["updating"]
    assert shallow["activations"] < estimated("alfworld-qwen2.5-1.5b").phases["updating"]["activations"] / 3


def test_an_engine_takes_its_share():
    """1.5B in bfloat16 is 3.09 GB, a cache of 28 layers for 128 rows of 2,560 tokens 9.4 GB, and 1 GB of its own."""
    settings = ("sampler.type=vllm",)
    needed = 2 * 1_543_714_304 + 2 * 2 * 28 * 256 * 128 * 2560 + 1e9
    assert estimated("alfworld-qwen2.5-1.5b", *settings).phases["sampling"]["engine"] == needed
    share = estimated("alfworld-qwen2.5-1.5b", *settings, memory=80e9).phases["sampling"]["engine"]
    assert share == pytest.approx(0.45 * 80e9)
    assert "engine" not in estimated("alfworld-qwen2.5-1.5b", *settings, "sampler.url=http://there").phases["sampling"]


@pytest.mark.skipif(torch.version.cuda is not None, reason="torch's build for CUDA takes some 400 MB more")
def test_the_estimate_is_a_process_s_own_peak(monkeypatch: pytest.MonkeyPatch):
    """A fresh process builds, plays, scores, updates and saves. Its high-water mark is within a tenth of the estimate.

    The allocator leaves no holes here, so that the mark is what is in use. `benchmarks/memory.py` has more of them.
    """
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    benchmark: Any = importlib.import_module("memory")

    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    settings = (
        "model.nano={layers: 4, hidden: 384, feed_forward: 1152, heads: 6, kv_heads: 2, max_positions: 512}",
        "learner.kl_coef=0.1",
        "model.compute_dtype=float32",
        "rollout.episodes=6",
        "learner.minibatch_turns=18",
    )
    told = benchmark.measure(settings, benchmark.EXACT)
    assert told["used"] == pytest.approx(told["measured"], rel=0.10)
    sys.modules.pop("memory", None)
