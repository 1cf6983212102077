"""Sampling ahead: the episodes of the next iteration are played while this iteration is learned.

They are played under the weights before this iteration's update. So iteration k learns from what the weights of
iteration k - 1 sampled, and its tokens get importance weights (:func:`hiper.learner.losses.importance`). The sampler
must hold a copy of the weights of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress

from hiper.episode import Episode
from hiper.processes import Processes
from hiper.rollout.collector import Timing
from hiper.rollout.players import Assignment

Played = tuple[list[Episode], Timing]
Play = Callable[[Sequence[Assignment], Callable[[], None]], Played]
"""Plays assignments in this process alone. It calls the second argument after each turn, whose exceptions end it."""


class DroppedError(Exception):
    """Nobody waits for these episodes any more."""


class Ahead:
    """At most one collection that is ahead of the training loop.

    Args:
        play: Plays this process's share of some assignments, in a thread.
        processes: The processes that play together.
        iteration: The iteration that comes first, counted from 0.
        stored: Its episodes, if an earlier process sampled them ahead.
    """

    def __init__(self, play: Play, processes: Processes, iteration: int, stored: list[Episode] | None) -> None:
        self._play, self._processes = play, processes
        self._share: Future[Played] | None = None
        """This process's share of what is being played."""
        self._assignments: Sequence[Assignment] = ()
        self._iteration = iteration
        """The iteration of what is being played, or was played last."""
        self._whole: Played | None = None if stored is None else (stored, Timing(0.0, 0.0, 0.0))
        """What was played and not taken."""
        self._taken: int | None = None
        self._held = {} if stored is None else {iteration: stored}
        self._dropped = threading.Event()

    def start(self, iteration: int, assignments: Sequence[Assignment]) -> None:
        """Begin to play the episodes of an iteration."""
        share, self._share = self._processes.own(assignments), Future()
        self._iteration, self._assignments, future = iteration, assignments, self._share

        def work() -> None:
            try:
                future.set_result(self._play(share, self._check))
            except BaseException as error:  # for the main thread, which waits for it
                future.set_exception(error)

        threading.Thread(target=work, daemon=True, name="ahead").start()

    def finish(self) -> None:
        """Wait for the episodes. Afterwards the sampler may take other weights. Every process calls it."""
        if self._share is None:
            return
        timing: Timing | None = None

        def own(share: Sequence[Assignment]) -> list[Episode]:
            nonlocal timing
            assert self._share is not None
            episodes, timing = self._share.result()
            return episodes

        episodes = self._processes.share(self._assignments, own)
        assert timing is not None
        self._share, self._whole, self._held = None, (episodes, timing), {self._iteration: episodes}

    def take(self, iteration: int) -> Played | None:
        """Return the episodes of an iteration, once. None: they were not sampled ahead."""
        if self._iteration != iteration or self._share is not None:
            return None
        taken, self._whole = self._whole, None
        self._taken = self._taken if taken is None else iteration
        return taken

    def took(self, iteration: int) -> bool:
        """Return whether the episodes of an iteration were sampled ahead."""
        return self._taken == iteration

    def held(self, iteration: int) -> list[Episode] | None:
        """Return the episodes that a checkpoint before an iteration must hold. None: none were sampled ahead."""
        return self._held.get(iteration)

    def close(self) -> None:
        """Drop what is being played."""
        self._dropped.set()
        if self._share is not None:
            with suppress(BaseException):
                self._share.exception(timeout=5.0)

    def _check(self) -> None:
        if self._dropped.is_set():
            raise DroppedError
