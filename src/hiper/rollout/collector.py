"""The one loop that plays episodes. It plays many at once, and each continues as soon as its own answer arrives."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Any

from hiper.envs.base import Start, Step, TextEnv, clean_start, clean_step, naming
from hiper.envs.silence import warning_of_silence
from hiper.episode import Episode, Turn
from hiper.plan_execute.render import PromptContext
from hiper.processes import ALONE, Processes
from hiper.rollout.players import Assignment, Move, Player, Players

THREADS = 32
"""The most steps that run in parallel, for environments that allow it."""
PATIENCE = 5.0
"""Seconds in which steps that run in parallel may end after a stop. One that hangs does not hold the stop up."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds spent by phase."""

    environment: float
    """The seconds in the environment. Where steps run in parallel, only the time spent waiting for them counts."""
    generation: float
    """The seconds in the sampler, or waiting for it or for other processes."""
    prompts: float
    """The seconds of building prompts and parsing responses."""

    def phases(self) -> dict[str, float]:
        """Return the seconds by the name of the phase."""
        return dataclasses.asdict(self)

    def __add__(self, other: Timing) -> Timing:
        return Timing(
            self.environment + other.environment, self.generation + other.generation, self.prompts + other.prompts
        )


class Playing:
    """A running episode in one slot."""

    def __init__(self, env: TextEnv, player: Player, index: int, assignment: Assignment) -> None:
        self.env = env
        self.player = player
        self.index = index
        self.assignment = assignment
        self.move: Move | None = None
        """The move whose outcome is not known yet."""
        self._turns: list[Turn] = []
        self._history: list[tuple[str, str]] = []
        self._plans: list[tuple[int, str]] = []
        self._subgoal: str | None = None
        self._last: Step | None = None

    @property
    def turns(self) -> int:
        """The number of turns played."""
        return len(self._turns)

    def reset(self) -> Start:
        """Reset the environment for the assigned task.

        Raises:
            UserError: The environment raised an error, or returned what cannot be used.
        """
        with naming(self.env, self.assignment.task_id, "reset"):
            return clean_start(self.env.reset(self.assignment.task_id, self.assignment.seed))

    def step(self, action: str) -> Step:
        """Play an action in the environment.

        Raises:
            UserError: The environment raised an error, or returned what cannot be used.
        """
        with naming(self.env, self.assignment.task_id, "step"):
            return clean_step(self.env.step(action))

    def began(self, start: Start) -> None:
        """Record how the episode begins, and show it to the player."""
        self._goal, self._observation = start.goal, start.observation
        self.player.begin(start)

    def ask(self) -> Future[Any]:
        """Ask the player for its next move."""
        return self.player.ask(self.context())

    def decide(self, answer: Any) -> str:
        """Let the player decide, and return its action."""
        self.move = self.player.decide(self.context(), self._accepts, answer)
        return self.move.action

    def context(self) -> PromptContext:
        """Return the state before the next turn."""
        return PromptContext(
            goal=self._goal,
            history=self._history,
            observation=self._observation.text,
            subgoal=self._subgoal,
            admissible=self._observation.admissible,
            turn=len(self._turns),
            plans=self._plans,
        )

    def stepped(self, step: Step) -> bool:
        """Record the outcome of the move, and return whether the episode is over."""
        move, before = self.move, self._observation
        assert move is not None
        self._turns.append(
            Turn(
                observation=before.text,
                admissible=before.admissible,
                prompt_ids=move.prompt_ids,
                response_ids=move.response_ids,
                logprobs=move.logprobs,
                kinds=move.kinds,
                low_index=move.low_index,
                text=move.text,
                switch=move.switch,
                boundary=move.boundary or not self._turns,
                subgoal=move.subgoal or "",
                action=move.action,
                invalid=move.invalid,
                copy_differs=move.copy_differs,
                reward=step.reward,
                prompt_cut=move.prompt_cut,
                policy_version=move.version,
                lapse=move.lapse,
                thinking=move.thinking,
            )
        )
        self._history.append((before.text, move.action))
        self._plans += _stated_plan(self._turns[-1], len(self._turns) - 1)
        self._subgoal, self._observation, self._last, self.move = move.subgoal, step.observation, step, None
        self.player.saw(move.action, step.observation)
        return step.terminated or step.truncated

    def episode(self) -> Episode:
        """Return the record of the finished episode."""
        last = self._last
        if last is None or last.info.end is None:
            raise RuntimeError(f"episode of {self.assignment.task_id} is not over")
        return Episode(
            task_id=self.assignment.task_id,
            task_type=self.env.panel[self.assignment.task_id].type,
            seed=self.assignment.seed,
            goal=self._goal,
            turns=tuple(self._turns),
            terminated=last.terminated,
            truncated=last.truncated,
            won=last.info.won,
            end=last.info.end,
            score=float(last.info.won) if last.info.score is None else last.info.score,
            parts=dict(last.info.parts),
        )

    def _accepts(self, action: str) -> bool:
        with naming(self.env, self.assignment.task_id, "accepts"):
            return bool(self.env.accepts(action, self._observation))


