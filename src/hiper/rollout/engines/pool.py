"""The engines of a sampler: they are started or met, get the same weights, are probed, and are started again.

An engine begins with scrambled weights. Whatever the first load leaves as it was then stays scrambled, and the probe
cannot miss it. With the true weights from the beginning, a part that never gets new weights would show only after many
updates.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from hiper.errors import UserError, shortened
from hiper.models.weights import PolicyWeights
from hiper.rollout.engines import export, probe
from hiper.rollout.engines.client import EngineClient, EngineFault, Terms
from hiper.rollout.engines.engine import Engine
from hiper.rollout.engines.environment import Environment, check_version
from hiper.rollout.engines.process import EngineProcess, Launch
from hiper.rollout.engines.sync import Has, SyncName, make_sync
from hiper.rollout.samplers.base import Workplace

log = logging.getLogger(__name__)

SCRAMBLED = -1
"""The version of scrambled weights."""
SAMPLE_TEXT = "You are in the middle of a room. <action> go to cabinet 1 </action>"
"""A text that tokenizers read differently."""
MOST_RESTARTS = 3
"""How often an engine may fail under the same weights."""


@dataclass(frozen=True)
class PoolSettings:
    """The settings of engines. :class:`~hiper.rollout.samplers.vllm.VllmOptions` describes them."""

    environment: Environment | None
    """The Python environment to start engines from. None: they run already, at ``urls``."""
    urls: tuple[str, ...]
    port: int | None
    tensor_parallel: int
    gpu_memory_utilization: float
    max_num_seqs: int | None
    timeout: float
    start_timeout: float
    folder: str | None
    sync: SyncName
    untie: bool | None
    args: tuple[str, ...]

    @property
    def unties(self) -> bool:
        """Whether tied embeddings are written as two tensors."""
        if self.untie is not None:
            return self.untie
        return self.environment is not None and self.environment.cpu


class Pool:
    """The engines that this process gives weights to.

    Args:
        settings: The settings.
        place: The workplace of the sampler.
        loop: The loop on which clients speak.
        weights: The first weights, from which sizes are taken.
        terms: What answers must keep to.
        tokenizer: The learner's tokenizer.

    Raises:
        UserError: An engine does not start, or what runs at an address is none that fits.
    """

    def __init__(
        self,
        settings: PoolSettings,
        place: Workplace,
        loop: asyncio.AbstractEventLoop,
        weights: PolicyWeights,
        terms: Terms,
        tokenizer: PreTrainedTokenizerBase,
    ) -> None:
        self._settings, self._place, self._loop = settings, place, loop
        self._tokenizer = tokenizer
        self.engines: list[Engine] = []
        self.terms = terms
        self.restarts = 0
        """How often an engine was started again."""
        self._asleep = False
        self._temporary: Path | None = None
        self._told = False
        """Whether the user was told of a fault, and may look into the logs."""
        self._given = False
        """Whether engines have had weights of the learner."""
        self._most_tokens = most_tokens(place, weights)
        self._asked = probe.requests(terms.words, weights.positions, self._most_tokens)
        self._home = new_home(export.place_for(weights, settings.folder))
        try:
            own = settings.environment is not None
            self._sync = make_sync(settings.sync, weights, self._home, settings.unties, own=own)
            self._open(weights)
        except BaseException:
            self._told = True
            self.close()
            raise

    def close(self) -> None:
        """End the engines that were started, and delete what was written for them."""
        for engine in self.engines:
            if engine.process is not None:
                engine.process.stop()
        shutil.rmtree(self._home, ignore_errors=True)
        if self._temporary is not None and not self._told:
            shutil.rmtree(self._temporary, ignore_errors=True)

    def _open(self, weights: PolicyWeights) -> None:
        settings = self._settings
        self._sync.prepare(weights, SCRAMBLED, scrambled=True)
        if settings.environment is None:
            for url in settings.urls:
                self.engines.append(Engine(EngineClient(url, settings.timeout), None, self._loop))
                _meet(self.engines[-1], self._tokenizer)
                self._first(self.engines[-1])
        else:
            logs = self._place.logs or self._own_logs()
            launches = self._launches(settings.environment, weights)
            for number, launch in enumerate(launches):
                name = f"engine-{self._place.processes.rank * len(launches) + number}.log"
                port = None if settings.port is None else settings.port + number
                process = EngineProcess(launch, logs / name, self._home, port)
                self.engines.append(Engine(EngineClient("", settings.timeout), process, self._loop))
            with self._place.bar("starting the engine"):
                for engine in self.engines:
                    engine.start(self._sync.start_from, settings.start_timeout)

    def _own_logs(self) -> Path:
        """Make a folder for logs that nobody asked for. It is deleted at the end, unless something goes wrong."""
        self._temporary = Path(tempfile.mkdtemp(prefix="hiper-engine-"))
        return self._temporary

    def _first(self, engine: Engine) -> None:
        try:
            engine.load(lambda client: self._sync.deliver(client, "nothing"), SCRAMBLED)
        except EngineFault as fault:
            how, sees = "over the network", ""
            if self._settings.sync in ("folder", "adapter"):
                how = f"from {self._sync.start_from}"
                sees = "Does it see this folder (sampler.folder chooses another)? "
            raise UserError(
                f"{engine.name} cannot load weights {how}: {fault}. {sees}Does it serve the model that is trained?"
            ) from fault

    def _launches(self, environment: Environment, weights: PolicyWeights) -> list[Launch]:
        """Return how to start each engine of this process: one for each group of GPUs, or one on the CPU."""
        settings, place = self._settings, self._place
        groups: list[tuple[int, ...]] = [()]
        if not environment.cpu:
            gpus = range(torch.cuda.device_count())
            own = gpus[place.processes.local_rank :: place.processes.count]
            size = settings.tensor_parallel
            groups = [tuple(own[first : first + size]) for first in range(0, len(own) - size + 1, size)]
            if not groups:
                raise UserError(f"sampler.tensor_parallel is {size}, and this process has {len(own)} GPUs: lower it")
        sequences = settings.max_num_seqs or (None if place.slots is None else min(256, place.slots))
        tokenizer = self._home / "tokenizer" if place.patterns else None
        if tokenizer is not None:
            self._tokenizer.save_pretrained(tokenizer)
        return [
            Launch(
                environment=environment,
                dtype=export.number_format(weights),
                most_tokens=self._most_tokens,
                sequences=sequences,
                kv_gib=kv_gib(weights, self._most_tokens, sequences),
                memory=settings.gpu_memory_utilization,
                gpus=group,
                adapter_rank=self._sync.adapter_rank,
                sync=settings.sync,
                tokenizer=tokenizer,
                extra=settings.args,
            )
            for group in groups
        ]

    def give(self, weights: PolicyWeights, terms: Terms) -> float:
        """Give every engine new weights, probe it, and return the largest mean difference that a probe found.

        Raises:
            UserError: An engine cannot take them, or computes something else than the learner.
        """
        first, self.terms = not self._given, terms
        self._sync.prepare(weights, terms.version)
        self._given = True
        found = max(self._give(engine, weights, first=first) for engine in self.engines)
        self._asleep = False
        self._sync.clean_up()
        return found

    def _give(self, engine: Engine, weights: PolicyWeights, *, first: bool) -> float:
        engine.restarts_since_load = 0
        while True:
            try:
                asleep = self._asleep and not engine.restarts_since_load
                self._load(engine, "nothing" if first or asleep else "older", asleep=asleep)
                answers = engine.answers(self._asked, replace(self.terms, stop_ids=()))
            except EngineFault as fault:
                self._told = True
                if first:  # started from here, it would not show whether it can load weights
                    raise engine.failed("loading weights", fault) from fault
                self.restart(engine, fault, "loading weights")
                continue
            found = probe.compare(weights, self._asked, answers)
            if not found.agrees:
                raise probe.refusal(found, weights, engine.name, self._advice(weights, engine))
            return found.mean

    def _load(self, engine: Engine, has: Has, *, asleep: bool = False) -> None:
        engine.load(lambda client: self._sync.deliver(client, has), self.terms.version, asleep=asleep)

    def _advice(self, weights: PolicyWeights, engine: Engine) -> str:
        tied = ""
        if export.is_tied(weights) and not self._settings.unties:
            how = "set sampler.untie=true"
            if engine.process is None:
                how += " and start the engine with --hf-overrides '{\"tie_word_embeddings\": false}'"
            tied = f"The model's embeddings are tied, and vLLM's build for CPUs leaves a tied head as it was: {how}. "
        return tied + (
            "Is the engine's number format the learner's (model.compute_dtype), was it started with --logprobs-mode "
            "processed_logprobs, and does no other run load weights into it? sampler.type=transformers needs no engine."
        )

    def restart(self, engine: Engine, fault: EngineFault, what: str = "sampling") -> None:
        """Start an engine again with the present weights.

        Raises:
            UserError: It was not started by this process, it fails again and again, or it does not start.
        """
        self._told = True
        if engine.process is None or engine.restarts_since_load >= MOST_RESTARTS:
            raise engine.failed(what, fault) from fault
        engine.restarts_since_load += 1
        engine.restarts += 1
        self.restarts += 1
        trouble = engine.process.trouble()
        log.warning("%s failed while %s: %s (%s); it is started again", engine.name, what, fault, trouble)
        engine.start(self._sync.start_from, self._settings.start_timeout)
        try:
            self._load(engine, "start")
        except EngineFault as again:
            raise engine.failed("starting", again) from again

    def sleep(self) -> None:
        """Let engines on GPUs give their memory back. The next step is :meth:`give`."""
        if self._settings.environment is None or self._settings.environment.cpu:
            return
        for engine in self.engines:
            try:
                engine.do(engine.client.sleep())
            except EngineFault as fault:
                self.restart(engine, fault, "going to sleep")
        self._asleep = True


def new_home(place: Path) -> Path:
    """Make a folder for weights on their way, and delete those that killed processes left."""
    place.mkdir(parents=True, exist_ok=True)
    for left in place.glob("hiper-weights-*-*"):
        process = left.name.split("-")[2]
        if process.isdigit() and not Path(f"/proc/{process}").exists():
            shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"hiper-weights-{os.getpid()}-", dir=place))


def check_answers(engine: Engine) -> None:
    """Check that an engine that runs already is vLLM of a version that fits.

    Raises:
        UserError: It is not.
    """
    version = engine.do(engine.client.version_of_vllm())
    if version is None:
        raise UserError(
            f"{engine.client.url} does not answer as vLLM does: is sampler.url right, and does the engine run? "
            "docs/engines.md shows how to start one"
        )
    check_version(version, engine.name)


def _meet(engine: Engine, tokenizer: PreTrainedTokenizerBase) -> None:
    """Check that an engine that runs already is vLLM of a version that fits, with the learner's tokens."""
    check_answers(engine)
    tokens = tokenizer(SAMPLE_TEXT, add_special_tokens=False)["input_ids"]
    theirs = engine.do(engine.client.tokens_of(SAMPLE_TEXT))
    if theirs is not None and theirs != tokens:
        raise UserError(
            f"{engine.name} has another tokenizer than the learner: it reads '{SAMPLE_TEXT}' as "
            f"{shortened(theirs)}, and the learner as {shortened(tokens)}; start it with the model that is trained"
        )


def most_tokens(place: Workplace, weights: PolicyWeights) -> int | None:
    """Return the most tokens of a prompt and its response, with room for the probe to see a stale cache."""
    if place.tokens is None:
        return weights.positions
    wanted = max(place.tokens, probe.LONGEST_PROMPT + probe.TOKENS)
    return wanted if weights.positions is None else min(wanted, weights.positions)


def kv_gib(weights: PolicyWeights, tokens: int | None, sequences: int | None) -> int:
    """Return the GiB that keys and values of all responses at once need, but at most a quarter of the memory."""
    config: Any = weights.model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    each = 2 * config.num_hidden_layers * heads * size * export.number_format(weights).itemsize
    needed = each * (tokens or 4_096) * (sequences or 64)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, int(-(-min(needed, memory // 4) // 2**30)))
