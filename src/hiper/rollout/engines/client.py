"""The interface of a vLLM server, over HTTP: tokens in and out, and the control of its weights.

Sources: vLLM 0.32, its routes under ``vllm/entrypoints``: ``scale_out/token_in_token_out`` for
``/inference/v1/generate``, and ``rl/online`` and ``serve/dev`` for the rest. Both are off unless the server is started
with ``--enable-scale-out`` and the variable ``VLLM_SERVER_DEV_MODE=1``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from hiper.errors import UserError, first_line, shortened
from hiper.rollout.samplers.base import Request, Sample

GENERATE = "/inference/v1/generate"
ADAPTER = "policy-adapter"
"""The name of the policy's adapter in an engine."""
LEAST_LOGPROB = -5_000.0
"""vLLM writes -9999 in the place of NaN and of minus infinity. No sampled token is that improbable."""
MOST_LOGPROB = 1e-3
"""Rounding may put the log-probability of a certain token this much above 0."""
KEEP_SECONDS = 2.0
"""How long an idle connection is kept. The server closes it after 5 seconds, perhaps just when it is used again."""
POOLS = 16
ATTEMPTS = 3
"""How often a request is sent whose connection breaks."""
CONTROL_SECONDS = 600.0
"""How long the engine may take for loading weights."""


class EngineFault(Exception):  # noqa: N818 - it names what happened to the engine
    """An engine did not do what it was asked to: it is gone, it took too long, or its answer is nonsense."""


@dataclass(frozen=True)
class Terms:
    """What an answer must keep to."""

    version: int
    """The version of the weights."""
    words: int
    """The number of tokens that the model knows."""
    stop_ids: tuple[int, ...]
    """The tokens that end a response."""
    adapter: bool = False
    """Whether the engine computes with an adapter that is not part of its model's weights."""


