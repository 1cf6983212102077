"""The command `hiper play`, which shows one episode turn by turn with the plan behind each action."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from rich.columns import Columns
from rich.console import Console
from rich.markup import escape

from hiper import envs
from hiper.config import apply_overrides
from hiper.envs.base import BLANK, Decision, Observation, Start, TextEnv
from hiper.episode import Episode
from hiper.imitation.demonstrations import Experts
from hiper.plan_execute.render import PromptContext
from hiper.rollout.collector import collect
from hiper.rollout.players import Accepts, Assignment, Move, Player, Players, answered

HUMAN, EXPERT = "human", "expert"
HELP = "a number or an action; `: words` states a subgoal; q quits"


class Human:
    """A person who plays through the keyboard or standard input.

    Args:
        console: The console to read from and write to.
    """

    def __init__(self, console: Console) -> None:
        self._console = console

    def seat(self, env: TextEnv, assignment: Assignment) -> Human:
        """Return this person as the player."""
        return self

    def run(self) -> None:
        """Do nothing, because :meth:`decide` asks the person."""

    def begin(self, start: Start) -> None:
        """Show how to play."""
        self._console.print(f"[dim]{HELP}[/dim]")

    def ask(self, context: PromptContext) -> Future[Any]:
        """Return a fulfilled future, because :meth:`decide` waits for the person."""
        return answered()

    def decide(self, context: PromptContext, accepts: Accepts, answer: Any) -> Move:
        """Ask until the person gives an action.

        Raises:
            EOFError: The person quits, or standard input ends.
        """
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
                return Move.of(Decision(subgoal != context.subgoal, subgoal or "", action), context, accepts)

    def saw(self, action: str, observation: Observation) -> None:
        """Do nothing, because the screen shows the outcome already."""

    def _fill_in(self, action: str) -> str:
        """Ask for the words of a form such as "search[<your query>]"."""
        return BLANK.sub(lambda blank: self._console.input(f"[bold]{escape(blank[0])} [/bold]").strip(), action)


class Shown:
    """A wrapper of players that shows their episode on a console.

    Args:
        players: The players to show.
        console: The console that shows everything.
        wait: Whether to wait for Enter after every turn.
    """

    def __init__(self, players: Players, console: Console, *, wait: bool) -> None:
        self._players, self._console, self._wait = players, console, wait
        self.turns = 0
        """The number of turns played so far."""

    def seat(self, env: TextEnv, assignment: Assignment) -> Shown:
        """Make the player to show, and return this wrapper."""
        self._player: Player = self._players.seat(env, assignment)
        return self

    def run(self) -> None:
        """Let the sampler work."""
        self._players.run()

    def begin(self, start: Start) -> None:
        """Show the task."""
        self._player.begin(start)
        self._console.print(f"[bold]{escape(start.goal)}[/bold]\n")
        self._console.print(escape(start.observation.text))

    def ask(self, context: PromptContext) -> Future[Any]:
        """Wait for Enter, then ask the player."""
        if self._wait and self.turns:
            self._console.input("[dim]Enter continues, Ctrl-C stops[/dim]")
        return self._player.ask(context)

    def decide(self, context: PromptContext, accepts: Accepts, answer: Any) -> Move:
        """Let the player decide, and show its move."""
        move = self._player.decide(context, accepts, answer)
        self.turns += 1
        word = "[yellow]SWITCH[/yellow]" if move.switch else "[dim]KEEP[/dim]"
        plan = f"{word} [cyan]{escape(move.subgoal or 'no subgoal')}[/cyan]"
        trouble = f"  [red]{move.invalid}[/red]" if move.invalid else ""
        action = escape(move.action or "(nothing)")
        if thoughts := move.text[: move.thinking].strip():
            self._console.print(f"\n[dim]{escape(thoughts)}[/dim]")
        self._console.print(f"\n[bold]{self.turns:>3}[/bold]  {plan}  [bold green]{action}[/bold green]{trouble}")
        return move

    def saw(self, action: str, observation: Observation) -> None:
        """Show the outcome of a move."""
        self._player.saw(action, observation)
        self._console.print(escape(observation.text))


def seat(
    env: str,
    options: Sequence[str],
    who: str,
    *,
    split: str | None,
    temperature: float | None,
    console: Console,
) -> tuple[TextEnv, Players]:
    """Make the environment and its player.

    A policy plays the environment with its saved options, unless ``options`` override them.

    Args:
        env: The name of the environment.
        options: The ``option=value`` settings of the environment.
        who: "human", "expert", or the path of a saved policy.
        split: The split. None: the environment's default, or the policy's first held-out split.
        temperature: The sampling temperature of a policy. None: the temperature of evaluations during training.
        console: The console of a human player.

    Raises:
        UserError: There is no such environment, option, split or policy.
    """
    if who not in (HUMAN, EXPERT):
        # Importing torch is slow, and the other players do not need it.
        from hiper.evaluation.saved import SavedPolicy

        saved = SavedPolicy.open(Path(who), env, [f"env.{option}" for option in options])
        return saved.env(split or saved.config.evaluation.splits[0]), saved.load(temperature).agent
    world = envs.make(env, **apply_overrides({} if split is None else {"split": split}, options))
    if who == HUMAN:
        return world, Human(console)
    return world, Experts()


def play(env: TextEnv, players: Players, task_id: str, seed: int, console: Console, *, wait: bool) -> bool:
    """Play one episode, and return whether it was won.

    Args:
        env: The environment. The episode runs in a spawn of it.
        players: The source of the player.
        task_id: A task of the environment's panel.
        seed: The seed of the environment and of the player's choices.
        console: The console that shows everything.
        wait: Whether to wait for Enter after every turn.

    Raises:
        UserError: The environment has no expert, and the expert is to play.
    """
    console.print(f"[dim]{env.panel.name}: {escape(task_id)}[/dim]")
    shown = Shown(players, console, wait=wait)
    try:
        (episode,), _ = collect(env, [Assignment(task_id, seed, seed)], shown, slots=1)
    except EOFError:
        console.print(f"\nquit after {shown.turns} turns")
        return False
    console.print(f"\n[bold]{'won' if episode.won else episode.end}[/bold] after {shown.turns} turns")
    _show_score(console, episode)
    return episode.won


def _show_score(console: Console, episode: Episode) -> None:
    if episode.parts:
        parts = ", ".join(f"{name} {value:.2f}" for name, value in episode.parts.items())
        console.print(f"score {episode.score:.3f}: {parts}")
