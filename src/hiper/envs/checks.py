"""A check that an environment keeps the contract of :class:`~hiper.envs.base.TextEnv`."""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from hiper.envs.base import (
    BLANK,
    MOST_TURNS,
    Decision,
    EndReason,
    Observation,
    Start,
    Step,
    TextEnv,
    clean_start,
    clean_step,
    naming,
    shown,
)
from hiper.envs.panels import Panel
from hiper.envs.silence import warning_of_silence
from hiper.errors import UserError

ODD_ACTIONS = ("", "   ", "do something impossible", "LOOK", "☃ {x} #y#", "x" * 500)
_ACTIONS_WHERE_FREE = ("look", "help", "search[shoes]", "click[buy now]")
"""Actions to try where actions are free-form."""


def check_env(env: TextEnv, *, tasks: int = 3, seed: int = 0) -> None:
    """Play a few episodes and check everything that can be checked from outside. ``env`` stays open.

    Nothing is returned if all is well.

    >>> from hiper.envs import make
    >>> check_env(make("corridor", cells=3))

    Args:
        env: the environment.
        tasks: the number of tasks to play.
        seed: the seed with which tasks and actions are chosen.

    Raises:
        UserError: the contract is broken. The message says which part, and what the contract asks for.
    """
    rng = random.Random(seed)
    _check_attributes(env)
    _check_methods(env)
    terminal = sys.stderr
    with warning_of_silence(lambda line: terminal.write(f"{line}\n")), _leaves_alone(env):
        _check_refusals(env)
        for task in rng.sample(list(env.panel), min(tasks, len(env.panel))):
            actions = _check_episode(env, task.id, rng)
            _check_repeats(env, task.id, actions)
            _check_spawn(env, task.id, actions)
            _check_close(env, task.id, actions)
            _check_turn_limit(env, task.id)
            _check_expert(env, task.id)


def _demand(kept: bool, env: TextEnv, contract: str) -> None:
    if not kept:
        raise UserError(f"environment '{getattr(env, 'name', type(env).__name__)}': {contract}")


@contextmanager
def _leaves_alone(env: TextEnv) -> Iterator[None]:
    """Demand that episodes change nothing outside the environment."""
    panel, before, printed = env.panel.tasks, _outside(), StringIO()
    try:
        with redirect_stdout(printed), redirect_stderr(printed):
            yield
    finally:
        _demand(env.panel.tasks == panel, env, "the panel must not change while episodes are played")
    for what, state in _outside().items():
        _demand(state == before[what], env, f"an episode must not change {what}")
    text = printed.getvalue()
    _demand(not text, env, f"an episode must print nothing, since a display runs beside it; it printed {shown(text)}")


def _outside() -> dict[str, Any]:
    """What belongs to the whole process, by name. Libraries that nobody imported are left alone."""
    mask = os.umask(0o077)
    os.umask(mask)
    outside: dict[str, Any] = {
        "the state of 'random'; draw from a random.Random of your own": random.getstate(),
        "the working directory": Path.cwd(),
        "the umask": mask,
        "the handlers of signals": [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)],
    }
    if numpy := sys.modules.get("numpy"):
        state = numpy.random.get_state()
        outside["the state of 'numpy.random'; draw from a numpy.random.default_rng of your own"] = (
            state[0],
            state[1].tolist(),
            *state[2:],
        )
    if torch := sys.modules.get("torch"):
        outside["the number of torch's threads"] = torch.get_num_threads()
        outside["the state of torch's generator; draw from a torch.Generator of your own"] = (
            torch.get_rng_state().tolist()
        )
    return outside


def _spawn(env: TextEnv) -> TextEnv:
    with naming(env, None, "spawn"):
        return env.spawn()


def _close(env: TextEnv) -> None:
    with naming(env, None, "close"):
        env.close()


def _reset(env: TextEnv, task_id: str) -> Start:
    """Begin an episode as training does."""
    with naming(env, task_id, "reset"):
        return clean_start(env.reset(task_id, seed=1))


