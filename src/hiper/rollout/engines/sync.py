"""How new weights travel from the learner to engines."""

from __future__ import annotations

import base64
import pickle
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

import torch
from torch import Tensor
from torch.multiprocessing.reductions import reduce_tensor

from hiper.errors import UserError
from hiper.files import remove_folder
from hiper.models.lora import rank_of
from hiper.models.weights import PolicyWeights
from hiper.rollout.engines import export
from hiper.rollout.engines.client import EngineClient
from hiper.rollout.engines.network import ByNetwork

SyncName: TypeAlias = Literal["folder", "adapter", "ipc", "gloo", "nccl"]
Has: TypeAlias = Literal["nothing", "older", "start"]
"""The weights that an engine has: none of this run's, those before, or those of :attr:`Sync.start_from`."""


class Sync(Protocol):
    """A way for weights to travel."""

    @property
    def start_from(self) -> Path:
        """The folder of the model from which an engine is started."""

    @property
    def adapter_rank(self) -> int | None:
        """The rank of the adapters that engines hold beside their model. None: they hold none."""

    def prepare(self, weights: PolicyWeights, version: int, *, scrambled: bool = False) -> None:
        """Take the weights that engines get next. Those before stay, because an engine may still start again.

        Args:
            weights: The weights.
            version: Their version.
            scrambled: Whether they are spoilt, as the first ones are.

        Raises:
            UnwritableError: The disk is full.
        """

    async def deliver(self, client: EngineClient, has: Has) -> None:
        """Give an engine the weights.

        Raises:
            EngineFault: It did not take them.
        """

    def clean_up(self) -> None:
        """Forget the weights before: all engines have the present ones."""


def make_sync(name: SyncName, weights: PolicyWeights, home: Path, unties: bool, *, own: bool) -> Sync:
    """Return the way for weights to travel that the settings name.

    Args:
        name: The way.
        weights: The first weights.
        home: A folder for files on their way.
        unties: Whether tied embeddings go out as two tensors.
        own: Whether this process starts its engines.

    Raises:
        UserError: These weights cannot travel so.
    """
    if name == "folder":
        return ByFolder(home, unties)
    if name == "adapter":
        if (rank := rank_of(weights.model)) is None:
            raise UserError("sampler.sync=adapter sends adapters of LoRA: set learner.lora, or sampler.sync=folder")
        return ByAdapter(home, unties, rank)
    if name == "ipc":
        if not (own and shares_gpu(weights)):
            raise UserError(
                "sampler.sync=ipc needs a GPU that the learner shares with the engines it starts, and whole weights on "
                "it; use sampler.sync=folder"
            )
        return ByMemory(home, unties)
    if name == "nccl" and (own or not torch.cuda.is_available()):
        raise UserError(
            "sampler.sync=nccl connects the learner's GPU with others, so it needs a GPU, and engines elsewhere "
            "(sampler.url); engines on the learner's own GPU take sampler.sync=ipc, and sampler.sync=gloo works "
            "everywhere"
        )
    return ByNetwork(home if own else None, unties, name)


class ByFolder:
    """The whole policy as a Hugging Face model in a folder, with an adapter added into its weights."""

    adapter_rank = None

    def __init__(self, home: Path, unties: bool) -> None:
        self._home, self._unties = home, unties
        self.start_from = home / "none"
        self._before: Path | None = None

    def prepare(self, weights: PolicyWeights, version: int, *, scrambled: bool = False) -> None:
        """See :class:`Sync`."""
        self._before = _renamed(self.start_from)
        self.start_from = self._home / ("scrambled" if scrambled else f"weights-{version}")
        export.write_model(weights, self.start_from, untie=self._unties, scramble=scrambled)

    async def deliver(self, client: EngineClient, has: Has) -> None:
        """See :class:`Sync`."""
        if has != "start":
            await client.weights_from(str(self.start_from))

    def clean_up(self) -> None:
        """See :class:`Sync`."""
        if self._before is not None:
            remove_folder(self._before)