def _stated_plan(turn: Turn, number: int) -> list[tuple[int, str]]:
    """Return the subgoal that a turn states, after the turn's number; nothing if it states none.

    A subgoal is stated where a segment begins. An invalid first turn begins a segment, but states none.
    """
    return [(number, turn.subgoal)] if turn.boundary and turn.subgoal else []


def contexts_of(episode: Episode) -> Iterator[PromptContext]:
    """Yield the state before each turn of a finished episode."""
    history: tuple[tuple[str, str], ...] = ()
    plans: tuple[tuple[int, str], ...] = ()
    subgoal: str | None = None
    for number, turn in enumerate(episode.turns):
        yield PromptContext(episode.goal, history, turn.observation, subgoal, turn.admissible, number, plans)
        history, subgoal = (*history, (turn.observation, turn.action)), turn.subgoal or None
        plans = (*plans, *_stated_plan(turn, number))


def collect(
    env: TextEnv,
    assignments: Sequence[Assignment],
    players: Players,
    *,
    slots: int,
    on_turn: Callable[[int], None] = lambda turns: None,
    on_episode: Callable[[Episode], None] = lambda episode: None,
    processes: Processes = ALONE,
) -> tuple[list[Episode], Timing]:
    """Play every assignment once, and return the episodes in the order of the assignments.

    Several processes play a share each, and all return the episodes of all.

    An episode depends on its assignment, its player and the weights. It does not depend on ``slots`` or on other
    episodes, except that sums round differently in batches of another shape.

    Args:
        env: The environment. Each episode runs in a spawn of it; ``env`` itself does not change.
        assignments: The episodes to play.
        players: The players of the episodes.
        slots: The number of episodes that run at once, in all processes together.
        on_turn: A function called after each turn of any episode, with the number of turns this episode has had. An
            exception that it raises ends the collection.
        on_episode: A function called with each finished episode. Its exceptions do the same.
        processes: The processes that play together. The functions are called for episodes of this one.
    """
    own_slots = -(-slots // processes.count)
    began, timing = time.perf_counter(), Timing(0.0, 0.0, 0.0)

    def play(share: Sequence[Assignment]) -> list[Episode]:
        nonlocal timing
        episodes, timing = _Collection(env, share, players, own_slots, on_turn, on_episode).play()
        return episodes

    with warning_of_silence():
        episodes = processes.share(assignments, play)
    waited = time.perf_counter() - began - timing.environment - timing.generation - timing.prompts
    return episodes, timing + Timing(0.0, waited if processes.count > 1 else 0.0, 0.0)


class _Collection:
    """One call of :func:`collect`. Any thread may queue events (answers, steps); the caller's thread handles them."""

    def __init__(
        self,
        env: TextEnv,
        assignments: Sequence[Assignment],
        players: Players,
        slots: int,
        on_turn: Callable[[int], None],
        on_episode: Callable[[Episode], None],
    ) -> None:
        self._env, self._players, self._slots = env, players, slots
        self._on_turn, self._on_episode = on_turn, on_episode
        self._waiting = iter(enumerate(assignments))
        self._count = len(assignments)
        self._running: dict[int, Future[Any]] = {}
        """The future that each running episode waits for, by the episode's index."""
        self._open: dict[int, TextEnv] = {}
        """The environments that are not closed yet, by the episode's index."""
        self._stepping = 0
        """The number of running episodes that wait for the environment."""
        self._events: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._finished: dict[int, Episode] = {}
        self._environment = self._generation = 0.0
        self._pool: ThreadPoolExecutor | None = None

    def play(self) -> tuple[list[Episode], Timing]:
        """Play all assignments."""
        began = time.perf_counter()
        threads = max(1, min(THREADS, self._slots))
        self._pool = ThreadPoolExecutor(threads) if self._env.concurrent else None
        try:
            self._fill()
            while self._running:
                self._wait()
                self._fill()
        finally:
            self._end()
        total = time.perf_counter() - began
        timing = Timing(self._environment, self._generation, total - self._environment - self._generation)
        return [self._finished[index] for index in range(self._count)], timing

    def _end(self) -> None:
        """Give everything back. After a stop or an error some episodes are running."""
        for future in self._running.values():
            future.cancel()
        if self._pool is not None:
            wait([future for future in self._running.values() if not future.cancelled()], PATIENCE)
            self._pool.shutdown(wait=False)
        for env in self._open.values():
            with suppress(Exception):
                env.close()

    def _fill(self) -> None:
        """Start episodes while slots are free."""
        while len(self._running) < self._slots and (following := next(self._waiting, None)):
            index, assignment = following
            with naming(self._env, assignment.task_id, "spawn"):
                env = self._open[index] = self._env.spawn()
            playing = Playing(env, self._players.seat(env, assignment), index, assignment)
            self._in_environment(playing, playing.reset, partial(self._began, playing))

    def _wait(self) -> None:
        """Handle every queued event, at least one. If none is queued, let the sampler work first."""
        mark = time.perf_counter()
        if self._events.empty():
            self._players.run()
        event = self._events.get()
        waited = time.perf_counter() - mark
        if self._stepping == len(self._running):
            self._environment += waited
        else:
            self._generation += waited
        event()
        while not self._events.empty():
            self._events.get()()

    def _began(self, playing: Playing, start: Start) -> None:
        playing.began(start)
        self._ask(playing)

    def _ask(self, playing: Playing) -> None:
        future = playing.ask()
        self._running[playing.index] = future
        future.add_done_callback(lambda done: self._events.put(partial(self._answered, playing, done)))

    def _answered(self, playing: Playing, answer: Future[Any]) -> None:
        action = playing.decide(answer.result())
        self._in_environment(playing, partial(playing.step, action), partial(self._stepped, playing))

    def _stepped(self, playing: Playing, step: Step) -> None:
        over = playing.stepped(step)
        self._on_turn(playing.turns)
        if not over:
            self._ask(playing)
            return
        del self._running[playing.index]
        self._finished[playing.index] = playing.episode()
        with naming(playing.env, playing.assignment.task_id, "close"):
            self._open.pop(playing.index).close()
        self._on_episode(self._finished[playing.index])

    def _in_environment(self, playing: Playing, work: Callable[[], Any], then: Callable[[Any], None]) -> None:
        """Do ``work`` in the environment and pass its result to ``then``, in a thread if steps run in parallel."""
        if self._pool is None:
            with self._clock():
                result = work()
            then(result)
            return
        self._stepping += 1
        future = self._pool.submit(work)
        self._running[playing.index] = future

        def handle() -> None:
            self._stepping -= 1
            then(future.result())

        future.add_done_callback(lambda _: self._events.put(handle))

    @contextmanager
    def _clock(self) -> Iterator[None]:
        mark = time.perf_counter()
        yield
        self._environment += time.perf_counter() - mark
