"""Panels keep their order and their hash; environments are found by name."""

from __future__ import annotations

import functools
import hashlib
import random
from itertools import pairwise

import pytest

import hiper.envs
from hiper import envs
from hiper.envs import Observation, registry
from hiper.envs.panels import Panel, Task
from hiper.envs.small.corridor import CorridorEnv, make
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


# --- Panels of generated tasks are frozen: results on them can be compared between machines and over time -----------


HOUSEHOLD = {
    ("tiny", "train"): "952aa244be2b1d0d95b16374b0ee5ae2a36fdec78943eca2ee4923bb0f0d953a",
    ("tiny", "valid_seen"): "c12681aeb0d7d65a6170692b51a05d3107f0cd1b5ce4814467264f12f0eef2e2",
    ("tiny", "valid_unseen"): "e8c1a0b5359e7fcbd55f8587098c48f6612783be55444bceb124418f93206f67",
    ("small", "train"): "b4ddcbd1f97a98eb85058692d8baf1ede78489972047dc63e6f903a59d1c73e7",
    ("small", "valid_seen"): "a8dd43c66ab74ba294f8a9b8665b04d04ecb31313fe79f1cdf525df9c4488499",
    ("small", "valid_unseen"): "9bfce7f70db60d7826a4541a2b47cbd860ba1726a56b97f31ddf75270f688310",
}
"""Of the first 40 games, by size and split."""

SHOPS = {
    (300, "train"): "808003c8bc722cafc233c51cc1f865a898297229563f68c768d3a04cf5f460e4",
    (300, "validation"): "2c99a67b2d6bd229f2adbc37cefba63c8eb96028361f37f3632e4a97c5126498",
    (300, "test"): "cb732e7fc3758bc26136859fd7702ed4d5f94e77041161309831c87d92c5de58",
    (1000, "train"): "9a6f59da4e071d0a4c9b49d03abd550133441aa7ef5546758bc4e2363d2847fe",
    (1000, "validation"): "a473d719494f6cf3e4d681e0343d3b1a2b5f66f131703bc78f665a6de96e2310",
    (1000, "test"): "d07d03a2cc69d1e01403ea21be31ac7a946b079ce5a310fa1b987cafcec05107",
}
"""By number of products and split."""


@pytest.mark.parametrize(("size", "split"), HOUSEHOLD)
def test_generated_households(size: str, split: str):
    env = envs.make("alfworld", data="generated", games=40, size=size, split=split)
    assert env.panel.hash == HOUSEHOLD[size, split]


@pytest.mark.parametrize(("products", "split"), SHOPS)
def test_generated_shops(products: int, split: str):
    env = envs.make("webshop", data="generated", products=products, split=split, nouns="words")
    assert env.panel.hash == SHOPS[products, split]


# --- Environments by name ---------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _own_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_factories", dict(registry._factories))


def test_those_that_ship_are_there() -> None:
    assert {"alfworld", "corridor", "webshop"} <= set(hiper.envs.names())
    assert isinstance(hiper.envs.make("corridor", cells=4), CorridorEnv)


@pytest.mark.parametrize("factory", [make, "hiper.envs.small.corridor:make"])
def test_registering(factory: registry.Factory | str) -> None:
    hiper.envs.register("hall", factory)
    hiper.envs.register("hall", factory)  # the same again is no conflict
    assert isinstance(hiper.envs.make("hall"), CorridorEnv)
    with pytest.raises(ValueError, match="already registered as 'hall'"):
        hiper.envs.register("hall", lambda: make())


def test_any_callable_will_do() -> None:
    hiper.envs.register("short hall", functools.partial(make, cells=3))
    assert hiper.envs.make("short hall", split="held_out").panel.name == make("held_out", 3).panel.name


def test_blanks_are_for_words_of_the_agents_own() -> None:
    seen = Observation("Say it.", ("look", "say <word> to <whom>", "buy (2)"))
    accepted = ("look", "say hello there to them", "buy (2)")
    refused = ("say <word> to <whom>", "say hello", "say  to ", "buy 2", "look around")
    env = make()
    assert all(env.accepts(action, seen) for action in accepted)
    assert not any(env.accepts(action, seen) for action in refused)


def test_what_was_asked_for_is_kept() -> None:
    assert hiper.envs.make("corridor", cells=4).options == {"cells": 4}
    assert make(cells=4).options == {}


def test_unknown_names_and_options_get_the_nearest() -> None:
    with pytest.raises(UserError, match=r"no environment 'alfwrld'; did you mean 'alfworld'\?"):
        hiper.envs.make("alfwrld")
    with pytest.raises(UserError, match="known are alfworld, boxes, corridor, webshop"):
        hiper.envs.make("zzz")
    with pytest.raises(UserError, match=r"'corridor' has no option 'cell'; did you mean 'cells'\?"):
        hiper.envs.make("corridor", cell=3)
