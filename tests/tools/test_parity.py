"""Our engine beside TextWorld on games drawn afresh each run. The seed is printed; HIPER_PARITY_SEED repeats a run."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest

from helpers import kitchen
from helpers.missing import skip_without
from hiper.envs.alfworld import Engine, parse_game
from hiper.envs.alfworld.generate import SIZES, generate_game, write_games
from hiper.envs.alfworld.library import open_split
from hiper.envs.alfworld.sources import TASK_TYPES, GameSource
from hiper.errors import UserError
from parity.check import MAX_TURNS, check_parity
from parity.engines import missing_reason
from parity.games import read_chores, read_games
from parity.players import STYLES

OFFICIAL_PER_TYPE = 3
GENERATED_PER_TYPE = 4
ALONE_PER_TYPE = 7
"""Where there are no official games: more generated ones, so that it is 40 games or more in any case."""
WORKERS = os.cpu_count() or 1
ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "data" / "alfworld"

textworld_needed = [
    pytest.mark.parity,
    pytest.mark.skipif(missing_reason() is not None, reason=str(missing_reason())),
]


def official_data() -> Path | None:
    """Official games, where this machine has them."""
    named = Path(os.environ.get("ALFWORLD_DATA", ""))
    # The package alfworld sets the variable when it is imported, whether or not there are games.
    if named.is_file() or ("ALFWORLD_DATA" in os.environ and any(named.rglob("game.tw-pddl"))):
        return named
    return next(iter(sorted(SHARED.glob("*.tar*"))), None)


@pytest.fixture(scope="module")
def seed() -> int:
    return int(os.environ.get("HIPER_PARITY_SEED", random.SystemRandom().randrange(10**6)))


@pytest.fixture(scope="module")
def official() -> GameSource:
    data = official_data()
    if data is None:
        skip_without("official games", f"{SHARED}; set ALFWORLD_DATA")
    return open_split("train", data).source


def draw_official(source: GameSource, rng: random.Random) -> Iterator[tuple[str, bytes | str]]:
    tasks = list(source.tasks())
    for kind in TASK_TYPES:
        of_kind = sorted(task.id for task in tasks if task.type == kind)
        yield from ((task_id, source.read(task_id)) for task_id in rng.sample(of_kind, OFFICIAL_PER_TYPE))


def assert_same(
    games: list[tuple[str, bytes | str]], seed: int, style: str | None = None, turns: int = MAX_TURNS
) -> None:
    workers = WORKERS if len(games) > 3 else 1
    report = check_parity(games, seed=seed, max_turns=turns, style=style, workers=workers)
    print(f"HIPER_PARITY_SEED={seed}\n{report.summary()}")  # noqa: T201
    assert len(report.results) == len(games)
    assert not report.differences, report.summary()


class TestBesideTextWorld:
    pytestmark = textworld_needed

    def test_official_games(self, official: GameSource, seed: int) -> None:
        assert_same(list(draw_official(official, random.Random(seed))), seed)

    @pytest.mark.parametrize("older", [False, True])
    def test_the_language_of_official_games(self, seed: int, older: bool) -> None:
        """Rules and words as the package alfworld ships them, and as data before 2025 have them."""
        shipped = files("alfworld").joinpath("data")
        language = {
            "pddl_domain": shipped.joinpath("alfred.pddl").read_text(),
            "grammar": shipped.joinpath("alfred.twl2").read_text().replace("UNKNOWN GOAL", "put a apple in cabinet"),
        }
        text = json.dumps(kitchen.game_data() | language)
        text = in_older_words(text) if older else text
        assert parse_game(text, "kitchen").dialect.put_verb == ("put" if older else "move")
        assert_same([("kitchen", text)], seed, "wander")

    def test_generated_games(self, seed: int) -> None:
        first = 6 * random.Random(seed).randrange(10**6)
        per_type = ALONE_PER_TYPE if official_data() is None else GENERATED_PER_TYPE
        games = [
            generate_game("valid_unseen", first + number, "tiny" if number % 4 else "small")
            for number in range(6 * per_type)
        ]
        assert {game.type for game in games} == set(TASK_TYPES)
        assert_same([(game.task_id, game.text) for game in games], seed)

    @pytest.mark.parametrize(("size", "first"), [(size, 3 * number) for number, size in enumerate(SIZES)])
    def test_generated_games_of_each_size(self, size: str, first: int) -> None:
        some = [generate_game("valid_unseen", index, size) for index in range(first, first + 3)]
        assert_same([(game.task_id, game.text) for game in some], seed=0)

    @pytest.mark.parametrize("style", ["mixed", "solve", "wander"])
    def test_chores_in_a_row(self, seed: int, style: str) -> None:
        games = list(read_chores(Path("generated"), "valid_unseen", chores=3, count=4, seed=seed))
        assert_same(games, seed, style, turns=150)

    def test_official_chores_in_a_row(self, seed: int) -> None:
        if (data := official_data()) is None:
            skip_without("official games", f"{SHARED}; set ALFWORLD_DATA")
        assert_same(list(read_chores(data, "valid_seen", chores=2, count=4, seed=seed)), seed, turns=100)

    def test_walkthroughs_win(self) -> None:
        some = [generate_game("test", index, "small") for index in range(len(TASK_TYPES))]
        report = check_parity([(game.task_id, game.text) for game in some], style="solve", workers=WORKERS)
        assert not report.differences, report.summary()
        assert any(result.won for result in report.results)

    @pytest.mark.parametrize("style", ["wander", "cook"])
    def test_the_kitchen_of_the_engine_tests(self, seed: int, style: str) -> None:
        setups = [
            (kitchen.COOL_LETTUCE_ON_SIDETABLE, "loc_bar_2", ""),
            (kitchen.TWO_APPLES_IN_FRIDGE, "loc_bar_1", kitchen.ODD_FACTS),
            (kitchen.BOWL_IN_LIGHT, "loc_bar_4", kitchen.ODD_FACTS),
        ]
        games: list[tuple[str, bytes | str]] = [
            (f"kitchen{number}", json.dumps(kitchen.game_data(*setup))) for number, setup in enumerate(setups)
        ]
        assert_same(games, seed, style)


def in_older_words(text: bytes | str) -> str:
    """The same game in the words of the data before 2025: "put X in/on Y", "You arrive at loc 5"."""
    data = json.loads(text)
    for new, old in (
        ("move {o} to {r}", "put {o} in/on {r}"),
        ("You move the {o.name} to the {r.name}.", "You put the {o.name} in/on the {r.name}."),
        ("You arrive at {r.name}.", "You arrive at {lend.name}."),
    ):
        assert new in data["grammar"]
        data["grammar"] = data["grammar"].replace(new, old)
    return json.dumps(data)


# --- the checker itself, without TextWorld ------------------------------------------------------------------------


@pytest.mark.parametrize("style", sorted(STYLES))
def test_players_play_any_game(style: str) -> None:
    for number in range(6):
        game = parse_game(generate_game("train", number, "tiny").text, "generated")
        engine = Engine(game)
        player = STYLES[style](game, random.Random(number), 50)
        for turn in range(50):
            engine.step(player(turn, engine.admissible))


def test_solver_ends_in_time_or_just_too_late() -> None:
    ends = set()
    for number in range(60):
        game = parse_game(generate_game("train", number, "tiny").text, "generated")
        engine, player = Engine(game), STYLES["solve"](game, random.Random(number), 50)
        turn = 0
        while not engine.won and turn < 55:
            engine.step(player(turn, engine.admissible))
            turn += 1
        ends.add(turn)
    assert {50, 51} <= ends
    assert max(ends) == 51


def test_mixed_players_win_joined_games_without_a_walkthrough() -> None:
    won = 0
    for task_id, text in read_chores(Path("generated"), "valid_unseen", chores=2, count=6, seed=0):
        game = parse_game(text, task_id)
        for style in ("mixed", "solve"):
            engine, player = Engine(game), STYLES[style](game, random.Random(task_id), 100)
            turn = 0
            while not engine.won and turn < 100:
                engine.step(player(turn, engine.admissible))
                turn += 1
            won += engine.won
    assert won >= 9


def test_without_textworld_the_check_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda module: None)
    with pytest.raises(UserError, match=r"pip install 'hiper\[textworld\]'|use an older Python"):
        check_parity([])


def test_reading_games_from_anywhere(tmp_path: Path) -> None:
    """Out of folders at any depth, archives and files; as many as asked for, drawn by the seed."""
    data = tmp_path / "data"
    for split in ("train", "valid_unseen"):
        write_games(data / "json_2.1.1", split, 6, "tiny")
    everything = dict(read_games([data]))
    assert len(everything) == 12
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(data, "data")
    assert dict(read_games([tmp_path / "a.tar"])) == everything
    some = dict(read_games([data], 5, seed=1))
    assert len(some) == 5
    assert some == dict(read_games([data], 5, seed=1))
    file = next(data.rglob("*.tw-pddl"))
    assert list(dict(read_games([file])).values()) == [file.read_bytes()]
    with pytest.raises(UserError, match="13 were asked for"):
        list(read_games([data], 13))


def test_the_command_says_what_it_lacks(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "tools" / "parity"), str(tmp_path / "gone")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert (missing_reason() or f"'{tmp_path / 'gone'}' does not exist") in done.stderr


@pytest.mark.parity
@pytest.mark.parametrize("workers", [1, 2])
def test_the_command_plays_keeps_a_record_and_goes_on(tmp_path: Path, workers: int) -> None:
    if reason := missing_reason():
        pytest.skip(reason)
    write_games(tmp_path / "games", "train", 2, "tiny")
    command = [sys.executable, str(ROOT / "tools" / "parity"), str(tmp_path / "games"), "--turns", "5"]
    command += ["--workers", str(workers), "--record", str(tmp_path / "record.jsonl")]
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout[:7]) == (0, "2 games"), done.stderr
    assert len((tmp_path / "record.jsonl").read_text().splitlines()) == 2  # the second time, nothing is played
