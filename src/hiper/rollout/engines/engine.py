"""One engine: how it gets weights, how it is compared with the learner, and how it is started."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from hiper.errors import UserError
from hiper.rollout.engines.client import EngineClient, EngineFault, Terms
from hiper.rollout.engines.process import EngineProcess
from hiper.rollout.samplers.base import Request, Sample

T = TypeVar("T")


@dataclass(eq=False)
class Engine:
    """An engine of a sampler. Only :attr:`client` may be used on the loop itself."""

    client: EngineClient
    """Speaks to it."""
    process: EngineProcess | None
    """The process, if this process started it. None: it runs elsewhere, or another process started it."""
    loop: asyncio.AbstractEventLoop
    """The loop of the client, which runs in another thread."""
    open: int = 0
    """The number of requests under way."""
    restarts: int = 0
    """How often it was started again."""
    restarts_since_load: int = 0
    """How often it was started again under the present weights."""
    failing_since: float | None = None
    """The time of the first fault after the last answer."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while it is started again."""

    @property
    def name(self) -> str:
        """The engine in words."""
        return f"the engine at {self.client.url}"

    def do(self, work: Awaitable[T]) -> T:
        """Run a coroutine on the client's loop, and wait for it."""

        async def awaited() -> T:
            return await work

        future = asyncio.run_coroutine_threadsafe(awaited(), self.loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def start(self, model: Path, seconds: float) -> float:
        """Start the process with a model, wait until it is ready, and return the seconds that this took.

        Raises:
            UserError: It does not start.
        """
        assert self.process is not None
        self.do(self.client.close())
        self.process.start(model)
        self.client.url = self.process.url
        return self.process.wait(lambda: self.do(self.client.healthy()), seconds)

    def load(self, deliver: Callable[[EngineClient], Awaitable[None]], version: int, *, asleep: bool = False) -> None:
        """Let it take weights, and name them.

        Args:
            deliver: Gives them to it; see :meth:`~hiper.rollout.engines.sync.Sync.deliver`.
            version: The version of the weights.
            asleep: Whether it sleeps, so that it needs memory of its GPU first.

        Raises:
            EngineFault: It did not.
        """

        async def load() -> None:
            if asleep:
                await self.client.wake("weights")
            await deliver(self.client)
            if asleep:
                await self.client.wake("kv_cache")
            await self.client.name_version(version)

        self.do(load())

    def answers(self, asked: Sequence[Request], terms: Terms) -> list[Sample]:
        """Sample a response for each request.

        Raises:
            EngineFault: It does not answer, or nonsense.
        """

        async def answers() -> list[Sample]:
            return await asyncio.gather(*(self.client.generate(request, terms) for request in asked))

        return self.do(answers())

    def failed(self, what: str, fault: EngineFault) -> UserError:
        """Return the error that names a fault to the user.

        Args:
            what: What it was doing.
            fault: The fault.
        """
        if self.process is None:
            return UserError(
                f"{self.name} failed while {what}: {fault}. This process did not start it, so it cannot start it "
                "again: start it anew, then resume"
            )
        return self.process.failure(f"{self.name} failed while {what}: {fault} ({self.process.trouble()})")
