"""`hiper play`: one episode in the terminal, turn by turn, with the plan behind each action."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from rich.columns import Columns
from rich.console import Console
from rich.markup import escape

from hiper import envs
from hiper.config import apply_overrides
from hiper.envs.base import BLANK, Decision, Expert, Info, Observation, Start, TextEnv
from hiper.errors import UserError
from hiper.plan_execute.parse import InvalidKind
from hiper.plan_execute.render import PromptContext
from hiper.seeding import derive_seed

if TYPE_CHECKING:
    from hiper.rollout.agent import Agent

HUMAN, EXPERT = "human", "expert"
HELP = "a number or an action; `: words` states a subgoal; q leaves"


@dataclass(frozen=True, slots=True)
class Move:
    """What a player does in a turn."""

    decision: Decision
    invalid: str | None = None
    """Why what the player said was not valid."""


class Player(Protocol):
    """Whoever plays."""

    def begin(self, start: Start) -> None:
        """An episode begins."""

    def move(self, context: PromptContext, accepts: Callable[[str], bool]) -> Move:
        """Choose what to do.

        Raises:
            EOFError: the player leaves.
        """

    def saw(self, action: str, observation: Observation) -> None:
        """What came of it."""


class Human:
    """Reads the keyboard, or lines of standard input."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def begin(self, start: Start) -> None:
        """Say how to play."""
        self._console.print(f"[dim]{HELP}[/dim]")

    def move(self, context: PromptContext, accepts: Callable[[str], bool]) -> Move:
        """Ask until an action is given."""
        actions = context.admissible or ()
        self._console.print(
            Columns([f"[dim]{n:>3}[/dim] {escape(a)}" for n, a in enumerate(actions, 1)], padding=(0, 3))
        )
        subgoal = context.subgoal
        while True:
            said = self._console.input("[bold]> [/bold]").strip()
            if said in ("q", "quit"):
                raise EOFError
            if said.startswith(":"):
                subgoal = said.removeprefix(":").strip() or subgoal
            elif (chosen := actions and said.isdecimal()) and not 1 <= int(said) <= len(actions):
                self._console.print(f"[dim]there are actions 1 to {len(actions)}[/dim]")
            elif said:
                action = self._fill_in(actions[int(said) - 1]) if chosen else said
                invalid = None if accepts(action) else InvalidKind.INADMISSIBLE_ACTION
                return Move(Decision(subgoal != context.subgoal, subgoal or "", action), invalid)

    def _fill_in(self, action: str) -> str:
        """Ask for the words of a form such as "search[<your query>]"."""
        return BLANK.sub(lambda blank: self._console.input(f"[bold]{escape(blank[0])} [/bold]").strip(), action)

    def saw(self, action: str, observation: Observation) -> None:
        """The screen shows it already."""


class Scripted:
    """An environment's expert."""

    def __init__(self, expert: Expert) -> None:
        self._expert = expert
        self._observation = Observation("")

    def begin(self, start: Start) -> None:
        """Read the task."""
        self._expert.reset(start)
        self._observation = start.observation

    def move(self, context: PromptContext, accepts: Callable[[str], bool]) -> Move:
        """Ask the expert."""
        return Move(self._expert.act(self._observation))

    def saw(self, action: str, observation: Observation) -> None:
        """Tell the expert."""
        self._expert.acted(action, observation)
        self._observation = observation


class Policy:
    """A trained policy."""

    def __init__(self, agent: Agent, seed: int) -> None:
        self._agent = agent
        self._seed = seed

    def begin(self, start: Start) -> None:
        """All it knows is in its prompts."""

    def move(self, context: PromptContext, accepts: Callable[[str], bool]) -> Move:
        """Sample a response."""
        (reply,) = self._agent.reply([context], [accepts], [derive_seed(self._seed, context.turn)])
        parsed = reply.parsed
        switch = parsed.decision is not None and parsed.decision.switch
        return Move(Decision(switch, parsed.subgoal or "", parsed.action), parsed.invalid)

    def saw(self, action: str, observation: Observation) -> None:
        """It will be in the next prompt."""


