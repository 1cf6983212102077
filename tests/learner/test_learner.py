"""Updates: what is averaged over what, and that they go the right way."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import hiper
from hiper.advantages import Critic
from hiper.config import ModelConfig
from hiper.errors import UserError
from hiper.learner.learner import Learner
from hiper.learner.losses import K3_CAP, k3, policy_loss, value_loss
from hiper.models.batches import minibatches
from hiper.models.build import load_policy
from hiper.models.weights import PolicyWeights
from hiper.rows import Row, TrainRow
from hiper.seeding import derive_seed

MakeLearner = Callable[..., Learner]
MakeRows = Callable[..., list[TrainRow]]


@pytest.fixture(scope="session")
def make_rows() -> MakeRows:
    """Random rows that ``learner`` has scored, with random credit for about two thirds of their tokens."""

    def make(learner: Learner, count: int, seed: int = 0, vocabulary: int = 40) -> list[TrainRow]:
        rng = np.random.default_rng(seed)

        def tokens(low: int, high: int) -> tuple[int, ...]:
            return tuple(rng.integers(2, vocabulary, rng.integers(low, high)).tolist())

        rows = []
        for _ in range(count):
            response = tokens(2, 9)
            rows.append(Row(tokens(3, 30), response, int(rng.integers(len(response)))))
        return [
            TrainRow(
                scores=score,
                advantages=rng.normal(size=len(score.row.response_ids)).astype(np.float32),
                mask=rng.random(len(score.row.response_ids)) < 0.66,
                targets=rng.normal(size=score.values.shape).astype(np.float32),
                target_mask=rng.random(score.values.shape) < np.resize([1.0, 0.5, 1.0], score.values.shape),
            )
            for score in learner.score(rows)
        ]

    return make


def weights(learner: Learner) -> list[torch.Tensor]:
    return [p.detach().clone() for p in learner._model.parameters()]


def largest_difference(one: Learner, other: Learner) -> float:
    pairs = zip(one._model.parameters(), other._model.parameters(), strict=True)
    return max(float((a - b).detach().abs().max()) for a, b in pairs)


# --- Scoring --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("values", ["decisions", "turn", "token"])
def test_scores_come_in_the_order_of_the_rows(make_learner: MakeLearner, make_rows: MakeRows, values: Critic):
    learner = make_learner(micro_batch_tokens=100, values=values)
    torch.nn.init.normal_(learner._model.heads.out.weight)
    rows = [row.row for row in make_rows(learner, 20)]
    for row, score in zip(rows, learner.score(rows), strict=True):
        assert score.row == row
        alone = learner._forward([row])
        np.testing.assert_allclose(score.logprobs, alone.logprobs_K.detach(), rtol=1e-5, atol=1e-5)
        assert score.entropy is not None
        np.testing.assert_allclose(score.entropy, alone.entropy_K.detach(), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(score.values, alone.values_PH.detach().flatten(), rtol=1e-5, atol=1e-5)
        assert score.reference is None


@pytest.fixture(scope="session")
def other_policy(make_learner: MakeLearner, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy of other weights, saved."""
    path = tmp_path_factory.mktemp("policies") / "other"
    make_learner(sizes={"seed": 7}).export(path)
    return path


def test_scores_under_the_reference(make_learner: MakeLearner, make_rows: MakeRows, other_policy: Path):
    learner, other = make_learner(kl_coef=0.1), make_learner(sizes={"seed": 7})
    learner.set_reference(other_policy)
    rows = [row.row for row in make_rows(learner, 8)]
    for score, theirs in zip(learner.score(rows), other.score(rows), strict=True):
        assert score.reference is not None
        np.testing.assert_allclose(score.reference, theirs.logprobs, rtol=1e-5, atol=1e-5)


def test_a_reference_stays_what_it_was(make_learner: MakeLearner, make_rows: MakeRows):
    learner = make_learner(kl_coef=0.1)
    rows = make_rows(learner, 8)
    learner.set_reference()
    learner.update(
        [dataclasses.replace(r, scores=s) for r, s in zip(rows, learner.score([r.row for r in rows]), strict=True)],
        seed=0,
    )
    for row, score in zip(rows, learner.score([r.row for r in rows]), strict=True):
        assert score.reference is not None
        np.testing.assert_allclose(score.reference, row.scores.logprobs, rtol=1e-5, atol=1e-5)
        assert not np.allclose(score.logprobs, row.scores.logprobs)


