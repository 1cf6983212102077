"""Sampling through vLLM, in processes of its own, over HTTP. Nothing here imports vLLM.

The engine holds a copy of the weights. Each load writes them into a folder, lets the engine read it, and then probes
whether the engine computes what the learner computes (:mod:`hiper.rollout.engines.probe`).
"""

from __future__ import annotations

import asyncio
import atexit
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any, Self
from urllib.parse import urlsplit

import torch
from pydantic import Field, model_validator
from transformers import PreTrainedTokenizerBase

from hiper.errors import UserError
from hiper.models.weights import PolicyWeights, stop_ids
from hiper.plan_execute.tokenizer import is_subword, is_word_level
from hiper.rollout.engines.client import EngineClient, EngineFault, Terms
from hiper.rollout.engines.engine import Engine
from hiper.rollout.engines.environment import find_environment
from hiper.rollout.engines.pool import SCRAMBLED, Pool, PoolSettings, check_answers
from hiper.rollout.engines.sync import SyncName
from hiper.rollout.samplers.base import Request, Sample, Workplace
from hiper.runs import metrics as names
from hiper.validation import StrictModel

WAIT_SECONDS = 1.0
"""How long a process waits before it asks again for an engine that another process starts anew."""


class VllmOptions(StrictModel):
    """The options of :class:`VllmSampler`, in the section ``sampler`` of the settings."""

    url: str | tuple[str, ...] | None = None
    """The address of a running engine, or a list of several. None: start engines on this machine."""
    launch: bool = True
    """Whether to start engines. ``url`` overrides this."""
    venv: str | None = None
    """The folder of the engine's Python environment. None: the one that `hiper engine install` made."""
    port: int | None = Field(None, ge=1, le=65_535)
    """The port of a started engine. None: a free one."""
    tensor_parallel: int = Field(1, ge=1, le=1_024)
    """The number of GPUs over which one engine splits the model."""
    gpu_memory_utilization: float = Field(0.45, gt=0, le=1)
    """The share of a GPU's memory for the engine. The learner needs the rest."""
    max_num_seqs: int | None = Field(None, ge=1, le=1_000_000)
    """The most responses that an engine samples at once. None: as many as ``rollout.slots``, but at most 256."""
    timeout: float = Field(600, gt=0, le=1e6)
    """The most seconds of one answer, waiting included. An engine that takes longer counts as failed."""
    start_timeout: float = Field(900, gt=0, le=1e6)
    """The most seconds in which a started engine must be ready."""
    folder: str | None = None
    """Where weights are written, for engines to read under the same path. None: in memory, if they fit."""
    sync: SyncName = "folder"
    """How new weights travel.

    - ``folder``: the whole policy in a folder, with the adapter of LoRA added into its weights.
    - ``adapter``: the base model once, then the adapter of LoRA alone. This is less to write and to read.
    - ``ipc``: the whole policy, through memory of the GPU that learner and engine share.
    - ``gloo``: the whole policy, over the network from memory to memory. No folder is shared.
    - ``nccl``: the same from GPU to GPU, for engines at ``url``.
    """
    untie: bool | None = None
    """Whether tied embeddings are written as two tensors. None: for vLLM's build for CPUs, which needs it."""
    args: tuple[str, ...] = ()
    """Further arguments for the server that is started, such as ``[--enforce-eager]``."""

    @property
    def urls(self) -> tuple[str, ...]:
        """The addresses of running engines."""
        return (self.url,) if isinstance(self.url, str) else self.url or ()

    @model_validator(mode="after")
    def _check_engine(self) -> Self:
        if not self.urls and not self.launch:
            raise ValueError("launch is false, so a running engine is needed: give its url")
        for url in self.urls:
            _check_url(url)
        return self


def _check_url(url: str) -> None:
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"url: '{url}' does not begin with http:// or https://")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"url: '{url}' is no address: {error}") from None
    if not host or any(sign.isspace() for sign in url):
        raise ValueError(f"url: '{url}' names no machine; an address looks like http://127.0.0.1:8000")


