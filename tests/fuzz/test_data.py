"""What environments read: games, archives of them, the catalogues of a shop, the record of downloads."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import random
import tarfile
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.fuzzing import ODD_TEXTS, altered, damaged, fuzzed, inputs
from helpers.kitchen import game_data
from hiper.envs import check_env
from hiper.envs.alfworld.env import AlfworldEnv
from hiper.envs.alfworld.generate import generate_game
from hiper.envs.alfworld.library import Library, open_split
from hiper.envs.alfworld.parser import parse_game
from hiper.envs.downloads import RemoteFile, sets
from hiper.envs.panels import Task
from hiper.envs.webshop.env import make
from hiper.envs.webshop.official_files import HUMAN, SMALL
from hiper.errors import UserError
from parity.check import check_parity
from parity.engines import missing_reason

pytestmark = pytest.mark.fuzz

GAMES = [game_data(), *(json.loads(generate_game("train", number, "tiny").text) for number in range(3))]
PARTS = ["pddl_domain", "grammar", "pddl_problem"]
FACTS = [line.strip() for game in GAMES[:2] for line in game["pddl_problem"].splitlines() if "(" in line][:60]
PIECES = [
    *ODD_TEXTS,
    *FACTS,
    "(",
    ")",
    "))",
    ";",
    "=",
    "(= (total-cost) 0)",
    "(:init",
    "(:goal",
    "(:objects",
    '"rhs"',
    "#",
    "[",
    "|",
]


class OneGame:
    """A source with one game."""

    name = "fuzz/train"

    def __init__(self, text: str | bytes) -> None:
        self._text = text

    def tasks(self) -> list[Task]:
        return [Task("train/pick_and_place_simple-x/trial", "pick_and_place_simple")]

    def dialects(self) -> dict[str, str]:
        return {self.tasks()[0].id: parse_game(self._text, "game.tw-pddl").dialect.put_verb}

    def read(self, task_id: str) -> str | bytes:
        return self._text

    def where(self, task_id: str) -> str:
        return "game.tw-pddl"


def playable(env: AlfworldEnv) -> None:
    """Demand that a game keeps the contract of environments, and can be played by anyone who chooses at random."""
    try:
        check_env(env, tasks=1)
    except UserError as error:
        if "expert does not understand the goal" not in str(error):  # in other words; it can still be played
            raise
    rng = random.Random(0)
    start = env.reset(env.panel.tasks[0].id)
    listed = start.observation.admissible
    for _ in range(30):
        assert listed
        step = env.step(rng.choice(listed))
        if step.info.end is not None:
            break
        listed = step.observation.admissible


@st.composite
def games(draw: st.DrawFn) -> str:
    """The text of a game with damage to the text itself, to the tree, or to one of the languages in it."""
    game = draw(st.sampled_from(GAMES))
    match draw(st.sampled_from(("text", "tree", "part", "part", "facts", "facts"))):
        case "text":
            return draw(damaged(json.dumps(game), ODD_TEXTS))  # type: ignore[no-any-return]
        case "tree":
            game = draw(altered(game))
        case "part":
            part = draw(st.sampled_from(PARTS))
            game = game | {part: draw(damaged(game[part], PIECES, most=2))}
        case _:
            lines = game["pddl_problem"].split("(")
            game = game | {"pddl_problem": "(".join(draw(damaged(lines, [[line] for line in lines[-60:]])))}
    return json.dumps(game)


@inputs(1000)
@given(text=games())
def test_games(text: str) -> None:
    env = lambda: AlfworldEnv(Library(OneGame(text)), max_turns=20)  # noqa: E731
    fuzzed("games", env, playable, given=text, names=["game.tw-pddl"], seconds=5)


@pytest.mark.parity
@pytest.mark.skipif(missing_reason() is not None, reason=str(missing_reason()))
@inputs(60)
@given(text=games())
def test_games_beside_textworld(text: str) -> None:
    def use(game: object) -> str | None:
        try:
            report = check_parity([("game", text)], max_turns=12)
        except KeyError:  # of TextWorld, where a receptacle stands nowhere; our engine leaves it out
            return "no oracle"
        assert not report.differences, report.differences
        return None

    fuzzed(
        "games beside TextWorld",
        lambda: parse_game(text, "game.tw-pddl"),
        use,
        given=text,
        names=["game.tw-pddl"],
        seconds=60,
    )


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize(
    "piece",
    ["(", ")", "(a ", "=", "(= (", ";", '"', "action x {", '"rhs"', 'grammar :: """', "{", " ", "(:action ", "a"],
)
def test_games_of_a_million_characters(part: str, piece: str) -> None:
    for place in (0, len(GAMES[0][part]) // 2, len(GAMES[0][part])):
        hostile = GAMES[0][part][:place] + piece * (1_000_000 // len(piece)) + GAMES[0][part][place:]
        text = json.dumps(GAMES[0] | {part: hostile})
        read = partial(parse_game, text, "game.tw-pddl")
        fuzzed("games of a million letters", read, lambda game: None, given=hostile, names=["game.tw-pddl"], seconds=5)


ARCHIVED = {
    f"json_2.1.1/{split}/pick_and_place_simple-{number}/trial/game.tw-pddl": json.dumps(GAMES[number]).encode()
    for split in ("train", "valid_seen")
    for number in range(3)
}
HEADERS = [
    b"",
    b"\x00" * 512,
    b"../",
    b"/",
    b"\xff",
    b"0" * 12,
    b"7" * 12,
    b"\x80" + b"\xff" * 11,
    b"PK\x01\x02",
    b"PK\x05\x06",
    b"1",
    b"2",
    b"5",
    b"x",
    b"S",
]


def tarred(members: list[tuple[str, bytes | None, bytes, str]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content, kind, link in members:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, link
            member.size = len(content or b"")
            tar.addfile(member, io.BytesIO(content or b""))
    return buffer.getvalue()


@st.composite
def archives(draw: st.DrawFn) -> tuple[bytes, bool]:
    """An archive of games, damaged, or sound with odd members among the games; and whether its bytes are damaged."""
    odd = st.tuples(
        st.sampled_from(
            ["a", "..", "x/game.tw-pddl", "/game.tw-pddl", "../../../../game.tw-pddl", "game.tw-pddl", *ARCHIVED]
        ),
        st.sampled_from([None, b"", b"{}", b"x" * 10]),
        st.sampled_from(
            [
                tarfile.REGTYPE,
                tarfile.SYMTYPE,
                tarfile.LNKTYPE,
                tarfile.DIRTYPE,
                tarfile.FIFOTYPE,
                tarfile.CHRTYPE,
                b"Z",
            ]
        ),
        st.sampled_from(["", "x", "..", *ARCHIVED]),
    )
    members: list[tuple[str, bytes | None, bytes, str]] = [
        (name, text, tarfile.REGTYPE, "") for name, text in ARCHIVED.items()
    ]
    for member in draw(st.lists(odd, max_size=2)):
        members.insert(draw(st.integers(0, len(members))), member)
    if draw(st.integers(0, 3)):
        content = tarred(members)
    else:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, text, _, _ in members:
                archive.writestr(name, text or b"")
        content = buffer.getvalue()
    hurt = draw(st.booleans())
    if content[:2] != b"PK":
        content = draw(st.sampled_from([bytes, gzip.compress, lambda data: lzma.compress(data, preset=0)]))(content)
    return (draw(damaged(content, HEADERS, most=2)) if hurt else content), hurt


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@inputs(600)
@given(given=archives())
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_archives(folder: Path, given: tuple[bytes, bool]) -> None:
    content, hurt = given
    file = folder / "games.archive"
    file.write_bytes(content)

    def use(library: Library) -> str:
        expected = {name.split("/", 1)[1].removesuffix("/game.tw-pddl"): text for name, text in ARCHIVED.items()}
        for task in library.panel:
            read = library.source.read(task.id)
            assert expected.get(task.id) == read or library.game(task.id), task.id
        assert library.official is not True
        assert len(library.panel) >= 3, "games are missing without a word"
        return "unchanged" if hurt else "used"

    fuzzed("archives", lambda: open_split("train", file), use, given=content, names=[str(file)], seconds=10)


ITEMS: list[Any] = [
    {
        "asin": f"B00000000{number}", "name": f"Mug {number}", "full_description": "A mug.",
        "small_description": ["blue", "big"],
        "pricing": "$9.99 to $19.99", "product_category": "Home › Kitchen", "category": "garden", "query": "mugs",
        "customization_options": {"color": [{"value": "red", "asin": "x"}, {"value": "blue"}], "size": None},
        "images": ["x"], "average_rating": 4.5,
    }
    for number in range(6)
]  # fmt: skip
ATTRIBUTES = {
    item["asin"]: {"attributes": ["blue", "big"], "instruction": "Find me a mug", "instruction_attributes": ["blue"]}
    for item in ITEMS
}
WRITTEN = {
    item["asin"]: [{"instruction": "a mug.", "instruction_attributes": ["big"], "instruction_options": ["red"]}]
    for item in ITEMS
}
CATALOGUE = dict(zip([file.name for file in (*SMALL.files, *HUMAN.files)], (ITEMS, ATTRIBUTES, WRITTEN), strict=True))


@st.composite
def catalogues(draw: st.DrawFn) -> dict[str, str]:
    """The three files of a catalogue, one of them damaged."""
    chosen = draw(st.sampled_from(list(CATALOGUE)))
    texts = {name: json.dumps(tree) for name, tree in CATALOGUE.items()}
    match draw(st.sampled_from(("tree", "tree", "text", "swap", "start", "doubled"))):
        case "tree":
            texts[chosen] = json.dumps(draw(altered(CATALOGUE[chosen])))
        case "text":
            texts[chosen] = draw(damaged(texts[chosen], ODD_TEXTS))
        case "swap":
            texts[chosen] = texts[draw(st.sampled_from(list(texts)))]
        case "start":
            texts[chosen] = draw(st.sampled_from(ODD_TEXTS)) + texts[chosen]
        case _:
            texts[chosen] = texts[chosen][:-1] + ", " + texts[chosen][1:]
    return texts


@inputs(800)
@given(texts=catalogues(), human=st.booleans())
def test_catalogues(folder: Path, texts: dict[str, str], human: bool) -> None:
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8", errors="surrogatepass")

    def use(env: Any) -> None:
        check_env(env, tasks=1)

    names = [str(folder), "product", "catalogue"]
    given = "".join(texts.values())
    fuzzed("catalogues", lambda: make("train", folder, human=human), use, given=given, names=names, seconds=5)


RECORD = {
    file.name: {"url": "https://x.org/y", "size": 12, "sha256": "0" * 64, "date": "2026-11-30"} for file in SMALL.files
}


@inputs(200)
@given(
    text=st.one_of(
        altered(RECORD).map(json.dumps),
        damaged(json.dumps(RECORD), ODD_TEXTS),
        st.sampled_from(ODD_TEXTS),
    )
)
def test_download_records(folder: Path, text: str) -> None:
    (folder / sets.RECORD).write_text(text, encoding="utf-8", errors="surrogatepass")
    for name in RECORD:
        (folder / name).write_text("x")

    def use(record: dict[str, dict[str, Any]]) -> None:
        unknown = sets.FileSet("s", "x", tuple(RemoteFile(name, ()) for name in RECORD))
        for finding in unknown.inspect(folder, progress):
            assert finding.state in (sets.State.UNVERIFIED, sets.State.WRONG)
            assert len(finding.detail) < 500

    try:
        fuzzed("download records", lambda: sets.read_record(folder), use, given=text, names=[sets.RECORD])
    finally:
        (folder / sets.RECORD).unlink()


def progress(title: str) -> Any:
    from contextlib import nullcontext

    return nullcontext(lambda done, total: None)
