"""Official data, got from an HTTP server on this machine that can be told to misbehave."""

from __future__ import annotations

import hashlib
import io
import os
import random
import signal
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from http.client import HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar

import pytest

from hiper import cli
from hiper.envs import registry
from hiper.envs.alfworld.generate import write_games
from hiper.envs.alfworld.official_files import Games
from hiper.envs.downloads import Arrival, DataHome, FileSet, RemoteFile, Source, State, download, transfer
from hiper.envs.downloads.sets import RECORD, read_record
from hiper.envs.downloads.transfer import ATTEMPTS, CHUNK, Watch
from hiper.errors import UnwritableError, UserError

CONTENT = random.Random(0).randbytes(700_001)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Behaviour:
    """How the server answers requests for one path."""

    content: bytes = CONTENT
    type: str = "application/octet-stream"
    cut_after: list[int] = field(default_factory=list)
    """The first answers are cut after so many bytes of their body."""
    codes: list[int] = field(default_factory=list)
    """Error codes of the first answers."""
    ranges: bool = True
    """Whether it understands requests for the rest of a file."""
    sized: bool = True
    """Whether it says how long a file is."""
    moved_to: str = ""
    """Where it sends those who ask."""
    range: str = ""
    """What it claims to give a part of, whatever was asked."""
    asked: list[str | None] = field(default_factory=list)
    """The range each request asked for."""


class Handler(BaseHTTPRequestHandler):
    places: ClassVar[dict[str, Behaviour]] = {}

    def do_GET(self) -> None:
        here = self.places[self.path]
        here.asked.append(self.headers.get("Range"))
        if here.codes and (code := here.codes.pop(0)) != 200:
            self.send_error(code)
            return
        if here.moved_to:
            self.send_response(302)
            self.send_header("Location", here.moved_to)
            self.end_headers()
            return
        begin = 0
        if here.range:
            self.send_response(206)
            self.send_header("Content-Range", here.range)
        elif here.asked[-1] and here.ranges:
            begin = int(here.asked[-1].removeprefix("bytes=").removesuffix("-"))
            if begin >= len(here.content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(here.content)}")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {begin}-{len(here.content) - 1}/{len(here.content)}")
        else:
            self.send_response(200)
        body = here.content[begin:]
        self.send_header("Content-Type", here.type)
        if here.sized:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with suppress(ConnectionError):  # who was given too much hangs up
            self.wfile.write(body[: here.cut_after.pop(0)] if here.cut_after else body)

    def log_message(self, format: str, *args: object) -> None:
        pass


Serve = Callable[..., Behaviour]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def place(address: str) -> Callable[[str, Behaviour], Source]:
    """Lets the server answer at a path; gives the source to ask."""

    def offer(name: str, behaviour: Behaviour) -> Source:
        Handler.places[f"/{name}"] = behaviour
        return Source(f"the {name} place", f"{address}/{name}")

    return offer


Place = Callable[[str, Behaviour], Source]


