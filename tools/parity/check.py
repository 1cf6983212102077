"""The comparison: play games beside TextWorld and compare everything, turn by turn.

Both engines get the same commands, chosen by a scripted player for up to 50 turns. The opening text, observations,
admissible commands and their order, won, done and score must agree at every turn.

Finished games are kept in a JSONL file, with their commands and a digest of TextWorld's answer at every turn. So a
run can be stopped and resumed. Games on record are always compared afresh with the present engine, in milliseconds.
They go to TextWorld again only if something differs.
"""

from __future__ import annotations

import hashlib
import json
import logging
import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

from hiper.envs.alfworld import parse_game
from hiper.envs.alfworld.sources import GAME_FILE
from hiper.errors import UserError
from parity.engines import Frame, Ours, TextWorld, missing_reason
from parity.players import STYLES
from parity.report import Difference, GameResult, ParityReport

log = logging.getLogger(__name__)

MAX_TURNS = 50
_CONTEXT = 6
"""The number of turns before a difference that a report keeps."""
_GAMES_PER_PROCESS = 40
"""The number of games that one process plays. TextWorld never frees the memory of a game, about 7 MB."""


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
        seed: decides, together with a game's id, how it is played.
        max_turns: turns per game.
        record: a JSONL file of finished games. Games in it (same text, seed, turns) are compared with the record.
        workers: the number of games played at a time, each in its own process. A single short run plays in this one.
        style: one of :data:`~parity.players.STYLES` for every game; None: draw a style per game.

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
    # Each batch gets a new pool, as pools of Python 3.11 hang with `max_tasks_per_child`.
    size = workers * _GAMES_PER_PROCESS
    for batch in (jobs[start : start + size] for start in range(0, len(jobs), size)):
        with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
            yield from zip(batch, pool.map(_play, batch), strict=True)


def _read_record(record: Path) -> dict[str, GameResult]:
    text = record.read_text()
    if not text.endswith("\n"):
        with record.open("a") as file:
            file.write("\n")  # ends a line that was cut off
    done = {}
    for line in text.splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue  # a run was killed while it wrote this line; that game is played again
        key = entry.pop("key")
        if not entry["difference"]:
            done[key] = GameResult(**entry)
    return done


def _agrees(recorded: GameResult, text: bytes, max_turns: int) -> bool:
    """Whether our engine gives the recorded answers to the recorded commands."""
    ours = Ours(text, max_turns)
    answers = iter(recorded.answers)
    return ours.reset().digest() == next(answers) and all(
        ours.step(command).digest() == answer for command, answer in zip(recorded.commands, answers, strict=True)
    )


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

    def both(command: str | None) -> tuple[Frame, Frame]:
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
        theirs, ours = TextWorld(file, job.max_turns), Ours(job.text, job.max_turns)
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


def _compare(turn: int, command: str, theirs: Frame, ours: Frame, past: Sequence[tuple[str, str]]) -> Difference | None:
    for part in ("text", "admissible", "won", "done", "score"):
        a, b = getattr(theirs, part), getattr(ours, part)
        if a != b:
            if part == "admissible" and sorted(a) != sorted(b):
                a, b = sorted(set(a) - set(b)), sorted(set(b) - set(a))  # the commands that only one side has
            return Difference(turn, command, part, a, b, tuple(past[-_CONTEXT:]))
    return None