def test_a_kl_term_without_a_reference_is_refused(make_learner: MakeLearner, make_rows: MakeRows):
    learner = make_learner(kl_coef=0.1)
    with pytest.raises(ValueError, match="without a reference"):
        learner.update(make_rows(learner, 4), seed=0)


# --- The loss -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("critic", "values"),
    [
        ("own", "decisions"),
        ("shared", "decisions"),
        ("detached", "decisions"),
        ("own", "token"),
        ("shared", "token"),
        ("shared", "turn"),
        ("shared", "none"),
    ],
)
def test_one_step_is_the_step_of_the_loss_written_out(
    make_learner: MakeLearner, make_rows: MakeRows, other_policy: Path, critic: str, values: Critic
):
    settings: dict[str, Any] = {"entropy_coef": 0.05, "kl_coef": 0.2, "value_coef": 0.7, "max_grad_norm": 0.5}
    learner, twin = (make_learner(critic, values=values, **settings) for _ in range(2))
    for one in (learner, twin):
        one.set_reference(other_policy)
        if values != "none":
            torch.nn.init.constant_(one._model.heads.out.weight, 0.1)
    rows = [dataclasses.replace(row, scores=_stale(row)) for row in make_rows(learner, 12)]
    learner.update(rows, seed=0)

    # The same, row by row, without batches: token mean over the whole mini-batch, for each head the mean of its places.
    tokens, said = sum(row.mask.sum() for row in rows), sum(len(row.mask) for row in rows)
    assert tokens < said
    places: Any = sum(row.target_mask.sum() if values == "token" else row.target_mask.astype(int) for row in rows)
    loss = torch.zeros(())
    for row in rows:
        outputs = twin._forward([row.row])
        mask, old = torch.tensor(row.mask), torch.tensor(row.scores.logprobs)
        ratio = (outputs.logprobs_K - old).exp()
        surrogate = policy_loss(ratio, torch.tensor(row.advantages), 0.2, 3.0)
        assert row.scores.reference is not None
        kl = k3(outputs.logprobs_K, torch.tensor(row.scores.reference))
        loss = loss + (surrogate * mask).sum() / tokens + (0.2 * kl - 0.05 * outputs.entropy_K).sum() / said
        value = value_loss(
            outputs.values_PH.flatten(),
            torch.tensor(row.scores.values),
            torch.tensor(row.targets),
            twin.config.value_clip,
        )
        loss = loss + 0.7 * (value * torch.tensor(row.target_mask) / torch.tensor(places)).sum()
    loss.backward()
    for parameters in (twin._model.policy.parameters(), twin._model.critic_parameters()):
        torch.nn.utils.clip_grad_norm_(parameters, 0.5)
    # Gradients rather than weights: AdamW makes a full step of a gradient that is nothing but rounding errors.
    for mine, theirs in zip(learner._model.parameters(), twin._model.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-6)
    assert largest_difference(learner, twin) > 1e-3  # and the step was made


def _stale(row: TrainRow) -> Any:
    """Scores of some steps ago, so that ratios are not one, some of them clipped."""
    shift = np.linspace(-0.4, 0.4, len(row.scores.logprobs), dtype=np.float32)
    return dataclasses.replace(row.scores, logprobs=row.scores.logprobs + shift)


def test_micro_batches_do_not_change_the_step(make_learner: MakeLearner, make_rows: MakeRows):
    whole, cut = (make_learner(micro_batch_tokens=tokens, lr=1e-3, critic_lr=1e-3) for tokens in (100_000, 40))
    rows = make_rows(whole, 24)
    one, other = whole.update(rows, seed=0), cut.update(rows, seed=0)
    assert largest_difference(whole, cut) < 1e-6
    assert one.pop("update/padding") > other.pop("update/padding")
    assert one == pytest.approx(other, rel=1e-4, abs=1e-6)


def test_equal_seeds_give_equal_weights(make_learner: MakeLearner, make_rows: MakeRows):
    one, other, third = (make_learner(minibatch_turns=5, epochs=2) for _ in range(3))
    rows = make_rows(one, 20)
    for learner, seed in ((one, 0), (other, 0), (third, 1)):
        learner.update(rows, seed=seed)
    assert largest_difference(one, other) == 0.0
    assert largest_difference(one, third) > 0.0