def seat(
    env: str,
    options: Sequence[str],
    who: str,
    *,
    split: str | None,
    temperature: float | None,
    seed: int,
    console: Console,
) -> tuple[TextEnv, Player]:
    """The environment and the player.

    A policy plays the environment with the options it was trained under, unless ``options`` say otherwise.

    Args:
        env: the environment's name.
        options: ``option=value`` settings of the environment.
        who: "human", "expert", or where a policy is saved.
        split: None: the environment's default, or the policy's first held-out split.
        temperature: of a policy; None: as it was evaluated in training.
        seed: of a policy's sampling.
        console: where a human reads and writes.

    Raises:
        UserError: there is no such environment, option, split or policy, or the environment has no expert.
    """
    if who not in (HUMAN, EXPERT):
        # Importing torch takes a while, and the other players do without.
        from hiper.evaluation.saved import SavedPolicy

        saved = SavedPolicy.open(Path(who), env, [f"env.{option}" for option in options])
        evaluation = saved.config.evaluation
        agent = saved.agent(evaluation.temperature if temperature is None else temperature)
        return saved.env(split or evaluation.splits[0]), Policy(agent, seed)
    chosen = apply_overrides({} if split is None else {"split": split}, options)
    world = envs.make(env, **chosen)
    if who == HUMAN:
        return world, Human(console)
    expert = world.expert()
    if expert is None:
        raise UserError(f"environment '{env}' has no expert; play it yourself with --agent human")
    return world, Scripted(expert)


def play(env: TextEnv, player: Player, task_id: str, seed: int, console: Console, *, wait: bool) -> bool:
    """Play one episode; whether it was won.

    Args:
        env: where.
        player: who.
        task_id: which task of the environment's panel.
        seed: of the environment.
        console: where everything is shown.
        wait: for Enter after every turn.
    """
    start = env.reset(task_id, seed)
    console.print(f"[dim]{env.panel.name}: {escape(task_id)}[/dim]")
    player.begin(start)
    console.print(f"[bold]{escape(start.goal)}[/bold]\n")
    observation, subgoal = start.observation, None
    history: list[tuple[str, str]] = []
    try:
        while True:
            console.print(escape(observation.text))
            context = PromptContext(
                start.goal, history, observation.text, subgoal, observation.admissible, len(history)
            )
            move = player.move(context, partial(_accepts, env, observation))
            _show(console, len(history) + 1, move)
            step = env.step(move.decision.action)
            player.saw(move.decision.action, step.observation)
            history.append((observation.text, move.decision.action))
            observation, subgoal = step.observation, move.decision.subgoal or subgoal
            if step.terminated or step.truncated:
                console.print(escape(observation.text))
                console.print(f"\n[bold]{'won' if step.info.won else step.info.end}[/bold] after {len(history)} turns")
                _show_score(console, step.info)
                return step.info.won
            if wait:
                console.input("[dim]Enter goes on, Ctrl-C stops[/dim]")
    except EOFError:
        console.print(f"\nleft after {len(history)} turns")
        return False


def _show_score(console: Console, info: Info) -> None:
    if info.score is not None:
        parts = ", ".join(f"{name} {value:.2f}" for name, value in info.parts.items())
        console.print(f"score {info.score:.3f}" + (f": {parts}" if parts else ""))


def _accepts(env: TextEnv, observation: Observation, action: str) -> bool:
    return env.accepts(action, observation)


def _show(console: Console, turn: int, move: Move) -> None:
    decision = move.decision
    word = "[yellow]SWITCH[/yellow]" if decision.switch else "[dim]KEEP[/dim]"
    plan = f"{word} [cyan]{escape(decision.subgoal or 'no subgoal')}[/cyan]"
    trouble = f"  [red]{move.invalid}[/red]" if move.invalid else ""
    console.print(
        f"\n[bold]{turn:>3}[/bold]  {plan}  [bold green]{escape(decision.action or '(nothing)')}[/bold green]{trouble}"
    )
