"""Weights over the network: the learner broadcasts them to all workers of an engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import torch

from hiper.errors import UserError, first_line
from hiper.models.weights import PolicyWeights
from hiper.rollout.engines import export
from hiper.rollout.engines.client import EngineClient, EngineFault
from hiper.rollout.engines.inside import hiper_weights
from hiper.rollout.engines.inside.hiper_weights import (
    EXTENSION,
    address_towards,
    await_members,
    broadcast,
    join,
    meeting,
)

ANSWER_SECONDS = 5.0
"""How long an engine may take to say why weights did not reach it."""


class ByNetwork:
    """The whole policy as tensors over the network, with an adapter added into its weights.

    Every delivery to an engine has a group of its own, so an engine that starts again needs no special care.

    Args:
        home: The folder for the model that engines are started from. None: they run already.
        unties: Whether that model's tied embeddings are two tensors.
        backend: What carries the tensors: ``gloo`` from the CPU's memory, ``nccl`` from GPU to GPU.
    """

    adapter_rank = None

    def __init__(self, home: Path | None, unties: bool, backend: Literal["gloo", "nccl"]) -> None:
        self._home, self._unties, self._backend = home, unties, backend
        self._weights: PolicyWeights | None = None
        self._scrambled = False
        # Taken here: another thread sends, and each thread has a current GPU of its own.
        self._device = torch.device("cuda", torch.cuda.current_device()) if backend == "nccl" else torch.device("cpu")

    @property
    def start_from(self) -> Path:
        """See :class:`~hiper.rollout.engines.sync.Sync`."""
        assert self._home is not None
        return self._home / "scrambled"

    def prepare(self, weights: PolicyWeights, version: int, *, scrambled: bool = False) -> None:
        """See :class:`~hiper.rollout.engines.sync.Sync`."""
        self._weights, self._scrambled = weights, scrambled
        if scrambled and self._home is not None:
            export.write_model(weights, self.start_from, untie=self._unties, scramble=True)

    async def deliver(self, client: EngineClient, has: str) -> None:
        """See :class:`~hiper.rollout.engines.sync.Sync`.

        Raises:
            UserError: The engine was started without the worker extension that receives weights.
        """
        if (workers := await client.workers()) is None:
            raise UserError(
                f"the engine at {client.url} cannot take weights over the network: start it with "
                f"--worker-extension-cls {EXTENSION}, and with PYTHONPATH naming a folder that holds the file "
                f"{hiper_weights.__file__}"
            )
        assert self._weights is not None
        size = 1 + workers
        parts = urlsplit(client.url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        try:
            address = await asyncio.to_thread(address_towards, parts.hostname or "", port)
        except OSError as error:
            raise EngineFault(f"it cannot be reached ({first_line(error)})") from error
        store = meeting(address, 0, size, learner=True)
        receiving = asyncio.create_task(
            client.receive(
                host=address, port=store.port, size=size, backend=self._backend, tensors=announced(self._weights)
            )
        )
        try:
            await asyncio.to_thread(self._send, store, size, address, receiving.done)
        except Exception as error:
            # What the engine says explains more than a connection that broke. If it is stuck, it says nothing.
            await asyncio.wait([receiving], timeout=ANSWER_SECONDS)
            if receiving.done():
                await receiving
            raise EngineFault(f"weights did not reach it ({first_line(error)})") from error
        else:
            await receiving
        finally:
            receiving.cancel()

    @torch.no_grad()
    def _send(self, store: Any, size: int, address: str, given_up: Callable[[], bool]) -> None:
        assert self._weights is not None
        await_members(store, size, given_up)
        group = join(store, 0, size, self._backend, address)
        for _, tensor in export.outgoing(self._weights, scramble=self._scrambled):
            broadcast(group, tensor.detach().to(self._device).contiguous())

    def clean_up(self) -> None:
        """See :class:`~hiper.rollout.engines.sync.Sync`."""


def announced(weights: PolicyWeights) -> list[tuple[str, str, list[int]]]:
    """Return name, number format and shape of every tensor that is sent, in its order."""
    told = []
    for name, tensor in export.whole(weights, merged=False):
        dtype = export.number_format(weights) if tensor.is_floating_point() else tensor.dtype
        told.append((name, str(dtype).removeprefix("torch."), list(tensor.shape)))
    return told
