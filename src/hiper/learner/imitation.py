"""Supervised training of the policy on demonstrations: the warm start's loss and optimizer."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from transformers import PreTrainedModel

from hiper.config import LearnerConfig
from hiper.learner.checkpoint import DAMAGE
from hiper.learner.gradients import accumulate
from hiper.models.batches import micro_batches
from hiper.models.lora import role_of
from hiper.processes import ALONE, Processes
from hiper.rows import Row

BETAS, WEIGHT_DECAY = (0.9, 0.95), 0.01
"""The settings of AdamW during imitation."""


class Imitation:
    """AdamW on demonstrations. :meth:`Learner.imitate` makes it. The critic and PPO's optimizer do not change.

    Args:
        policy: The model that learns.
        trained: Those of its parameters that are trained.
        config: The learner's settings. Imitation uses its micro-batches and its limit of the gradient's norm.
        logprobs: A function that returns the log-probabilities of all response tokens of some rows, at temperature 1.
        processes: The processes that train together. They split the rows of a step, and sum gradients.
    """

    def __init__(
        self,
        policy: PreTrainedModel,
        trained: Sequence[Parameter],
        config: LearnerConfig,
        logprobs: Callable[[Sequence[Row]], Tensor],
        processes: Processes = ALONE,
    ) -> None:
        self._policy, self._config, self._logprobs, self._processes = policy, config, logprobs, processes
        self._trained = list(trained)
        self._optimizer = torch.optim.AdamW(self._trained, lr=0.0, betas=BETAS, weight_decay=WEIGHT_DECAY)

    def step(self, rows: Sequence[Row], *, lr: float, prompt_loss: float = 0.0) -> float:
        """Make one step on a mini-batch and return its loss in nats.

        The loss is the mean over response tokens, plus ``prompt_loss`` times the mean over prompt tokens. A step whose
        loss is NaN or infinite is skipped.

        Args:
            rows: The prompts, and the responses to imitate.
            lr: The learning rate of this step.
            prompt_loss: The weight of the language-modelling loss on prompts.
        """
        self._policy.train()
        self._optimizer.zero_grad(set_to_none=True)
        loss = self._accumulate(rows, prompt_loss)
        if math.isfinite(loss):
            torch.nn.utils.clip_grad_norm_(self._trained, self._config.max_grad_norm)
            for group in self._optimizer.param_groups:
                group["lr"] = lr
            self._optimizer.step()
        return loss

    def _accumulate(self, rows: Sequence[Row], prompt_weight: float) -> float:
        """Add the gradient over all rows of all processes, micro-batch by micro-batch, and return the loss."""
        responses = sum(len(row.response_ids) for row in rows)
        prompts = sum(map(len, rows)) - responses - len(rows)
        losses: list[float] = []

        def backward(indices: Sequence[int]) -> None:
            response_K, prompt_K = self.losses([rows[i] for i in indices], with_prompts=prompt_weight > 0)
            loss = response_K.sum() / responses + prompt_weight * prompt_K.sum() / max(1, prompts)
            loss.backward()
            losses.append(float(loss.detach()))

        lengths = list(map(len, rows))
        batches = micro_batches(lengths, self._config.micro_batch_tokens)
        accumulate(self._trained, batches, lengths, self._processes, backward)
        return self._processes.sum(sum(losses))

    def losses(self, rows: Sequence[Row], *, with_prompts: bool) -> tuple[Tensor, Tensor]:
        """Return negative log-likelihoods of all response tokens, and of all prompt tokens but each row's first."""
        # A language model reads everything after a row's first token as a response.
        read = [Row(r.prompt_ids[:1], r.prompt_ids[1:] + r.response_ids, None) for r in rows] if with_prompts else rows
        logprobs_K = self._logprobs(read)
        lengths = [(len(whole.response_ids), len(row.response_ids)) for whole, row in zip(read, rows, strict=True)]
        said = [k >= whole - response for whole, response in lengths for k in range(whole)]
        said_K = torch.tensor(said, device=logprobs_K.device)
        return -logprobs_K[said_K], -logprobs_K[~said_K]

    def save(self, path: Path, notes: Mapping[str, Any]) -> None:
        """Write policy, optimizer and ``notes`` (numbers, text, lists, mappings) to one file."""
        state = {"policy": self._learned(), "optimizer": self._optimizer.state_dict()}
        torch.save({**notes, **state}, path)

    def load(self, path: Path) -> dict[str, Any]:
        """Restore policy and optimizer from a file of :meth:`save`, and return its notes.

        Raises:
            ValueError: The file is damaged or belongs to another model.
        """
        state = self._read(path)
        try:
            learned = state.pop("policy")
            if learned.keys() != self._learned().keys():
                raise ValueError("it holds other parameters")
            self._policy.load_state_dict(learned, strict=False)
            self._optimizer.load_state_dict(state.pop("optimizer"))
        except DAMAGE as error:
            raise ValueError(str(error)) from error
        return state

    def _learned(self) -> dict[str, Tensor]:
        """Return the tensors that imitation changes: all, or those of the policy's adapter."""
        state = self._policy.state_dict()
        adapter = {name: tensor for name, tensor in state.items() if role_of(name) == "policy"}
        return adapter or state

    def notes(self, path: Path) -> dict[str, Any]:
        """Return the notes of a saved file without restoring anything.

        Raises:
            ValueError: The file is damaged.
        """
        return {key: value for key, value in self._read(path).items() if key not in ("policy", "optimizer")}

    def _read(self, path: Path) -> dict[str, Any]:
        try:
            # torch reads damaged weights without a word, but writes the checksums of every zip file.
            with zipfile.ZipFile(path) as archive:
                if damaged := archive.testzip():
                    raise ValueError(f"{damaged} is not as it was written")
            state: dict[str, Any] = torch.load(path, map_location=self._policy.device, weights_only=True)
        except DAMAGE as error:
            raise ValueError(str(error)) from error
        return state
