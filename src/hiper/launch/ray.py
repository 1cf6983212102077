"""Start one command in several processes that Ray Train places on the machines of a cluster.

Each worker of Ray starts one process of `hiper` and waits for it. Processes meet on the machine of process 0. All
machines must see the run's folder, and have the same versions.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from hiper.errors import LostProcessError, UserError, first_line
from hiper.launch.together import parent_pipe
from hiper.processes import PARENT, RENDEZVOUS, place

CARRIED = ("PYTHONPATH", "ALFWORLD_DATA", "WEBSHOP_DATA", "HF_", "WANDB_", "MLFLOW_", "TRACKIO_", "HIPER_")
"""The beginnings of the environment variables that the processes get from the command."""

ANSWER_SECONDS = 10.0
"""How long the head of a cluster may take to answer."""

LINES = 30
"""How much of a failed process's output is shown."""


class FailedError(RuntimeError):
    """A process of a worker ended with an error."""

    def __init__(self, rank: int, code: int, said: str) -> None:
        super().__init__(rank, code, said)
        self.rank, self.code, self.said = rank, code, said


def run_on_ray(arguments: Sequence[str], count: int) -> int:
    """Run `hiper` with these arguments in several processes of a cluster, and return the exit code.

    The cluster is the one that ``RAY_ADDRESS`` names, or the one running on this machine. If there is none, Ray starts
    one of this machine alone. Process 0 writes to this terminal.

    Args:
        arguments: The arguments of `hiper`.
        count: The number of processes. Each takes a GPU where the cluster has any, else a CPU core.

    Raises:
        UserError: Ray is missing, cannot be reached, or has fewer GPUs or cores.
    """
    ray = _ray()
    check_address(os.environ.get("RAY_ADDRESS", ""))
    if place().count > 1:
        raise UserError("torchrun or another launcher started several processes already: leave out --launcher")
    env = {name: value for name, value in os.environ.items() if name.startswith(CARRIED)}
    try:
        ray.init(runtime_env={"env_vars": env}, logging_level="warning", log_to_driver=True)
    except Exception as error:  # Ray has errors of many kinds
        raise UserError(f"Ray's cluster cannot be used: {first_line(error)}; check RAY_ADDRESS") from error
    try:
        kind = _check_room(ray, count)
        return _fit(count, kind == "GPU", {"arguments": [*arguments], "folder": str(Path.cwd()), "env": env})
    finally:
        ray.shutdown()


def _ray() -> Any:
    # It reports its use over the network unless told otherwise.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.train
    except ImportError as error:
        raise UserError(
            f"--launcher ray needs the package ray ({first_line(error)}): pip install 'hiper[ray]'"
        ) from error
    return ray


def check_address(address: str) -> None:
    """Check that something listens at the address of a cluster. Ray itself would try for minutes.

    Args:
        address: HOST:PORT or ray://HOST:PORT. Any other text is left to Ray, which knows words such as "auto".

    Raises:
        UserError: Nothing listens there.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise UserError(
            f"no cluster of Ray answers at {address} ({first_line(error)}); check RAY_ADDRESS, and start one with "
            "`ray start --head`"
        ) from error


def _check_room(ray: Any, count: int) -> str:
    """Return what each process takes, a GPU or a CPU.

    Raises:
        UserError: The cluster has too few. Ray would wait for more without end.
    """
    there: Mapping[str, float] = ray.cluster_resources()
    kind = "GPU" if there.get("GPU") else "CPU"
    if (has := int(there.get(kind, 0))) < count:
        raise UserError(
            f"--processes {count} needs {count} {kind}s, and Ray's cluster has {has}: start fewer processes, or add "
            "machines with `ray start --address=HEAD:6379`"
        )
    return kind


def _fit(count: int, gpus: bool, work: Mapping[str, Any]) -> int:
    """Let Ray place the workers, wait for them, and return the exit code."""
    from ray.train import LoggingConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchConfig, TorchTrainer

    quiet: dict[str, Any] = {"logging_config": LoggingConfig(log_level="ERROR")}  # which Ray's types do not know
    with tempfile.TemporaryDirectory(prefix="hiper-ray-") as notes:  # where Ray keeps its own records of the workers
        trainer = TorchTrainer(
            _work,
            train_loop_config=dict(work),
            torch_config=TorchConfig(backend="gloo"),  # of the workers; what they start meets by itself
            scaling_config=ScalingConfig(num_workers=count, use_gpu=gpus),
            run_config=RunConfig(name="hiper", storage_path=notes, **quiet),
        )
        try:
            trainer.fit()
        except TrainingFailedError as error:
            return _told(error)
    return 0


def _told(error: Any) -> int:
    """Show what the process at fault said, and return its exit code."""
    failures = [_cause(failure) for failure in getattr(error, "worker_failures", {}).values()]
    failed = [failure for failure in failures if isinstance(failure, FailedError)]
    if not failed:
        typer.echo(f"hiper: Ray's workers failed: {first_line(error)}", err=True)
        return 1
    # A process that lost another one is not at fault.
    first = next((f for f in failed if f.code != LostProcessError.exit_code), failed[0])
    typer.echo(f"process {first.rank} failed:\n{first.said}", err=True)
    return first.code if first.code > 0 else 128 - first.code


def _cause(error: BaseException | None) -> BaseException | None:
    """Return the error that a process ended with, out of those that Ray wrapped around it."""
    while error is not None and not isinstance(error, FailedError):
        error = getattr(error, "cause", None) or error.__cause__
    return error


def _work(config: Mapping[str, Any]) -> None:
    """Start the process of this worker and wait for it. Ray calls this on the machine that it chose.

    Raises:
        FailedError: It ended with an error.
    """
    import ray
    from ray.train import get_context
    from ray.train.collective import broadcast_from_rank_zero

    context = get_context()
    rank = context.get_world_rank()
    meeting = (ray.util.get_node_ip_address(), _free_port()) if rank == 0 else None
    address, port = broadcast_from_rank_zero(meeting)
    own_gpu = "," not in os.environ.get("CUDA_VISIBLE_DEVICES", "")
    said: deque[str] = deque(maxlen=LINES)
    with parent_pipe() as pipe:
        env = {
            "RANK": str(rank),
            "WORLD_SIZE": str(context.get_world_size()),
            "LOCAL_RANK": "0" if own_gpu else str(context.get_local_rank()),  # the number of its GPU
            "MASTER_ADDR": address,
            "MASTER_PORT": str(port),
            RENDEZVOUS: "env://",
            PARENT: str(pipe),
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "hiper", *config["arguments"]],
            cwd=config["folder"],
            env=os.environ | config["env"] | env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            pass_fds=(pipe,),
        )
        assert process.stdout is not None
        for line in process.stdout:
            said.append(line)
            if rank == 0:
                sys.stdout.write(line)
                sys.stdout.flush()
        if code := process.wait():
            raise FailedError(rank, code, "".join(said).strip())


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("", 0))
        return int(free.getsockname()[1])
