"""Environments by name."""

from __future__ import annotations

import functools

import pytest

import hiper.envs
from hiper.envs import Observation, registry
from hiper.envs.small.corridor import CorridorEnv, make
from hiper.errors import UserError


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
