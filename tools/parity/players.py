"""Scripted players of ALFWorld games: sensible, thorough and odd ones."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from hiper.envs.alfworld import Engine, Game
from hiper.envs.alfworld.chores import ChoresExpert
from hiper.envs.base import Observation, Start

Player = Callable[[int, Sequence[str]], str]
"""A function from the turn and the admissible commands to a command."""


def _wanderer(game: Game, rng: random.Random, max_turns: int) -> Player:
    """Return a player of random admissible commands, verbs about equally often, with an odd one now and then."""

    def play(turn: int, admissible: Sequence[str]) -> str:
        if rng.random() < 0.1:
            return _odd(game, rng, admissible)
        verb = rng.choice(sorted({command.split()[0] for command in admissible} - {"help"}))
        return rng.choice([command for command in admissible if command.split()[0] == verb])

    return play


def _solver(game: Game, rng: random.Random, max_turns: int) -> Player:
    """Return a player of the walkthrough that inserts harmless and odd commands and ends at a random turn.

    In a third of the games it ends at the last turn, or would end one turn later. A joined game has no walkthrough; the
    expert's commands serve.
    """
    steps = list(game.walkthrough) or _expert_commands(game, rng, max_turns, stray=0.0)
    last = rng.choice((max_turns, max_turns + 1, *[rng.randint(min(len(steps), max_turns), max_turns)] * 4))

    def play(turn: int, admissible: Sequence[str]) -> str:
        spare = last - turn - len(steps)
        if spare <= 0 or (len(steps) > 1 and rng.random() < len(steps) / (len(steps) + spare)):
            return steps.pop(0) if steps else "look"
        harmless = [command for command in admissible if command.startswith(("look", "inventory", "examine", "help"))]
        odd = _odd(game, rng, admissible)
        derails = odd.strip() in admissible and odd.strip() not in harmless
        return odd if rng.random() < 0.4 and not derails else rng.choice(harmless)

    return play


def _cook(game: Game, rng: random.Random, max_turns: int) -> Player:
    """Return a player that fetches a knife and slices, treats, carries and examines things, possible or not."""
    plan: list[str] = []

    def visit(receptacle: str) -> list[str]:
        openable = game.numbers[receptacle] in game.openable
        return [f"go to {receptacle}", *([f"open {receptacle}"] if openable else [])]

    def fetch(o: int) -> list[str]:
        homes = [game.receptacles[r] for r, inside in enumerate(game.contents) if o in inside]
        if not homes:
            return []
        home = rng.choice(homes)
        return [*visit(home), f"take {game.objects[o]} from {home}", "look"]

    def put(name: str, receptacle: str) -> str:
        return f"{game.dialect.put_verb} {name}{game.dialect.put_joint}{receptacle}"

    def handle(o: int) -> list[str]:
        name = game.objects[o]
        commands = [f"examine {name}"]
        for r, appliance in rng.sample(sorted(game.appliances.items()), min(2, len(game.appliances))):
            at = game.receptacles[r]
            commands += [f"go to {at}", f"{appliance.value} {name} with {at}", f"examine {name}"]
        target = rng.choice(sorted(game.fits[o]) or [0])
        at = game.receptacles[target]
        return [
            *commands,
            *visit(at),
            put(name, at),
            "look",
            f"examine {at}",
            f"take {name} from {at}",
            f"examine {name}",
        ]

    movable = sorted(game.pickupable)
    knives, foods = sorted(game.knives), sorted(game.sliceable)
    if knives and foods:
        knife = rng.choice(knives)
        food = rng.choice(foods)
        plan += fetch(knife)
        for other in rng.sample(foods, min(3, len(foods))):
            places = [game.receptacles[r] for r, inside in enumerate(game.contents) if other in inside]
            plan += [f"go to {place}" for place in places]
            plan += [f"slice {game.objects[other]} with {game.objects[knife]}", "look"]
        targets = [game.receptacles[r] for r in sorted(game.fits[knife])]
        if targets:
            down = rng.choice(targets)
            plan += [*visit(down), put(game.objects[knife], down)]
        plan += [*fetch(food), *handle(food)]
    while len(plan) < max_turns and movable:
        o = rng.choice(movable)
        plan += [*fetch(o), *handle(o)]

    def play(turn: int, admissible: Sequence[str]) -> str:
        return plan[turn] if turn < len(plan) else rng.choice(admissible)

    return play


def _mixed(game: Game, rng: random.Random, max_turns: int) -> Player:
    """Return a player of the expert's commands and, in a fourth of the turns, of others."""
    steps = _expert_commands(game, rng, max_turns, stray=0.25)
    return lambda turn, admissible: steps[turn] if turn < len(steps) else rng.choice(admissible)


def _expert_commands(game: Game, rng: random.Random, max_turns: int, stray: float) -> list[str]:
    """Return the commands of the expert until it wins, with random admissible commands in a share of the turns."""
    engine, expert, commands = Engine(game), ChoresExpert(), list[str]()
    seen = Observation(engine.intro(), engine.admissible)
    expert.reset(Start(game.task, seen))
    while not engine.won and len(commands) < max_turns:
        known = [command for command in engine.admissible if command != "help"]
        commands.append(rng.choice(known) if rng.random() < stray else expert.act(seen).action)
        seen = Observation(engine.step(commands[-1]), engine.admissible)
        expert.acted(commands[-1], seen)
    return commands


def _oddball(game: Game, rng: random.Random, max_turns: int) -> Player:
    """Return a player of commands that are mostly not, or barely, understood."""
    wander = _wanderer(game, rng, max_turns)

    def play(turn: int, admissible: Sequence[str]) -> str:
        return _odd(game, rng, admissible) if rng.random() < 0.6 else wander(turn, admissible)

    return play


STYLES: dict[str, Callable[[Game, random.Random, int], Player]] = {
    "wander": _wanderer,
    "solve": _solver,
    "cook": _cook,
    "odd": _oddball,
    "mixed": _mixed,
}
"""The styles of play, by name."""


def _odd(game: Game, rng: random.Random, admissible: Sequence[str]) -> str:
    """Return a command that is unlikely to be understood, or an understood one in an unusual form."""
    command = rng.choice(admissible)
    o, o2 = rng.choice(game.objects), rng.choice(game.objects)
    r, r2 = rng.choice(game.receptacles), rng.choice(game.receptacles)
    return rng.choice(
        (
            "",
            "   ",
            f"  {command} ",
            f"\t{command}\n",
            command.upper(),
            command.capitalize(),
            command[:-1],
            command + " now",
            command.replace(" ", "  "),
            command.replace(" 1", ""),
            command.split()[0],
            "help",
            "look",
            "look around",
            "inventory",
            "i",
            f"go to {r}",
            "go to nowhere 1",
            f"go to {o}",
            f"open {r}",
            f"close {r}",
            f"examine {r}",
            f"examine {o}",
            f"take {o} from {r}",
            f"take {o}",
            f"move {o} to {r}",
            f"put {o} in/on {r}",
            f"put {o} in {r}",
            f"use {o}",
            f"use {r}",
            f"heat {o} with {r}",
            f"clean {o} with {r}",
            f"cool {o} with {r}",
            f"heat {o} with {o2}",
            f"slice {o} with {o2}",
            f"open {r} with {r2}",
            "#intro#",
            "{o.name}",
            "[r]",
            "«öffne die Tür» ☃",
            "look\nlook",
            "x" * 300,
        )
    )
