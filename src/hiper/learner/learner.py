"""The learner, which scores rows under the current weights and then improves policy and critic on them.

Legend: N rows (turns), K response tokens of all rows, H value heads, P places where the heads are read (one for each
row, or one for each response token).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import Optimizer
from transformers import PreTrainedModel

from hiper.advantages import Critic
from hiper.config import LearnerConfig, ModelConfig
from hiper.learner.checkpoint import load_state, save_state
from hiper.learner.imitation import Imitation
from hiper.learner.layout import Layout, Whole, make_layout
from hiper.learner.losses import Counts, Meter, given, importance, k3, policy_loss, value_loss
from hiper.learner.optimizers import clip_gradients, make_optimizer, parameters_of
from hiper.models.actor_critic import ActorCritic, Description, Outputs, RowBatch
from hiper.models.batches import Pass, micro_batches, minibatches, padding_share
from hiper.models.build import add_critic, choose_autocast, choose_device, empty_twin, load_policy
from hiper.models.parts import fill_all, named_tensors
from hiper.models.weights import Loads, PolicyWeights
from hiper.processes import ALONE, Processes
from hiper.rows import Array, Row, Scores, Told, TrainRow, mute
from hiper.runs import metrics as names
from hiper.seeding import derive_seed
from hiper.stopping import Check, go_on


class Learner:
    """Policy and critic, trained by PPO on rows. No other class touches the model, the optimizer or the number format.

    Args:
        model: Policy and critic.
        config: The settings; see :class:`~hiper.config.LearnerConfig`.
        pad_id: The token that fills batches.
        temperature: The sampling temperature. Log-probabilities are computed at it.
        autocast: The number format of forward passes. None: the format of the parameters.
        model_config: The settings under which a reference policy is loaded.
        layout: Where the weights rest, and how processes share the rows of every call. The model is placed by it.
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
        layout: Layout | None = None,
    ) -> None:
        self.config = config
        self._layout = layout or Whole()
        self._model = model
        self._device = self._layout.place(model)
        self._model_config = model_config or ModelConfig()
        self._reference: ActorCritic | None = None
        self._pad_id = pad_id
        self._temperature = temperature
        self._autocast = autocast
        self._optimizer = self._make_optimizer()
        self.stepped = False
        """Whether the last update, finished or not, has changed weights."""

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
        processes: Processes = ALONE,
    ) -> Learner:
        """Add the critic that the estimator needs to a policy, and make a learner of both.

        Args:
            policy: A causal language model.
            critic: The kind of critic; see :data:`~hiper.advantages.Critic`.
            config: The settings of the updates.
            model_config: The settings of the critic's backbone and the number formats.
            device: The name of the device, as in ``training.device``.
            pad_id: The token that fills batches.
            temperature: The sampling temperature.
            processes: The processes that train together.

        Raises:
            UserError: The device is missing, or the number formats do not fit each other.
        """
        place = choose_device(device)
        autocast = choose_autocast(model_config, place)
        return cls(
            add_critic(policy, model_config, critic, config.lora, reference=config.kl_coef > 0),
            config,
            pad_id=pad_id,
            temperature=temperature,
            autocast=autocast,
            model_config=model_config,
            layout=make_layout(config, processes, place, autocast),
        )

    @property
    def processes(self) -> Processes:
        """The processes that train together."""
        return self._layout.processes

    @property
    def sharded(self) -> bool:
        """Whether each process holds only a part of the weights. Then all processes must save and export together."""
        return self._layout.sharded

    def close(self) -> None:
        """Release what sharding has opened. A sharded learner cannot be used any more."""
        self._layout.close()

    def describe(self) -> Description:
        """Describe the learner for people."""
        return self._model.describe()

    def weights(self) -> PolicyWeights:
        """Return the policy's weights as a sampler loads them. They are shared, so updates change them."""
        return PolicyWeights(self._model.policy, self._autocast, self._model.shortcut)

    def publish(self, sampler: Loads, version: int) -> None:
        """Load the current weights into a sampler, as ``version``."""
        sampler.load(self.weights(), version)

    def set_reference(self, source: str | Path | None = None) -> None:
        """Set and freeze the reference policy of the KL term.

        Args:
            source: A Hugging Face directory or name; None: a copy of the current policy.

        Raises:
            UserError: No model can be loaded from ``source``.
        """
        if (adapters := self._model.adapters) is not None:
            adapters.copy("policy", "reference")
            if source is not None:
                adapters.restore("reference", Path(source))
            return
        policy = empty_twin(self._model.policy) if source is None else load_policy(source, self._model_config)
        reference = ActorCritic(policy.eval().requires_grad_(False), None, critic="none", shortcut=self._model.shortcut)
        self._layout.place(reference)
        if source is None:
            fill_all(named_tensors(policy), named_tensors(self._model.policy), "the policy has other tensors")
        self._reference = reference

    def imitate(self) -> Imitation:
        """Begin supervised training on demonstrations, with an optimizer of its own."""
        trained = self._model.policy_parameters()
        return Imitation(self._model.policy, trained, self.config, self._policy_logprobs, self._layout)

    def copy_policy_to_critic(self) -> None:
        """Copy the policy's current weights into the critic's own backbone, if it has one."""
        self._model.copy_backbone()

    def export(self, folder: Path) -> None:
        """Write the policy into ``folder`` as an ordinary Hugging Face directory (without a tokenizer).

        With LoRA it is the folder of an adapter that names its base. The first process writes. All processes of a
        sharded learner must call this together.
        """
        if (adapters := self._model.adapters) is not None:
            adapters.save(folder, writing=self.processes.first)
        else:
            self.weights().save(folder, writing=self.processes.first)

    def load_adapter(self, folder: Path) -> None:
        """Continue with the adapter of a folder.

        Raises:
            UserError: It is damaged, or was made for other settings or another model.
        """
        assert self._model.adapters is not None
        self._model.adapters.restore("policy", folder)

    def save(self, folder: Path, iteration: int) -> None:
        """Write what resuming needs beside the policy; see :mod:`hiper.learner.checkpoint`.

        All processes of a sharded learner must call this together.
        """
        save_state(folder, self._model, self._optimizer, iteration)

    def load(self, folder: Path) -> int:
        """Restore critic and optimizer, and return the number of iterations done.

        The policy itself is loaded when the learner is built.

        Raises:
            UserError: The checkpoint is damaged or of another architecture.
        """
        return load_state(folder, self._model, self._optimizer)

    def _make_optimizer(self) -> Optimizer:
        """Make AdamW with one parameter group each for policy and critic. :meth:`update` sets the learning rates."""
        parts = self._model.policy_parameters(), self._model.critic_parameters()
        return make_optimizer(self.config.optimizer, [{"params": parameters} for parameters in parts])

    def _clip_gradients(self) -> list[Tensor]:
        """Clip the gradients of policy and critic separately, and return their norms before clipping.

        A large error of the critic must not stop the policy from learning.
        """
        return [clip_gradients(group["params"], self.config.max_grad_norm) for group in self._optimizer.param_groups]

    def _forward(self, rows: Sequence[Row]) -> Outputs:
        """Run one forward pass over a micro-batch."""
        batch = RowBatch.of(rows, self._pad_id, self._device)
        other = any(row.critic_prompt_ids is not None for row in rows)
        critic = RowBatch.of([row.for_critic for row in rows], self._pad_id, self._device) if other else None
        with self._precision():
            return self._model(batch, self._temperature, critic)  # type: ignore[no-any-return]

    def _policy_logprobs(self, rows: Sequence[Row]) -> Tensor:
        """Return the log-probabilities (K,) of all response tokens under the policy at temperature 1."""
        batch = RowBatch.of(rows, self._pad_id, self._device)
        with self._precision():
            return self._model(batch, 1.0, values=False).logprobs_K  # type: ignore[no-any-return]

    def _micro_batches(self, rows: Sequence[Row] | Sequence[TrainRow]) -> tuple[list[list[int]], list[int]]:
        """Return the indices of rows by micro-batch, and the length of each row."""
        lengths = list(map(len, rows))
        return micro_batches(lengths, self.config.micro_batch_tokens), lengths

    def _precision(self) -> torch.autocast:
        """Return a context in which forward passes use their number format."""
        return torch.autocast(self._device.type, dtype=self._autocast, enabled=self._autocast is not None)

    @torch.no_grad()
    def score(self, rows: Sequence[Row], on_rows: Told = mute) -> list[Scores]:
        """Compute log-probabilities and values of every row under the current weights, in the order of ``rows``."""
        self._model.eval()
        scored: dict[int, tuple[Array, Array, Array | None, Array]] = {}
        batches, lengths = self._micro_batches(rows)
        for one in self._layout.passes(batches, lengths):
            chosen = [rows[i] for i in one.rows]
            outputs = self._forward(chosen)
            cuts = np.cumsum([len(row.response_ids) for row in chosen])[:-1]
            logprobs, entropies = (np.split(array.float().cpu().numpy(), cuts) for array in outputs[:2])
            references = self._reference_logprobs(chosen, cuts)
            places_PH = outputs.values_PH.float().cpu().numpy()
            values = np.split(places_PH[:, 0], cuts) if self._model.critic == "token" else places_PH
            if one.counts:
                scored.update(zip(one.rows, zip(logprobs, values, references, entropies, strict=True), strict=True))
                on_rows(len(one.rows) * self.processes.count)
        everyones = [item for part in self.processes.gather(scored) for item in part.items()]
        return [Scores(rows[i], *parts) for i, parts in sorted(everyones, key=itemgetter(0))]

    def _reference_logprobs(self, rows: Sequence[Row], cuts: NDArray[np.int64]) -> Sequence[Array | None]:
        adapters = self._model.adapters
        model = self._model if adapters and "reference" in adapters.roles else self._reference
        if model is None:
            return [None] * len(rows)
        batch = RowBatch.of(rows, self._pad_id, self._device)
        with self._precision(), adapters.using("reference") if adapters else nullcontext():
            logprobs_K = model(batch, self._temperature, values=False).logprobs_K
        return np.split(logprobs_K.float().cpu().numpy(), cuts)

    def update(
        self,
        rows: Sequence[TrainRow],
        *,
        seed: int,
        lr_scales: tuple[float, float] = (1.0, 1.0),
        on_rows: Told = mute,
        check: Check = go_on,
    ) -> dict[str, float]:
        """Improve policy and critic on the rows of an iteration.

        Args:
            rows: One row for each turn.
            seed: The seed of the shuffling.
            lr_scales: The factors on the learning rates of policy and critic, for schedules.
            on_rows: Told after each micro-batch its number of rows, times the processes that work at the same time.
            check: A function called before each optimizer step. If it raises, the weights must be restored.

        Returns:
            The metrics of the update. Each is the mean over its own tokens, turns or steps.
        """
        rates = self.config.lr, self.config.critic_lr
        for group, rate, scale in zip(self._optimizer.param_groups, rates, lr_scales, strict=True):
            # A checkpoint holds the rates that it was saved under, and the settings may have changed since.
            group["lr"], group["weight_decay"] = rate * scale, self.config.weight_decay
        self._stopped = self.stepped = False
        self._model.train()
        meter = Meter()
        for epoch in range(self.config.epochs):
            for chosen in minibatches(rows, self.config.minibatch_turns, derive_seed(seed, epoch)):
                check()
                self._step(chosen, meter, on_rows)
        return meter.means(self.processes)

    def _step(self, rows: Sequence[TrainRow], meter: Meter, on_rows: Told) -> None:
        """Make one optimizer step on a mini-batch.

        The gradient is accumulated over this process's micro-batches, then summed over all processes.
        """
        counts = Counts(
            credited=max(1, sum(int(row.mask.sum()) for row in rows)),
            said=sum(len(row.mask) for row in rows),
            places_H=np.maximum(1, self._at_places([row.target_mask for row in rows]).sum(0)),
        )
        kl: list[float] = []
        batches, lengths = self._micro_batches(rows)
        meter.add(names.PADDING.name, padding_share(lengths, batches))
        self._optimizer.zero_grad(set_to_none=True)

        def backward(one: Pass) -> None:
            loss, kl_sum = self._loss([rows[i] for i in one.rows], counts, meter if one.counts else Meter())
            (loss * one.counts).backward()
            if one.counts:
                kl.append(kl_sum / counts.credited)
                on_rows(len(one.rows) * self.processes.count)

        self._layout.accumulate(parameters_of(self._optimizer), batches, lengths, backward)
        policy_norm, critic_norm = self._clip_gradients()
        if not torch.isfinite(policy_norm + critic_norm):
            # One broken step would spoil the whole run, so it is skipped.
            meter.add(names.SKIPPED_STEPS.name, 1.0)
            return
        meter.add(names.SKIPPED_STEPS.name, 0.0)
        meter.add(names.GRAD_NORM.name, float(policy_norm))
        if self._model.heads.names:
            meter.add(names.CRITIC_GRAD_NORM.name, float(critic_norm))
        if self.config.target_kl is not None:
            if self.processes.sum(sum(kl)) > self.config.target_kl:
                self._optimizer.param_groups[0]["lr"], self._stopped = 0.0, True  # in this update; the critic learns on
            meter.add(names.POLICY_STOPPED.name, float(self._stopped))
        self.stepped = True
        self._optimizer.step()

    def _loss(self, rows: Sequence[TrainRow], counts: Counts, meter: Meter) -> tuple[Tensor, float]:
        """Compute this micro-batch's part of the mini-batch's loss.

        The policy's terms are means over tokens, and each head's term is a mean over places. The surrogate covers the
        credited tokens. Entropy and KL cover all response tokens. Copies of a subgoal get no credit, so without these
        terms they would drift.

        Returns:
            The loss, and a sum over the credited tokens: the estimated KL divergence from the policy that sampled.
        """
        config = self.config
        outputs = self._forward([row.row for row in rows])
        mask_K = self._tensor(np.concatenate([row.mask for row in rows]))
        old_K = self._tensor(np.concatenate([row.scores.logprobs for row in rows]))[mask_K]
        advantage_K = self._tensor(np.concatenate([row.advantages for row in rows]))[mask_K]
        log_ratio_K = (outputs.logprobs_K[mask_K] - old_K).clamp(-20, 20)
        surrogate_K = policy_loss(log_ratio_K.exp(), advantage_K, config.clip, config.dual_clip)
        if config.importance_cap is not None:
            sampled = np.concatenate([row.row.sampled_logprobs for row in rows], dtype=np.float32)
            weight_K = importance(old_K, self._tensor(sampled)[mask_K], config.importance_cap)
            surrogate_K = surrogate_K * weight_K
            meter.add_importance(weight_K, config.importance_cap)
        loss = surrogate_K.sum() / counts.credited - config.entropy_coef * outputs.entropy_K.sum() / counts.said
        if config.kl_coef:
            reference_K = self._tensor(np.concatenate([given(row.scores.reference) for row in rows]))
            kl_K = k3(outputs.logprobs_K, reference_K)
            loss = loss + config.kl_coef * kl_K.sum() / counts.said
            meter.add_all(names.REFERENCE_KL.name, kl_K)
        with torch.no_grad():
            ratio_K = log_ratio_K.exp()
            meter.add_all(names.POLICY_LOSS.name, surrogate_K)
            meter.add_all(names.ENTROPY.name, outputs.entropy_K)
            kl_sum = meter.add_all(names.POLICY_KL.name, ratio_K - 1 - log_ratio_K)
            meter.add_all(names.CLIP_FRACTION.name, ((ratio_K - 1).abs() > config.clip).float())
        return loss + config.value_coef * self._value_loss(outputs.values_PH, rows, counts, meter), kl_sum

    def _value_loss(self, values_PH: Tensor, rows: Sequence[TrainRow], counts: Counts, meter: Meter) -> Tensor:
        old_PH = self._tensor(self._at_places([row.scores.values for row in rows]))
        target_PH = self._tensor(self._at_places([row.targets for row in rows]))
        mask_PH = self._tensor(self._at_places([row.target_mask for row in rows]))
        loss_PH = value_loss(values_PH, old_PH, target_PH, self.config.value_clip) * mask_PH
        for h, name in enumerate(self._model.heads.names):
            meter.add_all(names.VALUE_LOSS.of(name), loss_PH[:, h][mask_PH[:, h]].detach())
        return (loss_PH.sum(0) / self._tensor(counts.places_H)).sum()

    def _at_places(self, arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """Join the arrays of rows into one of shape (P, H)."""
        heads = len(self._model.heads.names)
        return np.concatenate(arrays).reshape(-1, heads) if heads else np.stack(arrays)

    def _tensor(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._device)