class Pauses(list[float]):
    """Remembers how long it was told to wait, and does not."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


def the_file(*sources: Source, size: int | None = len(CONTENT), sha256: str | None = SHA256) -> RemoteFile:
    return RemoteFile("items.json", sources, size, sha256)


def quiet(title: str) -> AbstractContextManager[Watch]:
    return nullcontext(lambda done, total: None)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- One file ---------------------------------------------------------------------------------------------------------


def test_a_file_comes_whole_and_progress_is_told(place: Place, tmp_path: Path):
    seen: list[tuple[int, int | None]] = []
    folder = tmp_path / "new" / "folder"
    source = place("plain", Behaviour())
    arrival = download(the_file(source), folder, lambda *progress: seen.append(progress))
    assert arrival == Arrival(folder / "items.json", source, len(CONTENT), SHA256)
    assert arrival.path.read_bytes() == CONTENT
    assert names(folder) == ["items.json"]
    assert seen == sorted(seen)
    assert len(seen) > 1
    assert seen[-1] == (len(CONTENT), len(CONTENT))


def test_cut_connections_are_taken_up_where_they_broke(place: Place, tmp_path: Path):
    here, pauses = Behaviour(cut_after=[300_000, 0, 100_000]), Pauses()
    download(the_file(place("cut", here)), tmp_path, pause=pauses)
    assert (tmp_path / "items.json").read_bytes() == CONTENT
    assert here.asked == [None, "bytes=300000-", "bytes=300000-", "bytes=400000-"]
    assert pauses == [1.0, 2.0, 1.0]


def test_a_later_call_goes_on_from_what_an_earlier_one_left(place: Place, tmp_path: Path):
    broken = Behaviour(cut_after=[250_000] + [0] * ATTEMPTS)
    with pytest.raises(UserError, match=r"no place gives items\.json"):
        download(the_file(place("broken", broken)), tmp_path, pause=Pauses())
    assert names(tmp_path) == ["items.json.part"]
    whole = Behaviour()
    download(the_file(place("whole", whole)), tmp_path)
    assert whole.asked == ["bytes=250000-"]
    assert (tmp_path / "items.json").read_bytes() == CONTENT


def test_a_part_that_is_complete_already_needs_no_connection(place: Place, tmp_path: Path):
    (tmp_path / "items.json.part").write_bytes(CONTENT)
    here = Behaviour()
    download(the_file(place("idle", here)), tmp_path)
    assert here.asked == []
    (tmp_path / "items.json").rename(tmp_path / "items.json.part")
    download(the_file(place("idle", here), size=None), tmp_path)
    assert here.asked == [f"bytes={len(CONTENT)}-"]
    assert (tmp_path / "items.json").read_bytes() == CONTENT


def test_a_redirection_is_followed_when_resuming_too(place: Place, tmp_path: Path):
    behind = Behaviour(cut_after=[300_000])
    there = place("behind", behind)
    download(the_file(place("before", Behaviour(moved_to=there.url))), tmp_path, pause=Pauses())
    assert behind.asked == [None, "bytes=300000-"]
    assert (tmp_path / "items.json").read_bytes() == CONTENT


def test_a_place_that_cannot_resume_gives_all_again(place: Place, tmp_path: Path):
    here = Behaviour(cut_after=[300_000], ranges=False)
    download(the_file(place("stubborn", here)), tmp_path, pause=Pauses())
    assert here.asked == [None, "bytes=300000-"]
    assert (tmp_path / "items.json").read_bytes() == CONTENT


def test_a_cut_is_noticed_where_the_place_does_not_say_how_long_the_file_is(place: Place, tmp_path: Path):
    behaviour = Behaviour(cut_after=[100_000, 300_000], sized=False)
    arrival = download(the_file(place("unsized-cut", behaviour)), tmp_path, pause=Pauses())
    assert arrival.path.read_bytes() == CONTENT
    assert behaviour.asked == [None, "bytes=100000-", "bytes=400000-"]


def test_a_place_that_gives_without_end_is_stopped(place: Place, tmp_path: Path):
    seen: list[int] = []
    endless = place("endless", Behaviour(content=CONTENT * 20, sized=False))
    with pytest.raises(UserError, match=r"what came is another file: [0-9,]+ bytes instead of 700,001"):
        download(the_file(endless), tmp_path, lambda done, _: seen.append(done), Pauses())
    assert max(seen) <= len(CONTENT) + CHUNK
    assert names(tmp_path) == []


def test_a_part_that_was_not_asked_for_is_refused(place: Place, tmp_path: Path):
    behaviour = Behaviour(range="bytes 7-9/10")
    with pytest.raises(UserError, match="a part of the file that was not asked for"):
        download(the_file(place("odd-part", behaviour)), tmp_path, pause=Pauses())
    assert behaviour.asked == [None]


def test_two_processes_do_not_get_one_file(place: Place, tmp_path: Path):
    source = place("twice", Behaviour())

    def again(done: int, total: int | None) -> None:
        with pytest.raises(UserError, match=r"another process uses .*items\.json\.part"):
            download(the_file(source), tmp_path)

    assert download(the_file(source), tmp_path, again).path.read_bytes() == CONTENT
    assert names(tmp_path) == ["items.json"]


@pytest.mark.parametrize("sha256", [SHA256, None])
def test_a_place_that_does_not_say_how_long_the_file_is(place: Place, tmp_path: Path, sha256: str | None):
    here = Behaviour(sized=False)
    assert download(the_file(place("unsized", here), size=None, sha256=sha256), tmp_path).sha256 == SHA256


def test_a_stale_part_is_thrown_away_and_the_file_fetched_anew(place: Place, tmp_path: Path):
    (tmp_path / "items.json.part").write_bytes(b"something else" * 100)
    here = Behaviour()
    download(the_file(place("fresh", here)), tmp_path)
    assert here.asked == ["bytes=1400-", None]
    assert (tmp_path / "items.json").read_bytes() == CONTENT


def test_a_part_longer_than_the_file_is_thrown_away(place: Place, tmp_path: Path):
    (tmp_path / "items.json.part").write_bytes(CONTENT + b"more")
    download(the_file(place("shorter", Behaviour())), tmp_path, pause=Pauses())
    assert (tmp_path / "items.json").read_bytes() == CONTENT


def test_wrong_bytes_are_refused_and_leave_nothing(place: Place, tmp_path: Path):
    wrong = bytes(len(CONTENT))
    here = Behaviour(content=wrong)
    expected = f"what came is another file: sha256 {hashlib.sha256(wrong).hexdigest()} instead of {SHA256}"
    with pytest.raises(UserError, match=expected):
        download(the_file(place("wrong", here)), tmp_path)
    assert names(tmp_path) == []


def test_the_wrong_length_is_refused_before_anything_comes(place: Place, tmp_path: Path):
    here = Behaviour(content=CONTENT + b"!")
    with pytest.raises(UserError, match=r"it offers 700,002 bytes, and the file has 700,001"):
        download(the_file(place("long", here)), tmp_path)
    unsized = Behaviour(content=CONTENT[:-1], sized=False)
    with pytest.raises(UserError, match=r"no place gives"):
        download(the_file(place("short", unsized)), tmp_path, pause=Pauses())
    assert not (tmp_path / "items.json").exists()


def test_a_web_page_in_place_of_the_file(place: Place, tmp_path: Path):
    page = Behaviour(content=b"<html>Quota exceeded</html>", type="text/html; charset=utf-8")
    with pytest.raises(UserError, match="a web page instead of the file: withdrawn, or asked for too often lately"):
        download(the_file(place("page", page), size=None, sha256=None), tmp_path)
    assert names(tmp_path) == []


def test_a_place_that_is_busy_for_a_while_is_asked_again(place: Place, tmp_path: Path):
    here, pauses = Behaviour(codes=[503, 429]), Pauses()
    download(the_file(place("busy", here)), tmp_path, pause=pauses)
    assert (len(here.asked), pauses) == (3, [1.0, 2.0])


def test_a_place_that_stays_down_is_given_up(place: Place, tmp_path: Path):
    here, pauses = Behaviour(codes=[503] * 99), Pauses()
    with pytest.raises(UserError, match=rf"answered 503 Service Unavailable, {ATTEMPTS} times in a row"):
        download(the_file(place("down", here)), tmp_path, pause=pauses)
    assert len(here.asked) == ATTEMPTS
    assert pauses == [2.0**i for i in range(ATTEMPTS - 1)]


def test_the_next_place_is_asked_and_what_each_said_is_told(place: Place, tmp_path: Path):
    gone = place("gone", Behaviour(codes=[404]))
    wrong = place("other", Behaviour(content=bytes(len(CONTENT))))
    good = place("good", Behaviour())
    assert download(the_file(gone, wrong, good), tmp_path).source == good
    closed = Source("a closed port", "http://127.0.0.1:9/items.json")
    gone = place("gone", Behaviour(codes=[404]))
    with pytest.raises(UserError) as refused:
        download(the_file(gone, closed, wrong), tmp_path / "elsewhere", pause=Pauses())
    lines = str(refused.value).splitlines()
    assert lines[0] == "no place gives items.json:"
    assert "the gone place" in lines[1]
    assert "it answered 404 Not Found" in lines[1]
    assert "cannot be reached" in lines[2]
    assert "another file" in lines[3]


def test_a_disk_without_room_is_said_before_anything_is_asked(place: Place, tmp_path: Path):
    here = Behaviour()
    with pytest.raises(UnwritableError, match=r"needs 1,000,000,000,000,000 bytes more, and .* free"):
        download(the_file(place("huge", here), size=10**15), tmp_path)
    assert here.asked == []


def test_a_folder_that_cannot_be_made(place: Place, tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(UnwritableError, match="cannot write"):
        download(the_file(place("any", Behaviour())), tmp_path / "file")


# --- A set of files ---------------------------------------------------------------------------------------------------


def test_a_set_is_inspected_and_what_is_missing_is_fetched(place: Place, tmp_path: Path):
    known = the_file(place("known", Behaviour()))
    unknown = RemoteFile("notes.txt", (place("unknown", Behaviour(content=b"notes")),))
    both = FileSet("both", "two files", (known, unknown))
    assert [found.state for found in both.inspect(tmp_path, quiet)] == [State.MISSING, State.MISSING]
    (tmp_path / "items.json.part").write_bytes(CONTENT[:1000])
    assert "1,000 have come" in both.inspect(tmp_path, quiet)[0].detail

    assert [arrival.path.name for arrival in both.install(tmp_path, quiet)] == ["items.json", "notes.txt"]
    right, unverified = both.inspect(tmp_path, quiet)
    assert (right.state, unverified.state) == (State.RIGHT, State.UNVERIFIED)
    assert "unchanged since it came on" in unverified.detail
    assert read_record(tmp_path)["notes.txt"]["sha256"] == hashlib.sha256(b"notes").hexdigest()
    assert both.install(tmp_path, quiet) == []

    (tmp_path / "notes.txt").write_text("other")
    (tmp_path / "items.json").write_bytes(CONTENT[::-1])
    wrong, changed = both.inspect(tmp_path, quiet)
    assert (wrong.state, changed.state) == (State.WRONG, State.WRONG)
    assert SHA256 in wrong.detail
    assert "changed since it came on" in changed.detail
    (tmp_path / RECORD).unlink()
    assert both.inspect(tmp_path, quiet)[1].state is State.UNVERIFIED


def test_a_file_that_is_not_the_official_one_is_never_overwritten(place: Place, tmp_path: Path):
    (tmp_path / "items.json").write_text("mine")
    with pytest.raises(UserError, match=r"items\.json is there already, .*4 bytes instead of 700,001.*move it away"):
        FileSet("one", "a file", (the_file(place("one", Behaviour())),)).install(tmp_path, quiet)
    assert (tmp_path / "items.json").read_text() == "mine"


@pytest.mark.parametrize("text", ["{", "[]", '{"a": 1}', '{"a": {}}'])
def test_a_damaged_record_is_named(tmp_path: Path, text: str):
    (tmp_path / RECORD).write_text(text)
    with pytest.raises(UserError, match=r"hiper-data\.json is damaged .*delete it"):
        read_record(tmp_path)


# --- ALFWorld's games -------------------------------------------------------------------------------------------------


@pytest.fixture
def archive(place: Place, tmp_path: Path) -> RemoteFile:
    """A zip archive of a few games, laid out as the official one, with something in it that is no game."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as content:
        for split in ("train", "valid_seen", "valid_unseen"):
            for file in write_games(tmp_path / "made", split, 2, "tiny"):
                inner = file.relative_to(tmp_path / "made").parts
                content.write(file, "/".join(("json_2.1.1", split, *inner[-3:])))
        content.writestr("../escaped.tw-pddl", "no")
    behaviour = Behaviour(content=packed.getvalue())
    return RemoteFile("games.zip", (place("games", behaviour),), size=len(behaviour.content))


