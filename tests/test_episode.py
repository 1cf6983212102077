from __future__ import annotations

import dataclasses
import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from hiper.episode import Credit, Episode, read_episodes, read_own_episodes, write_episodes
from hiper.errors import UserError

MakeEpisode = Callable[..., Episode]


@pytest.fixture
def file(tmp_path: Path, make_episode: MakeEpisode) -> Path:
    path = tmp_path / "episodes.jsonl.gz"
    write_episodes(path, [make_episode("SWITCH find it > look"), make_episode("SWITCH find it > wait", won=False)])
    return path


def test_episodes_come_back_equal(tmp_path: Path, make_episode: MakeEpisode):
    plain = make_episode("SWITCH find « it » > look", "KEEP > take it")
    free = dataclasses.replace(plain, turns=(dataclasses.replace(plain.turns[0], admissible=None, low_index=None),))
    credited = dataclasses.replace(plain, credit=Credit({"value/low": (0.5, -1.0)}))
    path = tmp_path / "new" / "episodes.jsonl.gz"
    halved = dataclasses.replace(plain, goal="half a character: \ud83d")
    write_episodes(path, [plain, free, credited, halved])
    assert list(read_episodes(path)) == [plain, free, credited, halved]


def test_each_line_names_its_version(file: Path):
    with gzip.open(file, "rt") as lines:
        assert [json.loads(line)["version"] for line in lines] == [1, 1]


def test_a_turn_keeps_the_version_of_the_weights_and_old_records_have_none(make_episode: MakeEpisode):
    plain = make_episode("SWITCH a > b", "KEEP > c")
    first, second = plain.turns
    versioned = dataclasses.replace(plain, turns=(dataclasses.replace(first, policy_version=3), second))
    record = json.loads(json.dumps(versioned.to_json()))
    assert [turn.policy_version for turn in Episode.from_json(record).turns] == [3, None]
    for turn in record["turns"]:
        del turn["policy_version"]
    assert Episode.from_json(record) == plain


def test_total_reward(make_episode: MakeEpisode):
    assert make_episode("SWITCH a > b", "KEEP > c").total_reward == 1.0


def test_a_missing_file(tmp_path: Path):
    with pytest.raises(UserError, match=r"no episode file at .*nothing\.gz"):
        list(read_episodes(tmp_path / "nothing.gz"))


def test_a_truncated_file(file: Path):
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(UserError, match="cannot be read beyond episode"):
        list(read_episodes(file))


def test_a_file_of_something_else(file: Path):
    file.write_text("no gzip")
    with pytest.raises(UserError, match="cannot be read beyond episode"):
        list(read_episodes(file))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{half", "cannot be read beyond episode"),
        ("[]", "damaged episode record"),
        ('{"version": 99}', "version 99; this program reads version 1"),
        ('{"version": 1, "turns": []}', "damaged episode record"),
        ('{"version": 1, "turns": [{"surprise": 1}], "credit": null}', "damaged episode record.*surprise"),
    ],
)
def test_a_damaged_line_is_named_with_its_file(file: Path, line: str, message: str):
    with gzip.open(file, "wt") as out:
        out.write(line + "\n")
    with pytest.raises(UserError, match=message) as caught:
        list(read_episodes(file))
    assert str(file) in str(caught.value)


def test_a_file_with_something_behind_its_end(file: Path):
    file.write_bytes(file.read_bytes() * 2)  # the module gzip would read every episode twice
    with pytest.raises(UserError, match=r"cannot be read beyond episode 2: something that is no episode"):
        list(read_episodes(file))


def test_a_file_under_another_name_is_no_file_of_the_run(file: Path):
    assert len(list(read_own_episodes(file))) == 2
    other = file.rename(file.with_name("iter-00001.jsonl.gz"))
    with pytest.raises(UserError, match=r"iter-00001\.jsonl\.gz holds the episodes of 'episodes\.jsonl\.gz'"):
        read_own_episodes(other)
    assert len(list(read_episodes(other))) == 2
    other.write_bytes(gzip.compress(gzip.decompress(other.read_bytes())))  # without a name
    assert len(list(read_own_episodes(other))) == 2
