"""Plays games beside TextWorld and compares everything, turn by turn.

TextWorld and alfworld are needed only here (the extra ``textworld``). Both engines get the same commands, chosen
by a scripted player for up to 50 turns: opening text, observation, admissible commands and their order, won, done
and score must agree at every turn.

Finished games are kept in a JSONL file with the commands and a digest of TextWorld's answer at every turn. A run
can thus be stopped and resumed, and a changed engine is held against the recorded answers in milliseconds: games
on record are always compared afresh, and go to TextWorld again only if something differs.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import logging
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from hiper.envs.alfworld.data import GAME_FILE, Library, read_games
from hiper.envs.alfworld.env import AlfworldEnv
from hiper.envs.alfworld.game import Game, parse_game
from hiper.envs.panels import Task
from hiper.errors import UserError

log = logging.getLogger(__name__)

MAX_TURNS = 50
_CONTEXT = 6
"""Turns before a difference that a report keeps."""
_GAMES_PER_PROCESS = 40
"""TextWorld never gives back the memory of a game (about 7 MB), so a process plays this many and ends."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The first turn at which the two engines disagree."""

    turn: int
    """0 for the opening."""
    command: str
    what: str
    """Which part differs: text, admissible, won, done or score."""
    textworld: Any
    ours: Any
    before: tuple[tuple[str, str], ...]
    """The last commands and answers before it."""


@dataclass(frozen=True, slots=True)
class GameResult:
    """One game played beside TextWorld."""

    id: str
    style: str
    turns: int
    won: bool
    understood: dict[str, int]
    """Commands that were in the admissible list, by verb; the others under ""."""
    textworld_seconds: float
    our_seconds: float
    difference: Difference | None
    commands: tuple[str, ...]
    answers: tuple[str, ...]
    """Digest of what TextWorld returned: first for the reset, then for each command."""


@dataclass(slots=True)
class ParityReport:
    """All games of a run."""

    results: list[GameResult] = field(default_factory=list)

    @property
    def differences(self) -> list[GameResult]:
        """The games in which something differs."""
        return [result for result in self.results if result.difference]

    def summary(self) -> str:
        """A few lines for people."""
        results = self.results
        verbs: Counter[str] = Counter()
        styles: Counter[str] = Counter()
        for result in results:
            verbs.update(result.understood)
            styles[result.style] += 1
        lines = [
            f"{len(results)} games, {sum(r.turns for r in results)} turns, {sum(r.won for r in results)} won: "
            f"{len(self.differences)} differ",
            f"  players: {_counts(styles)}",
            f"  commands: {_counts(verbs)}",
            f"  seconds: TextWorld {sum(r.textworld_seconds for r in results):.1f}, "
            f"ours {sum(r.our_seconds for r in results):.3f}",
        ]
        for result in self.differences[:5]:
            lines.append(f"  {result.id}: {json.dumps(asdict(result)['difference'], indent=2)}")
        return "\n".join(lines)


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{name or '(not understood)'} {count}" for name, count in sorted(counter.items()))


def missing_reason() -> str | None:
    """Why TextWorld cannot be run here, or None."""
    missing = [module for module in ("textworld", "alfworld") if importlib.util.find_spec(module) is None]
    return f"{' and '.join(missing)} not installed: pip install 'hiper[textworld]'" if missing else None


def check_parity(
    games: Iterable[tuple[str, str | bytes]],
    *,
    seed: int = 0,
    max_turns: int = MAX_TURNS,
    record: Path | None = None,
    workers: int = 1,
    style: str | None = None,
) -> ParityReport:
    """Play each game beside TextWorld.

    Args:
        games: id and JSON text of each game.
        seed: with a game's id, decides how it is played.
        max_turns: turns per game.
        record: a JSONL file of finished games: those in it (same text, seed, turns) are compared with the record.
        workers: games played at a time, each in a process of its own (a single short run plays in this one).
        style: one of :data:`STYLES` for every game; None: drawn per game.

    Raises:
        UserError: TextWorld is not installed, or a game file is broken.
    """
    if reason := missing_reason():
        raise UserError(reason)
    done = _read_record(record) if record and record.exists() else {}
    report = ParityReport()
    jobs = []
    for game_id, text in games:
        raw = text.encode() if isinstance(text, str) else text
        key = hashlib.sha256(repr((game_id, seed, max_turns, style)).encode() + raw).hexdigest()
        if key in done and _agrees(done[key], raw, max_turns):
            report.results.append(done[key])
        else:
            jobs.append(_Job(key, game_id, raw, seed, max_turns, style))
    for job, result in _play_all(jobs, workers):
        report.results.append(result)
        if record:
            with record.open("a") as file:
                file.write(json.dumps({"key": job.key, **asdict(result)}) + "\n")
        log.info("%s %s %s", len(report.results), "DIFFERS" if result.difference else "same", result.id)
    return report