def test_progress_counts_every_row(make_learner: MakeLearner, make_rows: MakeRows):
    """Micro-batch by micro-batch: once when scored, once an epoch when trained on."""
    learner = make_learner(micro_batch_tokens=30, minibatch_turns=4, epochs=3)
    rows = make_rows(learner, 20)
    scored: list[int] = []
    learner.score([row.row for row in rows], scored.append)
    trained: list[int] = []
    learner.update(rows, seed=0, on_rows=trained.append)
    assert (sum(scored), sum(trained)) == (len(rows), 3 * len(rows))
    assert len(scored) > 1
    assert len(trained) > 3


def test_a_head_without_targets_is_left_alone(make_learner: MakeLearner, make_rows: MakeRows):
    learner = make_learner("detached", weight_decay=0.0)
    rows = [dataclasses.replace(r, target_mask=np.array([True, False, True])) for r in make_rows(learner, 8)]
    metrics = learner.update(rows, seed=0)
    assert learner._model.heads.out.weight[1].eq(0).all()
    assert learner._model.heads.out.weight[0].ne(0).any()
    assert "critic/loss_high" not in metrics


def test_learning_rates_follow_the_schedule(make_learner: MakeLearner, make_rows: MakeRows):
    learner = make_learner("detached")
    before = weights(learner)
    learner.update(make_rows(learner, 8), seed=0, lr_scales=(0.0, 0.5))
    assert [group["lr"] for group in learner._optimizer.param_groups] == [0.0, 0.005]
    policy = list(learner._model.policy.parameters())
    assert all(torch.equal(a, b) for a, b in zip(policy, before, strict=False))  # the policy's come first
    assert learner._model.heads.out.weight.ne(0).any()


def test_a_policy_that_has_gone_too_far_stands_still_and_the_critic_goes_on(
    make_learner: MakeLearner, make_rows: MakeRows
):
    def after(batches: int, target_kl: float | None) -> tuple[list[torch.Tensor], list[torch.Tensor], dict[str, float]]:
        learner = make_learner("own", minibatch_turns=4, epochs=1, target_kl=target_kl)
        rows = make_rows(learner, 12)
        first = list(next(iter(minibatches(rows, 4, derive_seed(0, 0)))))
        metrics = learner.update(first if batches == 1 else rows, seed=0)
        parts = learner._model.policy.parameters(), learner._model.critic_parameters()
        return *([p.detach().clone() for p in part] for part in parts), metrics  # type: ignore[return-value]

    policy, critic, metrics = after(3, target_kl=1e-9)
    one_step, early_critic, _ = after(1, target_kl=None)
    assert all(map(torch.equal, policy, one_step))  # the first mini-batch is where it was sampled
    assert not all(map(torch.equal, critic, early_critic))
    assert metrics["policy/stopped"] == pytest.approx(2 / 3)
    far, _, metrics = after(3, target_kl=1e9)
    assert not all(map(torch.equal, far, policy))
    assert metrics["policy/stopped"] == 0.0


# --- Metrics --------------------------------------------------------------------------------------------------------


def test_metrics_are_averaged_over_their_own_tokens(make_learner: MakeLearner, make_rows: MakeRows, other_policy: Path):
    learner = make_learner(lr=0.0, critic_lr=0.0, entropy_coef=0.01, kl_coef=0.1, micro_batch_tokens=60)
    learner.set_reference(other_policy)
    rows = [dataclasses.replace(row, scores=_stale(row)) for row in make_rows(learner, 10)]
    metrics = learner.update(rows, seed=0)

    mask = np.concatenate([row.mask for row in rows])
    outputs = [learner._forward([row.row]) for row in rows]
    new = np.concatenate([o.logprobs_K.detach().numpy() for o in outputs])
    old = np.concatenate([row.scores.logprobs for row in rows])
    reference = np.concatenate([np.asarray(row.scores.reference) for row in rows])
    ratio = np.exp(new - old)[mask]
    expected = {
        "policy/entropy": np.concatenate([o.entropy_K.detach().numpy() for o in outputs]).mean(),
        "policy/kl": (ratio - 1 - np.log(ratio)).mean(),
        "policy/clip_fraction": (np.abs(ratio - 1) > 0.2).mean(),
        "policy/kl_reference": np.minimum(np.exp(reference - new) - (reference - new) - 1, K3_CAP).mean(),
    }
    for name, value in expected.items():
        assert metrics[name] == pytest.approx(float(value), rel=1e-3), name
    targets, high = np.stack([row.targets for row in rows]), np.array([row.target_mask[1] for row in rows])
    assert metrics["critic/loss_high"] == pytest.approx(0.5 * (targets[high, 1] ** 2).mean(), rel=1e-4)
    assert metrics["critic/loss_low"] == pytest.approx(0.5 * (targets[:, 0] ** 2).mean(), rel=1e-4)
    assert metrics["update/skipped_steps"] == 0.0