def _step(env: TextEnv, task_id: str, action: str) -> Step:
    """Play a turn as training does."""
    with naming(env, task_id, "step"):
        return clean_step(env.step(action))


def _check_attributes(env: TextEnv) -> None:
    for attribute, kind in (("name", str), ("version", str), ("panel", Panel), ("max_turns", int)):
        value = getattr(env, attribute, None)
        _demand(isinstance(value, kind), env, f"'{attribute}' must be a {kind.__name__}, it is {shown(value)}")
    for task in env.panel:
        said = isinstance(task.id, str) and isinstance(task.type, str)
        _demand(said, env, f"id and type of a task must be strings: {shown(task)}")
    limits = f"'max_turns' must lie between 1 and {MOST_TURNS:,}, it is {shown(env.max_turns)}"
    _demand(1 <= env.max_turns <= MOST_TURNS, env, limits)
    _demand(isinstance(env.concurrent, bool), env, f"'concurrent' must be True or False, it is {shown(env.concurrent)}")
    hidden = env.hidden_actions
    _demand(
        isinstance(hidden, tuple) and all(isinstance(action, str) for action in hidden),
        env,
        f"'hidden_actions' must be a tuple of strings, it is {shown(hidden)}",
    )


def _check_methods(env: TextEnv) -> None:
    """Demand that the base class owns the turn limit and the end of an episode."""
    for method in ("reset", "step"):
        own = getattr(type(env), method) is getattr(TextEnv, method)
        _demand(own, env, f"override _{method}, not {method}: {method} counts turns and ends episodes for all")


def _check_refusals(env: TextEnv) -> None:
    fresh = _spawn(env)
    try:
        fresh.reset("no such task")
    except UserError:
        return
    except Exception as error:
        raised = f"; it raised {shown(error)}"
    else:
        raised = ""
    asked = "reset with an unknown id must raise UserError; look tasks up with self.panel[task_id]"
    _demand(False, env, f"{asked}{raised}")


def _check_start(env: TextEnv, start: Start) -> None:
    _demand(start.goal != "", env, "a Start must state the goal in words")
    _check_observation(env, start.observation)


def _check_observation(env: TextEnv, observation: Observation) -> None:
    admissible = observation.admissible
    if admissible is None:
        return
    _demand(len(set(admissible)) == len(admissible), env, "an admissible action is listed twice")
    _demand(
        all(_accepts(env, BLANK.sub("words", action), observation) for action in admissible),
        env,
        "accepts() must be true of every admissible action, words in its blanks",
    )


def _accepts(env: TextEnv, action: str, observation: Observation) -> bool:
    with naming(env, None, "accepts"):
        return bool(env.accepts(action, observation))


def _check_step(env: TextEnv, step: Step, turn: int) -> None:
    _check_observation(env, step.observation)
    score = step.info.score
    _demand(score is None or -1e-6 <= score <= 1 + 1e-6, env, f"info.score must lie in [0, 1], it is {score}")
    _demand(not (step.terminated and step.truncated), env, "an episode is terminated or truncated, not both")
    end = step.info.end
    _demand(step.truncated == (end is EndReason.TURN_LIMIT), env, "an episode is truncated exactly when turns run out")
    _demand(not step.truncated or turn == env.max_turns, env, f"truncated at turn {turn}; leave truncation to the base")
    _demand(step.info.won == (end is EndReason.WON), env, f"info.won is {step.info.won}, but info.end is {end}")


def _actions(rng: random.Random, env: TextEnv) -> Iterator[Callable[[Observation], str]]:
    while True:
        if rng.random() < 0.2:
            odd = rng.choice(ODD_ACTIONS)
            yield lambda _, odd=odd: odd  # type: ignore[misc]
        else:
            yield lambda seen: rng.choice(seen.admissible or _ACTIONS_WHERE_FREE)