@dataclass(frozen=True, slots=True)
class _Job:
    key: str
    id: str
    text: bytes
    seed: int
    max_turns: int
    style: str | None


def _play_all(jobs: Sequence[_Job], workers: int) -> Iterator[tuple[_Job, GameResult]]:
    if workers <= 1 and len(jobs) <= _GAMES_PER_PROCESS:
        yield from ((job, _play(job)) for job in jobs)
        return
    # A new pool for each batch, rather than `max_tasks_per_child`, with which pools of Python 3.11 come to hang.
    size = workers * _GAMES_PER_PROCESS
    for batch in (jobs[start : start + size] for start in range(0, len(jobs), size)):
        with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
            yield from zip(batch, pool.map(_play, batch), strict=True)


def _read_record(record: Path) -> dict[str, GameResult]:
    text = record.read_text()
    if not text.endswith("\n"):
        with record.open("a") as file:
            file.write("\n")  # behind a line that was cut off
    done = {}
    for line in text.splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue  # a run was killed while it wrote this line: that game is played again
        key = entry.pop("key")
        if not entry["difference"]:
            done[key] = GameResult(**entry)
    return done


def _agrees(recorded: GameResult, text: bytes, max_turns: int) -> bool:
    """Whether our engine gives the recorded answers to the recorded commands."""
    ours = _Ours(text, max_turns)
    answers = iter(recorded.answers)
    return ours.reset().digest() == next(answers) and all(
        ours.step(command).digest() == answer for command, answer in zip(recorded.commands, answers, strict=True)
    )


# --- one game ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Frame:
    """What one engine returns at a turn."""

    text: str
    admissible: tuple[str, ...]
    won: bool
    done: bool
    score: float

    def digest(self) -> str:
        text = json.dumps([self.text, self.admissible, self.won, self.done, self.score])
        return hashlib.sha256(text.encode()).hexdigest()[:12]


class _TextWorld:
    """TextWorld, wired as users of the benchmark wire it."""

    def __init__(self, file: Path, max_turns: int) -> None:
        import textworld.gym
        from alfworld.agents.environment.alfred_tw_env import AlfredDemangler, AlfredInfos

        name = textworld.gym.register_games(
            [str(file)],
            textworld.EnvInfos(won=True, admissible_commands=True, extras=["gamefile"]),
            batch_size=1,
            asynchronous=False,
            max_episode_steps=max_turns,
            wrappers=[AlfredDemangler(), AlfredInfos],
        )
        self._env = textworld.gym.make(name)
        del textworld.gym.registry[name]

    def reset(self) -> _Frame:
        texts, infos = self._env.reset()
        return self._frame(texts, [0], [False], infos)

    def step(self, command: str) -> _Frame:
        return self._frame(*self._env.step([command]))

    def close(self) -> None:
        self._env.close()

    @staticmethod
    def _frame(texts: Any, scores: Any, dones: Any, infos: Any) -> _Frame:
        return _Frame(
            texts[0], tuple(infos["admissible_commands"][0]), bool(infos["won"][0]), bool(dones[0]), float(scores[0])
        )


class _Ours:
    """This package's environment over one game."""

    name = "parity"

    def __init__(self, text: bytes, max_turns: int) -> None:
        self._text = text
        self._env = AlfworldEnv(Library(self), max_turns=max_turns, reward=1.0)

    def tasks(self) -> list[Task]:
        return [Task("game", "parity")]

    def dialects(self) -> dict[str, str]:
        return {"game": ""}

    def read(self, task_id: str) -> bytes:
        return self._text

    def where(self, task_id: str) -> str:
        return task_id

    def reset(self) -> _Frame:
        seen = self._env.reset("game").observation
        return _Frame(seen.text, seen.admissible or (), False, False, 0.0)

    def step(self, command: str) -> _Frame:
        step = self._env.step(command)
        seen = step.observation
        return _Frame(seen.text, seen.admissible or (), step.info.won, step.terminated or step.truncated, step.reward)


