"""Sharded learners compute what whole ones compute, and read each other's checkpoints. Real processes on gloo."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from io import StringIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from helpers.together import forked
from hiper.advantages import Critic
from hiper.config import LearnerConfig, LoraConfig, ModelConfig
from hiper.errors import UserError
from hiper.learner.layout import Whole, layers_of
from hiper.learner.learner import Learner
from hiper.models import parts
from hiper.models.actor_critic import ActorCritic, RowBatch
from hiper.models.batches import in_step, micro_batches
from hiper.models.parts import named_tensors, whole
from hiper.processes import ALONE, Processes
from hiper.rows import Row, Scores, TrainRow

LORA = LoraConfig(rank=4, alpha=8)
IDS = torch.tensor([[7, 3, 9, 21, 4]])


def make_policy(tied: bool = True) -> PreTrainedModel:
    """A Llama. Unlike Qwen2 it has no biases of keys, whose gradients are rounding errors that Adam makes steps of."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": 50}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.2, "tie_word_embeddings": tied}
    model: PreTrainedModel = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **sizes, **heads))
    return model


@dataclass(frozen=True)
class Case:
    """What is trained."""

    critic: str = "own"
    values: Critic = "decisions"
    lora: LoraConfig | None = None
    checkpointing: bool = False
    tied: bool = True
    dtype: Literal["float32", "bfloat16"] = "float32"
    settings: Mapping[str, Any] = field(default_factory=dict)

    def learner(self, processes: Processes = ALONE, sharding: str = "none", policy: Path | None = None) -> Learner:
        settings = {"lr": 1e-4, "critic_lr": 1e-4, "kl_coef": 0.1, "epochs": 2, "minibatch_turns": 9} | dict(
            self.settings
        )
        return Learner.of(
            make_policy(self.tied) if policy is None else AutoModelForCausalLM.from_pretrained(policy),
            critic=self.values,
            config=LearnerConfig(micro_batch_tokens=70, lora=self.lora, sharding=sharding, **settings),
            model_config=ModelConfig(
                critic=self.critic, gradient_checkpointing=self.checkpointing, compute_dtype=self.dtype
            ),
            device="cpu",
            pad_id=0,
            temperature=0.9,
            processes=processes,
        )


def make_rows(count: int, seed: int = 0) -> list[Row]:
    rng = np.random.default_rng(seed)

    def tokens(low: int, high: int) -> tuple[int, ...]:
        return tuple(rng.integers(2, 50, rng.integers(low, high)).tolist())

    rows = [Row(tokens(3, 30), tokens(2, 9), 0) for _ in range(count)]
    return [replace(row, low_index=int(rng.integers(len(row.response_ids)))) for row in rows]


def credited(scores: list[Scores], seed: int = 0) -> list[TrainRow]:
    rng = np.random.default_rng(seed)
    return [
        TrainRow(
            scores=score,
            advantages=rng.normal(size=len(score.row.response_ids)).astype(np.float32),
            mask=rng.random(len(score.row.response_ids)) < 0.66,
            targets=rng.normal(size=score.values.shape).astype(np.float32),
            target_mask=rng.random(score.values.shape) < 0.7,
        )
        for score in scores
    ]


def weights(learner: Learner) -> dict[str, Tensor]:
    """All weights of policy and critic, whole."""
    return {name: whole(tensor.detach()).clone() for name, tensor in named_tensors(learner._model).items()}


def imitated(learner: Learner) -> list[float]:
    """Imitate a little, and begin critic and reference from that, as a warm start does. Return the losses."""
    imitation = learner.imitate()
    losses = [imitation.step(make_rows(7, seed), lr=1e-3, prompt_loss=0.1) for seed in range(3)]
    learner.copy_policy_to_critic()
    learner.set_reference()
    return losses


def iterated(learner: Learner, count: int = 11, seed: int = 0) -> dict[str, float]:
    return learner.update(credited(learner.score(make_rows(count, seed)), seed), seed=seed)


