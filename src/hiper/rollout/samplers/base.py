"""What a sampler is: requests in, answers out, each as it is finished, under weights of a known version."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from hiper.models.weights import PolicyWeights


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How to sample."""

    temperature: float
    """0 is greedy."""
    max_tokens: int
    """The most tokens of a response."""


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt to be continued."""

    prompt: Sequence[int]
    """Token ids."""
    params: SamplingParams
    seed: int
    """What is sampled depends on this, the prompt, the parameters and the weights, never on other requests."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One sampled response."""

    ids: tuple[int, ...]
    """With the end-of-sequence token, if it was reached."""
    logprobs: tuple[float, ...]
    """Of each token, under the distribution it was drawn from (at temperature 0: under the model's own)."""
    finished: bool
    """The end-of-sequence token was reached (False: cut off at ``max_tokens``)."""
    version: int | None = None
    """The version of the weights that sampled it."""


class Sampler(Protocol):
    """Whatever turns prompts into responses. It is built once, and lives as long as its run.

    A caller submits requests, and calls :meth:`run` whenever it has nothing else to do. Futures are fulfilled one by
    one, as responses are finished, by :meth:`run` or by a thread of the sampler's own. A future may be cancelled.
    """

    def load(self, weights: PolicyWeights, version: int) -> None:
        """Sample from these weights from now on. No request may be under way."""

    def submit(self, request: Request) -> Future[Sample]:
        """Take a request; the answer comes through the future, and so do errors."""

    def run(self) -> None:
        """Work on what was submitted, if that needs the caller's thread; finish at least one request that is left."""

    def close(self) -> None:
        """Give back what the sampler holds. Requests under way are cancelled."""


def sample_all(sampler: Sampler, requests: Sequence[Request]) -> list[Sample]:
    """Sample a response for each request, in order."""
    futures = [sampler.submit(request) for request in requests]
    while not all(future.done() for future in futures):
        sampler.run()
    return [future.result() for future in futures]