class EngineClient:
    """A client of one engine. Its methods run on one event loop.

    Args:
        url: The address of the server, such as ``http://127.0.0.1:8000``.
        timeout: The most seconds of one answer.
    """

    def __init__(self, url: str, timeout: float) -> None:
        self.url = url.rstrip("/")
        self._timeout = timeout
        self._pools: list[httpx.AsyncClient] = []
        self._turn = 0

    @property
    def _client(self) -> httpx.AsyncClient:
        """One of the pools of connections, in turn. One pool looks at all its connections for every request."""
        if not self._pools:
            # A proxy of the environment is for the world outside, not for an engine beside the trainer.
            unlimited = httpx.Limits(max_keepalive_connections=1_000, keepalive_expiry=KEEP_SECONDS)
            settings: dict[str, Any] = {"base_url": self.url, "timeout": self._timeout, "trust_env": False}
            self._pools = [httpx.AsyncClient(limits=unlimited, **settings) for _ in range(POOLS)]
        self._turn += 1
        return self._pools[self._turn % POOLS]

    async def close(self) -> None:
        """Close all connections. The client can be used again."""
        pools, self._pools = self._pools, []
        for pool in pools:
            await pool.aclose()

    async def generate(self, request: Request, terms: Terms) -> Sample:
        """Sample a response.

        Raises:
            EngineFault: The engine does not answer, or its answer cannot be right.
            UserError: The engine refuses requests of this kind.
        """
        answer = await self._post(GENERATE, generate_body(request, terms))
        return read_sample(answer, request, terms)

    async def healthy(self) -> bool:
        """Return whether the engine is ready."""
        try:
            return (await self._client.get("/health", timeout=5.0)).status_code == 200
        except httpx.HTTPError:
            return False

    async def version_of_vllm(self) -> str | None:
        """Return the version of vLLM that answers. None: something else answers."""
        try:
            told = (await self._client.get("/version", timeout=30.0)).json()
        except (httpx.HTTPError, ValueError):
            return None
        version = told.get("version") if isinstance(told, dict) else None
        return version if isinstance(version, str) else None

    async def tokens_of(self, text: str) -> list[int] | None:
        """Return the token ids of a text in the engine's own tokenizer. None: it has none."""
        try:
            answer = await self._post("/tokenize", {"prompt": text, "add_special_tokens": False})
        except (EngineFault, UserError):
            return None
        tokens = answer.get("tokens")
        return tokens if isinstance(tokens, list) else None

    async def weights_from(self, folder: str) -> None:
        """Load the weights of a folder that the engine can read, in the form of a Hugging Face model."""
        await self._control("/collective_rpc", {"method": "reload_weights", "kwargs": {"weights_path": folder}})

    async def workers(self) -> int | None:
        """Return how many workers the engine has that can take weights over the network. None: they cannot.

        Raises:
            EngineFault: It cannot be reached.
        """
        try:
            answer = await self._control("/collective_rpc", {"method": "hiper_rank"})
        except EngineFault:
            if await self.healthy():
                return None
            raise
        return len(answer.get("results") or ()) or None

    async def receive(self, **how: object) -> None:
        """Load weights that are broadcast; see :class:`~hiper.rollout.engines.inside.hiper_weights.Receiver`."""
        await self._control("/collective_rpc", {"method": "hiper_receive", "kwargs": how})

    async def update(self, info: Mapping[str, Any]) -> None:
        """Load weights from another process's memory; see :func:`~hiper.rollout.engines.sync.update_info`."""
        await self._control("/init_weight_transfer_engine", {"init_info": {"packed": False}})
        await self._control("/start_weight_update")
        await self._control("/update_weights", {"update_info": dict(info)})
        await self._control("/finish_weight_update")

    async def adapter_from(self, folder: str) -> None:
        """Load the adapter of a folder that the engine can read, as PEFT writes it, in place of the last one."""
        body = {"lora_name": ADAPTER, "lora_path": folder, "load_inplace": True}
        await self._post("/v1/load_lora_adapter", body, CONTROL_SECONDS, in_json=False)

    async def name_version(self, version: int) -> None:
        """Set the version that answers name, and forget what was computed under other weights."""
        await self._control("/update_weight_version", {"new_version": str(version)})
        done = await self._control("/reset_prefix_cache")
        if done.get("success") is not True:
            raise EngineFault(f"it did not reset its prefix cache ({shortened(done)})")

    async def sleep(self) -> None:
        """Give the memory of the GPU back. The weights are lost, so the next step is to wake and to load."""
        await self._control("/sleep?level=2&mode=wait")

    async def wake(self, tag: str) -> None:
        """Take memory of the GPU again, for ``weights`` or for ``kv_cache``."""
        await self._control(f"/wake_up?tags={tag}")

    async def _control(self, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return await self._post(path, body, timeout=CONTROL_SECONDS)

    async def _post(
        self,
        path: str,
        body: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        *,
        in_json: bool = True,
    ) -> dict[str, Any]:
        answer = await self._send(path, body, timeout or self._timeout)
        if answer.status_code in (403, 404, 405):
            raise UserError(
                f"the engine at {self.url} does not serve {path.partition('?')[0]}: is it vLLM, started with "
                "VLLM_SERVER_DEV_MODE=1 and --enable-scale-out, as docs/engines.md shows?"
            )
        if 400 <= answer.status_code < 500:
            raise UserError(f"the engine at {self.url} refuses {path}: {_reason(answer)}")
        if answer.status_code != 200:
            raise EngineFault(f"it answered {path} with {answer.status_code}: {_reason(answer)}")
        if not answer.content or not in_json:
            return {}
        try:
            told = answer.json()
        except ValueError as error:
            raise EngineFault(f"its answer to {path} is no JSON: {shortened(answer.text)}") from error
        return told if isinstance(told, dict) else {"answer": told}

    async def _send(self, path: str, body: Mapping[str, Any] | None, seconds: float) -> httpx.Response:
        """Send a request. A connection that breaks while the engine is well says nothing about the engine."""
        for attempt in range(ATTEMPTS):
            try:
                return await self._client.post(path, json=body, timeout=seconds)
            except httpx.TimeoutException as error:
                raise EngineFault(f"it gave no answer to {path} within {seconds:g} s") from error
            except httpx.HTTPError as error:
                if attempt + 1 == ATTEMPTS or not await self.healthy():
                    raise EngineFault(f"it cannot be reached ({first_line(error)})") from error
        raise AssertionError


def generate_body(request: Request, terms: Terms) -> dict[str, Any]:
    """Return the request as the engine reads it. Every setting that could change the distribution is stated."""
    return {
        **({"model": ADAPTER} if terms.adapter else {}),
        "token_ids": list(request.prompt),
        "sampling_params": {
            "temperature": request.params.temperature,
            "top_p": 1.0,
            "top_k": 0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "max_tokens": request.params.max_tokens,
            "seed": request.seed,
            "logprobs": 0,
            "detokenize": False,
            "ignore_eos": True,  # the tokens that end a response are those named here alone
            "stop_token_ids": list(terms.stop_ids),
            **({} if request.pattern is None else {"structured_outputs": {"regex": request.pattern}}),
        },
    }


def read_sample(answer: Mapping[str, Any], request: Request, terms: Terms) -> Sample:
    """Read an answer of ``/inference/v1/generate``, and refuse what cannot be right.

    Raises:
        EngineFault: A part is missing, lengths differ, a token or a log-probability is out of range, or the weights
            were others.
    """
    try:
        (choice,) = answer["choices"]
        ids = [_integer(token) for token in choice["token_ids"]]
        content = choice["logprobs"]["content"]
        told = [_integer(item["token_id"]) for item in content]
        logprobs = [float(item["logprob"]) for item in content]
        reason = choice["finish_reason"]
        versions = {span["version"] for span in choice["weight_versions"]}
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise EngineFault(f"its answer has another form than expected ({first_line(error)})") from error
    if ids != told or not 0 < len(ids) <= request.params.max_tokens:
        raise EngineFault(f"it answered {len(ids)} tokens and {len(logprobs)} log-probabilities that do not match")
    if not all(0 <= token < terms.words for token in ids):
        raise EngineFault(f"it answered a token beyond the model's {terms.words}: {max(ids)}")
    if not all(LEAST_LOGPROB < logprob <= MOST_LOGPROB for logprob in logprobs):  # NaN is not in this range either
        raise EngineFault("it answered log-probabilities that are NaN or out of range")
    if versions != {str(terms.version)}:
        named = ", ".join(sorted(map(str, versions))) or "none"
        raise EngineFault(f"it answered under weights of version {named}, not {terms.version}")
    finished = ids[-1] in terms.stop_ids
    if any(token in terms.stop_ids for token in ids[:-1]) or reason != ("stop" if finished else "length"):
        raise EngineFault(f"it ended a response of {len(ids)} tokens where it should not (it says: {reason})")
    if not finished and len(ids) < request.params.max_tokens:
        raise EngineFault(f"it cut a response off after {len(ids)} of {request.params.max_tokens} tokens")
    return Sample(tuple(ids), tuple(min(0.0, p) for p in logprobs), finished, terms.version)


def _integer(token: object) -> int:
    if not isinstance(token, int) or isinstance(token, bool):
        raise TypeError(f"a token is {shortened(repr(token))}")
    return token


def _reason(answer: httpx.Response) -> str:
    """Return what the server says about an error, in one line."""
    try:
        message: Sequence[Any] | str = answer.json()["error"]["message"]
    except (ValueError, KeyError, TypeError):
        message = answer.text or "it says no more"
    return shortened(message, 300)
