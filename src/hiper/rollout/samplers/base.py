"""The interface of samplers: they answer requests one by one, under weights of a known version."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from hiper.processes import ALONE, Processes

if TYPE_CHECKING:
    from hiper.models.weights import PolicyWeights


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """The settings of sampling."""

    temperature: float
    """The temperature. 0 means greedy decoding."""
    max_tokens: int
    """The most tokens of a response."""


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt to continue."""

    prompt: Sequence[int]
    """The token ids of the prompt."""
    params: SamplingParams
    """The settings of sampling."""
    seed: int
    """The seed. The response depends on it, the prompt, the parameters and the weights, never on other requests."""
    pattern: str | None = None
    """A regular expression for the whole response. Tokens that lead elsewhere have no probability. None: any text."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One sampled response."""

    ids: tuple[int, ...]
    """The response tokens, with the end-of-sequence token if it was reached."""
    logprobs: tuple[float, ...]
    """The log-probability of each token at the sampling temperature, or at temperature 1 for greedy decoding."""
    finished: bool
    """Whether the end-of-sequence token was reached. False: the response was cut off at ``max_tokens``."""
    version: int | None = None
    """The version of the weights that sampled the response. None: unknown."""


class Sampler(Protocol):
    """Anything that turns prompts into responses. A sampler is built once and lives as long as its run.

    A caller submits requests, and calls :meth:`run` whenever it has nothing else to do. :meth:`run` or the sampler's
    own thread sets the results of futures one by one, as responses are finished. A future may be cancelled.
    """

    def load(self, weights: PolicyWeights, version: int) -> None:
        """Sample from these weights from now on. All earlier requests must be done.

        Every process of a run calls this at the same time. If the weights are sharded, the model cannot be run here;
        :meth:`PolicyWeights.save` writes it to a folder, and :meth:`PolicyWeights.copied` copies it.
        """

    def submit(self, request: Request) -> Future[Sample]:
        """Take a request, and return the future of its response or error."""

    def run(self) -> None:
        """Work on submitted requests, if that needs the caller's thread. Finish at least one open request."""

    def close(self) -> None:
        """Release resources and cancel open requests."""


@dataclass(frozen=True)
class Workplace:
    """What a sampler outside this process may know and use of the command that it serves."""

    logs: Path | None = None
    """The folder for its logs. None: the sampler chooses one."""
    bar: Callable[[str], AbstractContextManager[Any]] = nullcontext
    """Shows what is being done, and for how long."""
    processes: Processes = ALONE
    """The processes of the command. They may share an engine."""
    tokens: int | None = None
    """The most tokens of a prompt and its response together. None: unknown."""
    slots: int | None = None
    """The most episodes that run at once, in all processes together. None: unknown."""
    patterns: bool = False
    """Whether requests have patterns."""


@runtime_checkable
class RemoteSampler(Sampler, Protocol):
    """A sampler outside this process, which holds a copy of the weights: updates of the model do not change it."""

    def settle(self, workplace: Workplace) -> None:
        """Receive the workplace. Called once, before anything else."""

    def rest(self) -> None:
        """Give back the memory that the learner needs. The next call is :meth:`load`."""

    def metrics(self) -> Mapping[str, float]:
        """Return the metrics of the last load, and of what went wrong so far."""


def sample_all(sampler: Sampler, requests: Sequence[Request]) -> list[Sample]:
    """Sample a response for each request, and return the responses in the order of the requests."""
    futures = [sampler.submit(request) for request in requests]
    while not all(future.done() for future in futures):
        sampler.run()
    return [future.result() for future in futures]
