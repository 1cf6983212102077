"""An engine that the trainer starts and ends: a vLLM server on a port of this machine."""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import torch

from hiper.errors import UserError
from hiper.files import writing
from hiper.rollout.engines.environment import Environment
from hiper.rollout.engines.inside.hiper_weights import EXTENSION

SUPERVISOR = Path(__file__).with_name("supervise.py")
INSIDE = Path(__file__).with_name("inside")
"""The folder of the code that runs inside an engine."""
POLL_SECONDS = 0.2
END_SECONDS = 15.0
"""How long the supervisor may take to end an engine."""
SETTINGS_OF_SERVER = {
    "VLLM_SERVER_DEV_MODE": "1",  # the routes that load weights and reset caches
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",  # the model is a folder of this machine
}
OF_THE_TRAINER = (
    *("OMP_NUM_THREADS", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"),
    *("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"),
)
"""Environment variables that are about the trainer alone: its threads, its modules, its place among processes."""
LEAST_BATCHED_TOKENS = 4_096
"""The tokens of prompts that a CPU build reads in one step, unless one prompt is longer."""
MOST_LOG = 4_000_000
"""The bytes of a log in which the cause of a fault is looked for. What follows from it may be many times longer."""
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The ranks of adapters for which vLLM can make room."""
_TROUBLE = re.compile(r"(?:\(\w+ pid=\d+\) )?(?:\w+ [\d: -]+\[[^]]*\] )?((?:\w+\.)*\w*(?:Error|Exception): .*)")
"""A line of an engine's log that says what went wrong, at the end of a traceback."""


@dataclass(frozen=True)
class Launch:
    """How to start an engine."""

    environment: Environment
    """The Python environment that holds vLLM."""
    dtype: torch.dtype
    """The number format of weights and computation."""
    most_tokens: int | None
    """The most tokens of a prompt and its response. None: as many as the model has positions."""
    sequences: int | None
    """The most responses at once. None: vLLM's own choice."""
    kv_gib: int
    """The memory of a CPU build for keys and values, in GiB."""
    memory: float
    """The share of a GPU's memory that the engine takes."""
    gpus: tuple[int, ...] = ()
    """The GPUs of the engine. Several: the model is split over them."""
    adapter_rank: int | None = None
    """The rank of adapters that are loaded beside the model. None: there are none."""
    sync: str = "folder"
    """How weights come; see :mod:`hiper.rollout.engines.sync`."""
    tokenizer: Path | None = None
    """The folder of the tokenizer, which patterns of responses need. None: the engine reads and writes tokens alone."""
    extra: tuple[str, ...] = ()
    """Further arguments of the server. They come last, so they override the others."""

    def command(self, model: Path, port: int) -> list[str]:
        """Return the command that serves a model."""
        arguments: dict[str, object] = {
            "--model": model,
            "--served-model-name": "policy",
            "--host": "127.0.0.1",
            "--port": port,
            "--dtype": str(self.dtype).removeprefix("torch."),
            "--logprobs-mode": "processed_logprobs",
            "--uvicorn-log-level": "warning",
        }
        if self.most_tokens is not None:
            arguments["--max-model-len"] = self.most_tokens
        if self.sequences is not None:
            arguments["--max-num-seqs"] = self.sequences
        switches = ["--enable-scale-out"]
        if self.adapter_rank is not None:
            switches.append("--enable-lora")
            arguments["--max-lora-rank"] = next((rank for rank in RANKS if rank >= self.adapter_rank), RANKS[-1])
        if self.sync == "ipc":
            arguments["--weight-transfer-config"] = '{"backend": "ipc"}'
        if self.sync == "gloo":
            arguments["--worker-extension-cls"] = EXTENSION
        if self.tokenizer is None:
            switches.append("--skip-tokenizer-init")
        else:
            arguments["--tokenizer"] = self.tokenizer
        if self.environment.cpu:
            switches.append("--enforce-eager")  # compiling takes a minute and gains little on CPUs
            # Reading a prompt in parts ends the CPU build: it takes back a draw of the request's own generator, which
            # torch has no way to do on CPUs ("CPU Generator does not use offset").
            switches.append("--no-enable-chunked-prefill")
            arguments["--max-num-batched-tokens"] = max(LEAST_BATCHED_TOKENS, self.most_tokens or 0)
        else:
            arguments["--gpu-memory-utilization"] = self.memory
            arguments["--tensor-parallel-size"] = len(self.gpus)
            switches.append("--enable-sleep-mode")
        words = [str(word) for pair in arguments.items() for word in pair]
        server = [str(self.environment.python), "-m", "vllm.entrypoints.openai.api_server"]
        return [*server, *words, *switches, *self.extra]

    def variables(self) -> dict[str, str]:
        """Return the environment variables of the server. What the user set stays."""
        own = {"VLLM_CPU_KVCACHE_SPACE": str(self.kv_gib)} if self.environment.cpu else {}
        if self.adapter_rank is not None:
            own["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "1"
        if self.sync == "gloo":
            own["PYTHONPATH"] = str(INSIDE)
        if self.sync == "ipc":
            own["VLLM_ALLOW_INSECURE_SERIALIZATION"] = "1"  # handles are pickled, and come from this machine alone
        kept = {name: value for name, value in os.environ.items() if name not in OF_THE_TRAINER}
        if self.gpus:
            visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
            named = [visible[gpu] if gpu < len(visible) and visible[gpu] else str(gpu) for gpu in self.gpus]
            kept["CUDA_VISIBLE_DEVICES"] = ",".join(named)
        return own | kept | SETTINGS_OF_SERVER


class EngineProcess:
    """A server that runs while this object is open.

    Args:
        launch: How to start it.
        log: The file that its output is appended to.
        home: A folder that is deleted if the trainer is killed.
        port: The port. None: a free one.
    """

    def __init__(self, launch: Launch, log: Path, home: Path, port: int | None = None) -> None:
        self._launch, self.log, self._home, self._wanted = launch, log, home, port
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""
        """The address of the server."""
        self._log_start = 0

    def start(self, model: Path) -> None:
        """Start the server with a model. It is ready later; see :meth:`wait`.

        Raises:
            UserError: The port is taken.
        """
        self.stop()
        # A restarted engine keeps its port, because other processes may know it.
        port = self._wanted = free_port(self._wanted)
        self.url = f"http://127.0.0.1:{port}"
        command = self._launch.command(model, port)
        with writing(self.log):
            self.log.parent.mkdir(parents=True, exist_ok=True)
            with self.log.open("ab") as output:
                self._log_start = output.tell()
                _note(output, command)
                self._process = subprocess.Popen(
                    [sys.executable, "-S", str(SUPERVISOR), str(self._home), *command],
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=self._launch.variables(),
                    start_new_session=True,
                )

    def wait(self, ready: Callable[[], bool], seconds: float, check: Callable[[], None] = lambda: None) -> float:
        """Wait until the server is ready, and return the seconds that it took.

        Args:
            ready: Asks the server.
            seconds: How long it may take.
            check: Called now and then. Its exceptions end the waiting.

        Raises:
            UserError: The server ended, or takes too long. The message says why, and names the log.
        """
        began = time.monotonic()
        while not ready():
            check()
            if self.ended:
                raise self.failure(f"the engine ended while it started: {self.trouble()}")
            if time.monotonic() - began > seconds:
                self.stop()
                raise self.failure(f"the engine was not ready after {seconds:.0f} s")
            time.sleep(POLL_SECONDS)
        return time.monotonic() - began

    @property
    def ended(self) -> bool:
        """Whether the server is not running."""
        return self._process is None or self._process.poll() is not None

    def stop(self) -> None:
        """End the server and all its processes."""
        if self._process is None:
            return
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()  # the supervisor ends the server then
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def trouble(self) -> str:
        """Return the line of the log that says best what went wrong since the last start."""
        with suppress(OSError), self.log.open("rb") as file:
            file.seek(self._log_start)
            return told_trouble(file.read(MOST_LOG).decode("utf-8", errors="replace"))
        return "its log cannot be read"

    def failure(self, what: str) -> UserError:
        """Return an error that names the log."""
        return UserError(f"{what}. Its log is {self.log}. sampler.type=transformers needs no engine")


def told_trouble(text: str) -> str:
    """Return the line of an engine's output that says best what went wrong: the first error, which has the cause."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = [found[1] for line in lines if (found := _TROUBLE.match(line))]
    return (told or lines[-1:] or ["it said nothing"])[0][:300]


def free_port(wanted: int | None) -> int:
    """Return a port that nothing listens on.

    Raises:
        UserError: The wanted one is taken.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of an engine that ended do not count
        try:
            probe.bind(("127.0.0.1", wanted or 0))
        except OSError as error:
            raise UserError(
                f"port {wanted} is taken by another program ({error.strerror}): name another one with sampler.port, or "
                "leave it out, and a free one is found"
            ) from error
        return int(probe.getsockname()[1])


def _note(output: IO[bytes], command: Sequence[str]) -> None:
    output.write(f"\n$ {shlex.join(command)}\n".encode())
    output.flush()
