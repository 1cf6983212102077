"""Play by hand: an environment in the page, with the advice of its expert and the proposal of a policy.

A policy is loaded when somebody asks for it. Only then are torch and transformers imported.
"""

from __future__ import annotations

import itertools
import os
import random
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from starlette.requests import Request
from starlette.routing import Route

from hiper import envs
from hiper.config import apply_overrides, flatten
from hiper.envs.base import Decision, Observation, Start, TextEnv, naming
from hiper.envs.registry import find_factory, names
from hiper.errors import UserError, shortened
from hiper.imitation.demonstrations import Experts
from hiper.plan_execute.render import PromptContext
from hiper.rollout.collector import Playing
from hiper.rollout.environment import make_env
from hiper.rollout.players import Accepts, Assignment, Move, Player, answered
from hiper.runs.policies import PolicyFolder
from hiper.training.assign import switch_probability
from hiper.viewer.app import Library, answered_get, answered_post
from hiper.viewer.folder import NotFoundError

if TYPE_CHECKING:
    from hiper.evaluation.saved import LoadedPolicy

MOST_SESSIONS = 16
"""The most episodes that are open at once. The oldest is closed for a new one."""
MOST_ENVIRONMENTS = 8
"""The most environments that are kept open, and that are opened at the same time."""
LARGEST_OPTION = 100_000
"""The largest number in options that are written in the page, such as the number of games to generate."""
GENERATED = "generated"
"""The value of ``data`` that needs no files, in every environment that ships."""
MOST_TASKS = 2_000
"""The most tasks in a list to choose from."""
LONGEST_TEXT = 10_000
"""The most characters of a subgoal or an action."""


Place = tuple[str | None, str, str, str | None]
"""Run, name, options and split of an environment that is played."""


class Hand:
    """The player of the page: its moves come from outside. The expert watches, if there is one.

    Args:
        expert: The expert as a player, which is told everything that happens.
    """

    def __init__(self, expert: Player | None) -> None:
        self._expert = expert
        self.move: Move | None = None
        """The next move."""

    def begin(self, start: Start) -> None:
        """Show the task to the expert."""
        if self._expert is not None:
            self._expert.begin(start)

    def ask(self, context: PromptContext) -> Future[Any]:
        """Return a fulfilled future, because the move is there already."""
        return answered()

    def decide(self, context: PromptContext, accepts: Accepts, answer: Any) -> Move:
        """Return the move that came from outside."""
        assert self.move is not None
        return self.move

    def saw(self, action: str, observation: Observation) -> None:
        """Tell the expert the outcome."""
        if self._expert is not None:
            self._expert.saw(action, observation)


