"""The gradient of a mini-batch, micro-batch by micro-batch, in all processes together.

Micro-batches are shared out whole, and their gradients are summed in their own order. So the sum is that of one process
to the last bit, whatever the number of processes. It has to be: some gradients are all but zero, such as those of keys'
biases, and Adam takes steps of full size along whatever rounding leaves of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import Parameter

from hiper.models.batches import Pass, owners
from hiper.processes import Processes, noticing_losses

MOST_IN_ORDER = 1 << 24
"""The most parameters whose gradients are sent for each micro-batch. Of larger models only the sums are sent."""

BUCKET = 1 << 24
"""The most numbers in a message."""

Backward: TypeAlias = Callable[[Pass], None]
"""A function that computes the loss of some rows and adds its gradient."""


def accumulate(
    parameters: Sequence[Parameter],
    batches: Sequence[Sequence[int]],
    lengths: Sequence[int],
    processes: Processes,
    backward: Backward,
) -> None:
    """Set the gradients of ``parameters`` to the sum over all micro-batches.

    Args:
        parameters: The parameters that the losses train. Their gradients must be None.
        batches: The indices of the rows of each micro-batch; the same in every process.
        lengths: The length of each row in tokens.
        processes: The processes that share the micro-batches.
        backward: See :data:`Backward`.

    Raises:
        LostProcessError: A process is gone.
    """
    if processes.count == 1:
        for indices in batches:
            backward(Pass(indices))
        return
    owner = owners(batches, lengths, processes.count)
    in_order = sum(p.numel() for p in parameters) <= MOST_IN_ORDER
    pieces: dict[int, list[Tensor | None]] = {}
    for number, indices in enumerate(batches):
        if owner[number] == processes.rank:
            backward(Pass(indices))
            if in_order:
                pieces[number] = _taken(parameters)
    trained = _trained(parameters, pieces, processes)
    if in_order:
        _sum_in_order(trained, pieces, owner, processes)
    else:
        _sum(trained, processes)


def _taken(parameters: Sequence[Parameter]) -> list[Tensor | None]:
    """Take the gradients away and return them."""
    gradients = [parameter.grad for parameter in parameters]
    for parameter in parameters:
        parameter.grad = None
    return gradients


def _trained(
    parameters: Sequence[Parameter], pieces: dict[int, list[Tensor | None]], processes: Processes
) -> dict[int, Parameter]:
    """Return the parameters, by index, that have a gradient in any process. A process may have no micro-batch."""
    gradients = next(iter(pieces.values()), [parameter.grad for parameter in parameters])
    mine = [gradient is not None for gradient in gradients]
    return {i: parameters[i] for i, held in enumerate(zip(*processes.gather(mine), strict=True)) if any(held)}


def _sum_in_order(
    trained: dict[int, Parameter], pieces: dict[int, list[Tensor | None]], owner: Sequence[int], processes: Processes
) -> None:
    for number, rank in enumerate(owner):
        gradients = pieces.pop(number, [None] * (1 + max(trained, default=0)))
        for bucket in _buckets(trained):
            flat = _flat([(parameter, gradients[i]) for i, parameter in bucket.items()])
            with noticing_losses(processes.count):
                dist.broadcast(flat, src=rank)
            for parameter, part in _parts(bucket, flat):
                parameter.grad = part if parameter.grad is None else parameter.grad + part


def _sum(trained: dict[int, Parameter], processes: Processes) -> None:
    for bucket in _buckets(trained):
        flat = _flat([(parameter, parameter.grad) for parameter in bucket.values()])
        with noticing_losses(processes.count):
            dist.all_reduce(flat)
        for parameter, part in _parts(bucket, flat):
            parameter.grad = part


def _flat(gradients: Sequence[tuple[Parameter, Tensor | None]]) -> Tensor:
    """Join the gradients of some parameters into one array; zeros stand for those that are not there."""
    return torch.cat([(torch.zeros_like(p) if grad is None else grad).flatten() for p, grad in gradients])


def _parts(bucket: dict[int, Parameter], flat: Tensor) -> Iterator[tuple[Parameter, Tensor]]:
    sizes = [parameter.numel() for parameter in bucket.values()]
    for parameter, part in zip(bucket.values(), flat.split(sizes), strict=True):
        yield parameter, part.view_as(parameter)


def _buckets(parameters: dict[int, Parameter]) -> Iterator[dict[int, Parameter]]:
    """Group neighbours of one number format, up to :data:`BUCKET` numbers together."""
    bucket: dict[int, Parameter] = {}
    size = 0
    for index, parameter in parameters.items():
        first = next(iter(bucket.values()), parameter)
        if bucket and (size + parameter.numel() > BUCKET or parameter.dtype != first.dtype):
            yield bucket
            bucket, size = {}, 0
        bucket[index] = parameter
        size += parameter.numel()
    if bucket:
        yield bucket
