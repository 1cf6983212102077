"""Panels: order, hash, lookup."""

from __future__ import annotations

import hashlib
import random
from itertools import pairwise

import pytest

from hiper.envs.panels import Panel, Task
from hiper.errors import UserError

TASKS = [Task(f"train/task{number:02d}", "odd" if number % 2 else "even", f"digest{number}") for number in range(20)]


def test_order_and_hash_do_not_depend_on_the_order_given() -> None:
    shuffled = list(TASKS)
    random.Random(0).shuffle(shuffled)
    panel, other = Panel.of("train", TASKS), Panel.of("train", shuffled)
    assert list(panel) == list(other) == TASKS
    assert panel.hash == other.hash


def test_the_hash_is_what_the_docstring_says() -> None:
    text = "".join(f"{task.id}\t{task.type}\t{task.digest}\n" for task in TASKS)
    assert Panel.of("any name", TASKS).hash == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    "changed", [Task("train/task99", "even", "digest0"), Task(TASKS[0].id, "odd", "digest0"), Task(TASKS[0].id, "even")]
)
def test_id_type_and_content_all_change_the_hash(changed: Task) -> None:
    assert Panel.of("train", [changed, *TASKS[1:]]).hash != Panel.of("train", TASKS).hash


def test_lookup_names_the_nearest() -> None:
    panel = Panel.of("train", TASKS)
    assert panel["train/task07"] is TASKS[7]
    with pytest.raises(UserError, match=r"no task 'train/tsk07'.*did you mean 'train/task07'\?"):
        panel["train/tsk07"]
    with pytest.raises(UserError, match="the first is 'train/task00'"):
        panel["###"]


def test_empty_panels_and_duplicates_are_refused() -> None:
    with pytest.raises(UserError, match="has no tasks"):
        Panel.of("train", [])
    with pytest.raises(UserError, match="two tasks with the id 'train/task03'"):
        Panel.of("train", [*TASKS, TASKS[3]])


def test_subsets_are_nested_and_depend_on_ids_alone() -> None:
    panel = Panel.of("train", TASKS)
    subsets = [panel.subset(count) for count in range(1, 21)]
    for small, large in pairwise(subsets):
        assert {task.id for task in small} < {task.id for task in large}
    other = Panel.of("x", [Task(task.id, "t", "d") for task in TASKS])
    assert [task.id for task in other.subset(5)] == [task.id for task in panel.subset(5)]
    assert panel.subset(5).name == "train[5]"
    for count in (0, 21):
        with pytest.raises(UserError, match=f"{count} were asked for"):
            panel.subset(count)


def test_types() -> None:
    assert Panel.of("train", TASKS).types() == ["even", "odd"]
