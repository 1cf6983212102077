"""Warnings about calls into environments and experts that do not return."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)

SECONDS = 60.0
"""Seconds after which a call counts as silent. It is told again whenever the time has doubled."""

_calls: dict[int, tuple[Callable[[], str], float]] = {}
"""The calls that have not returned, by thread: what is called, and since when."""


@contextmanager
def timed_call(what: Callable[[], str]) -> Iterator[None]:
    """Remember that a call is running.

    Args:
        what: describes the call in words.
    """
    thread = threading.get_ident()
    around = _calls.get(thread)
    _calls[thread] = what, time.monotonic()
    try:
        yield
    finally:
        if around is None:
            del _calls[thread]
        else:
            _calls[thread] = around


@contextmanager
def warning_of_silence(warn: Callable[[str], object] = log.warning) -> Iterator[None]:
    """Warn, while the block runs, about every call that does not return.

    Args:
        warn: shows a line. It is called from another thread.
    """
    over = threading.Event()
    watch = threading.Thread(target=_watch, args=(over, warn), name="hiper-silence", daemon=True)
    watch.start()
    try:
        yield
    finally:
        over.set()
        watch.join()


def _watch(over: threading.Event, warn: Callable[[str], object]) -> None:
    due: dict[tuple[int, float], float] = {}
    while not over.wait(min(1.0, SECONDS)):
        now = time.monotonic()
        for thread, (what, since) in list(_calls.items()):
            if now - since >= due.get((thread, since), SECONDS):
                due[thread, since] = 2 * (now - since)
                told = f"{what()} has not returned for {now - since:.0f} s"
                warn(f"{told}; to give up, press Ctrl-C until the command ends")
