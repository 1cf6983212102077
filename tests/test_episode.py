"""None"""

from __future__ import annotations

import dataclasses
import gzip
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hiper.display.plots import Curve, Estimate, draw_learning_curve
from hiper.episode import Credit, Episode, read_episodes, read_own_episodes, write_episodes
from hiper.errors import UserError
from hiper.outcomes import summarize, wilson

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


# ---  -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        # By hand, with z = 1.959964 and z^2 = 3.841459: centre (p + z^2/2n) / (1 + z^2/n), half width
        # z sqrt(p(1-p)/n + z^2/4n^2) / (1 + z^2/n).
        (0, 10, 0.0, 0.277533),  # z^2 / (n + z^2)
        (10, 10, 0.722467, 1.0),
        (5, 10, 0.236593, 0.763407),
        (8, 10, 0.490162, 0.943318),
        (1, 1, 0.206549, 1.0),
        (50, 100, 0.403832, 0.596168),
    ],
)
def test_wilson_by_hand(successes: int, trials: int, low: float, high: float):
    assert wilson(successes, trials) == pytest.approx((low, high), abs=1e-6)


def test_wilson_mirrors():
    low, high = wilson(3, 17)
    assert wilson(14, 17) == pytest.approx((1 - high, 1 - low))


def test_wilson_holds_the_proportion_itself():
    for trials in range(1, 700):
        for successes in {0, 1, trials // 3, trials - 1, trials}:
            low, high = wilson(successes, trials)
            assert 0.0 <= low <= successes / trials <= high <= 1.0
        assert wilson(0, trials)[0] == 0.0
        assert wilson(trials, trials)[1] == 1.0


@pytest.mark.parametrize("won", [0, 300])
def test_a_curve_of_nothing_or_all_is_drawn(won: int, tmp_path: Path):
    estimate = Estimate(0, won / 300, *wilson(won, 300))
    draw_learning_curve(tmp_path / "curve.png", Curve("title", [], {"held_out": [estimate]}))
    assert (tmp_path / "curve.png").stat().st_size > 1000


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (3, 2), (-1, 2)])
def test_wilson_refuses_the_impossible(successes: int, trials: int):
    with pytest.raises(ValueError, match="trials"):
        wilson(successes, trials)


def test_outcomes_by_task_type(make_episode: MakeEpisode):
    lost = make_episode("SWITCH a > b", "KEEP > c", "KEEP > d", won=False, task_type="cool")
    stumbled = replace(lost, turns=(replace(lost.turns[0], invalid="cut_off"), *lost.turns[1:]))
    outcomes = summarize([make_episode("SWITCH a > b", task_type="heat"), lost, stumbled])
    assert list(outcomes) == ["all", "cool", "heat"]
    overall, cool = outcomes["all"], outcomes["cool"]
    assert (overall.episodes, overall.won, overall.truncated) == (3, 1, 2)
    assert overall.success == overall.score == pytest.approx(1 / 3)
    assert overall.interval == wilson(1, 3)
    assert overall.turns == pytest.approx(7 / 3)
    assert overall.invalid == {"cut_off": pytest.approx(1 / 7)}
    assert cool.invalid == {"cut_off": pytest.approx(1 / 6)}
    assert (cool.episodes, cool.won) == (2, 0)
    assert (overall.won_by_task, cool.won_by_task, outcomes["heat"].won_by_task) == ("100", "00", "1")
    assert not any(outcome.graded for outcome in outcomes.values())


def test_scores_beside_success(make_episode: MakeEpisode):
    partly = replace(make_episode("SWITCH a > b", won=False), score=0.5)
    overall = summarize([make_episode("SWITCH a > b"), partly])["all"]
    assert (overall.success, overall.score) == (0.5, 0.75)
    assert overall.graded


def test_parts_of_the_score_are_averaged_where_there_are_any(make_episode: MakeEpisode):
    bought = [
        replace(make_episode("SWITCH a > b"), parts={"type": 1.0, "price": 1.0}),
        replace(make_episode("SWITCH a > b", won=False), score=0.25, parts={"type": 0.5, "price": 0.0, "options": 0.5}),
    ]
    overall = summarize([*bought, make_episode("SWITCH a > b", won=False)])["all"]
    assert overall.parts == {"options": 0.5, "price": 0.5, "type": 0.75}
