"""The learner: scores rows under the current weights, then improves policy and critic on them.

Legend: N rows (turns), K response tokens of all rows together, H value heads, P places where all of them are read: one
a row, or one a response token.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from hiper.advantages import Critic
from hiper.config import LearnerConfig, ModelConfig
from hiper.learner.batches import minibatches
from hiper.learner.checkpoint import load_state, save_state
from hiper.learner.imitation import Imitation
from hiper.learner.losses import k3, policy_loss, value_loss
from hiper.learner.meter import Meter
from hiper.models.actor_critic import ActorCritic, Outputs, RowBatch, token_logprobs
from hiper.models.batches import micro_batches, padding_share
from hiper.models.build import add_critic, choose_autocast, choose_device, load_policy, without_loading_bars
from hiper.models.weights import PolicyWeights
from hiper.rows import Array, Row, Scores, TrainRow
from hiper.runs import metrics as names
from hiper.seeding import derive_seed


class Loads(Protocol):
    """Whatever takes weights: a sampler."""

    def load(self, weights: PolicyWeights, version: int) -> None:
        """Use these weights from now on."""


@dataclass(frozen=True, slots=True)
class LearnerDescription:
    """A learner in a few words and numbers."""

    policy_parameters: int
    critic: str
    """What the critic reads."""
    device: str

    def __str__(self) -> str:
        return f"{self.policy_parameters:,} parameters, {self.critic}, {self.device}"


class Learner:
    """Policy and critic, trained by PPO on rows. Nobody else touches the model, the optimizer or the number format.

    Args:
        model: policy and critic, on their device.
        config: see :class:`~hiper.config.LearnerConfig`.
        pad_id: token that fills batches.
        temperature: the sampling temperature; log-probabilities are taken at it.
        autocast: number format of the forward passes, None for that of the parameters.
        model_config: how a reference policy is loaded.
    """

    def __init__(
        self,
        model: ActorCritic,
        config: LearnerConfig,
        *,
        pad_id: int,
        temperature: float,
        autocast: torch.dtype | None = None,
        model_config: ModelConfig | None = None,
    ) -> None:
        self.config = config
        self._model = model
        self._model_config = model_config or ModelConfig()
        self._reference: PreTrainedModel | None = None
        self._pad_id = pad_id
        self._temperature = temperature
        self._autocast = autocast
        self._optimizer = self._make_optimizer()

    @classmethod
    def of(
        cls,
        policy: PreTrainedModel,
        *,
        critic: Critic,
        config: LearnerConfig,
        model_config: ModelConfig,
        device: str,
        pad_id: int,
        temperature: float,
    ) -> Learner:
        """Put a policy on its device, give it the critic that an estimator asks for, and make a learner of both.

        Args:
            policy: a causal language model.
            critic: see :data:`~hiper.advantages.Critic`.
            config: of the updates.
            model_config: of the critic's backbone and the number formats.
            device: as ``training.device`` names it.
            pad_id: token that fills batches.
            temperature: the sampling temperature.

        Raises:
            UserError: the device is not there, or the number formats do not go together.
        """
        place = choose_device(device)
        policy.to(place)  # type: ignore[arg-type]
        return cls(
            add_critic(policy, model_config, critic).to(place),
            config,
            pad_id=pad_id,
            temperature=temperature,
            autocast=choose_autocast(model_config, place),
            model_config=model_config,
        )

    def describe(self) -> LearnerDescription:
        """Describe the learner for people."""
        backbone = "its own backbone" if self._model.backbone is not None else "the policy's backbone"
        return LearnerDescription(
            policy_parameters=sum(p.numel() for p in self._model.policy.parameters()),
            critic=f"critic on {backbone}" if self._model.heads.names else "no critic",
            device=str(self._device),
        )

    def weights(self) -> PolicyWeights:
        """Give the policy's weights as a sampler loads them. They are shared, not copied: updates change them."""
        return PolicyWeights(self._model.policy, self._autocast, self._model.shortcut)

    def publish(self, sampler: Loads, version: int) -> None:
        """Load the current weights into a sampler, as ``version``."""
        sampler.load(self.weights(), version)

    def set_reference(self, source: str | Path | None = None) -> None:
        """Freeze the policy that the KL term keeps the policy near.

        Args:
            source: a Hugging Face directory or name; None: a copy of the current policy.

        Raises:
            UserError: no model can be loaded from ``source``.
        """
        policy = copy.deepcopy(self._model.policy) if source is None else load_policy(source, self._model_config)
        policy.to(self._device)  # type: ignore[arg-type]
        self._reference = policy.eval().requires_grad_(False)

    def imitate(self) -> Imitation:
        """Begin to imitate demonstrations: a warm start's loss, with an optimizer of its own."""
        return Imitation(self._model.policy, self.config, self._policy_logprobs)

    def copy_policy_to_critic(self) -> None:
        """Copy the policy's current weights into the critic's own backbone, if it has one."""
        self._model.copy_backbone()

    def export(self, folder: Path) -> None:
        """Write the policy into ``folder`` as an ordinary Hugging Face directory (without a tokenizer)."""
        with without_loading_bars():
            self._model.policy.save_pretrained(folder)

    def save(self, folder: Path, iteration: int) -> None:
        """Write what continuing needs beside the policy; see :mod:`hiper.learner.checkpoint`."""
        save_state(folder, self._model, self._optimizer, iteration)

    def load(self, folder: Path) -> int:
        """Restore critic and optimizer, and return the number of iterations done.

        The policy itself is loaded when the learner is built.

        Raises:
            UserError: the checkpoint is damaged or of another architecture.
        """
        return load_state(folder, self._model, self._optimizer)

    @property
    def _device(self) -> torch.device:
        return next(self._model.parameters()).device

    def _make_optimizer(self) -> torch.optim.AdamW:
        """AdamW with one parameter group each for policy and critic; :meth:`update` sets their learning rates."""
        parts = self._model.policy.parameters(), self._model.critic_parameters()
        return torch.optim.AdamW([{"params": list(parameters)} for parameters in parts])

    def _clip_gradients(self) -> list[Tensor]:
        """Clip policy and critic apart: a large error of the critic must not stop the policy from learning."""
        limit = self.config.max_grad_norm
        return [torch.nn.utils.clip_grad_norm_(group["params"], limit) for group in self._optimizer.param_groups]

    def _forward(self, rows: Sequence[Row]) -> Outputs:
        """Run one forward pass over a micro-batch."""
        batch = RowBatch.of(rows, self._pad_id, self._device)
        with self._precision():
            return self._model(batch, self._temperature)  # type: ignore[no-any-return]

    def _policy_logprobs(self, rows: Sequence[Row]) -> Tensor:
        """Log-probabilities of all response tokens under the policy at temperature 1, without the critic."""
        batch = RowBatch.of(rows, self._pad_id, self._device)
        with self._precision():
            return token_logprobs(self._model.policy, batch, 1.0, self._model.shortcut)

    def _precision(self) -> torch.autocast:
        """The number format of forward passes."""
        return torch.autocast(self._device.type, dtype=self._autocast, enabled=self._autocast is not None)

    @torch.no_grad()
    def score(self, rows: Sequence[Row]) -> list[Scores]:
        """Log-probabilities and values of every row under the current weights, in the order given."""
        self._model.eval()
        scores: dict[int, Scores] = {}
        for indices in micro_batches(list(map(len, rows)), self.config.micro_batch_tokens):
            chosen = [rows[i] for i in indices]
            outputs = self._forward(chosen)
            cuts = np.cumsum([len(row.response_ids) for row in chosen])[:-1]
            logprobs = np.split(outputs.logprobs_K.float().cpu().numpy(), cuts)
            references = self._reference_logprobs(chosen, cuts)
            places_PH = outputs.values_PH.float().cpu().numpy()
            values = np.split(places_PH[:, 0], cuts) if self._model.critic == "token" else places_PH
            parts = zip(chosen, logprobs, values, references, strict=True)
            scores.update(zip(indices, (Scores(*part) for part in parts), strict=True))
        return [scores[i] for i in range(len(rows))]

    def _reference_logprobs(self, rows: Sequence[Row], cuts: NDArray[np.int64]) -> Sequence[Array | None]:
        if self._reference is None:
            return [None] * len(rows)
        batch = RowBatch.of(rows, self._pad_id, self._device)
        with self._precision():
            logprobs_K = token_logprobs(self._reference, batch, self._temperature, self._model.shortcut)
        return np.split(logprobs_K.float().cpu().numpy(), cuts)

    def update(
        self, rows: Sequence[TrainRow], *, seed: int, lr_scales: tuple[float, float] = (1.0, 1.0)
    ) -> dict[str, float]:
        """Improve policy and critic; metrics are averaged over the tokens, turns or steps they are about.

        Args:
            rows: one per turn.
            seed: of the shuffling.
            lr_scales: factors on the learning rates of policy and critic, for schedules.
        """
        rates = self.config.lr, self.config.critic_lr
        for group, rate, scale in zip(self._optimizer.param_groups, rates, lr_scales, strict=True):
            # A checkpoint brings along the rates that it was saved under, and they may have been mended since.
            group["lr"], group["weight_decay"] = rate * scale, self.config.weight_decay
        self._stopped = False
        self._model.train()
        meter = Meter()
        for epoch in range(self.config.epochs):
            for chosen in minibatches(rows, self.config.minibatch_turns, derive_seed(seed, epoch)):
                self._step(chosen, meter)
        return meter.means()

    def _step(self, rows: Sequence[TrainRow], meter: Meter) -> None:
        """One optimiser step over a mini-batch, its gradient accumulated over micro-batches."""
        counts = _Counts(
            credited=max(1, sum(int(row.mask.sum()) for row in rows)),
            said=sum(len(row.mask) for row in rows),
            places_H=np.maximum(1, self._at_places([row.target_mask for row in rows]).sum(0)),
        )
        kl = 0.0
        lengths = list(map(len, rows))
        batches = micro_batches(lengths, self.config.micro_batch_tokens)
        meter.add(names.PADDING.name, padding_share(lengths, batches))
        self._optimizer.zero_grad(set_to_none=True)
        for indices in batches:
            loss, kl_sum = self._loss([rows[i] for i in indices], counts, meter)
            loss.backward()
            kl += kl_sum / counts.credited
        policy_norm, critic_norm = self._clip_gradients()
        if not torch.isfinite(policy_norm + critic_norm):
            # Skipped rather than taken: one broken step would cost the whole run.
            meter.add(names.SKIPPED_STEPS.name, 1.0)
            return
        meter.add(names.SKIPPED_STEPS.name, 0.0)
        meter.add(names.GRAD_NORM.name, float(policy_norm))
        if self._model.heads.names:
            meter.add(names.CRITIC_GRAD_NORM.name, float(critic_norm))
        if self.config.target_kl is not None:
            policy, _ = self._optimizer.param_groups
            if kl > self.config.target_kl:
                policy["lr"], self._stopped = 0.0, True  # until the next update sets them; the critic goes on
            meter.add(names.POLICY_STOPPED.name, float(self._stopped))
        self._optimizer.step()

    def _loss(self, rows: Sequence[TrainRow], counts: _Counts, meter: Meter) -> tuple[Tensor, float]:
        """This micro-batch's part of the mini-batch's loss: token means for the policy, place means for each head.

        The surrogate is of the credited tokens. Entropy and KL are of all that was said: copies of a subgoal earn
        nothing, and would drift away with nothing to hold them. Beside the loss, the estimated KL divergences of the
        credited tokens from the policy that sampled them, summed.
        """
        config = self.config
        outputs = self._forward([row.row for row in rows])
        mask_K = self._tensor(np.concatenate([row.mask for row in rows]))
        old_K = self._tensor(np.concatenate([row.scores.logprobs for row in rows]))[mask_K]
        advantage_K = self._tensor(np.concatenate([row.advantages for row in rows]))[mask_K]
        log_ratio_K = (outputs.logprobs_K[mask_K] - old_K).clamp(-20, 20)
        surrogate_K = policy_loss(log_ratio_K.exp(), advantage_K, config.clip, config.dual_clip)
        loss = surrogate_K.sum() / counts.credited - config.entropy_coef * outputs.entropy_K.sum() / counts.said
        if config.kl_coef:
            reference_K = self._tensor(np.concatenate([_given(row.scores.reference) for row in rows]))
            kl_K = k3(outputs.logprobs_K, reference_K)
            loss = loss + config.kl_coef * kl_K.sum() / counts.said
            meter.add_all(names.REFERENCE_KL.name, kl_K)
        with torch.no_grad():
            ratio_K = log_ratio_K.exp()
            meter.add_all(names.POLICY_LOSS.name, surrogate_K)
            meter.add_all(names.ENTROPY.name, outputs.entropy_K)
            kl_sum = meter.add_all(names.POLICY_KL.name, ratio_K - 1 - log_ratio_K)
            meter.add_all(names.CLIP_FRACTION.name, ((ratio_K - 1).abs() > config.clip).float())
        loss = loss + config.value_coef * self._value_loss(outputs.values_PH, rows, counts.places_H, meter)
        return loss, kl_sum

    def _value_loss(
        self, values_PH: Tensor, rows: Sequence[TrainRow], places_H: NDArray[np.int64], meter: Meter
    ) -> Tensor:
        old_PH = self._tensor(self._at_places([row.scores.values for row in rows]))
        target_PH = self._tensor(self._at_places([row.targets for row in rows]))
        mask_PH = self._tensor(self._at_places([row.target_mask for row in rows]))
        loss_PH = value_loss(values_PH, old_PH, target_PH, self.config.value_clip) * mask_PH
        for h, name in enumerate(self._model.heads.names):
            meter.add_all(names.VALUE_LOSS.of(name), loss_PH[:, h][mask_PH[:, h]].detach())
        return (loss_PH.sum(0) / self._tensor(places_H)).sum()

    def _at_places(self, arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """(P, H) from the arrays of rows."""
        heads = len(self._model.heads.names)
        return np.concatenate(arrays).reshape(-1, heads) if heads else np.stack(arrays)

    def _tensor(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._device)


class _Counts(NamedTuple):
    """What the parts of a mini-batch's loss are means over."""

    credited: int
    """Tokens with an advantage."""
    said: int
    """Response tokens."""
    places_H: NDArray[np.int64]
    """Values trained, by head."""


def _given(reference: Array | None) -> Array:
    if reference is None:
        raise ValueError("kl_coef is not zero, but the rows were scored without a reference policy")
    return reference