@dataclass
class Session:
    """One episode that is played by hand."""

    env: TextEnv
    hand: Hand
    playing: Playing
    expert: Player | None
    run: str | None
    """The run whose policy can be asked."""
    assignment: Assignment
    observation: Observation
    advice: Move | None = None
    over: dict[str, Any] | None = None
    log: list[dict[str, Any]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def accepts(self, action: str) -> bool:
        """Whether the environment would understand an action now."""
        with naming(self.env, self.assignment.task_id, "accepts"):
            return bool(self.env.accepts(action, self.observation))

    def advise(self) -> None:
        """Ask the expert for its advice. It is asked once in each turn."""
        if self.expert is not None and self.over is None:
            self.advice = self.expert.decide(self.playing.context(), self.accepts, None)

    def play(self, subgoal: str, action: str) -> None:
        """Play one turn.

        Raises:
            UserError: The episode is over, or the environment does not know the action.
        """
        if self.over is not None:
            raise UserError("the episode is over: begin another one")
        context = self.playing.context()
        if not action:
            raise UserError("choose an action, or write one")
        if not self.accepts(action):
            raise UserError(f"'{action[:100]}' is no action here, and no turn was spent")
        self.hand.move = Move.of(Decision(subgoal != (context.subgoal or ""), subgoal, action), context, self.accepts)
        step = self.playing.step(self.playing.decide(None))
        move = self.hand.move
        over = self.playing.stepped(step)
        self.observation = step.observation
        self.log.append(
            {"switch": move.switch, "subgoal": subgoal, "action": action, "reward": step.reward,
             "observation": self.env.for_people(step.observation).text}
        )  # fmt: skip
        if over:
            episode = self.playing.episode()
            self.over = {
                "won": episode.won, "end": episode.end, "score": episode.score, "parts": dict(episode.parts)
            }  # fmt: skip
            self.advice = None
        else:
            self.advise()


class Table:
    """Every episode that is played in the page.

    Args:
        library: The folder that the viewer shows.
    """

    def __init__(self, library: Library) -> None:
        self._library = library
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._envs: OrderedDict[Place, TextEnv] = OrderedDict()
        self._opening: dict[Place, threading.Lock] = {}
        self._policies: dict[str, LoadedPolicy] = {}
        self._asking = threading.Lock()
        """Held while a policy is loaded or asked, which may take long. It answers one request at a time."""
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    def choices(self, run: str | None, env: str, options: str, split: str | None) -> dict[str, Any]:
        """Return what can be played: environments, or the splits and tasks of one."""
        if run is None and not env:
            return {"environments": names()}
        opened, splits = self._env(run, env, options, split)
        tasks = [{"id": task.id, "type": task.type} for task in itertools.islice(opened.panel, MOST_TASKS)]
        return {
            "environments": names(),
            "splits": splits,
            "split": split or (splits[0] if splits else None),
            "tasks": tasks,
            "count": len(opened.panel),
            "policy": run is not None and self._policy_folder(run) is not None,
        }

    def begin(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Begin an episode."""
        run = _text(asked, "run") or None
        opened, _ = self._env(run, _text(asked, "env"), _text(asked, "options"), _text(asked, "split") or None)
        seed = asked.get("seed", 0)
        if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**53:
            raise UserError("the seed must be a whole number, zero or more")
        task = _text(asked, "task") or random.Random(seed).choice(opened.panel.tasks).id
        env, assignment = opened.spawn(), Assignment(task, seed, seed)
        expert: Player | None
        try:
            expert = Experts().seat(env, assignment)
        except UserError:
            expert = None
        hand = Hand(expert)
        playing = Playing(env, hand, 0, assignment)
        start = playing.reset()
        playing.began(start)
        session = Session(env, hand, playing, expert, run, assignment, start.observation)
        session.advise()
        with self._lock:
            key = str(next(self._numbers))
            self._sessions[key] = session
            while len(self._sessions) > MOST_SESSIONS:
                self._sessions.popitem(last=False)[1].env.close()
        return self._state(key, session)

    def move(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Play one turn of an episode."""
        key, session = self._session(asked)
        with session.lock:
            session.play(_text(asked, "subgoal").strip(), _text(asked, "action").strip())
            return self._state(key, session)

    def propose(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the run's policy would do now, with its probabilities of KEEP and SWITCH."""
        _, session = self._session(asked)
        if session.run is None:
            raise UserError("there is no policy: play a run that has a checkpoint")
        with session.lock, self._asking:
            if session.over is not None:
                raise UserError("the episode is over: begin another one")
            agent = self._policy(session.run).agent
            player = agent.seat(session.env, session.assignment)
            context = session.playing.context()
            future = player.ask(context)
            agent.run()
            move = player.decide(context, session.accepts, future.result())
        switch = switch_probability(move, move.logprobs) if move.format_valid else None
        return {
            "switch": move.switch, "subgoal": move.subgoal or "", "action": move.action, "invalid": move.invalid,
            "text": move.text, "p_switch": switch,
        }  # fmt: skip

    def _session(self, asked: Mapping[str, Any]) -> tuple[str, Session]:
        key = _text(asked, "session")
        with self._lock:
            if key not in self._sessions:
                raise NotFoundError("this episode is closed: begin another one")
            self._sessions.move_to_end(key)
            return key, self._sessions[key]

    def _env(self, run: str | None, env: str, options: str, split: str | None) -> tuple[TextEnv, list[str]]:
        """Open an environment, and return its splits where a run names them."""
        config = None if run is None else self._library.run(run).config
        splits = [] if config is None else list(dict.fromkeys([*config.evaluation.splits, config.env.train_split]))
        if splits and split and split not in splits:
            raise UserError(f"the run has no split '{shortened(split)}'; it has {', '.join(splits)}")
        place = (run, env, options, split)
        with self._opened(place):
            if place not in self._envs:
                made = make_env(config, split or splits[0]) if config is not None else _made(env, options, split)
                with self._lock:
                    self._envs[place] = made
                    while len(self._envs) > MOST_ENVIRONMENTS:
                        self._envs.popitem(last=False)[1].close()
            return self._envs[place], splits

    @contextmanager
    def _opened(self, place: Place) -> Iterator[None]:
        """Let one request at a time open an environment. Requests for others do not wait for it.

        Raises:
            UserError: Too many environments are being opened.
        """
        with self._lock:
            if len(self._opening.keys() | {place}) > MOST_ENVIRONMENTS:
                raise UserError("other environments are being opened: wait for them, or start the viewer anew")
            lock = self._opening.setdefault(place, threading.Lock())
        try:
            with lock:
                yield
        finally:
            with self._lock:
                self._opening.pop(place, None)

    def _policy_folder(self, run: str) -> PolicyFolder | None:
        reader = self._library.run(run)
        try:
            policy = PolicyFolder.find(reader.path)
        except UserError:
            return None
        return policy if self._library.folder.holds(policy.path) else None

    def _policy(self, run: str) -> LoadedPolicy:
        """Return the newest policy of a run. The caller holds the lock of policies."""
        folder = self._policy_folder(run)
        if folder is None:
            raise UserError("this run has no checkpoint yet")
        key = str(folder.path)
        if key not in self._policies:
            from hiper.evaluation.saved import SavedPolicy

            self._policies = {key: SavedPolicy.open(folder.path).load(1.0)}  # 1: probabilities are its own
        return self._policies[key]

    def _state(self, key: str, session: Session) -> dict[str, Any]:
        env, context = session.env, session.playing.context()
        shown = env.for_people(session.observation)
        advice = session.advice
        return {
            "session": key,
            "task": session.assignment.task_id,
            "goal": context.goal,
            "turn": context.turn,
            "max_turns": env.max_turns,
            "observation": shown.text,
            "admissible": None if session.observation.admissible is None else list(session.observation.admissible),
            "words": None if shown.admissible is None else list(shown.admissible),
            "subgoal": context.subgoal or "",
            "log": session.log,
            "over": session.over,
            "expert": session.expert is not None,
            "advice": None if advice is None else
            {"switch": advice.switch, "subgoal": advice.subgoal or "", "action": advice.action},
        }  # fmt: skip


def _made(env: str, options: str, split: str | None) -> TextEnv:
    """Make an environment from options that were written in the page.

    Raises:
        UserError: There is no such environment, or an option is not allowed here.
    """
    if env not in names():
        raise UserError(f"there is no environment '{shortened(env)}'; known are {', '.join(names())}")
    given = apply_overrides({} if split is None else {"split": split}, options.split())
    kinds = get_type_hints(find_factory(env))
    for name, value in flatten(given):
        named = isinstance(value, str) and value != GENERATED
        if named and (set(value) & set("/\\~\0") or _is_path(kinds.get(name))):
            raise UserError(
                f"'{name}' must not name a file or folder here, since the viewer reads none outside its own folder: "
                "play a run that has this setting, or use `hiper play`"
            )
        if isinstance(value, int | float) and abs(value) > LARGEST_OPTION:
            raise UserError(f"'{name}' is {shortened(value)}: numbers are at most {LARGEST_OPTION:,} here")
    return envs.make(env, **given)


def _is_path(hint: Any) -> bool:
    """Whether an option of this type may be a path."""
    kinds = [get_origin(kind) or kind for kind in get_args(hint) or (hint,)]
    return any(isinstance(kind, type) and issubclass(kind, os.PathLike) for kind in kinds)


def play_routes(library: Library) -> list[Route]:
    """Return the addresses of playing."""
    table = Table(library)

    def choices(request: Request) -> dict[str, Any]:
        query = request.query_params
        return table.choices(
            query.get("run") or None, query.get("env", ""), query.get("options", ""), query.get("split")
        )

    posts: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
        "begin": table.begin,
        "move": table.move,
        "propose": table.propose,
    }
    return [
        Route("/api/play/choices", answered_get(choices)),
        *(Route(f"/api/play/{name}", answered_post(do), methods=["POST"]) for name, do in posts.items()),
    ]


def _text(asked: Mapping[str, Any], name: str) -> str:
    value = asked.get(name)
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > LONGEST_TEXT:
        raise UserError(f"'{name}' must be a text of at most {LONGEST_TEXT:,} characters")
    return value
