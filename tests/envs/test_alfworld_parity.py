"""Our engine beside TextWorld on games drawn afresh each run. The seed is printed; HIPER_PARITY_SEED repeats a run."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest

from helpers import kitchen
from helpers.missing import skip_without
from hiper.envs.alfworld import Engine, parse_game
from hiper.envs.alfworld.data import TASK_TYPES, GameSource, open_split
from hiper.envs.alfworld.generate import generate_game
from hiper.envs.alfworld.parity import STYLES, check_parity, missing_reason
from hiper.errors import UserError

OFFICIAL_PER_TYPE = 3
GENERATED_PER_TYPE = 4
ALONE_PER_TYPE = 7
"""Where there are no official games: more generated ones, so that it is 40 games or more in any case."""
WORKERS = os.cpu_count() or 1
SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "alfworld"

textworld_needed = [
    pytest.mark.parity,
    pytest.mark.skipif(missing_reason() is not None, reason=str(missing_reason())),
]


def official_data() -> Path | None:
    """Official games, where this machine has them."""
    named = os.environ.get("ALFWORLD_DATA")
    return Path(named) if named else next(iter(sorted(SHARED.glob("*.tar*"))), None)


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


def assert_same(games: list[tuple[str, bytes | str]], seed: int, style: str | None = None) -> None:
    report = check_parity(games, seed=seed, style=style, workers=WORKERS if len(games) > 3 else 1)
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


def test_without_textworld_the_check_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda module: None)
    with pytest.raises(UserError, match=r"pip install 'hiper\[textworld\]'"):
        check_parity([])
