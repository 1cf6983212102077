"""AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101) in the implementations that the settings name.

Parameters, gradients and moments may be sharded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer

from hiper.errors import UserError
from hiper.models.parts import part_of, whole

Kind = Literal["adamw", "adamw_fused", "adamw_8bit"]


def make_optimizer(kind: Kind, parameters: Iterable[Any], **settings: Any) -> Optimizer:
    """Make AdamW.

    Args:
        kind: The implementation; see :attr:`hiper.config.LearnerConfig.optimizer`.
        parameters: The parameters, or groups of them.
        settings: Arguments of ``torch.optim.AdamW``.

    Raises:
        UserError: A package is missing.
    """
    if kind == "adamw_8bit":
        try:
            from bitsandbytes.optim.adamw import AdamW8bit
        except ImportError:
            raise UserError(
                "learner.optimizer=adamw_8bit needs the package bitsandbytes, which is not installed: "
                "pip install 'hiper[bitsandbytes]'"
            ) from None
        eight: Optimizer = AdamW8bit(parameters, **settings)
        return eight
    return torch.optim.AdamW(parameters, fused=kind == "adamw_fused" or None, **settings)


def parameters_of(optimizer: Optimizer) -> list[Parameter]:
    """Return the parameters that an optimizer trains, in its order."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def set_state(optimizer: Optimizer, state: Mapping[int, Mapping[str, Any]]) -> None:
    """Set what an optimizer keeps of each parameter, such as its moments. Tensors may be whole where it keeps parts."""
    parameters = dict(enumerate(parameters_of(optimizer)))
    cut = {
        index: {
            kind: part_of(kept, like=parameters[index]) if _is_like(kept, parameters[index]) else kept
            for kind, kept in kinds.items()
        }
        for index, kinds in state.items()
    }
    optimizer.load_state_dict({"state": cut, "param_groups": optimizer.state_dict()["param_groups"]})


def _is_like(kept: Any, parameter: Parameter) -> bool:
    return isinstance(kept, Tensor) and kept.shape == parameter.shape


def clip_gradients(parameters: Sequence[Parameter], limit: float) -> Tensor:
    """Scale gradients down to a norm of at most ``limit``, and return their norm before."""
    norm = whole(get_total_norm([p.grad for p in parameters if p.grad is not None]))
    clip_grads_with_norm_(parameters, limit, norm)
    return norm