def test_games_are_unpacked_and_inspected_by_their_panels(archive: RemoteFile, tmp_path: Path):
    folder, games = tmp_path / "alfworld", Games(archive)
    assert [found.state for found in games.inspect(folder, quiet)] == [State.MISSING] * 3
    (arrival,) = games.install(folder, quiet)
    assert names(folder) == [RECORD, "json_2.1.1"]
    assert len(list(folder.rglob("game.tw-pddl"))) == 6
    assert not list(tmp_path.rglob("escaped*"))
    assert read_record(folder)["games.zip"]["sha256"] == arrival.sha256
    train, seen, unseen = games.inspect(folder, quiet)
    assert (train.state, seen.state, unseen.state) == (State.WRONG, State.WRONG, State.UNVERIFIED)  # two, not 3,553
    assert "2 games that say 'move'" in train.detail
    assert "the official ones are 3,553" in train.detail


def test_an_archive_fetched_by_hand_is_unpacked(archive: RemoteFile, tmp_path: Path):
    folder = tmp_path / "alfworld"
    downloaded = download(archive, folder)
    Handler.places["/games"].asked.clear()
    (arrival,) = Games(archive).install(folder, quiet)
    assert Handler.places["/games"].asked == []
    assert arrival.sha256 == downloaded.sha256
    assert names(folder) == [RECORD, "json_2.1.1"]


