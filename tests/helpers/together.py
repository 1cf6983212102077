"""Work in several processes that compute together."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from pathlib import Path

import torch

from hiper.processes import RENDEZVOUS, Processes, together


def forked(count: int, meeting: Path, work: Callable[[Processes], object]) -> list[str]:
    """Do ``work`` in several processes that work together; return what went wrong in each ('' for nothing)."""
    results, children = [meeting.with_name(f"{meeting.name}-{rank}") for rank in range(count)], []
    for rank in range(count):
        if child := os.fork():
            children.append(child)
            continue
        try:
            os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(count), RENDEZVOUS: f"file://{meeting}"}
            torch.set_num_threads(1)
            with together() as processes:
                work(processes)
            results[rank].write_text("")
        except BaseException:
            results[rank].write_text(traceback.format_exc())
        finally:
            os._exit(0)
    for child in children:
        os.waitpid(child, 0)
    return [result.read_text() for result in results]
