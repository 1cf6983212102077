"""The processes that train one run together. Each does its share of the work, and all get everybody's results.

`hiper train --processes N` and torchrun start the processes, and tell each its rank in environment variables. What
the processes compute together is what one process computes alone, up to rounding.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from hiper.errors import LostProcessError, UserError, first_line
from hiper.files import atomic_folder, writing

log = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")

RENDEZVOUS, PARENT = "HIPER_RENDEZVOUS", "HIPER_PARENT"
"""Environment variables of a local launch: the file where processes meet, and a pipe that closes when the launcher
dies."""

PATIENCE = timedelta(hours=6)
"""How long a process waits for the others. One may still be playing when another has finished its share."""
MEETING = timedelta(minutes=10)
"""How long a process waits for the others at the beginning."""
TELL_SECONDS = 30.0
"""How long it waits before it says so."""


@dataclass(frozen=True)
class Processes:
    """The processes of a run, as one of them sees them. Without arguments: one process alone."""

    rank: int = 0
    """The number of this process, counted from 0."""
    count: int = 1
    """The number of processes."""
    local_rank: int = 0
    """The number of this process on its machine."""

    @property
    def first(self) -> bool:
        """Whether this process writes and shows."""
        return self.rank == 0

    def own(self, items: Sequence[T]) -> Sequence[T]:
        """Return this process's share: every ``count``-th item, so that neighbours of equal size are spread evenly."""
        return items[self.rank :: self.count]

    def share(self, items: Sequence[T], work: Callable[[Sequence[T]], Sequence[R]]) -> list[R]:
        """Do this process's share of the work, and return everybody's results in the order of ``items``.

        Args:
            items: The same items in every process.
            work: A function from some items to one result for each.

        Raises:
            KeyboardInterrupt: A process was asked to stop.
            LostProcessError: A process is gone.
        """
        if self.count == 1:
            return list(work(items))
        try:
            mine: Sequence[R] = work(self.own(items))
        except KeyboardInterrupt:
            self.gather(None)
            raise
        parts = self.gather(mine)
        results: list[Any] = [None] * len(items)
        for rank, part in enumerate(parts):
            if part is None:
                raise KeyboardInterrupt
            results[rank :: self.count] = part
        return results

    def gather(self, value: T) -> list[T]:
        """Return the value of every process, in the order of ranks.

        Raises:
            LostProcessError: A process is gone.
        """
        if self.count == 1:
            return [value]
        import torch.distributed as dist

        values: list[Any] = [None] * self.count
        with noticing_losses(self.count):
            dist.all_gather_object(values, value)
        return values

    def agree(self, value: T) -> T:
        """Return the value of the first process in all of them. Other processes may have seen other files or clocks."""
        return self.gather(value)[0]

    def any(self, wish: bool) -> bool:
        """Return whether any process wishes it."""
        return any(self.gather(wish))

    def sum(self, number: float) -> float:
        """Return the sum of a number over all processes."""
        return sum(self.gather(number))

    def alike(self, what: str, value: object) -> None:
        """Check that all processes hold the same value.

        Raises:
            UserError: They do not. Every process raises it.
        """
        for rank, other in enumerate(values := self.gather(str(value))):
            if other != values[0]:
                raise UserError(
                    f"{what} is {values[0]} in process 0 and {other} in process {rank}: all processes of a run need "
                    "the same code, settings and files"
                )

    @contextmanager
    def shared_folder(self, path: Path) -> Iterator[Path]:
        """Give all processes one temporary folder. It replaces ``path`` only if no process fails in the block.

        Raises:
            UnwritableError: The disk refused.
            LostProcessError: A process is gone.
        """
        if not self.first:
            with writing(path):
                yield self.agree(path)
            self.gather(None)
            self.gather(None)
            return
        with atomic_folder(path) as partial:
            yield self.agree(partial)
            self.gather(None)  # all have written
        self.gather(None)  # the folder is in its place


ALONE = Processes()
"""One process, which works alone."""