class VllmSampler:
    """A sampler that asks vLLM servers.

    Requests go to the server with the fewest requests under way. A server that this process started is started again if
    it fails, with the same weights, and gets its open requests again.

    Args:
        tokenizer: The tokenizer of the model. It gives the tokens that end a response.
        options: The options; see :class:`VllmOptions`.

    Raises:
        UserError: An engine is to be started, and there is none.
    """

    options = VllmOptions

    def __init__(self, tokenizer: PreTrainedTokenizerBase, options: VllmOptions) -> None:
        self._tokenizer = tokenizer
        shared = options.model_dump(exclude={"url", "launch", "venv"})
        environment = None if options.urls else find_environment(options.venv)
        self._settings = PoolSettings(environment=environment, urls=options.urls, **shared)
        self._place = Workplace()
        self._pool: Pool | None = None
        self._whole: PolicyWeights | None = None
        """A copy of sharded weights, in the CPU's memory: engines read whole ones."""
        self._engines: list[Engine] = []
        self._terms = Terms(SCRAMBLED, 0, ())
        self._metrics: dict[str, float] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name="engine")
        self._thread.start()
        atexit.register(self.close)

    def settle(self, workplace: Workplace) -> None:
        """See :class:`~hiper.rollout.samplers.base.RemoteSampler`. Running engines must answer from the beginning.

        Raises:
            UserError: What runs at an address is no vLLM that fits. Or requests have patterns, and the tokenizer is a
                nano model's: engines do not know how it writes spaces.
        """
        if workplace.patterns and (is_word_level(self._tokenizer) or is_subword(self._tokenizer)):
            raise UserError(
                "sampler.choose=admissible works for the tokenizers of nano models with sampler.type=transformers "
                "alone; set that, or leave sampler.choose out"
            )
        self._place = workplace
        for url in self._settings.urls if workplace.processes.first else ():
            # An address that is wrong shows now, not after a warm start of hours.
            engine = Engine(EngineClient(url, self._settings.timeout), None, self._loop)
            try:
                check_answers(engine)
            finally:
                engine.do(engine.client.close())

    def load(self, weights: PolicyWeights, version: int) -> None:
        """See :class:`~hiper.rollout.samplers.base.Sampler`. The first call starts the engines, or meets running ones.

        Raises:
            UserError: An engine does not start, cannot take the weights, or computes something else than the learner.
        """
        began = time.perf_counter()
        embeddings: Any = weights.model.get_input_embeddings()
        ends = tuple(stop_ids(weights.model, self._tokenizer))
        self._terms = Terms(version, len(embeddings.weight), ends, self._settings.sync == "adapter")
        gives = self._place.processes.first or not self._shared
        if weights.sharded and gives:
            weights = self._whole = weights.copied(self._whole, on=torch.device("cpu"))
        elif weights.sharded:
            weights.hand_in()
        if gives:
            if self._pool is None:
                self._pool = Pool(self._settings, self._place, self._loop, weights, self._terms, self._tokenizer)
                self._engines = self._pool.engines
            self._metrics[names.ENGINE_PROBE.name] = self._pool.give(weights, self._terms)
        if self._shared:
            # The others wait here until the first process has loaded the weights.
            urls = self._place.processes.agree([engine.client.url for engine in self._engines])
            if not self._engines:
                clients = [EngineClient(url, self._settings.timeout) for url in urls]
                self._engines = [Engine(client, None, self._loop) for client in clients]
        self._metrics[names.ENGINE_LOAD_SECONDS.name] = time.perf_counter() - began

    @property
    def _shared(self) -> bool:
        """Whether all processes ask the same engines. On GPUs each process has engines of its own."""
        return self._settings.environment is None or self._settings.environment.cpu

    def submit(self, request: Request) -> Future[Sample]:
        """See :class:`~hiper.rollout.samplers.base.Sampler`."""
        return asyncio.run_coroutine_threadsafe(self._answer(request), self._loop)

    async def _answer(self, request: Request) -> Sample:
        """Ask an engine until one answers."""
        if not self._engines:
            raise RuntimeError("a sampler needs weights: call load() first")
        while True:
            engine = min(self._engines, key=lambda engine: engine.open)
            restarts = engine.restarts
            engine.open += 1
            try:
                sample = await engine.client.generate(request, self._terms)
                engine.failing_since = None
                return sample
            except EngineFault as fault:
                await self._recover(engine, restarts, fault)
            finally:
                engine.open -= 1

    async def _recover(self, engine: Engine, restarts: int, fault: EngineFault) -> None:
        """Start an engine again after a fault, or wait until the process that started it does.

        Raises:
            UserError: It cannot be started again.
        """
        if self._pool is None and self._settings.environment is not None:
            engine.failing_since = engine.failing_since or time.monotonic()
            if time.monotonic() - engine.failing_since > self._settings.start_timeout:
                raise engine.failed("sampling", fault)
            await asyncio.sleep(WAIT_SECONDS)
            return
        async with engine.lock:
            if engine.restarts != restarts:
                return  # the engine that failed is gone already
            if self._pool is None:
                raise engine.failed("sampling", fault)
            await self._loop.run_in_executor(None, self._pool.restart, engine, fault)

    def run(self) -> None:
        """See :class:`~hiper.rollout.samplers.base.Sampler`. A thread of its own does the work."""

    def rest(self) -> None:
        """See :class:`~hiper.rollout.samplers.base.RemoteSampler`."""
        if self._pool is not None:
            self._pool.sleep()

    def metrics(self) -> Mapping[str, float]:
        """See :class:`~hiper.rollout.samplers.base.RemoteSampler`."""
        restarts = 0 if self._pool is None else self._pool.restarts
        return self._metrics | {names.ENGINE_RESTARTS.name: float(restarts)}

    def close(self) -> None:
        """See :class:`~hiper.rollout.samplers.base.Sampler`."""
        if self._loop.is_closed():
            return
        atexit.unregister(self.close)

        async def end() -> None:
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for engine in self._engines:
                await engine.client.close()

        asyncio.run_coroutine_threadsafe(end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        if self._pool is not None:
            self._pool.close()
