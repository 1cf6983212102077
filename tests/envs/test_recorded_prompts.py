"""Every shipped recipe shows its model the prompts on record, byte for byte, over hundreds of turns.

A change of a prompt's wording makes trained policies read what they were not trained on. Where a change is meant, raise
the template's version and put what the test shows on record.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

import hiper.envs
from hiper.config import load_config
from hiper.envs import TextEnv
from hiper.errors import UserError
from hiper.evaluation.saved import SavedPolicy
from hiper.plan_execute.render import PromptContext, Template
from hiper.training.build import build

EPISODES = 40
RECORD = {
    ("alfworld/terse", "alfworld", 1): (800, "44229397457ea206"),
    ("alfworld/terse", "alfworld", 2): (800, "77b21deb89b56d2a"),
    ("alfworld/terse-act", "alfworld", 2): (800, "62da5accb1702ff9"),
    ("alfworld/instruct", "alfworld", 2): (800, "de83573a4da76a44"),
    ("alfworld/instruct-act", "alfworld", 2): (800, "4146383e1fde7be2"),
    ("alfworld/chat", "alfworld", 2): (800, "c6fc4926a4f46c37"),
    ("alfworld/terse", "boxes", 0): (765, "6ee00ea21a3849e7"),
    ("terse", "boxes", 0): (765, "6ee00ea21a3849e7"),
    ("terse", "boxes", 2): (765, "95ff309f68f51e0e"),
    ("terse-act", "boxes", 2): (765, "02f6b5895a878036"),
    ("instruct", "boxes", 2): (765, "f709a270e614c051"),
    ("instruct-act", "boxes", 2): (765, "a3ae98ca568ac8a9"),
    ("chat", "boxes", 2): (765, "ead73ccfafffc158"),
    ("terse", "corridor", 2): (254, "0104b6586c0e7027"),
    ("terse-act", "corridor", 2): (254, "d58a6f716f2248c0"),
    ("instruct", "corridor", 2): (254, "9922b0e10703636f"),
    ("instruct-act", "corridor", 2): (254, "c48423e37c93c51f"),
    ("chat", "corridor", 2): (254, "bd94102467f71072"),
    ("webshop/terse", "webshop", 1): (394, "d3971ccaccae85a0"),
    ("webshop/terse", "webshop", 2): (394, "7a7b036ed7d5a1ed"),
    ("webshop/terse-act", "webshop", 1): (394, "b749d61a6ab132f6"),
    ("webshop/instruct", "webshop", 2): (394, "574d8264b77124be"),
    ("webshop/instruct-act", "webshop", 2): (394, "3b00d4233e296f6f"),
}
"""By template, environment and history window: how many turns, and the start of the hash of all prompts."""

ENVS: dict[str, dict[str, Any]] = {
    "alfworld": {"data": "generated", "games": 80, "max_turns": 30},
    "boxes": {},
    "corridor": {},
    "webshop": {"data": "generated", "products": 200, "nouns": "words"},
}


def recipes() -> list[str]:
    """The names of the recipes that ship."""
    return sorted(file.name.removesuffix(".yaml") for file in (resources.files("hiper") / "recipes").iterdir())


@cache
def turns_of(name: str) -> list[PromptContext]:
    """What an agent knows that mostly does as the expert says, and else something listed, or something odd."""
    return list(_play(hiper.envs.make(name, **ENVS[name])))


def _play(env: TextEnv) -> Iterator[PromptContext]:
    rng = random.Random(0)
    for task in env.panel.subset(EPISODES):
        start, expert = env.reset(task.id), env.expert()
        assert expert is not None
        expert.reset(start)
        history: list[tuple[str, str]] = []
        subgoal: str | None = None
        observation, over = start.observation, False
        while not over:
            listed = observation.admissible
            yield PromptContext(start.goal, tuple(history), observation.text, subgoal, listed, len(history))
            decision = expert.act(observation)
            action = rng.choice([decision.action] * 8 + [*(listed or ("look",))][:3] + [rng.choice(listed or ("",))])
            step = env.step("" if rng.random() < 0.05 else action)
            expert.acted(action, step.observation)
            history.append((observation.text, action))
            observation, subgoal, over = step.observation, decision.subgoal, step.info.end is not None


def prompts_of(template: str, env: str, window: int) -> tuple[int, str]:
    """How many prompts there are, and a hash of them all."""
    render, digest = Template.load(template).render, hashlib.sha256()
    turns = turns_of(env)
    for turn in turns:
        shown = turn.history[max(0, len(turn.history) - window) :]
        context = PromptContext(turn.goal, shown, turn.observation, turn.subgoal, turn.admissible, turn.turn)
        digest.update(json.dumps(render(context)).encode())
    return len(turns), digest.hexdigest()[:16]


@pytest.mark.parametrize("recipe", recipes())
def test_the_prompts_of_a_recipe_are_those_on_record(recipe: str):
    config = load_config(recipe)
    place = (config.prompt.template, config.env.name, config.prompt.history_window)
    assert prompts_of(*place) == RECORD[place]


@pytest.mark.parametrize("place", sorted(RECORD))
def test_prompts_are_those_on_record(place: tuple[str, str, int]):
    assert prompts_of(*place) == RECORD[place]


def test_policies_from_before_alfworlds_templates_were_its_own(tmp_path: Path):
    """Their settings say "terse". They play the prompts of the template they bring, or are told what to name."""
    nano = "{layers: 1, hidden: 32, feed_forward: 32, heads: 2, kv_heads: 1, max_positions: 512}"
    games = ["env.games=3", f"model.nano={nano}"]
    parts = build(load_config("quickstart", games))
    policy = tmp_path / "policy"
    parts.save_policy(policy)
    (policy / "SHA256SUMS").unlink()  # policies had no checksums then
    settings = policy / "hiper.yaml"
    settings.write_text(settings.read_text().replace("template: alfworld/terse", "template: terse"))
    (tmp_path / "run.yaml").write_text(settings.read_text())

    label = parts.prompts.template.label
    assert SavedPolicy.open(policy).load().agent.prompts.template.label == label
    assert build(load_config(tmp_path / "run.yaml"), policy).prompts.template.label == label

    (policy / "template.yaml").unlink()
    with pytest.raises(UserError, match="name 'alfworld/terse', or a file"):
        SavedPolicy.open(policy).load()
    with pytest.raises(UserError, match="name 'alfworld/terse', or a file"):
        build(load_config(tmp_path / "run.yaml"), policy)
    told = SavedPolicy.open(policy, overrides=["prompt.template=alfworld/terse"])
    assert told.load().agent.prompts.template.label == label