@contextmanager
def noticing_losses(count: int, *, in_passes: bool = False) -> Iterator[None]:
    """Turn the error of a message that nobody answered into one for people.

    Args:
        count: The number of processes.
        in_passes: Whether the block computes too. Then its other errors stay as they are.

    Raises:
        LostProcessError: A process is gone.
    """
    try:
        yield
    except RuntimeError as error:
        if in_passes and not _is_of_messages(error):
            raise
        raise LostProcessError(
            f"another of the {count} processes ended, so this one ends too ({first_line(error)})"
        ) from error


def _is_of_messages(error: RuntimeError) -> bool:
    """Return whether gloo or NCCL raised an error. Gloo's have no type of their own."""
    import torch.distributed as dist

    return isinstance(error, dist.DistError) or any(word in str(error) for word in ("gloo", "NCCL", "Connection"))


def place() -> Processes:
    """Return this process's place among those that a launcher started; see :func:`together`. Needs no torch.

    Raises:
        UserError: The environment variables of a launcher contradict each other.
    """
    names = "RANK", "WORLD_SIZE", "LOCAL_RANK"
    texts = [os.environ.get(name) for name in names]
    if texts[0] is None or texts[1] is None:
        return ALONE
    try:
        rank, count, local = (int(text or 0) for text in texts)
    except ValueError:
        rank, count, local = -1, 0, 0
    if not 0 <= rank < count:
        given = ", ".join(f"{name}={text}" for name, text in zip(names, texts, strict=True))
        raise UserError(f"a launcher must set RANK from 0 to WORLD_SIZE - 1; the environment has {given}")
    return Processes(rank, count, local) if count > 1 else ALONE


@contextmanager
def together() -> Iterator[Processes]:
    """Join the processes that `hiper --processes`, torchrun or a script started. Without any: work alone.

    >>> with together() as processes:  # doctest: +SKIP
    ...     hiper.train("quickstart", processes=processes)

    The variables are those of torchrun: RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT.

    Raises:
        UserError: The processes do not meet, or run different versions of HiPER or torch.
    """
    processes = place()
    if processes.count == 1:
        yield processes
        return
    # Torch would write a stack of C++ for every attempt to reach the others.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    import torch
    import torch.distributed as dist

    from hiper import __version__

    _end_with_parent()
    meeting = os.environ.get(RENDEZVOUS, "env://")
    address = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
    where = f"at MASTER_ADDR:MASTER_PORT = {address}" if meeting == "env://" else f"at {meeting}"
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        store = _meet(processes, meeting, where)
        dist.init_process_group(backend, store=store, rank=processes.rank, world_size=processes.count, timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"process {processes.rank} of {processes.count} cannot meet the others {where} ({first_line(error)}); "
            "is the port taken by another program, is the address that of the first machine, and did all of them start?"
        ) from error
    try:
        processes.alike("the version of HiPER", __version__)
        processes.alike("the version of torch", torch.__version__)
        yield processes
    finally:
        dist.destroy_process_group()


def _meet(processes: Processes, meeting: str, where: str) -> Any:
    """Wait until all processes are there, and return the store through which they find each other.

    Args:
        processes: The processes.
        meeting: The address, as torch reads it.
        where: The same for people.

    Raises:
        RuntimeError: They do not come, or the address cannot be used.
        ValueError: A part of the address is missing.
    """
    from torch.distributed.rendezvous import rendezvous

    found: Future[Any] = Future()

    def meet() -> None:
        try:
            found.set_result(next(rendezvous(meeting, processes.rank, processes.count, timeout=MEETING))[0])
        except Exception as error:  # it is raised where the result is waited for
            found.set_exception(error)

    # Torch waits without heeding signals, so another thread waits for it.
    threading.Thread(target=meet, daemon=True, name="meeting").start()
    if not wait([found], TELL_SECONDS).done:
        log.warning("waiting for the other processes %s", where)
    store = found.result()
    store.set_timeout(PATIENCE)
    return store


def _end_with_parent() -> None:
    """Ask this process to stop when the launcher is gone: then nobody would watch over it."""
    pipe = os.environ.get(PARENT)
    if pipe is None:
        return

    def watch() -> None:
        os.read(int(pipe), 1)  # returns when the other end is closed
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True, name="parent").start()