def _check_episode(env: TextEnv, task_id: str, rng: random.Random) -> list[str]:
    """Play one episode of admissible and odd actions; return the actions."""
    start = _reset(env, task_id)
    _check_start(env, start)
    observation, actions = start.observation, list[str]()
    for choose in _actions(rng, env):
        actions.append(choose(observation))
        step = _step(env, task_id, actions[-1])
        _check_step(env, step, len(actions))
        observation = step.observation
        if step.info.end:
            return actions
    raise AssertionError("actions never run out")


def _play(env: TextEnv, task_id: str, actions: Sequence[str]) -> list[Start | Step]:
    return [_reset(env, task_id), *(_step(env, task_id, action) for action in actions)]


def _check_repeats(env: TextEnv, task_id: str, actions: Sequence[str]) -> None:
    first, second = _play(env, task_id, actions), _play(env, task_id, actions)
    _demand(first == second, env, "the same task, seed and actions must give the same episode")


def _check_spawn(env: TextEnv, task_id: str, actions: Sequence[str]) -> None:
    """Play two environments in alternation. They must not disturb each other."""
    alone = _play(env, task_id, actions)
    one, two = _spawn(env), _spawn(env)
    pairs = [(_reset(one, task_id), _reset(two, task_id))]
    together: list[tuple[Start | Step, Start | Step]] = [*pairs]
    together += [(_step(one, task_id, action), _step(two, task_id, action)) for action in actions]
    _demand(
        all(a == expected and b == expected for (a, b), expected in zip(together, alone, strict=True)),
        env,
        "environments from spawn() disturb each other; state must be assigned afresh in _reset, not changed in place",
    )
    if not env.concurrent:
        return
    with ThreadPoolExecutor(4) as pool:
        in_threads = list(pool.map(lambda one: _play(one, task_id, actions), [_spawn(env) for _ in range(4)]))
    _demand(
        all(episode == alone for episode in in_threads),
        env,
        "environments from spawn() disturb each other in threads; set 'concurrent' to False or give each its own state",
    )


def _check_close(env: TextEnv, task_id: str, actions: Sequence[str]) -> None:
    """Close an environment twice. It must close that one alone."""
    alone = _play(env, task_id, actions)
    one, two = _spawn(env), _spawn(env)
    _play(one, task_id, actions)
    _close(one)
    try:
        one.close()
    except Exception as error:
        _demand(False, env, f"closing twice must do no harm, it raised {error!r}")
    try:
        unharmed = _play(two, task_id, actions) == alone
    except Exception as error:
        _demand(False, env, f"close() must leave other spawned environments open, playing one raised {error!r}")
    _demand(unharmed, env, "close() must leave other spawned environments as they are")


def _check_turn_limit(env: TextEnv, task_id: str) -> None:
    """Play an action that is never understood. It must cost a turn, up to the limit."""
    _reset(env, task_id)
    for turn in range(1, env.max_turns + 1):
        step = _step(env, task_id, ODD_ACTIONS[2])
        _check_step(env, step, turn)
        if step.info.end:
            return


def _check_expert(env: TextEnv, task_id: str) -> None:
    with naming(env, task_id, "the expert"):
        expert = env.expert()
        if expert is None:
            return
        start = _reset(env, task_id)
        expert.reset(start)
        observation, end, first = start.observation, None, True
        while end is None:
            decision = expert.act(observation)
            _demand(isinstance(decision, Decision), env, f"the expert must decide on a Decision, not {shown(decision)}")
            said = isinstance(decision.subgoal, str) and isinstance(decision.action, str)
            _demand(said, env, f"subgoal and action of a Decision must be strings: {shown(decision)}")
            _demand(decision.switch or not first, env, "the expert's first decision must state a subgoal (switch)")
            known = _accepts(env, decision.action, observation)
            _demand(known, env, f"the expert's action '{decision.action[:100]}' is unknown")
            step = _step(env, task_id, decision.action)
            expert.acted(decision.action, step.observation)
            observation, end, first = step.observation, step.info.end, False
