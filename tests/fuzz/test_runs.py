"""What runs leave on disk: metrics, cards, episodes, packed records, checkpoints and policies.

Damage is named, or what is read is equal to what was written.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.fuzzing import ODD_TEXTS, damaged, fuzzed, inputs
from hiper.episode import read_episodes, write_episodes
from hiper.errors import UserError
from hiper.evaluation.saved import SavedPolicy
from hiper.files import CHECKSUMS
from hiper.runs.cards import Card
from hiper.runs.folder import Run
from hiper.runs.metrics import read_metrics
from hiper.runs.policies import PolicyFolder
from hiper.runs.records import pack, read_archive
from hiper.training.begin import _check_reference
from hiper.training.checkpoints import check_checkpoint

pytestmark = pytest.mark.fuzz

BYTES = [
    b"",
    b"\x00" * 16,
    b"\xff",
    b"\n",
    b"{}",
    b"1",
    b"9",
    b"0",
    b".",
    b"-",
    b"e5",
    b",",
    b'"',
    b"null",
    b"\x1f\x8b\x08",
]
TEXTS = [*ODD_TEXTS, "1", "2", "9", ".5", ", ", '"iteration": 1', "}\n{"]


@pytest.fixture(scope="module")
def run(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A copy of a finished run, to be damaged and mended."""
    return Run.open(shutil.copytree(tiny_run, tmp_path_factory.mktemp("fuzz") / "run"))


def mended(file: Path, content: bytes, test: Callable[[], None]) -> None:
    """Run a test while a file has other content."""
    before = file.read_bytes()
    file.write_bytes(content)
    try:
        test()
    finally:
        file.write_bytes(before)


def same(read: Any, expected: Any) -> str:
    assert json.dumps(read, sort_keys=True, default=str) == json.dumps(expected, sort_keys=True, default=str)
    return "unchanged"


@inputs(1200)
@given(data=st.data())
def test_metrics(run: Run, data: st.DataObject) -> None:
    before = read_metrics(run.metrics_file)
    text = run.metrics_file.read_text()
    if data.draw(st.booleans(), label="one digit"):
        at = data.draw(st.sampled_from([i for i, letter in enumerate(text) if letter.isdigit()]))
        text = text[:at] + str((int(text[at]) + 1) % 10) + text[at + 1 :]
    elif data.draw(st.booleans(), label="whole lines"):
        text = "".join(data.draw(damaged(text.splitlines(keepends=True), [[text.splitlines(keepends=True)[0]]])))
    else:
        text = data.draw(damaged(text, TEXTS))

    def use(read: list[dict[str, Any]]) -> str:
        if sorted(map(str, read)) == sorted(map(str, before)):
            return "unchanged"
        assert run.problems(after=2), "a line is changed, doubled or missing without a word"
        return "noticed"

    test = lambda: fuzzed(  # noqa: E731
        "metrics", lambda: read_metrics(run.metrics_file), use, given=text, names=[str(run.metrics_file)]
    )
    mended(run.metrics_file, text.encode("utf-8", "surrogatepass"), test)


@inputs(800)
@given(data=st.data())
def test_cards(run: Run, data: st.DataObject) -> None:
    file = run.card(2, "held_out")
    before, text = Card.read(file).to_json(), file.read_text()
    if data.draw(st.booleans(), label="one digit"):
        at = data.draw(st.sampled_from([i for i, letter in enumerate(text) if letter.isdigit()]))
        text = text[:at] + str((int(text[at]) + 1) % 10) + text[at + 1 :]
    else:
        text = data.draw(damaged(text, TEXTS))
    test = lambda: fuzzed(  # noqa: E731
        "cards", lambda: Card.read(file), lambda card: same(card.to_json(), before), given=text, names=[str(file)]
    )
    mended(file, text.encode("utf-8", "surrogatepass"), test)


@inputs(500)
@given(data=st.data())
def test_episode_files(run: Run, data: st.DataObject) -> None:
    one, two = run.training_episodes(1), run.training_episodes(2)
    before = [episode.to_json() for episode in run.episodes(1)]
    content = data.draw(st.one_of(damaged(one.read_bytes(), BYTES), st.just(two.read_bytes())))
    test = lambda: fuzzed(  # noqa: E731
        "episode files",
        lambda: list(run.episodes(1)),
        lambda read: same([episode.to_json() for episode in read], before),
        names=[str(one)],
    )
    mended(one, content, test)


