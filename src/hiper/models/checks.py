"""Checks of what the learner takes for granted of a model's passes, and the removal of dropout and noise."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from hiper.errors import UserError, first_line

MOST_DIFFERENCE = {torch.float32: 3e-4, torch.bfloat16: 0.03}
"""The :func:`logit_difference` that rounding explains in most models, by the format of the parameters."""


def without_dropout(policy: PreTrainedModel) -> None:
    """Set every rate of dropout and noise that a module holds to zero.

    The policy that samples and the policy that is updated must be the same, or PPO's ratios are noise. Modules of
    transformers hold rates of their own beside ``nn.Dropout``.
    """
    for module in policy.modules():
        for name, value in vars(module).items():
            if isinstance(value, float) and (_is_noise(name) or (name == "p" and isinstance(module, nn.Dropout))):
                setattr(module, name, 0.0)


def _silence_config(policy: PreTrainedModel) -> None:
    """Set every rate of dropout and noise in the config to zero, for models that read it in each pass."""
    configs = [policy.config, *(module.config for module in policy.modules() if hasattr(module, "config"))]
    for config in configs:
        for name, value in vars(config).items():
            if isinstance(value, float) and _is_noise(name):
                setattr(config, name, 0.0)


def _is_noise(name: str) -> bool:
    return any(word in name for word in ("drop", "jitter", "noise"))


@torch.no_grad()
def check_passes(policy: PreTrainedModel, path: str | Path) -> None:
    """Check what the learner takes for granted of a model. Nothing else of it is drawn or changed.

    - Logits are the language head's output on the last hidden states. The learner calls the head alone, at the
      positions it reads.
    - Training mode gives what evaluation mode gives. Else the policy that is updated is not the one that sampled.
      Rates of noise that stand in the config alone are set to zero there.

    Raises:
        UserError: It is otherwise, or the model cannot be run at all.
    """
    was_training = policy.training

    def read(ids: Tensor, training: bool) -> Tensor:
        policy.train(training)
        head = cast(nn.Module, policy.get_output_embeddings())
        return cast(Tensor, head(policy.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state))

    try:
        words = cast(nn.Embedding, policy.get_input_embeddings()).weight.shape[0]
        ids = torch.randint(words, (2, 16), generator=torch.Generator().manual_seed(0)).to(policy.device)
        with torch.random.fork_rng():
            sampled = read(ids, training=False)
            own = policy(input_ids=ids, use_cache=False).logits
            if noisy := _is_noisy(sampled, read(ids, training=True), read(ids, training=True)):
                _silence_config(policy)
                noisy = _is_noisy(sampled, read(ids, training=True), read(ids, training=True))
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # a model of another kind fails in its own way
        other = " or model.param_dtype=float32" if policy.dtype != torch.float32 else ""
        raise UserError(
            f"'{path}' ({policy.config.model_type}) cannot be run as a causal language model: {first_line(error)}; "
            f"try another model{other}"
        ) from error
    finally:
        policy.train(was_training)
    if not torch.allclose(sampled.float(), own.float(), rtol=1e-2, atol=1e-2, equal_nan=True):
        raise UserError(
            f"'{path}' changes its logits after the language head, which the learner does not support; choose "
            "another model"
        )
    if noisy:
        raise UserError(
            f"'{path}' ({policy.config.model_type}) computes other logits in training mode than in evaluation mode, "
            "and no rate of dropout or noise in its config explains it: what samples would not be what is trained; "
            "choose another model"
        )


def _is_noisy(sampled: Tensor, trained: Tensor, again: Tensor) -> bool:
    """Whether two passes in training mode differ from each other, or from one in evaluation mode.

    Two equal passes differ by noise alone. Training may also run other kernels, which round otherwise. What is not
    finite is diverged, which is said when it is sampled from.
    """
    if not bool(sampled.isfinite().all()):
        return False
    most = MOST_DIFFERENCE.get(sampled.dtype, MOST_DIFFERENCE[torch.float32])
    return logit_difference(trained, again) > most / 10 or logit_difference(trained, sampled) > most


def logit_difference(found_NV: Tensor, expected_NV: Tensor) -> float:
    """Return the difference of two models' logits in units of their spread: root mean squares, averaged over rows.

    A router of experts that rounding tips over changes single rows much; a wrong cache changes most of them.
    """
    difference = torch.log_softmax(found_NV.float(), -1) - torch.log_softmax(expected_NV.float(), -1)
    spread = expected_NV.float().std(-1).clamp(min=1e-9)
    return float((difference.square().mean(-1).sqrt() / spread).mean())