def test_a_broken_archive_leaves_no_games(archive: RemoteFile, tmp_path: Path):
    folder = tmp_path / "alfworld"
    path = download(archive, folder).path
    content = bytearray(path.read_bytes())
    content[200:300] = bytes(100)
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"games\.zip is damaged .*delete it"):
        Games(archive).install(folder, quiet)
    assert names(folder) == ["games.zip"]
    path.write_bytes(content[:-1])
    with pytest.raises(UserError, match=r"games\.zip has .* bytes instead of .*: delete it"):
        Games(archive).install(folder, quiet)


@pytest.mark.parametrize("present", ["train/task/trial/traj_data.json", "json_2.1.1/valid_train/x"])
def test_games_are_not_mixed_with_what_is_there(archive: RemoteFile, tmp_path: Path, present: str):
    folder = tmp_path / "alfworld"
    (folder / present).parent.mkdir(parents=True)
    (folder / present).touch()
    with pytest.raises(UserError, match="move it away"):
        Games(archive).install(folder, quiet)
    assert (folder / present).exists()


def test_the_official_games_are_known_by_their_panels(official_games: Path):
    seen, unseen = Games(splits=["valid_seen", "valid_unseen"]).inspect(official_games, quiet)
    assert seen.state is State.RIGHT
    assert "140 games that say 'move'" in seen.detail
    assert unseen.state is State.MISSING
    with pytest.raises(UserError, match="is a file, but games are unpacked into a folder"):
        Games().install(official_games, quiet)


