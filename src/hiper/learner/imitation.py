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
from hiper.learner.layout import Layout
from hiper.learner.optimizers import clip_gradients, make_optimizer, set_state
from hiper.models.batches import Pass, micro_batches
from hiper.models.lora import role_of
from hiper.models.parts import fill_all, gathered
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
        layout: Where the weights rest, and how processes share the rows of a step.
    """

    def __init__(
        self,
        policy: PreTrainedModel,
        trained: Sequence[Parameter],
        config: LearnerConfig,
        logprobs: Callable[[Sequence[Row]], Tensor],
        layout: Layout,
    ) -> None:
        self._policy, self._config, self._logprobs, self._layout = policy, config, logprobs, layout
        self._trained = list(trained)
        self._optimizer = make_optimizer(
            config.optimizer, self._trained, lr=0.0, betas=BETAS, weight_decay=WEIGHT_DECAY
        )

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
            clip_gradients(self._trained, self._config.max_grad_norm)
            for group in self._optimizer.param_groups:
                group["lr"] = lr
            self._optimizer.step()
        return loss

    def _accumulate(self, rows: Sequence[Row], prompt_weight: float) -> float:
        """Add the gradient over all rows of all processes, micro-batch by micro-batch, and return the loss."""
        responses = sum(len(row.response_ids) for row in rows)
        prompts = sum(map(len, rows)) - responses - len(rows)
        losses: list[float] = []

        def backward(one: Pass) -> None:
            response_K, prompt_K = self.losses([rows[i] for i in one.rows], with_prompts=prompt_weight > 0)
            loss = response_K.sum() / responses + prompt_weight * prompt_K.sum() / max(1, prompts)
            loss = loss * one.counts
            loss.backward()
            losses.append(float(loss.detach()))

        lengths = list(map(len, rows))
        batches = micro_batches(lengths, self._config.micro_batch_tokens)
        self._layout.accumulate(self._trained, batches, lengths, backward)
        return self._layout.processes.sum(sum(losses))

    def losses(self, rows: Sequence[Row], *, with_prompts: bool) -> tuple[Tensor, Tensor]:
        """Return negative log-likelihoods of all response tokens, and of all prompt tokens but each row's first."""
        # A language model reads everything after a row's first token as a response.
        read = [Row(r.prompt_ids[:1], r.prompt_ids[1:] + r.response_ids, None) for r in rows] if with_prompts else rows
        logprobs_K = self._logprobs(read)
        lengths = [(len(whole.response_ids), len(row.response_ids)) for whole, row in zip(read, rows, strict=True)]
        said = [k >= whole - response for whole, response in lengths for k in range(whole)]
        said_K = torch.tensor(said, device=logprobs_K.device)
        return -logprobs_K[said_K], -logprobs_K[~said_K]

    def save(self, path: Path | None, notes: Mapping[str, Any]) -> None:
        """Write policy, optimizer and ``notes`` (numbers, text, lists, mappings) to one file.

        Args:
            path: The file. None in all processes but the one that writes. A sharded learner's hand in their parts.
            notes: What the file says beside.
        """
        if path is None and not self._layout.sharded:
            return
        keep = path is not None
        policy = gathered(self._learned(), keep=keep)
        optimizer = self._optimizer.state_dict()
        if self._layout.sharded:
            state = {index: gathered(kinds, keep=keep) for index, kinds in optimizer["state"].items()}
            optimizer = {**optimizer, "state": state}
        if path is not None:
            with path.open("wb") as file:  # given a path, torch hides why it cannot write
                torch.save({**notes, "policy": policy, "optimizer": optimizer}, file)

    def load(self, path: Path) -> dict[str, Any]:
        """Restore policy and optimizer from a file of :meth:`save`, and return its notes.

        Raises:
            ValueError: The file is damaged or belongs to another model.
        """
        state = self._read(path)
        try:
            fill_all(self._learned(), state.pop("policy"), "it holds other parameters")
            set_state(self._optimizer, state.pop("optimizer")["state"])
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
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except DAMAGE as error:
            raise ValueError(str(error)) from error
        return state