def _play(job: _Job) -> GameResult:
    game = parse_game(job.text, job.id)
    rng = random.Random(f"{job.seed}/{job.id}")
    style = job.style or rng.choice(list(STYLES))
    player = STYLES[style](game, rng, job.max_turns)
    understood: Counter[str] = Counter()
    seconds = {"theirs": 0.0, "ours": 0.0}
    past: list[tuple[str, str]] = []
    commands: list[str] = []
    answers: list[str] = []

    def both(command: str | None) -> tuple[_Frame, _Frame]:
        frames = []
        for engine, side in ((theirs, "theirs"), (ours, "ours")):
            begin = time.perf_counter()
            frames.append(engine.reset() if command is None else engine.step(command))
            seconds[side] += time.perf_counter() - begin
        answers.append(frames[0].digest())
        return frames[0], frames[1]

    def result(turn: int, won: bool, difference: Difference | None) -> GameResult:
        return GameResult(
            id=job.id,
            style=style,
            turns=turn,
            won=won,
            understood=dict(understood),
            textworld_seconds=seconds["theirs"],
            our_seconds=seconds["ours"],
            difference=difference,
            commands=tuple(commands),
            answers=tuple(answers),
        )

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / GAME_FILE
        file.write_bytes(job.text)
        theirs, ours = _TextWorld(file, job.max_turns), _Ours(job.text, job.max_turns)
        try:
            frame, other = both(None)
            command, turn = "", 0
            while True:
                if difference := _compare(turn, command, frame, other, past):
                    return result(turn, frame.won, difference)
                if frame.done:
                    return result(turn, frame.won, None)
                command = player(turn, frame.admissible)
                known = command.strip() in frame.admissible
                understood[command.split()[0] if known else ""] += 1
                commands.append(command)
                frame, other = both(command)
                past.append((command, frame.text))
                turn += 1
        finally:
            theirs.close()


def _compare(
    turn: int, command: str, theirs: _Frame, ours: _Frame, past: Sequence[tuple[str, str]]
) -> Difference | None:
    for part in ("text", "admissible", "won", "done", "score"):
        a, b = getattr(theirs, part), getattr(ours, part)
        if a != b:
            if part == "admissible" and sorted(a) != sorted(b):
                a, b = sorted(set(a) - set(b)), sorted(set(b) - set(a))  # the commands that only one side has
            return Difference(turn, command, part, a, b, tuple(past[-_CONTEXT:]))
    return None


# --- players -----------------------------------------------------------------------------------------------------

Player = Callable[[int, Sequence[str]], str]
"""From the turn and the admissible commands to a command."""


def _wanderer(game: Game, rng: random.Random, max_turns: int) -> Player:
    """Any admissible command, verbs about equally often, and an odd one now and then."""

    def play(turn: int, admissible: Sequence[str]) -> str:
        if rng.random() < 0.1:
            return _odd(game, rng, admissible)
        verb = rng.choice(sorted({command.split()[0] for command in admissible} - {"help"}))
        return rng.choice([command for command in admissible if command.split()[0] == verb])

    return play


def _solver(game: Game, rng: random.Random, max_turns: int) -> Player:
    """The game's walkthrough, with harmless and odd commands strewn in so that it ends at a turn drawn at random.

    A third of the time it ends on the last turn, or would end on the one after it.
    """
    steps = list(game.walkthrough)
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
    """Fetches a knife and slices, treats, carries and examines things, whether or not that can be done."""
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


def _oddball(game: Game, rng: random.Random, max_turns: int) -> Player:
    """Mostly commands that are not, or almost not, understood."""
    wander = _wanderer(game, rng, max_turns)

    def play(turn: int, admissible: Sequence[str]) -> str:
        return _odd(game, rng, admissible) if rng.random() < 0.6 else wander(turn, admissible)

    return play


STYLES: dict[str, Callable[[Game, random.Random, int], Player]] = {
    "wander": _wanderer,
    "solve": _solver,
    "cook": _cook,
    "odd": _oddball,
}
"""How a game can be played."""


def _odd(game: Game, rng: random.Random, admissible: Sequence[str]) -> str:
    """A command that is unlikely to be understood, or one that is, in unusual dress."""
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


# --- command line ------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """``python -m hiper.envs.alfworld.parity PATHS``; returns the exit code: 1 if anything differs."""
    parser = argparse.ArgumentParser(description="Play games beside TextWorld and compare everything.")
    parser.add_argument("paths", nargs="+", type=Path, help="game files, folders of games, tar archives")
    parser.add_argument("--games", type=int, help="how many, drawn with the seed (default: all)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--turns", type=int, default=MAX_TURNS)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--record", type=Path, help="JSONL of finished games, to stop and resume")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    report = check_parity(
        read_games(options.paths, options.games, options.seed),
        seed=options.seed,
        max_turns=options.turns,
        record=options.record,
        workers=options.workers,
    )
    sys.stdout.write(report.summary() + "\n")
    return 1 if report.differences else 0


if __name__ == "__main__":
    sys.exit(main())
