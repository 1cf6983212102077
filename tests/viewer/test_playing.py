"""Playing by hand: the environment, the expert's advice, and the policy's proposal."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from hiper import envs
from hiper.api import load_policy
from hiper.envs.base import TextEnv
from hiper.errors import UserError
from hiper.imitation.demonstrations import demonstrate
from hiper.viewer.app import Library
from hiper.viewer.playing import MOST_ENVIRONMENTS, Table


@pytest.fixture
def table(tiny_run: Path) -> Table:
    return Table(Library(tiny_run))


def test_following_the_expert_is_its_demonstration(table: Table, tiny_run: Path):
    state = table.begin({"run": tiny_run.name, "seed": 5})
    env = load_policy(tiny_run).env("held_out")
    expected = demonstrate(env, state["task"], 5)
    for turn in expected.turns:
        assert state["observation"] == env.for_people(type(table._sessions["1"].observation)(turn.observation)).text
        assert state["advice"] == {"switch": turn.switch, "subgoal": turn.subgoal, "action": turn.action}
        state = table.move({"session": state["session"], **{k: state["advice"][k] for k in ("subgoal", "action")}})
    assert state["over"] == {"won": expected.won, "end": expected.end, "score": expected.score, "parts": {}}
    assert state["advice"] is None
    assert [m["switch"] for m in state["log"]] == [t.switch for t in expected.turns]
    with pytest.raises(UserError, match="over"):
        table.move({"session": state["session"], "action": "look"})


def test_an_unknown_action_costs_no_turn(table: Table, tiny_run: Path):
    state = table.begin({"run": tiny_run.name})
    with pytest.raises(UserError, match="no turn was spent"):
        table.move({"session": state["session"], "subgoal": "x", "action": "fly"})
    with pytest.raises(UserError, match="choose an action"):
        table.move({"session": state["session"], "subgoal": "x", "action": " "})
    assert table._sessions[state["session"]].playing.turns == 0


def test_the_policy_proposes_what_it_would_play(table: Table, tiny_run: Path):
    state = table.begin({"run": tiny_run.name, "seed": 3})
    told = table.propose({"session": state["session"]})
    policy = load_policy(tiny_run, temperature=1.0)
    first = policy.play(policy.env("held_out"), state["task"], 3).turns[0]
    assert (told["text"], told["switch"], told["action"]) == (first.text, first.switch, first.action)
    if first.format_valid:
        said = np.exp(sum(x for x, kind in zip(first.logprobs, first.kinds, strict=True) if kind == 1))
        assert told["p_switch"] == pytest.approx(said if first.switch else 1 - said)


def test_without_a_run_an_environment_is_played(table: Table):
    told = table.choices(None, "corridor", "cells=3 max_turns=6", "train")
    assert told["count"] == len(told["tasks"]) > 1
    assert told["policy"] is False
    state = table.begin(
        {"env": "corridor", "options": "cells=3 max_turns=6", "split": "train", "task": told["tasks"][0]["id"]}
    )
    assert state["max_turns"] == 6
    with pytest.raises(UserError, match="no policy"):
        table.propose({"session": state["session"]})


@pytest.mark.parametrize(
    ("env", "options", "split", "told"),
    [
        ("alfworld", "data=/etc", None, "must not name a file"),
        ("alfworld", "data=src", None, "must not name a file"),
        ("alfworld", "data=~/games", None, "must not name a file"),
        ("alfworld", "data=generated", "../train", "must not name a file"),
        ("webshop", "data=..", None, "must not name a file"),
        ("alfworld", "data=generated games=99999999999", None, "at most 100,000"),
        ("webshop", "data=generated products=1e9", None, "at most 100,000"),
    ],
)
def test_options_of_the_page_reach_no_files_and_no_end(
    table: Table, env: str, options: str, split: str | None, told: str
):
    with pytest.raises(UserError, match=told):
        table.choices(None, env, options, split)


def test_generated_games_need_no_files(table: Table):
    assert table.choices(None, "alfworld", "data=generated size=tiny games=3", "valid_seen")["count"] == 3


def test_splits_are_those_of_the_run(table: Table, tiny_run: Path):
    with pytest.raises(UserError, match="has no split 'test'"):
        table.choices(tiny_run.name, "", "", "test")


def test_an_environment_that_is_slow_to_open_blocks_no_other(table: Table, monkeypatch: pytest.MonkeyPatch):
    began, go_on, make = threading.Event(), threading.Event(), envs.make

    def slow(name: str, **options: object) -> TextEnv:
        if name == "boxes":
            began.set()
            go_on.wait(30)
        return make(name, **options)

    monkeypatch.setattr(envs, "make", slow)
    waiting = threading.Thread(target=table.choices, args=(None, "boxes", "", None))
    waiting.start()
    assert began.wait(30)
    state = table.begin({"env": "corridor"})
    assert table.move({"session": state["session"], "subgoal": "x", "action": state["admissible"][0]})["turn"] == 1
    go_on.set()
    waiting.join(30)
    assert not waiting.is_alive()


def test_environments_are_closed_in_turn(table: Table):
    for cells in range(3, 20):
        table.choices(None, "corridor", f"cells={cells}", None)
    assert len(table._envs) == MOST_ENVIRONMENTS


def test_old_episodes_are_closed(table: Table):
    states = [table.begin({"env": "corridor"}) for _ in range(18)]
    with pytest.raises(UserError, match="closed"):
        table.move({"session": states[0]["session"], "action": "go left"})
    assert (
        table.move({"session": states[-1]["session"], "subgoal": "s", "action": states[-1]["admissible"][0]})["turn"]
        == 1
    )


READS = """
import sys
from pathlib import Path
from hiper.viewer.app import Library
from hiper.viewer.playing import Table
library = Library(Path(sys.argv[1]))
run = library.folder.runs()[0]
library.runs(), library.run(run).details(), library.episode(run, "iter-00001", 0)
library.prompt(run, "iter-00001", 0, 0)
library.credit_of(run, "iter-00001", 0, {})
table = Table(library)
state = table.begin({"run": run})
table.move({"session": state["session"], **{k: state["advice"][k] for k in ("subgoal", "action")}})
loaded = [name for name in ("torch", "transformers", "matplotlib", "scipy") if name in sys.modules]
assert not loaded, loaded
"""


def test_reading_and_playing_by_hand_load_no_model_libraries(tiny_run: Path):
    subprocess.run([sys.executable, "-c", READS, str(tiny_run)], check=True)