# --- The command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def home(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataHome:
    """An environment `shop` whose data the server offers."""
    files = FileSet("small", "one file", (the_file(place("shop", Behaviour())),))
    home = DataHome(lambda: tmp_path / "home", "SHOP_DATA", (files,), "ask a friend", "Checksums are made up")
    monkeypatch.setattr(registry, "_data", {"shop": home})
    return home


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["hiper", "data", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def test_a_stopped_download_is_kept_and_continued(
    home: DataHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def stopped(response: HTTPResponse) -> Iterator[bytes]:
        yield response.read(300_000)
        os.kill(os.getpid(), signal.SIGTERM)
        yield response.read(CHUNK)

    with monkeypatch.context() as patch:
        patch.setattr(transfer, "_chunks", stopped)
        assert run(monkeypatch, "shop", "--get", "small") == 143
    assert (tmp_path / "home" / "items.json.part").stat().st_size == 300_000
    said = " ".join(capsys.readouterr().out.split())
    assert "interrupted; what has come is kept. Continue with: hiper data shop --get small" in said
    assert run(monkeypatch, "shop", "--get", "small") == 0
    assert Handler.places["/shop"].asked == [None, "bytes=300000-"]
    assert names(tmp_path / "home") == [RECORD, "items.json"]


def test_data_are_shown_fetched_and_verified(
    home: DataHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert run(monkeypatch) == 0
    said = capsys.readouterr().out
    for part in ("shop:", str(tmp_path / "home"), "SHOP_DATA", "small: one file", "items.json  missing: 700,001 bytes"):
        assert part in said
    assert "hiper data shop --get small" in said

    assert run(monkeypatch, "shop", "--get", "small", "--folder", tmp_path / "there") == 0
    said = capsys.readouterr().out
    assert "items.json: 700,001 bytes from the shop place (http://127.0.0.1:" in said
    assert f"sha256 {SHA256}" in said
    assert "items.json  checksum right" in said
    assert run(monkeypatch, "shop", "--get", "small", "--folder", tmp_path / "there") == 0
    assert "small: nothing is missing" in capsys.readouterr().out

    (tmp_path / "there" / "items.json").write_bytes(bytes(700_001))
    assert run(monkeypatch, "shop", "--folder", tmp_path / "there") == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "items.json WRONG: sha256" in said
    assert "move it away, then hiper data shop --get small --folder" in said
    assert run(monkeypatch, "shop", "--get", "small", "--folder", tmp_path / "there") == 2
    said = capsys.readouterr().err
    assert "is not the official file" in said
    assert "By hand" not in said


def test_a_set_that_came_is_judged_alone(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    sets = tuple(
        FileSet(name, "one file", (RemoteFile(f"{name}.json", (place(name, Behaviour()),), len(CONTENT), SHA256),))
        for name in ("one", "other")
    )
    home = DataHome(lambda: tmp_path, "SHOP_DATA", sets, "ask a friend", "Checksums are made up")
    monkeypatch.setattr(registry, "_data", {"shop": home})
    (tmp_path / "other.json").write_text("wrong")
    assert run(monkeypatch, "shop", "--get", "one") == 0
    assert "other.json" not in capsys.readouterr().out
    assert run(monkeypatch, "shop") == 1
    assert run(monkeypatch, "shop", "--folder", tmp_path / "other.json") == 2
    assert "other.json is a file; name the folder that holds one.json" in capsys.readouterr().err


def test_a_source_that_is_down_is_said_with_what_to_do(
    home: DataHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    Handler.places["/shop"] = Behaviour(codes=[404])
    assert run(monkeypatch, "shop", "--get", "small") == 2
    said = capsys.readouterr().err
    for part in ("no place gives items.json", "the shop place", "it answered 404 Not Found", "By hand: ask a friend."):
        assert part in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["corridor"], "there are no official data for 'corridor'; known are shop"),
        (["shpo"], "did you mean 'shop'?"),
        (["shop", "--get", "large"], "there is no data set 'large'; there are small"),
        (["--get", "small"], "name the environment too: hiper data ENV --get SET"),
        (["--folder", "x"], "name the environment too: hiper data ENV --folder FOLDER"),
    ],
)
def test_what_users_get_wrong(
    home: DataHome,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
):
    assert run(monkeypatch, *arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("env", registry.names_with_data())
def test_shipped_data_say_how_to_get_them(env: str):
    home = registry.official_data(env)
    assert home.sets
    assert home.by_hand
    for data_set in home.sets:
        assert home.set_named(data_set.name) is data_set
        for file in getattr(data_set, "files", ()):
            assert file.sources
            assert all(source.url.startswith("https://") for source in file.sources)
            assert file.sha256 is None or len(bytes.fromhex(file.sha256)) == 32


def test_an_environment_brings_its_own_data(home: DataHome, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(registry, "_factories", {})
    registry.register("market", "nowhere:make", home)
    assert registry.official_data("market") is home
    assert "market" in registry.names_with_data()
    registry.register("stall", "nowhere:make", "nowhere:DATA")
    with pytest.raises(UserError, match="'stall' cannot be imported"):
        registry.official_data("stall")
