"""Work in several processes that compute together.

The processes are forked from one that was itself forked before any test ran. Threads do not survive a fork, and a test
before may have left some that torch waits for.
"""

from __future__ import annotations

import os
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import cloudpickle
import torch

from hiper.processes import RENDEZVOUS, Processes, together

PATIENCE = 600.0
"""The most seconds that a test's processes may take."""

Work = Callable[[Processes], object]


def forked(count: int, meeting: Path, work: Work) -> list[str]:
    """Do ``work`` in several processes that work together; return what went wrong in each ('' for nothing)."""
    module = sys.modules[work.__module__]
    cloudpickle.register_pickle_by_value(module)  # the other process has not imported it
    try:
        pickled = cloudpickle.dumps((work, dict(os.environ), str(Path.cwd())))
    finally:
        cloudpickle.unregister_pickle_by_value(module)
    _CLEAN.do(cloudpickle.dumps((count, meeting, pickled)))
    return [_result(meeting, rank).read_text() for rank in range(count)]


def _result(meeting: Path, rank: int) -> Path:
    return meeting.with_name(f"{meeting.name}-{rank}")


class _Clean:
    """A process that has run nothing yet, and forks others on demand. It ends with this one."""

    def __init__(self) -> None:
        self._socket, other = socket.socketpair()
        if os.fork():
            other.close()
            return
        self._socket.close()
        try:
            with other.makefile("rwb") as pipe:
                while head := pipe.read(8):
                    count, meeting, pickled = cloudpickle.loads(pipe.read(int.from_bytes(head, "big")))
                    _fork(count, meeting, pickled)
                    pipe.write(b"done")
                    pipe.flush()
        finally:
            os._exit(0)

    def do(self, work: bytes) -> None:
        """Let it do pickled work, and wait."""
        self._socket.settimeout(PATIENCE)
        self._socket.sendall(len(work).to_bytes(8, "big") + work)
        assert self._socket.recv(4) == b"done"


def _fork(count: int, meeting: Path, pickled: bytes) -> None:
    """Do pickled work in new processes, and wait for them."""
    children = []
    for rank in range(count):
        if child := os.fork():
            children.append(child)
        else:
            _be(rank, count, meeting, pickled)
    for child in children:
        os.waitpid(child, 0)


def _be(rank: int, count: int, meeting: Path, pickled: bytes) -> None:
    result = _result(meeting, rank)
    try:
        work, environment, folder = cloudpickle.loads(pickled)
        os.chdir(folder)
        os.environ.clear()
        os.environ |= environment
        os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(count), RENDEZVOUS: f"file://{meeting}"}
        torch.set_num_threads(1)
        with together() as processes:
            work(processes)
        result.write_text("")
    except BaseException:
        result.write_text(traceback.format_exc())
    finally:
        os._exit(0)


_CLEAN = _Clean()