def check_close(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Weights are equal to 1e-6. Adam makes whole steps along gradients that are rounding errors, here of size 1e-4.

    Those are single weights. Metrics, such as the norms of gradients, are compared beside.
    """
    assert found.keys() == expected.keys()
    differences = torch.cat([(found[name] - expected[name]).abs().flatten() for name in expected])
    assert float((differences > 1e-6).float().mean()) < 2e-4
    assert float(differences.max()) < 1e-4


def check_same_work(ours: Learner, theirs: Learner, seed: int, count: int = 11) -> None:
    """Both do one iteration on the same rows, with the same scores, metrics and weights."""
    rows = make_rows(count, seed)
    scores, expected = ours.score(rows), theirs.score(rows)
    for found, known in zip(scores, expected, strict=True):
        assert (found.reference is None) == (known.reference is None)
        for part in ("logprobs", "values", *(["reference"] if known.reference is not None else [])):
            np.testing.assert_allclose(getattr(found, part), getattr(known, part), atol=1e-5)
    metrics = [learner.update(credited(expected, seed), seed=seed) for learner in (ours, theirs)]
    assert metrics[0] == pytest.approx(metrics[1], abs=1e-5)
    check_close(weights(ours), weights(theirs))


CASES = {
    "own critic": Case(),
    "untied, with checkpointing": Case(tied=False, checkpointing=True),
    "shared critic, token values": Case("shared", values="token"),
    "no critic, a fused optimizer": Case(values="none", settings={"optimizer": "adamw_fused"}),
    "LoRA with checkpointing": Case(lora=LORA, checkpointing=True),
}


def test_two_processes_with_parts_compute_what_one_computes(tmp_path: Path):
    def work(processes: Processes) -> None:
        for name, case in CASES.items():
            ours, theirs = case.learner(processes, "fsdp"), case.learner()
            before = weights(theirs)
            assert imitated(ours) == pytest.approx(imitated(theirs), abs=1e-5), name
            check_same_work(ours, theirs, seed=0)
            assert max(float((t - before[n]).abs().max()) for n, t in weights(theirs).items()) > 1e-3, name

    assert forked(2, tmp_path / "meeting", work) == ["", ""]


def test_parts_compute_in_bfloat16_and_are_kept_in_float32(tmp_path: Path):
    """What a sampler gets is a copy in bfloat16, whose log-probabilities are the learner's up to rounding."""

    def work(processes: Processes) -> None:
        rough, exact = Case(dtype="bfloat16").learner(processes, "fsdp"), Case().learner()
        imitated(rough), imitated(exact)
        assert {tensor.dtype for tensor in weights(rough).values()} == {torch.float32}
        copied = rough.weights().copied()
        assert copied.model.dtype == torch.bfloat16
        assert not copied.sharded
        rows = make_rows(5)
        batch = RowBatch.of(rows, 0, torch.device("cpu"))
        with torch.no_grad():
            sampled = ActorCritic(copied.model, None, critic="none")(batch, 0.9).logprobs_K.float().numpy()
        learned, known = (np.concatenate([s.logprobs for s in learner.score(rows)]) for learner in (rough, exact))
        assert 1e-5 < np.abs(learned - known).mean() < 0.02
        assert np.abs(sampled - learned).mean() < 0.02
        assert all(np.isfinite(number) for number in iterated(rough).values())

    assert forked(2, tmp_path / "meeting", work) == ["", ""]


@pytest.mark.parametrize(("batches", "warns"), [([[0, 1]], True), ([[0], [1]], False)])
def test_processes_that_wait_for_each_other_say_so_once(tmp_path: Path, batches: list[list[int]], warns: bool):
    def work(processes: Processes) -> None:
        layout, weight = Whole(processes), torch.nn.Parameter(torch.ones(1))
        with capture_warnings("hiper.learner.layout") as told:
            for _ in range(2):
                weight.grad = None
                layout.accumulate([weight], batches, [5, 5], lambda one: (weight * len(one.rows)).sum().backward())
                assert weight.grad is not None
                assert weight.grad.item() == 2
        assert ("2 processes wait 50% of their time in updates" in told.getvalue()) == (warns and processes.first)
        assert told.getvalue().count("micro-batches") == int(warns and processes.first)

    assert forked(2, tmp_path / "meeting", work) == ["", ""]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_fewer_rows_than_processes(count: int):
    """All make the same number of passes, every row counts once, and who has no row left repeats one."""
    lengths = [5, 9, 7, 4, 30, 6, 8, 31][:count]
    for processes in (1, 2, 3):
        batches = micro_batches(lengths, max_tokens=20)
        passes = [in_step(batches, lengths, rank, processes) for rank in range(processes)]
        assert len({len(own) for own in passes}) == 1
        assert sorted(row for own in passes for one in own if one.counts for row in one.rows) == list(range(count))
        assert all(one.rows for own in passes for one in own)
        repeated = sum(not one.counts for own in passes for one in own)
        assert repeated < processes
        assert repeated == 0 or len(batches) < processes or max(map(len, batches)) == 1 or count < processes


# --- Checkpoints ------------------------------------------------------------------------------------------------------


def stored(learner: Learner, folder: Path) -> None:
    """Write a checkpoint as training does, but without a tokenizer."""
    if learner.processes.first:
        (folder / "policy").mkdir(parents=True)
    learner.processes.gather(None)
    learner.export(folder / "policy")
    learner.save(folder, 5)
    learner.processes.gather(None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of two iterations: ``whole`` by one process, ``sharded`` by two; ``start`` is the reference."""
    folder = tmp_path_factory.mktemp("checkpoints")

    def begun(learner: Learner) -> Learner:
        imitated(learner)
        iterated(learner, seed=0)
        return learner

    alone = Case().learner()
    imitated(alone)
    (folder / "start").mkdir()
    alone.export(folder / "start")
    stored(begun(Case().learner()), folder / "whole")

    def work(processes: Processes) -> None:
        stored(begun(Case().learner(processes, "fsdp")), folder / "sharded")

    assert forked(2, folder / "meeting", work) == ["", ""]
    return folder


def resumed(folder: Path, kind: str, processes: Processes = ALONE, sharding: str = "none") -> Learner:
    learner = Case().learner(processes, sharding, policy=folder / kind / "policy")
    learner.set_reference(folder / "start")
    assert learner.load(folder / kind) == 5
    return learner


@pytest.mark.parametrize("count", [1, 2, 3])
def test_checkpoints_are_read_under_another_number_of_processes(folder: Path, tmp_path: Path, count: int):
    def work(processes: Processes) -> None:
        theirs = resumed(folder, "whole")
        for kind in ("whole", "sharded"):
            check_same_work(resumed(folder, kind, processes, "fsdp"), copy.deepcopy(theirs), seed=1)
        if processes.first:
            check_same_work(resumed(folder, "sharded"), theirs, seed=1)

    assert forked(count, tmp_path / "meeting", work) == [""] * count


def test_a_policy_of_parts_is_an_ordinary_folder(folder: Path):
    whole_one, sharded = folder / "whole" / "policy", folder / "sharded" / "policy"
    assert sorted(f.name for f in sharded.iterdir()) == sorted(f.name for f in whole_one.iterdir())
    for file in ("config.json", "generation_config.json"):
        assert json.loads((sharded / file).read_text()) == json.loads((whole_one / file).read_text())
    logits = [AutoModelForCausalLM.from_pretrained(path)(IDS).logits for path in (sharded, whole_one)]
    torch.testing.assert_close(*logits, atol=1e-5, rtol=0)


@pytest.mark.parametrize("tied", [True, False])
def test_a_large_policy_is_written_in_several_files(tied: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(parts, "FILE_BYTES", 20_000)
    policy = make_policy(tied)
    parts.write_policy(policy, tmp_path, writing=True)
    files = sorted(tmp_path.glob("*.safetensors"))
    assert len(files) > 3
    assert all(file.stat().st_size < 21_000 for file in files)
    read = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(read(IDS).logits, policy(IDS).logits)


def test_another_models_checkpoint_is_refused(folder: Path):
    """Whether its parts have other shapes, or it has no critic."""
    for other in (Case("shared"), Case(values="token")):
        with pytest.raises(UserError, match="damaged or of another architecture: parts holds other tensors"):
            other.learner().load(folder / "sharded")


def test_a_warm_start_is_resumed_under_another_number_of_processes(tmp_path: Path):
    def halves(learner: Learner, save: Path | None, load: Path | None) -> list[float]:
        imitation = learner.imitate()
        if load is None:
            imitation.step(make_rows(7, 0), lr=1e-3)
            imitation.save(save if learner.processes.first else None, {"note": 3})
        else:
            assert imitation.load(load) == {"note": 3}
        return [imitation.step(make_rows(7, 1), lr=1e-3), *[float(t.sum()) for t in weights(learner).values()]]

    expected = halves(Case().learner(), tmp_path / "whole", None)

    def work(processes: Processes) -> None:
        found = halves(Case().learner(processes, "fsdp"), tmp_path / "sharded", None)
        found += halves(Case().learner(processes, "fsdp"), None, tmp_path / "whole")
        assert found == pytest.approx([*expected, *expected], abs=1e-4)

    assert forked(2, tmp_path / "meeting", work) == ["", ""]
    assert halves(Case().learner(), None, tmp_path / "sharded") == pytest.approx(expected, abs=1e-4)


# --- What cannot be sharded -------------------------------------------------------------------------------------------


def test_a_model_without_layers_is_refused():
    with pytest.raises(UserError, match="the layers of Linear are not known"):
        layers_of(torch.nn.Linear(2, 2))


@pytest.mark.parametrize("kind", ["llama", "gpt2", "opt", "gpt_neox", "gemma2"])
def test_the_layers_of_many_kinds_are_found(kind: str):
    sizes = {"num_hidden_layers": 3, "hidden_size": 32, "num_attention_heads": 4, "vocab_size": 50}
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes))
    assert len(layers_of(model.get_decoder())) == 3


def test_an_old_torch_is_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr("torch.distributed.fsdp.FSDPModule.set_force_sum_reduction_for_comms")
    with pytest.raises(UserError, match=r"needs torch 2\.8 or newer"):
        Case().learner(sharding="fsdp")


def test_one_process_shards_nothing_and_is_told_so(tmp_path: Path):
    def work(alone: Processes) -> None:
        case = Case(settings={"kl_coef": 0.0})
        with capture_warnings("hiper.learner.layout") as told:
            ours = case.learner(sharding="fsdp")
        assert "one process shards nothing" in told.getvalue()
        check_same_work(ours, case.learner(), seed=0)
        ours.close()
        assert not torch.distributed.is_initialized()

    assert forked(1, tmp_path / "meeting", work) == [""]


@contextmanager
def capture_warnings(name: str) -> Iterator[StringIO]:
    handler = logging.StreamHandler(told := StringIO())
    logging.getLogger(name).addHandler(handler)
    yield told
    logging.getLogger(name).removeHandler(handler)
