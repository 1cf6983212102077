"""Sharded learners compute what whole ones compute, and read each other's checkpoints. Real processes on gloo."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.together import forked
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from hiper.advantages import Critic
from hiper.config import LearnerConfig, LoraConfig, ModelConfig
from hiper.errors import UserError
from hiper.learner.learner import Learner
from hiper.models.parts import named_tensors, whole
from hiper.processes import ALONE, Processes
from hiper.rows import Row, Scores, TrainRow

LORA = LoraConfig(rank=4, alpha=8)


def make_policy(tied: bool = True) -> PreTrainedModel:
    """A Llama. Unlike Qwen2 it has no biases of keys, whose gradients are rounding errors that Adam makes steps of."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "vocab_size": 50}
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
    settings: Mapping[str, Any] = ()  # type: ignore[assignment]

    def learner(self, processes: Processes = ALONE, sharding: str = "none", policy: Path | None = None) -> Learner:
        settings = {"lr": 1e-3, "critic_lr": 1e-3, "kl_coef": 0.1, "epochs": 2, "minibatch_turns": 9} | dict(self.settings)
        return Learner.of(
            make_policy(self.tied) if policy is None else AutoModelForCausalLM.from_pretrained(policy),
            critic=self.values,
            config=LearnerConfig(micro_batch_tokens=70, lora=self.lora, sharding=sharding, **settings),
            model_config=ModelConfig(critic=self.critic, gradient_checkpointing=self.checkpointing),
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


def check_close(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], atol: float = 1e-6) -> None:
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], atol=atol, rtol=0, msg=lambda text, n=name: f"{n}: {text}")


CASES = {
    "own critic": Case(),
    "untied, with checkpointing": Case(tied=False, checkpointing=True),
    "shared critic": Case("shared"),
    "detached critic": Case("detached"),
    "token values": Case(values="token"),
    "no critic": Case(values="none"),
    "a fused optimizer": Case(settings={"optimizer": "adamw_fused"}),
    "LoRA": Case(lora=LORA),
    "LoRA with checkpointing": Case(lora=LORA, checkpointing=True),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_processes_with_parts_compute_what_one_computes(case: Case, tmp_path: Path):
    alone = case.learner()
    before = weights(alone)
    losses, metrics = imitated(alone), [iterated(alone, seed=seed) for seed in range(2)]
    expected = weights(alone)
    assert max(float((expected[name] - before[name]).abs().max()) for name in before) > 3e-3
    scores = alone.score(make_rows(11))

    def work(processes: Processes) -> None:
        learner = case.learner(processes, "fsdp")
        assert imitated(learner) == pytest.approx(losses, abs=1e-5)
        found = [iterated(learner, seed=seed) for seed in range(2)]
        check_close(weights(learner), expected)
        for ours, theirs in zip(found, metrics, strict=True):
            assert ours == pytest.approx(theirs, abs=1e-5)
        for ours, theirs in zip(learner.score(make_rows(11)), scores, strict=True):
            np.testing.assert_allclose(ours.logprobs, theirs.logprobs, atol=1e-5)
            np.testing.assert_allclose(ours.values, theirs.values, atol=1e-5)
            np.testing.assert_allclose(ours.reference, theirs.reference, atol=1e-5)

    assert forked(2, tmp_path / "meeting", work) == ["", ""]
