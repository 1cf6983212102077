"""The command `hiper play`, which shows one episode turn by turn with the plan behind each action."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from concurrent.futures import Future
from difflib import get_close_matches
from typing import Any

from rich.columns import Columns
from rich.console import Console
from rich.markup import escape
from rich.text import Text

from hiper import envs
from hiper.config import apply_overrides
from hiper.display.console import Display
from hiper.display.text import wrapped
from hiper.display.transcript import ENDS, TROUBLES
from hiper.envs.base import BLANK, Decision, EndReason, Observation, Start, TextEnv
from hiper.episode import Episode
from hiper.imitation.demonstrations import Experts
from hiper.plan_execute.parse import InvalidKind
from hiper.plan_execute.render import PromptContext
from hiper.rollout.collector import collect
from hiper.rollout.environment import open_splits
from hiper.rollout.players import Accepts, Assignment, Move, Players, answered

HUMAN, EXPERT = "human", "expert"
HELP = "a number or an action; `: words` states a subgoal; `! words` plays what is not listed; q quits"
MOST_OFFERED = 5
"""The most actions that are offered in place of one that is not understood."""


class Human:
    """A person who plays through the keyboard or standard input.

    Args:
        console: The console to read from and write to.
        env: The environment of the episode.
    """

    def __init__(self, console: Console, env: TextEnv) -> None:
        self._console, self._env = console, env

    def seat(self, env: TextEnv, assignment: Assignment) -> Human:
        """Make the player of an episode."""
        return Human(self._console, env)

    def run(self) -> None:
        """Do nothing, because :meth:`decide` asks the person."""

    def begin(self, start: Start) -> None:
        """Show how to play."""
        say(self._console, HELP, style="dim")

    def ask(self, context: PromptContext) -> Future[Any]:
        """Return a fulfilled future, because :meth:`decide` waits for the person."""
        return answered()

    def decide(self, context: PromptContext, accepts: Accepts, answer: Any) -> Move:
        """Ask until the person gives an action. One that is not understood is said, and costs no turn.

        Raises:
            EOFError: The person quits, or standard input ends.
        """
        actions = context.admissible or ()
        words = self._env.for_people(Observation(context.observation, context.admissible)).admissible or ()
        show_actions(self._console, [f"{n:>3} {text}" for n, text in enumerate(words, 1)])
        subgoal = context.subgoal
        while True:
            said = self._console.input(f"[bold]turn {context.turn + 1} of {self._env.max_turns} > [/bold]").strip()
            if not sys.stdin.isatty():  # no terminal has shown what was typed
                say(self._console, said)
            if said in ("q", "quit"):
                raise EOFError
            if said.startswith(":"):
                subgoal = said.removeprefix(":").strip() or subgoal
                continue
            if actions and said.isdecimal() and not 1 <= int(said) <= len(actions):
                say(self._console, f"there are actions 1 to {len(actions)}", style="dim")
                continue
            action = self._fill_in(actions[int(said) - 1]) if actions and said.isdecimal() else said
            forced = action.startswith("!")
            action = action.removeprefix("!").strip() if forced else action
            if action and (forced or accepts(action)):
                return Move.of(Decision(subgoal != context.subgoal, subgoal or "", action), context, accepts)
            if action:
                say(self._console, f"'{action}' is no action here, and no turn was spent", style="yellow")
                show_actions(self._console, near(action, actions, words))

    def saw(self, action: str, observation: Observation) -> None:
        """Do nothing, because the screen shows the outcome already."""

    def _fill_in(self, action: str) -> str:
        """Ask for the words of a form such as "search[<your query>]"."""
        return BLANK.sub(lambda blank: self._console.input(f"[bold]{escape(blank[0])} [/bold]").strip(), action)


def near(said: str, actions: Sequence[str], words: Sequence[str]) -> list[str]:
    """Return the actions that a person may have meant, with their numbers: at most :data:`MOST_OFFERED`.

    Those that begin with what was said come first, then those that hold all its words, then those that look like it.
    The words may also be meant for a blank, as in "search[<your query>]".

    Args:
        said: What was said, which is none of the actions.
        actions: All admissible actions.
        words: The words that people see for them.
    """
    typed = said.casefold()
    begin = [n for n, a in enumerate(actions) if a.casefold().startswith(typed)]
    hold = [n for n, text in enumerate(words) if all(word in text.casefold() for word in typed.split())]
    alike = [actions.index(a) for a in get_close_matches(said, actions, MOST_OFFERED)]
    found = list(dict.fromkeys([*begin, *hold, *alike]))[:MOST_OFFERED]
    filled = [f"    {BLANK.sub(lambda _: said, a)}" for a in actions if BLANK.search(a)]
    return [*(f"{n + 1:>3} {words[n]}" for n in found), *filled]


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
        self._env, self._player = env, self._players.seat(env, assignment)
        return self

    def run(self) -> None:
        """Let the sampler work."""
        self._players.run()

    def begin(self, start: Start) -> None:
        """Show the task."""
        say(self._console, start.goal, "", style="bold")
        self._show(start.observation)
        self._player.begin(start)

    def ask(self, context: PromptContext) -> Future[Any]:
        """Wait for Enter, then ask the player."""
        if self._wait and self.turns:
            self._console.input("[dim]Enter continues, Ctrl-C stops[/dim]")
        return self._player.ask(context)

    def decide(self, context: PromptContext, accepts: Accepts, answer: Any) -> Move:
        """Let the player decide, and show its move."""
        move = self._player.decide(context, accepts, answer)
        self.turns += 1
        word = "SWITCH" if move.switch else "KEEP"
        trouble = f"  [{TROUBLES[InvalidKind(move.invalid)]}]" if move.invalid else ""
        say(self._console, "", f"turn {self.turns} of {self._env.max_turns}  {word}  {move.subgoal or 'no subgoal'}")
        if thoughts := move.text[: move.thinking].strip():
            say(self._console, thoughts, style="dim")
        say(self._console, f"> {move.action or '(nothing)'}{trouble}", style="bold red" if trouble else "bold green")
        return move

    def saw(self, action: str, observation: Observation) -> None:
        """Show the outcome of a move."""
        self._player.saw(action, observation)
        self._show(observation)

    def _show(self, observation: Observation) -> None:
        """Show an observation; of its actions those whose words say more than the action, unless a person chooses."""
        laid_out = self._env.for_people(observation)
        say(self._console, *laid_out.text.splitlines())
        pairs = zip(observation.admissible or (), laid_out.admissible or (), strict=True)
        if not isinstance(self._player, Human):
            show_actions(self._console, [f"  {words}" for action, words in pairs if words != action])


def say(console: Console, *lines: str, style: str = "none") -> None:
    """Write lines of plain text, wrapped at their words."""
    for line in lines:
        for part in wrapped(line, console.width):
            console.print(part, style=style, markup=False, soft_wrap=True)


def show_actions(console: Console, lines: Sequence[str]) -> None:
    """Write actions in columns; if some are long, each on a line of its own."""
    if any(len(line) > console.width // 2 for line in lines):
        for line in lines:
            for part in wrapped(line, console.width, indent=6):
                console.print(part, markup=False, soft_wrap=True)
    elif lines:
        console.print(Columns([Text(line) for line in lines], padding=(0, 2)))


def seat(
    env: str,
    options: Sequence[str],
    who: str,
    *,
    split: str | None,
    temperature: float | None,
    display: Display,
) -> tuple[TextEnv, Players]:
    """Make the environment and its player.

    A policy plays the environment with its saved options, unless ``options`` override them.

    Args:
        env: The name of the environment.
        options: The ``option=value`` settings of the environment. A key with a dot is a setting of the policy.
        who: "human", "expert", the path of a saved policy, or a plain model.
        split: The split. None: the environment's default, or the policy's first held-out split.
        temperature: The sampling temperature of a policy. None: the temperature of evaluations during training.
        display: The display of progress, with the console of a human player.

    Raises:
        UserError: There is no such environment, option, split or policy.
    """
    if who not in (HUMAN, EXPERT):
        display.whole_line(f"agent      {who}")
        with display.bar("loading torch"):  # the other players do not need it
            from hiper.evaluation.saved import SavedPolicy

        settings = [option if "." in option.partition("=")[0] else f"env.{option}" for option in options]
        saved = SavedPolicy.open(who, env, settings)
        (world,) = open_splits(saved.config, [split or saved.config.evaluation.splits[0]], display)
        with display.bar("loading the model"):
            return world, saved.load(temperature).agent
    with display.bar(f"opening {env}"):
        world = envs.make(env, **apply_overrides({} if split is None else {"split": split}, options))
    if who == HUMAN:
        return world, Human(display.console, world)
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
    say(console, f"{env.panel.name}: {task_id}", style="dim")
    shown = Shown(players, console, wait=wait)
    try:
        (episode,), _ = collect(env, [Assignment(task_id, seed, seed)], shown, slots=1)
    except EOFError:
        say(console, "", f"quit after {_turns(shown.turns)}")
        return False
    say(console, "", f"{ENDS[EndReason(episode.end)]} after {_turns(shown.turns)}", style="bold")
    _show_score(console, episode)
    return episode.won


def _show_score(console: Console, episode: Episode) -> None:
    if episode.parts:
        parts = ", ".join(f"{name} {value:.2f}" for name, value in episode.parts.items())
        say(console, f"score {episode.score:.3f}: {parts}")


def _turns(count: int) -> str:
    return "1 turn" if count == 1 else f"{count} turns"
