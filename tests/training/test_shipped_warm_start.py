"""The warm start that ships: a run begins from it where the settings are exactly its own."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from hiper import api
from hiper.config import load_config
from hiper.display.console import Display
from hiper.plan_execute.render import Template
from hiper.runs.policies import PolicyFolder, shipped_warm_start, warm_start_settings

QUICKSTART = load_config("quickstart")


def test_it_is_what_the_recipe_would_make_today():
    shipped = shipped_warm_start(QUICKSTART)
    assert shipped is not None
    folder = PolicyFolder(shipped)
    folder.check()
    assert warm_start_settings(folder.settings()) == warm_start_settings(QUICKSTART)
    assert folder.template is not None
    made_under = Template.load_for("alfworld", folder.template)
    assert made_under.to_yaml() == Template.load_for("alfworld", QUICKSTART.prompt.template).to_yaml()


@pytest.mark.parametrize(
    "setting",
    ["seed=1", "warm_start.shipped=false", "warm_start.lr=2e-3", "warm_start.tasks=0", "env.games=1999"],
)
def test_other_settings_have_none(setting: str):
    assert shipped_warm_start(load_config("quickstart", [setting])) is None


@pytest.mark.parametrize("setting", ["learner.lr=1e-4", "training.iterations=3", "advantages={type: turn-gae}"])
def test_settings_of_later_stages_change_nothing(setting: str):
    assert shipped_warm_start(load_config("quickstart", [setting])) is not None


def test_a_run_begins_from_it(tmp_path: Path):
    said = StringIO()
    config = load_config("quickstart", ["training.iterations=0", "evaluation.final_tasks=2"])
    run = api.train(config, out=tmp_path / "run", display=Display(console=Console(file=said, width=200)))
    shipped = shipped_warm_start(config)
    assert shipped is not None
    for weights in (run.warm_start, run.checkpoint(0) / "policy"):
        assert (weights / "model.safetensors").read_bytes() == (shipped / "model.safetensors").read_bytes()
    assert "the one that ships with hiper; `hiper sft quickstart` makes it anew" in said.getvalue()
    assert "demonstrations" not in said.getvalue()