@pytest.mark.parametrize("poison", ["advantages", "targets"])
def test_a_step_that_is_not_finite_is_skipped_and_counted(make_learner: MakeLearner, make_rows: MakeRows, poison: str):
    learner = make_learner(minibatch_turns=4, epochs=1)
    rows = make_rows(learner, 4)
    before = weights(learner)
    sick = dataclasses.replace(rows[0], mask=np.ones_like(rows[0].mask), **{poison: getattr(rows[0], poison) * np.nan})
    assert learner.update([sick, *rows[1:]], seed=0)["update/skipped_steps"] == 1.0
    assert all(torch.equal(a, b) for a, b in zip(before, weights(learner), strict=True))
    assert learner.update(rows, seed=0)["update/skipped_steps"] == 0.0
    assert all(p.isfinite().all() for p in learner._model.parameters())


# --- It learns ------------------------------------------------------------------------------------------------------


def play_bandit(learner: Learner, prompt: tuple[int, ...], rng: np.random.Generator) -> tuple[list[TrainRow], float]:
    """Thirty-two pulls: the first token is the arm, token 5 pays one, the others nothing."""
    probabilities = _arms(learner, prompt)
    drawn = rng.choice(len(probabilities), 32, p=probabilities)
    rows = [Row(prompt, (int(arm), 1), 0) for arm in drawn]
    rewards = (drawn == 5).astype(np.float32)
    trained = [
        TrainRow(
            scores=score,
            advantages=np.full(2, reward - score.values[1], dtype=np.float32),
            mask=np.array([True, False]),
            targets=np.full(3, reward, dtype=np.float32),
            target_mask=np.ones(3, dtype=bool),
        )
        for score, reward in zip(learner.score(rows), rewards, strict=True)
    ]
    return trained, float(rewards.mean())


def _arms(learner: Learner, prompt: tuple[int, ...]) -> Any:
    with torch.no_grad():
        logits = learner._model.policy(input_ids=torch.tensor([prompt])).logits[0, -1].double()
    return torch.softmax(logits, -1).numpy()


def test_a_bandit_is_learned(make_learner: MakeLearner):
    learner = make_learner(sizes={"vocab_size": 12, "initializer_range": 0.05}, minibatch_turns=32, lr=5e-3)
    rng, paid = np.random.default_rng(0), []
    for step in range(30):
        rows, reward = play_bandit(learner, (3, 4), rng)
        learner.update(rows, seed=step)
        paid.append(reward)
    assert np.mean(paid[:3]) < 0.3
    assert np.mean(paid[-3:]) > 0.9
    (score,) = learner.score([Row((3, 4), (5, 1), 0)])
    assert score.values == pytest.approx([1.0, 1.0, 1.0], abs=0.25)


def entropy_after(learner: Learner, rows: Sequence[TrainRow]) -> float:
    quiet = [dataclasses.replace(row, advantages=np.zeros_like(row.advantages)) for row in rows]
    return [learner.update(quiet, seed=step)["policy/entropy"] for step in range(6)][-1]


def test_the_entropy_bonus_raises_entropy(make_learner: MakeLearner, make_rows: MakeRows):
    settings: dict[str, Any] = {"value_coef": 0.0, "lr": 3e-3}
    rows = make_rows(make_learner(), 12)
    assert entropy_after(make_learner(entropy_coef=1.0, **settings), rows) > 1.05 * entropy_after(
        make_learner(entropy_coef=0.0, **settings), rows
    )


