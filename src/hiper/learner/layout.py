"""Where weights rest, and which process makes which passes over rows.

:class:`Whole` leaves all weights in every process. :class:`Sharded` gives each process an equal part of weights,
gradients and moments, with torch's FSDP2 (Zhao et al. 2023, arXiv 2304.11277). Both give the same sums of gradients.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.nn import Parameter

from hiper.config import LearnerConfig
from hiper.errors import UserError, first_line
from hiper.learner.gradients import Backward, accumulate
from hiper.models.actor_critic import ActorCritic
from hiper.models.batches import Pass, idle_share, in_step, owners
from hiper.processes import ALONE, Processes, noticing_losses

log = logging.getLogger(__name__)

MOST_IDLE = 1 / 3
"""The largest share of their time that processes may wait for each other in updates without a warning."""


class Layout(Protocol):
    """The interface of layouts."""

    processes: Processes
    """The processes that train together."""
    sharded: bool
    """Whether a process holds only parts of the weights. Then all processes must make the same passes together."""

    def place(self, model: ActorCritic) -> torch.device:
        """Put a model where it rests, in place. Return the device of its forward passes."""

    def passes(self, batches: Sequence[Sequence[int]], lengths: Sequence[int]) -> list[Pass]:
        """Return this process's passes over micro-batches, which are given by the indices of their rows."""

    def accumulate(
        self,
        parameters: Sequence[Parameter],
        batches: Sequence[Sequence[int]],
        lengths: Sequence[int],
        backward: Backward,
    ) -> None:
        """Set the gradients of ``parameters`` to the sum over all micro-batches of all processes."""

    def close(self) -> None:
        """Release what the layout has opened. Sharded models cannot be used any more."""


class Whole:
    """All weights in every process.

    Args:
        processes: The processes that train together.
        device: The device of the weights. None: models stay where they are.
    """

    sharded = False

    def __init__(self, processes: Processes = ALONE, device: torch.device | None = None) -> None:
        self.processes, self._device = processes, device
        self._told = False

    def place(self, model: ActorCritic) -> torch.device:
        """See :class:`Layout`."""
        if self._device is not None:
            model.to(self._device)
        return next(model.parameters()).device

    def passes(self, batches: Sequence[Sequence[int]], lengths: Sequence[int]) -> list[Pass]:
        """See :class:`Layout`."""
        owner = owners(batches, lengths, self.processes.count)
        return [Pass(batch) for batch, rank in zip(batches, owner, strict=True) if rank == self.processes.rank]

    def accumulate(
        self,
        parameters: Sequence[Parameter],
        batches: Sequence[Sequence[int]],
        lengths: Sequence[int],
        backward: Backward,
    ) -> None:
        """See :class:`Layout`. If much of the time is spent waiting, the first process says so, once."""
        if self.processes.first and not self._told:
            idle = idle_share(batches, lengths, self.processes.count)
            if idle > MOST_IDLE:
                self._told = True
                tokens, count = sum(lengths), self.processes.count
                log.warning(
                    f"{count} processes wait {idle:.0%} of their time in updates: a mini-batch of {tokens:,} tokens "
                    f"has {len(batches)} micro-batches; try learner.micro_batch_tokens={tokens // (2 * count)}"
                )
        accumulate(parameters, batches, lengths, self.processes, backward)

    def close(self) -> None:
        """See :class:`Layout`."""


