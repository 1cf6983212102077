"""What a vLLM engine needs to take weights over the network. It runs inside the engine, so it knows nothing of HiPER.

vLLM mixes :class:`Receiver` into the class of its workers (``--worker-extension-cls hiper_weights.Receiver``). The
learner calls its methods through the route ``/collective_rpc``, and meets the workers by the functions of this file.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

EXTENSION = "hiper_weights.Receiver"
JOIN_SECONDS = 60.0
"""How long all members may take to meet."""
TENSOR_SECONDS = 300.0
"""How long one tensor may take."""


def meeting(host: str, port: int, size: int, *, learner: bool) -> Any:
    """Return the store by which the members of a group find each other.

    Args:
        host: The learner's address.
        port: The port of the store. 0, at the learner: a free one, which the store then names.
        size: The number of members.
        learner: Whether this process is the learner, which holds the store.
    """
    store: Any = dist.TCPStore  # type: ignore[attr-defined]
    waits = timedelta(seconds=JOIN_SECONDS)
    return store(host, port, size, is_master=learner, wait_for_workers=False, timeout=waits)


def announce(store: Any, rank: int) -> None:
    """Tell the learner that a member is there."""
    store.set(f"here/{rank}", b"")


def await_members(store: Any, size: int, given_up: Callable[[], bool]) -> None:
    """Wait at the learner until all other members are there.

    Args:
        store: Where the members meet; see :func:`meeting`.
        size: The number of members.
        given_up: Tells whether nobody will come any more.

    Raises:
        TimeoutError: Some did not come within :data:`JOIN_SECONDS`, or will not come.
    """
    ends = time.monotonic() + JOIN_SECONDS
    missing = list(range(1, size))
    while missing := [rank for rank in missing if not store.check([f"here/{rank}"])]:
        if given_up() or time.monotonic() > ends:
            raise TimeoutError(f"{len(missing)} of its {size - 1} workers did not come to take them")
        time.sleep(0.02)


def join(store: Any, rank: int, size: int, backend: str, address: str) -> Any:
    """Join the group in which weights are broadcast, apart from all groups that the process is in otherwise.

    Args:
        store: Where the members meet; see :func:`meeting`.
        rank: The number of this member. The learner is 0.
        size: The number of members.
        backend: ``gloo`` or ``nccl``.
        address: This machine's address in the network of the others.
    """
    waits = timedelta(seconds=TENSOR_SECONDS)
    options: Any
    if backend == "nccl":
        options = dist.ProcessGroupNCCL.Options()
        options._timeout = waits
        return dist.ProcessGroupNCCL(store, rank, size, options)
    gloo: Any = dist.ProcessGroupGloo
    options = gloo._Options()
    options._devices = [gloo.create_device(hostname=address)]
    options._timeout = waits
    return gloo(store, rank, size, options)


def address_towards(host: str, port: int) -> str:
    """Return the address of this machine in the network that leads to a port that is open."""
    with socket.create_connection((host, port), timeout=JOIN_SECONDS) as connection:
        return str(connection.getsockname()[0])


class Receiver:
    """Methods of a worker that take weights."""

    rank: int
    device: torch.device

    def hiper_rank(self) -> int:
        """Return the number of this worker among those of the engine."""
        return self.rank

    def hiper_receive(
        self, host: str, port: int, size: int, backend: str, tensors: Sequence[tuple[str, str, Sequence[int]]]
    ) -> None:
        """Load weights that the learner broadcasts.

        Args:
            host: The learner's address.
            port: The port of its store.
            size: The number of members of the group: the learner and all workers of this engine.
            backend: ``gloo`` or ``nccl``.
            tensors: Name, number format and shape of each tensor, in the order in which they come.
        """
        store = meeting(host, port, size, learner=False)
        announce(store, 1 + self.rank)
        group = join(store, 1 + self.rank, size, backend, address_towards(host, port))
        worker: Any = self
        worker.reload_weights(weights_iterator=self._hiper_stream(group, backend, tensors))

    def _hiper_stream(
        self, group: Any, backend: str, tensors: Sequence[tuple[str, str, Sequence[int]]]
    ) -> Iterator[tuple[str, Tensor]]:
        device = self.device if backend == "nccl" else torch.device("cpu")
        for name, dtype, shape in tensors:
            tensor = torch.empty(tuple(shape), dtype=getattr(torch, dtype), device=device)
            broadcast(group, tensor)
            yield name, tensor


def broadcast(group: Any, tensor: Tensor) -> None:
    """Send a tensor from the learner to all workers, or receive it there."""
    options = dist.BroadcastOptions()
    options.rootRank = 0
    group.broadcast([tensor], options).wait()