def test_the_kl_term_holds_the_policy_back(make_learner: MakeLearner, make_rows: MakeRows):
    def drift(kl_coef: float) -> float:
        learner = make_learner(kl_coef=kl_coef, value_coef=0.0, clip=5.0, dual_clip=50.0, lr=3e-3)
        learner.set_reference()
        rows = make_rows(learner, 12)
        for step in range(8):
            learner.update(rows, seed=step)
        scores = learner.score([row.row for row in rows])
        return float(np.mean([np.abs(s.logprobs - s.reference).mean() for s in scores if s.reference is not None]))

    assert drift(5.0) < 0.7 * drift(1e-9)


def test_bfloat16_autocast_trains(make_learner: MakeLearner, make_rows: MakeRows):
    exact = make_learner(lr=1e-3)
    rough = Learner(make_learner()._model, exact.config, pad_id=0, temperature=1.0, autocast=torch.bfloat16)
    rows = make_rows(exact, 12)
    before = weights(rough)
    one, other = exact.update(rows, seed=0), rough.update(rows, seed=0)
    assert other["update/skipped_steps"] == 0.0
    assert other["policy/entropy"] == pytest.approx(one["policy/entropy"], rel=0.05)
    assert all(p.dtype == torch.float32 for p in rough._model.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(before, weights(rough), strict=True))


# --- On disk, and on the way to a sampler ---------------------------------------------------------------------------


@pytest.mark.parametrize(("critic", "values"), [("own", "decisions"), ("shared", "token"), ("shared", "none")])
def test_a_saved_learner_goes_on_as_if_it_had_not_been(
    make_learner: MakeLearner, make_rows: MakeRows, tmp_path: Path, critic: str, values: Critic
):
    whole, fresh = (make_learner(critic, values=values) for _ in range(2))
    rows = make_rows(whole, 8)
    whole.update(rows, seed=0)
    whole.export(tmp_path / "policy")
    whole.save(tmp_path, iteration=3)
    resumed = Learner.of(
        load_policy(tmp_path / "policy", ModelConfig()),
        critic=values,
        config=whole.config,
        model_config=ModelConfig(critic=critic, compute_dtype="float32"),
        device="cpu",
        pad_id=0,
        temperature=1.0,
    )
    assert resumed.load(tmp_path) == 3
    for learner in (whole, resumed):
        learner.update(rows, seed=1)
    assert largest_difference(whole, resumed) == 0.0
    assert largest_difference(whole, fresh) > 0.0


def test_a_checkpoint_of_another_critic_is_refused(make_learner: MakeLearner, tmp_path: Path):
    make_learner("shared").save(tmp_path, iteration=1)
    with pytest.raises(UserError, match="damaged or of another architecture"):
        make_learner("own").load(tmp_path)
    (tmp_path / "trainer.pt").write_bytes(b"")
    with pytest.raises(UserError, match="damaged or of another architecture"):
        make_learner("shared").load(tmp_path)


def test_published_weights_are_the_current_ones(make_learner: MakeLearner, make_rows: MakeRows):
    class Remembering:
        def load(self, weights: PolicyWeights, version: int) -> None:
            self.weights, self.version = weights, version

    learner, sampler = make_learner(), Remembering()
    learner.publish(sampler, 4)
    before = sampler.weights.sha256()
    assert sampler.version == 4
    assert before == make_learner().weights().sha256() != make_learner(sizes={"seed": 7}).weights().sha256()
    learner.update(make_rows(learner, 8), seed=0)
    learner.publish(sampler, 5)
    assert sampler.weights.sha256() == learner.weights().sha256() != before


def test_a_learner_describes_itself(make_learner: MakeLearner):
    own, none = make_learner("own").describe(), make_learner(values="none").describe()
    assert own.policy_parameters == sum(p.numel() for p in make_learner()._model.policy.parameters())
    assert str(own) == f"{own.policy_parameters:,} parameters, critic on its own backbone, cpu"
    assert none.critic == "no critic"


def test_nobody_else_touches_the_model():
    """No file outside the learner's package and the models' reaches for what a learner holds.

    A setting may have the name of such a thing: `learner.optimizer=adamw_8bit`.
    """
    package = Path(hiper.__file__).parent
    inside = re.compile(r"learner\.(_|model\b|optimizer\b(?![=`])|device\b|precision\b|autocast\b)")
    for file in package.rglob("*.py"):
        if file.parent.name not in ("learner", "models"):
            assert not inside.search(file.read_text(encoding="utf-8")), file


NAMED = [f"row {i}" for i in range(103)]


