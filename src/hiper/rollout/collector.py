"""The one loop that plays episodes: many at once, each going on as soon as its own answer is there."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Any

from hiper.envs.base import Start, Step, TextEnv
from hiper.episode import Episode, Turn
from hiper.plan_execute.render import PromptContext
from hiper.rollout.players import Assignment, Move, Player, Players

THREADS = 32
"""The most steps of concurrent environments that are played side by side."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds spent, for the share of time that metrics show."""

    environment: float
    """In the environment; where its steps run side by side, waiting for them alone."""
    generation: float
    """In the sampler, or waiting for it."""
    prompts: float
    """Writing prompts and reading responses."""

    def __add__(self, other: Timing) -> Timing:
        return Timing(
            self.environment + other.environment, self.generation + other.generation, self.prompts + other.prompts
        )


class Playing:
    """An episode under way in one slot."""

    def __init__(self, env: TextEnv, player: Player, index: int, assignment: Assignment) -> None:
        self.env = env
        self.player = player
        self.index = index
        self.assignment = assignment
        self.move: Move | None = None
        """The move whose outcome is not there yet."""
        self._turns: list[Turn] = []
        self._history: list[tuple[str, str]] = []
        self._subgoal: str | None = None
        self._last: Step | None = None

    def reset(self) -> Start:
        """Begin the environment's episode."""
        return self.env.reset(self.assignment.task_id, self.assignment.seed)

    def began(self, start: Start) -> None:
        """Take in how the episode begins."""
        self._goal, self._observation = start.goal, start.observation
        self.player.begin(start)

    def ask(self) -> Future[Any]:
        """Let the player begin to decide."""
        return self.player.ask(self.context())

    def decide(self, answer: Any) -> str:
        """Let the player decide; the action."""
        self.move = self.player.decide(self.context(), self._accepts, answer)
        return self.move.action

    def context(self) -> PromptContext:
        """What is known before the next turn."""
        return PromptContext(
            goal=self._goal,
            history=self._history,
            observation=self._observation.text,
            subgoal=self._subgoal,
            admissible=self._observation.admissible,
            turn=len(self._turns),
        )

    def stepped(self, step: Step) -> bool:
        """Take in what came of the move; whether the episode is over."""
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
            )
        )
        self._history.append((before.text, move.action))
        self._subgoal, self._observation, self._last, self.move = move.subgoal, step.observation, step, None
        self.player.saw(move.action, step.observation)
        return step.terminated or step.truncated

    def episode(self) -> Episode:
        """The record of the finished episode."""
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
        return self.env.accepts(action, self._observation)


def contexts_of(episode: Episode) -> Iterator[PromptContext]:
    """What was known before each turn of a finished episode."""
    history: tuple[tuple[str, str], ...] = ()
    subgoal: str | None = None
    for number, turn in enumerate(episode.turns):
        yield PromptContext(episode.goal, history, turn.observation, subgoal, turn.admissible, number)
        history, subgoal = (*history, (turn.observation, turn.action)), turn.subgoal or None


def collect(
    env: TextEnv,
    assignments: Sequence[Assignment],
    players: Players,
    *,
    slots: int,
    on_turn: Callable[[], None] = lambda: None,
    on_episode: Callable[[Episode], None] = lambda episode: None,
) -> tuple[list[Episode], Timing]:
    """Play every assignment once; episodes come back in the order of the assignments.

    An episode depends on its assignment, its player and the weights, not on ``slots`` or on the episodes beside it, but
    for the rounding of sums in batches of another shape.

    Args:
        env: its spawns play; it is not touched itself.
        assignments: what to play.
        players: who plays.
        slots: how many episodes run side by side.
        on_turn: called after each turn of any episode; what it raises ends the collection.
        on_episode: likewise, as episodes end.
    """
    return _Collection(env, assignments, players, slots, on_turn, on_episode).play()


class _Collection:
    """One call of :func:`collect`. Events (answers, steps) queue up from any thread; this thread alone handles them."""

    def __init__(
        self,
        env: TextEnv,
        assignments: Sequence[Assignment],
        players: Players,
        slots: int,
        on_turn: Callable[[], None],
        on_episode: Callable[[Episode], None],
    ) -> None:
        self._env, self._players, self._slots = env, players, slots
        self._on_turn, self._on_episode = on_turn, on_episode
        self._waiting = iter(enumerate(assignments))
        self._count = len(assignments)
        self._running: dict[int, Future[Any]] = {}
        """What each running episode waits for, by its index."""
        self._stepping = 0
        """How many of them wait for the environment."""
        self._events: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._finished: dict[int, Episode] = {}
        self._environment = self._generation = 0.0
        self._pool: ThreadPoolExecutor | None = None

    def play(self) -> tuple[list[Episode], Timing]:
        """Play all of it."""
        began = time.perf_counter()
        threads = max(1, min(THREADS, self._slots))
        with ThreadPoolExecutor(threads) if self._env.concurrent else nullcontext() as self._pool:
            try:
                self._fill()
                while self._running:
                    self._wait()
                    self._fill()
            finally:
                for future in self._running.values():
                    future.cancel()
        total = time.perf_counter() - began
        timing = Timing(self._environment, self._generation, total - self._environment - self._generation)
        return [self._finished[index] for index in range(self._count)], timing

    def _fill(self) -> None:
        """Begin episodes while slots are free."""
        while len(self._running) < self._slots and (following := next(self._waiting, None)):
            index, assignment = following
            env = self._env.spawn()
            playing = Playing(env, self._players.seat(env, assignment), index, assignment)
            self._in_environment(playing, playing.reset, partial(self._began, playing))

    def _wait(self) -> None:
        """Handle at least one event, and all that are there; where there is none, let the sampler work."""
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
        self._in_environment(playing, partial(playing.env.step, action), partial(self._stepped, playing))

    def _stepped(self, playing: Playing, step: Step) -> None:
        over = playing.stepped(step)
        self._on_turn()
        if not over:
            self._ask(playing)
            return
        del self._running[playing.index]
        self._finished[playing.index] = playing.episode()
        playing.env.close()
        self._on_episode(self._finished[playing.index])

    def _in_environment(self, playing: Playing, work: Callable[[], Any], then: Callable[[Any], None]) -> None:
        """Do ``work`` in the environment, then go on with its result: at once, or beside others in threads."""
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
