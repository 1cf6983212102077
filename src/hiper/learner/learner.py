"""The learner: scores rows under the current weights, then improves policy and critic on them.

Legend: N rows (turns), K response tokens of all rows together, H value heads, P places where all of them are read: one
a row, or one a response token.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from hiper.config import LearnerConfig
from hiper.learner.batches import minibatches
from hiper.learner.losses import k3, policy_loss, value_loss
from hiper.models.actor_critic import ActorCritic, Outputs, Row, RowBatch, token_logprobs
from hiper.models.batches import micro_batches, padding_share
from hiper.runs import metrics as names
from hiper.seeding import derive_seed

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Scores:
    """A row under the weights that sampled it."""

    row: Row
    """What was scored."""
    logprobs: Array
    """Of each response token, under the learner's forward pass."""
    values: Array
    """(H,), in the order of the critic's heads; of a critic of tokens (K,); without a critic (0,)."""
    reference: Array | None
    """Log-probabilities under the frozen reference policy."""


@dataclass(frozen=True, slots=True)
class TrainRow:
    """A row with all that the losses need."""

    row: Row
    scores: Scores
    advantages: Array
    """Of each response token."""
    mask: NDArray[np.bool_]
    """The token has a policy loss."""
    targets: Array
    """One for each value."""
    target_mask: NDArray[np.bool_]
    """The value is trained."""

    def __len__(self) -> int:
        return len(self.row)


class Learner:
    """PPO on rows.

    Args:
        model: policy and critic, on their device.
        config: see :class:`~hiper.config.LearnerConfig`.
        pad_id: token that fills batches.
        temperature: of the sampling; log-probabilities are taken at it.
        autocast: number format of the forward passes, None for that of the parameters.
    """

    def __init__(
        self,
        model: ActorCritic,
        config: LearnerConfig,
        *,
        pad_id: int,
        temperature: float,
        autocast: torch.dtype | None = None,
    ) -> None:
        self.model = model
        self.config = config
        self._reference: PreTrainedModel | None = None
        self.pad_id = pad_id
        self._temperature = temperature
        self.autocast = autocast
        self.optimizer = self._make_optimizer()

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def hold_on_to(self, reference: PreTrainedModel) -> None:
        """Freeze ``reference`` as the policy that the KL term holds on to."""
        self._reference = reference.eval().requires_grad_(False)

    def _make_optimizer(self) -> torch.optim.AdamW:
        """Of policy and critic, whose rates each update sets."""
        parts = self.model.policy.parameters(), self.model.critic_parameters()
        return torch.optim.AdamW([{"params": list(parameters)} for parameters in parts])

    def _clip_gradients(self) -> list[Tensor]:
        """Policy and critic on their own: a large error of the critic must not stop the policy from learning."""
        limit = self.config.max_grad_norm
        return [torch.nn.utils.clip_grad_norm_(group["params"], limit) for group in self.optimizer.param_groups]

    def forward(self, rows: Sequence[Row]) -> Outputs:
        """One forward pass over a micro-batch."""
        batch = RowBatch.of(rows, self.pad_id, self.device)
        with self.precision():
            return self.model(batch, self._temperature)  # type: ignore[no-any-return]

    def precision(self) -> torch.autocast:
        """The number format of forward passes."""
        return torch.autocast(self.device.type, dtype=self.autocast, enabled=self.autocast is not None)

    @torch.no_grad()
    def score(self, rows: Sequence[Row]) -> list[Scores]:
        """Log-probabilities and values of every row under the current weights, in the order given."""
        self.model.eval()
        scores: dict[int, Scores] = {}
        for indices in micro_batches(list(map(len, rows)), self.config.micro_batch_tokens):
            chosen = [rows[i] for i in indices]
            outputs = self.forward(chosen)
            cuts = np.cumsum([len(row.response_ids) for row in chosen])[:-1]
            logprobs = np.split(outputs.logprobs_K.float().cpu().numpy(), cuts)
            references = self._reference_logprobs(chosen, cuts)
            places_PH = outputs.values_PH.float().cpu().numpy()
            values = np.split(places_PH[:, 0], cuts) if self.model.critic == "token" else places_PH
            parts = zip(chosen, logprobs, values, references, strict=True)
            scores.update(zip(indices, (Scores(*part) for part in parts), strict=True))
        return [scores[i] for i in range(len(rows))]

    def _reference_logprobs(self, rows: Sequence[Row], cuts: NDArray[np.int64]) -> Sequence[Array | None]:
        if self._reference is None:
            return [None] * len(rows)
        batch = RowBatch.of(rows, self.pad_id, self.device)
        with self.precision():
            logprobs_K = token_logprobs(self._reference, batch, self._temperature)
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
        for group, rate, scale in zip(self.optimizer.param_groups, rates, lr_scales, strict=True):
            # A checkpoint brings along the rates that it was saved under, and they may have been mended since.
            group["lr"], group["weight_decay"] = rate * scale, self.config.weight_decay
        self._stopped = False
        self.model.train()
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
        self.optimizer.zero_grad(set_to_none=True)
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
        if self.model.heads.names:
            meter.add(names.CRITIC_GRAD_NORM.name, float(critic_norm))
        if self.config.target_kl is not None:
            policy, _ = self.optimizer.param_groups
            if kl > self.config.target_kl:
                policy["lr"], self._stopped = 0.0, True  # until the next update sets them; the critic goes on
            meter.add(names.POLICY_STOPPED.name, float(self._stopped))
        self.optimizer.step()

    def _loss(self, rows: Sequence[TrainRow], counts: _Counts, meter: Meter) -> tuple[Tensor, float]:
        """This micro-batch's part of the mini-batch's loss: token means for the policy, place means for each head.

        The surrogate is of the credited tokens. Entropy and KL are of all that was said: copies of a subgoal earn
        nothing, and would drift away with nothing to hold them. Beside the loss, the estimated KL divergences of the
        credited tokens from the policy that sampled them, summed.
        """
        config = self.config
        outputs = self.forward([row.row for row in rows])
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
        for h, name in enumerate(self.model.heads.names):
            meter.add_all(names.VALUE_LOSS.of(name), loss_PH[:, h][mask_PH[:, h]].detach())
        return (loss_PH.sum(0) / self._tensor(places_H)).sum()

    def _at_places(self, arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """(P, H) from the arrays of rows."""
        heads = len(self.model.heads.names)
        return np.concatenate(arrays).reshape(-1, heads) if heads else np.stack(arrays)

    def _tensor(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)


class _Counts(NamedTuple):
    """What the parts of a mini-batch's loss are means over."""

    credited: int
    """Tokens with an advantage."""
    said: int
    """Response tokens."""
    places_H: NDArray[np.int64]
    """Values trained, by head."""


class Meter:
    """Means over everything that was added under a name."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = defaultdict(float)
        self._counts: dict[str, int] = defaultdict(int)

    def add(self, name: str, value: float) -> None:
        """One number."""
        self._sums[name] += value
        self._counts[name] += 1

    def add_all(self, name: str, values: Tensor) -> float:
        """Each entry of a tensor; gives their sum."""
        total = float(values.detach().sum())
        self._sums[name] += total
        self._counts[name] += values.numel()
        return total

    def means(self) -> dict[str, float]:
        """The mean under each name that got a number."""
        return {name: total / self._counts[name] for name, total in self._sums.items() if self._counts[name]}


def _given(reference: Array | None) -> Array:
    if reference is None:
        raise ValueError("kl_coef is not zero, but the rows were scored without a reference policy")
    return reference