@inputs(500)
@given(data=st.data())
def test_lines_of_episodes(run: Run, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Lines that another program wrote: what is read can be written, and reads back equal."""
    import gzip

    file = run.path / "other.jsonl.gz"
    with gzip.open(run.training_episodes(1), "rt") as lines:
        line = next(iter(lines))
    text = data.draw(damaged(line, TEXTS))
    file.write_bytes(gzip.compress(text.encode("utf-8", "surrogatepass")))

    def use(read: list[Any]) -> None:
        again = run.path / "again.jsonl.gz"
        write_episodes(again, read)
        same([e.to_json() for e in read_episodes(again)], [e.to_json() for e in read])
        for episode in read:
            assert isinstance(episode.total_reward, int | float)
            assert all(isinstance(turn.action, str) for turn in episode.turns)

    fuzzed("lines of episodes", lambda: list(read_episodes(file)), use, given=text, names=[str(file)])


@inputs(300)
@given(data=st.data())
def test_packed_records(run: Run, data: st.DataObject) -> None:
    file = run.path / "records.tar.xz"
    if not file.exists():
        pack([run], run.path.parent, file)
    before = read_archive(file)
    content = data.draw(damaged(file.read_bytes(), BYTES))
    test = lambda: fuzzed(  # noqa: E731
        "packed records", lambda: read_archive(file), lambda read: same(read, before), names=[str(file)]
    )
    mended(file, content, test)


@inputs(600)
@given(data=st.data())
def test_checkpoints(run: Run, data: st.DataObject) -> None:
    """Damage to any file of a checkpoint, a policy or a warm start."""
    checkpoint = run.checkpoints[-1]
    place = data.draw(st.sampled_from([checkpoint, checkpoint / "policy", run.warm_start]))
    file = data.draw(st.sampled_from(sorted(path for path in place.rglob("*") if path.is_file())))
    before = file.read_bytes()
    content = data.draw(damaged(before, BYTES))

    def load() -> None:
        if place == checkpoint:
            check_checkpoint(run, place)
        elif place == run.warm_start:
            _check_reference(place)
        else:
            PolicyFolder.find(place).check()
            SavedPolicy.open(place, None, ())

    def use(read: None) -> str:
        assert content == before, f"a changed {file.name} was taken"
        return "unchanged"

    mended(file, content, lambda: fuzzed("checkpoints and policies", load, use, names=[str(place)], seconds=10))


@inputs(200)
@given(data=st.data())
def test_whole_files(run: Run, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Files of a run that are missing, empty, doubled or swapped, all of which a resumed run must tell."""
    files = sorted(path for path in run.path.rglob("*") if path.is_file() and told_of(path, run))
    one, two = data.draw(st.sampled_from(files)), data.draw(st.sampled_from(files))
    way = data.draw(st.sampled_from(("missing", "empty", "copied")))
    before = one.read_bytes()

    def load() -> list[str]:
        check_checkpoint(run, run.checkpoints[-1])
        Run.open(run.path)
        found = run.problems(after=2)
        for iteration in (1, 2):
            list(run.episodes(iteration))
        if found:
            raise UserError("; ".join(found))
        return found

    def use(found: list[str]) -> str:
        if not one.exists():  # the last card of a run, which is then made again
            assert not run.finished
            return "noticed"
        assert one.read_bytes() == before, f"{one} is {way} without a word"
        return "unchanged"

    if way == "missing":
        one.unlink()
    else:
        one.write_bytes(b"" if way == "empty" else two.read_bytes())
    try:
        fuzzed("whole files of runs", load, use, names=[str(one), str(one.parent.name), one.name], seconds=10)
    finally:
        one.write_bytes(before)


def told_of(path: Path, run: Run) -> bool:
    """Whether a file matters to a resumed run, and is there without fail."""
    kinds = (run.checkpoints[-1], run.evaluations_folder, run.settings_file, run.metrics_file)
    training = path.name.startswith("iter-") and path.parent == run.episodes_folder
    if path.name == CHECKSUMS:  # what they are for is as it was
        return False
    return training or any(path == kind or path.is_relative_to(kind) for kind in kinds)
