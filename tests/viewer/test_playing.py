"""Playing by hand: the environment, the expert's advice, and the policy's proposal."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hiper.api import load_policy
from hiper.errors import UserError
from hiper.imitation.demonstrations import demonstrate
from hiper.viewer.app import Library
from hiper.viewer.playing import Table


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