class ByAdapter:
    """The base model once, then the adapter alone, each in a folder."""

    def __init__(self, home: Path, unties: bool, rank: int) -> None:
        self._home, self._unties = home, unties
        self.adapter_rank = rank
        self.start_from = home / "scrambled"
        self._adapter: Path | None = None
        self._before: Path | None = None

    def prepare(self, weights: PolicyWeights, version: int, *, scrambled: bool = False) -> None:
        """See :class:`Sync`."""
        if scrambled:
            export.write_model(weights, self.start_from, untie=self._unties, merged=False, scramble=True)
            return
        if self._adapter is None:
            self._before, self.start_from = self.start_from, self._home / "base"
            export.write_model(weights, self.start_from, untie=self._unties, merged=False)
        else:
            self._before = _renamed(self._adapter)
        self._adapter = self._home / f"weights-{version}"
        export.write_adapter(weights, self._adapter)

    async def deliver(self, client: EngineClient, has: Has) -> None:
        """See :class:`Sync`."""
        if has == "nothing":
            await client.weights_from(str(self.start_from))
        if self._adapter is not None:
            await client.adapter_from(str(self._adapter))

    def clean_up(self) -> None:
        """See :class:`Sync`."""
        if self._before is not None:
            remove_folder(self._before)


class ByMemory:
    """The whole policy through memory of the GPU that learner and engine share (CUDA IPC).

    The GPU holds a second copy in the engine's number format meanwhile. Source: vLLM 0.32,
    ``vllm/distributed/weight_transfer/ipc_engine.py``, its transfer without packing.
    """

    adapter_rank = None

    def __init__(self, home: Path, unties: bool) -> None:
        self.start_from = home / "scrambled"
        self._unties = unties
        self._weights: PolicyWeights | None = None

    def prepare(self, weights: PolicyWeights, version: int, *, scrambled: bool = False) -> None:
        """See :class:`Sync`."""
        self._weights = weights
        if scrambled:
            export.write_model(weights, self.start_from, untie=self._unties, scramble=True)

    async def deliver(self, client: EngineClient, has: Has) -> None:
        """See :class:`Sync`."""
        assert self._weights is not None
        with torch.no_grad():
            named = export.outgoing(self._weights)
            tensors = {name: tensor.detach().contiguous() for name, tensor in named}
        await client.update(update_info(tensors))
        # The engine may read until here, and a handle does not keep its tensor alive.
        del tensors
        release()

    def clean_up(self) -> None:
        """See :class:`Sync`."""


def _renamed(folder: Path) -> Path | None:
    """Make room for a folder of the same name, as when weights are loaded again after a warm start."""
    if not folder.exists():
        return None
    before = folder.with_name("before")
    remove_folder(before)
    return folder.rename(before)


def update_info(tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Return what ``/update_weights`` asks for: names, formats and shapes, and where the tensors are in memory.

    A handle is what torch sends to another process in place of a tensor, by the name of the physical GPU.
    """
    handles = [{gpu_of(tensor): reduce_tensor(tensor)[1]} for tensor in tensors.values()]
    return {
        "names": list(tensors),
        "dtype_names": [str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()],
        "shapes": [list(tensor.shape) for tensor in tensors.values()],
        "ipc_handles_pickled": base64.b64encode(pickle.dumps(handles)).decode(),
    }


def shares_gpu(weights: PolicyWeights) -> bool:
    """Return whether weights are whole and on a GPU, where engines of this process are too."""
    return bool(weights.model.device.type == "cuda" and not weights.sharded)


def release() -> None:
    """Give back memory that other processes have let go of."""
    torch.cuda.ipc_collect()


def gpu_of(tensor: Tensor) -> str:
    """Return the name of the physical GPU that holds a tensor."""
    return str(torch.cuda.get_device_properties(tensor.device).uuid)
