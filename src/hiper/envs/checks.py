"""A check that an environment keeps the contract of :class:`~hiper.envs.base.TextEnv`."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from hiper.envs.base import BLANK, EndReason, Observation, Start, Step, TextEnv
from hiper.envs.panels import Panel
from hiper.errors import UserError

ODD_ACTIONS = ("", "   ", "do something impossible", "LOOK", "☃ {x} #y#", "x" * 500)
_ACTIONS_WHERE_FREE = ("look", "help", "search[shoes]", "click[buy now]")
"""Actions to try where actions are free-form."""


def check_env(env: TextEnv, *, tasks: int = 3, seed: int = 0) -> None:
    """Play a few episodes and check everything that can be checked from outside. ``env`` stays open.

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


def _check_attributes(env: TextEnv) -> None:
    for attribute, kind in (("name", str), ("version", str), ("panel", Panel), ("max_turns", int)):
        value = getattr(env, attribute, None)
        _demand(isinstance(value, kind), env, f"'{attribute}' must be a {kind.__name__}, it is {value!r}")
    _demand(env.max_turns > 0, env, f"'max_turns' must be positive, it is {env.max_turns}")
    _demand(isinstance(env.concurrent, bool), env, f"'concurrent' must be True or False, it is {env.concurrent!r}")
    hidden = env.hidden_actions
    _demand(
        isinstance(hidden, tuple) and all(isinstance(action, str) for action in hidden),
        env,
        f"'hidden_actions' must be a tuple of strings, it is {hidden!r}",
    )


def _check_methods(env: TextEnv) -> None:
    """Demand that the base class owns the turn limit and the end of an episode."""
    for method in ("reset", "step"):
        own = getattr(type(env), method) is getattr(TextEnv, method)
        _demand(own, env, f"override _{method}, not {method}: {method} counts turns and ends episodes for all")


def _check_refusals(env: TextEnv) -> None:
    fresh = env.spawn()
    try:
        fresh.reset("no such task")
    except UserError:
        return
    _demand(False, env, "reset with an unknown id must raise UserError; look tasks up with self.panel[task_id]")


def _check_start(env: TextEnv, start: Start) -> None:
    _demand(isinstance(start, Start), env, f"_reset must return a Start, it returned {start!r}")
    _demand(isinstance(start.goal, str) and start.goal != "", env, "a Start must state the goal in words")
    _check_observation(env, start.observation)


def _check_observation(env: TextEnv, observation: Observation) -> None:
    _demand(isinstance(observation, Observation), env, f"not an Observation: {observation!r}")
    _demand(isinstance(observation.text, str), env, f"an observation's text must be a str: {observation.text!r}")
    admissible = observation.admissible
    if admissible is None:
        return
    _demand(isinstance(admissible, tuple), env, "admissible actions must be a tuple (or None: free-form)")
    _demand(all(isinstance(action, str) for action in admissible), env, "admissible actions must be strings")
    _demand(len(set(admissible)) == len(admissible), env, "an admissible action is listed twice")
    _demand(
        all(env.accepts(BLANK.sub("words", action), observation) for action in admissible),
        env,
        "accepts() must be true of every admissible action, words in its blanks",
    )


def _check_step(env: TextEnv, step: Step, turn: int) -> None:
    _demand(isinstance(step, Step), env, f"_step must return a Step, it returned {step!r}")
    _check_observation(env, step.observation)
    _demand(isinstance(step.reward, float), env, f"a reward must be a float: {step.reward!r}")
    _demand(not (step.terminated and step.truncated), env, "an episode is terminated or truncated, not both")
    end = step.info.end
    over = step.terminated or step.truncated
    _demand(over == (end is not None), env, f"info.end must be given exactly at the last turn; at turn {turn}: {end}")
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
    start = env.reset(task_id, seed=1)
    _check_start(env, start)
    observation, actions = start.observation, list[str]()
    for choose in _actions(rng, env):
        actions.append(choose(observation))
        step = env.step(actions[-1])
        _check_step(env, step, len(actions))
        observation = step.observation
        if step.info.end:
            return actions
    raise AssertionError("actions never run out")


def _play(env: TextEnv, task_id: str, actions: Sequence[str]) -> list[Start | Step]:
    return [env.reset(task_id, seed=1), *(env.step(action) for action in actions)]


def _check_repeats(env: TextEnv, task_id: str, actions: Sequence[str]) -> None:
    first, second = _play(env, task_id, actions), _play(env, task_id, actions)
    _demand(first == second, env, "the same task, seed and actions must give the same episode")


def _check_spawn(env: TextEnv, task_id: str, actions: Sequence[str]) -> None:
    """Play two environments in alternation. They must not disturb each other."""
    alone = _play(env, task_id, actions)
    one, two = env.spawn(), env.spawn()
    pairs = [(one.reset(task_id, seed=1), two.reset(task_id, seed=1))]
    together: list[tuple[Start | Step, Start | Step]] = [*pairs]
    together += [(one.step(action), two.step(action)) for action in actions]
    _demand(
        all(a == expected and b == expected for (a, b), expected in zip(together, alone, strict=True)),
        env,
        "environments from spawn() disturb each other; state must be assigned afresh in _reset, not changed in place",
    )
    if not env.concurrent:
        return
    with ThreadPoolExecutor(4) as pool:
        in_threads = list(pool.map(lambda one: _play(one, task_id, actions), [env.spawn() for _ in range(4)]))
    _demand(
        all(episode == alone for episode in in_threads),
        env,
        "environments from spawn() disturb each other in threads; set 'concurrent' to False or give each its own state",
    )


def _check_close(env: TextEnv, task_id: str, actions: Sequence[str]) -> None:
    """Close an environment twice. It must close that one alone."""
    alone = _play(env, task_id, actions)
    one, two = env.spawn(), env.spawn()
    _play(one, task_id, actions)
    one.close()
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
    env.reset(task_id, seed=1)
    for turn in range(1, env.max_turns + 1):
        step = env.step(ODD_ACTIONS[2])
        _check_step(env, step, turn)
        if step.info.end:
            return


def _check_expert(env: TextEnv, task_id: str) -> None:
    expert = env.expert()
    if expert is None:
        return
    start = env.reset(task_id, seed=1)
    expert.reset(start)
    observation, end, first = start.observation, None, True
    while end is None:
        decision = expert.act(observation)
        _demand(decision.switch or not first, env, "the expert's first decision must state a subgoal (switch)")
        _demand(env.accepts(decision.action, observation), env, f"the expert's action '{decision.action}' is unknown")
        step = env.step(decision.action)
        expert.acted(decision.action, step.observation)
        observation, end, first = step.observation, step.info.end, False