@pytest.mark.parametrize("size", [1, 7, 50, 103, 1000])
def test_each_row_is_in_one_minibatch(size: int):
    batches = list(minibatches(NAMED, size, seed=0))
    assert sorted(row for batch in batches for row in batch) == sorted(NAMED)
    sizes = [len(batch) for batch in batches]
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= min(size, 103) / 1.5


def test_the_order_depends_on_the_seed_alone():
    assert list(minibatches(NAMED, 10, seed=1)) == list(minibatches(NAMED, 10, seed=1))
    assert list(minibatches(NAMED, 10, seed=1)) != list(minibatches(NAMED, 10, seed=2))
    assert list(minibatches(NAMED, 200, seed=1)) != [NAMED]


# --- Losses, worked by hand -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),
    [
        (1.0, 2.0, -2.0, -2.0),  # inside the range: -A * ratio
        (1.1, 2.0, -2.2, -2.0),
        (1.5, 2.0, -2.4, 0.0),  # beyond it on the good side: cut at 1.2
        (0.5, 2.0, -1.0, -2.0),  # beyond it on the bad side: not cut
        (0.9, -2.0, 1.8, 2.0),
        (0.5, -2.0, 1.6, 0.0),  # cut at 0.8
        (1.5, -2.0, 3.0, 2.0),
        (3.5, -2.0, 6.0, 0.0),  # dual clip: at most 3 * |A|
        (3.5, 2.0, -2.4, 0.0),
        (0.7, 0.0, 0.0, 0.0),
    ],
)
def test_clipped_surrogate(ratio: float, advantage: float, loss: float, slope: float):
    r = torch.tensor([ratio], requires_grad=True)
    got = policy_loss(r, torch.tensor([advantage]), clip=0.2, dual_clip=3.0)
    assert got.item() == pytest.approx(loss)
    got.sum().backward()
    assert r.grad is not None
    assert r.grad.item() == pytest.approx(slope)


def test_k3_by_hand():
    logprob, reference = torch.log(torch.tensor([0.5, 0.5, 0.25])), torch.log(torch.tensor([0.5, 0.25, 0.5]))
    assert k3(logprob, reference).tolist() == pytest.approx([0.0, 0.5 - 1 + 0.693147, 2 - 1 - 0.693147], abs=1e-5)


def test_k3_is_an_unbiased_estimate_and_its_slope_pulls_towards_the_reference():
    p, q = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.2, 0.5, 0.3])
    assert (p * k3(p.log(), q.log())).sum().item() == pytest.approx((p * (p / q).log()).sum().item(), abs=1e-6)
    logprob = torch.tensor([-1.0], requires_grad=True)
    k3(logprob, torch.tensor([-2.0])).sum().backward()
    assert logprob.grad is not None
    assert logprob.grad.item() > 0


def test_k3_of_a_token_pushed_far_down_is_capped_and_has_no_slope():
    logprob = torch.tensor([-500.0, -2.4, 0.0], requires_grad=True)
    estimates = k3(logprob, torch.tensor([0.0, 0.0, -500.0]))
    assert estimates.tolist() == pytest.approx([10.0, math.exp(2.4) - 3.4, 10.0], rel=1e-5)
    estimates.sum().backward()
    assert logprob.grad is not None
    assert logprob.grad.tolist() == pytest.approx([0.0, 1 - math.exp(2.4), 0.0], rel=1e-5)


@pytest.mark.parametrize(
    ("value", "old", "target", "clip", "loss", "slope"),
    [
        (1.0, 1.0, 3.0, None, 2.0, -2.0),
        (1.0, 1.0, 3.0, 0.5, 2.0, -2.0),
        (2.0, 1.0, 3.0, 0.5, 1.125, 0.0),  # moved far towards the target: the value near the old one, 1.5, counts
        (0.0, 1.0, 3.0, 0.5, 4.5, -3.0),  # moved away from it: the worse of both counts
        (2.0, 1.0, 3.0, None, 0.5, -1.0),
    ],
)
def test_value_loss(value: float, old: float, target: float, clip: float | None, loss: float, slope: float):
    v = torch.tensor([value], requires_grad=True)
    got = value_loss(v, torch.tensor([old]), torch.tensor([target]), clip)
    assert got.item() == pytest.approx(loss)
    got.sum().backward()
    assert v.grad is not None
    assert v.grad.item() == pytest.approx(slope)
