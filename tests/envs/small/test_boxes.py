"""The chain of boxes: by hand, by its expert, by the promises of every environment."""

from __future__ import annotations

import pytest

from hiper.envs import check_env
from hiper.envs.base import EndReason, Observation
from hiper.envs.panels import Panel, Task
from hiper.envs.small.boxes import BoxesEnv, Layout, make, shortest
from hiper.errors import NoSplitError, UserError
from hiper.imitation.demonstrations import demonstrate

TASK = "boxes/train/4rooms-start1-red3-blue3-green0"


@pytest.fixture
def env() -> BoxesEnv:
    return BoxesEnv(Panel.of("by hand", [Task(TASK, "3 boxes")]), max_turns=20)


def test_an_episode_by_hand(env: BoxesEnv):
    start = env.reset(TASK)
    assert start.goal == "open the boxes, one after the other, and find the treasure."
    assert start.observation == Observation(
        "You are in room 2 of 4. You hold the red key, 1 of 3. You see nothing here.", ("go to room 1", "go to room 3")
    )
    env.step("go to room 3")
    step = env.step("go to room 4")
    assert step.observation == Observation(
        "You are in room 4 of 4. You hold the red key, 1 of 3. You see a blue box and a red box here.",
        ("open the blue box", "open the red box", "go to room 1", "go to room 3"),
    )
    step = env.step("open the blue box")
    assert step.observation.text.startswith(
        "The blue box is locked. You are in room 4 of 4. You hold the red key, 1 of 3."
    )
    step = env.step("open the red box")
    assert step.observation.text == (
        "You open the red box. You are in room 4 of 4. You hold the blue key, 2 of 3. You see a blue box here."
    )
    assert env.step("open the green box").observation.text.startswith("Nothing happens. ")
    env.step("open the blue box")
    env.step("go to room 1")
    step = env.step("open the green box")
    assert (step.reward, step.terminated, step.truncated, step.info.won) == (1.0, True, False, True)
    assert step.observation.text == (
        "You open the green box and find the treasure. You are in room 1 of 4. You see nothing here."
    )
    assert shortest(TASK) == 2 + 1 + 1 + 1 + 1


def test_time_runs_out(env: BoxesEnv):
    env.reset(TASK)
    for turn in range(20):
        step = env.step("go to room 3" if turn % 2 == 0 else "go to room 2")
    assert (step.reward, step.terminated, step.truncated, step.info.end) == (0.0, False, True, EndReason.TURN_LIMIT)
    with pytest.raises(RuntimeError, match="call reset first"):
        env.step("go to room 3")


@pytest.mark.parametrize(("boxes", "rooms"), [(1, 2), (1, 6), (4, 6), (8, 3)])
def test_the_expert_wins_with_a_subgoal_for_each_box(boxes: int, rooms: int):
    env = make(boxes=boxes, rooms=rooms, games=30)
    for task in env.panel:
        episode = demonstrate(env, task.id)
        assert episode.won
        assert shortest(task.id) <= len(episode.turns) <= boxes * rooms
        subgoals = [turn.subgoal for turn in episode.turns if turn.switch]
        assert subgoals == [f"find the {colour} box" for colour, _ in Layout.read(task.id).boxes]


def test_it_keeps_what_environments_promise():
    check_env(make(games=20), tasks=10)


def test_splits_are_frozen_and_have_no_layout_in_common():
    train, held_out = make(games=200).panel, make("held_out", games=200).panel
    assert len(train) == len(held_out) == 200
    assert not {task.id.split("/")[-1] for task in train} & {task.id.split("/")[-1] for task in held_out}
    assert train.hash == make(games=200).panel.hash
    assert train.hash == "e3837bd49056428054125d05ae73a9d06ff3eb47d2d36d30cc0c18b4a9123469"


def test_what_cannot_be():
    with pytest.raises(NoSplitError, match="no split 'test'; there are train, held_out"):
        make("test")
    options: dict[str, int]
    for options in (
        {"boxes": 9},
        {"boxes": 0},
        {"rooms": 1},
        {"games": 0},
        {"max_turns": 0},
        {"rooms": 1000},
        {"max_turns": 10**9},
    ):
        with pytest.raises(UserError, match=r"there can be 1 to 8 boxes.* were given"):
            make("train", **options)