class Sharded:
    """Parts of all weights in every process. FSDP gathers a layer while it computes, and sums gradients in passes.

    Args:
        processes: The processes that train together. A single one shards nothing; it can still offload.
        device: The device of forward passes.
        compute: The number format of forward passes. Gradients are summed in float32. None: that of the parameters.
        offload: Whether weights, gradients and moments rest in the CPU's memory.

    Raises:
        UserError: This torch cannot shard.
    """

    sharded = True

    def __init__(
        self, processes: Processes, device: torch.device, compute: torch.dtype | None = None, offload: bool = False
    ) -> None:
        self.processes, self._device = processes, device
        fsdp = _fsdp()
        self._fsdp = fsdp
        self._own_group = not dist.is_initialized()
        self._mesh = _mesh(processes, device)
        self._compute = fsdp.MixedPrecisionPolicy(param_dtype=compute, reduce_dtype=torch.float32)
        # Without a GPU, parameters rest in the CPU's memory as it is.
        self._offload = fsdp.CPUOffloadPolicy() if offload and device.type != "cpu" else fsdp.OffloadPolicy()
        # Nothing here changes the outputs of a module in place.
        warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
        if processes.count == 1 and not offload:
            log.warning("learner.sharding=fsdp with one process shards nothing: start several with --processes")

    def place(self, model: ActorCritic) -> torch.device:
        """See :class:`Layout`. Each layer is a unit, then the critic's backbone and its heads, then all the rest.

        Tied embeddings belong to the rest, which is gathered as one. Heads compute in float32; see
        :class:`~hiper.models.actor_critic.ValueHeads`.

        Raises:
            UserError: The layers of a model are not known.
        """
        model.shortcut = False  # it does not call the layers' `forward`, in which FSDP takes part
        backbones: list[nn.Module] = [model.policy.get_decoder()]
        if model.backbone is not None:
            backbones.append(model.backbone)
        for backbone in backbones:
            for layer in layers_of(backbone):
                self._shard(layer)
        if model.backbone is not None:
            self._shard(model.backbone)
        if model.heads.names:
            self._shard(model.heads, in_format_of_parameters=True)
        self._shard(model)
        for unit in model.modules():
            if isinstance(unit, self._fsdp.FSDPModule):
                # The losses of micro-batches are parts of a sum, and so are their gradients.
                unit.set_gradient_divide_factor(1.0)
                unit.set_force_sum_reduction_for_comms(True)  # gloo knows no other
        return self._device

    def _shard(self, module: nn.Module, in_format_of_parameters: bool = False) -> None:
        precision = self._fsdp.MixedPrecisionPolicy() if in_format_of_parameters else self._compute
        # The outermost unit would otherwise stay gathered after a pass that has no backward pass.
        self._fsdp.fully_shard(
            module, mesh=self._mesh, mp_policy=precision, offload_policy=self._offload, reshard_after_forward=True
        )

    def passes(self, batches: Sequence[Sequence[int]], lengths: Sequence[int]) -> list[Pass]:
        """See :class:`Layout`. All processes make equally many."""
        return in_step(batches, lengths, self.processes.rank, self.processes.count)

    def accumulate(
        self,
        parameters: Sequence[Parameter],
        batches: Sequence[Sequence[int]],
        lengths: Sequence[int],
        backward: Backward,
    ) -> None:
        """See :class:`Layout`. Each backward pass sums the gradients over all processes, and adds its sum."""
        for one in self.passes(batches, lengths):
            with noticing_losses(self.processes.count, in_passes=True):
                backward(one)

    def close(self) -> None:
        """See :class:`Layout`."""
        if self._own_group:
            dist.destroy_process_group()


def make_layout(
    config: LearnerConfig, processes: Processes, device: torch.device, compute: torch.dtype | None
) -> Layout:
    """Make the layout that the settings name. See :class:`Sharded` for the arguments."""
    if config.sharding == "fsdp":
        return Sharded(processes, device, compute, config.offload)
    return Whole(processes, device)


def layers_of(backbone: nn.Module) -> list[nn.Module]:
    """Return the layers of a model: the modules that transformers never splits, or those of its longest list.

    Raises:
        UserError: There are none.
    """
    kinds = set(getattr(backbone, "_no_split_modules", None) or ())
    layers = [module for module in backbone.modules() if type(module).__name__ in kinds]
    if not layers:
        lists = [module for module in backbone.modules() if isinstance(module, nn.ModuleList)]
        layers = [*max(lists, key=len, default=())]
    if not layers:
        raise UserError(
            f"learner.sharding=fsdp: the layers of {type(backbone).__name__} are not known, so it cannot be sharded; "
            "set learner.sharding to none, or choose another model"
        )
    return layers


def _fsdp() -> Any:
    """Return the module of FSDP2.

    Raises:
        UserError: This torch has none, or one that cannot sum gradients.
    """
    if dist.is_available():
        import torch.distributed.fsdp as fsdp

        if hasattr(getattr(fsdp, "FSDPModule", None), "set_force_sum_reduction_for_comms"):
            return fsdp
    raise UserError(
        f"learner.sharding=fsdp needs torch 2.8 or newer, built with torch.distributed; this is torch "
        f"{torch.__version__}: install another, or set learner.sharding to none"
    )


def _mesh(processes: Processes, device: torch.device) -> DeviceMesh:
    """Return the processes as one row.

    Raises:
        UserError: Torch cannot send between devices of this kind.
    """
    if device.type not in ("cpu", "cuda"):
        raise UserError(
            f"learner.sharding=fsdp needs GPUs of CUDA or CPUs, and training.device is {device.type}: set one of both"
        )
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if not dist.is_initialized():  # one process, which nobody made join others
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]
    try:
        return init_device_mesh(device.type, (processes.count,))
    except RuntimeError as error:
        raise UserError(f"learner.sharding=fsdp cannot begin on {device}: {first_line(error)}") from error
