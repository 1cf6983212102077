"""WebShop's recipes, and one of them from beginning to end in sizes that take seconds."""

from __future__ import annotations

import json
import sys
from io import StringIO
from pathlib import Path

import pytest

from hiper import cli
from hiper.advantages import HAE
from hiper.config import Config, load_config
from hiper.episode import read_episodes
from hiper.imitation import language
from hiper.training.build import build

TINY = [
    *("env.products=24", "env.max_turns=6", "rollout.episodes=4", "rollout.slots=4", "rollout.max_response_tokens=20"),
    *("warm_start.tasks=20", "warm_start.epochs=1", "training.iterations=1", "training.checkpoint_every=1"),
    *("evaluation.tasks=4", "evaluation.final_tasks=4", "model.nano.hidden=64"),
]


@pytest.mark.parametrize("name", ["webshop-qwen2.5-1.5b", "webshop-qwen2.5-7b"])
def test_the_published_hyperparameters(name: str):
    config = load_config(name)
    shared = load_config(name.replace("webshop", "alfworld"))
    assert (config.shaping.keep_penalty, config.shaping.keep_mode) == (-3.5, "normalized")
    assert (config.shaping.invalid_penalty, config.shaping.consistency_penalty) == (-0.1, -0.3)
    assert config.advantages == HAE(1.0, 1.0, 0.95, bootstrap_truncated=False, normalize=True)
    assert (config.env.name, config.env.options["max_turns"], config.env.options["reward"]) == ("webshop", 50, 10.0)
    assert config.evaluation.splits == ("test",)
    assert config.model == shared.model
    assert config.learner == shared.learner
    assert config.rollout == shared.rollout


@pytest.mark.parametrize("name", ["webshop-quickstart", "webshop-nano"])
def test_what_small_models_are_trained_on(name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(language, "LANGUAGE_TASKS", 60)
    official = [] if "quickstart" in name else [f"env.data={request.getfixturevalue('official_folder')}"]
    config: Config = load_config(name, [*official, "model.nano.hidden=64"])
    parts = build(config)  # every action of the demonstrations can be said
    train, test = parts.env.panel, parts.held_out["test"].panel
    assert not {task.id for task in train} & {task.id for task in test}
    assert len(train) > 900
    assert len(test) >= (config.evaluation.final_tasks or 0)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["hiper", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def test_tasks_say_whether_they_are_the_official_ones(
    official_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    asked = ["tasks", "webshop", f"data={official_folder}", "nouns=words", "--split", "test"]
    assert run(monkeypatch, *asked) == 0
    assert capsys.readouterr().err.strip().endswith(", the official panel")
    assert run(monkeypatch, *asked, "tasks=20") == 0
    assert capsys.readouterr().err.strip().endswith(", NOT the official panel of this name")
    assert run(monkeypatch, "tasks", "webshop", "data=generated", "products=24") == 0
    assert "official" not in capsys.readouterr().err


def test_train_eval_play_and_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    folder = tmp_path / "run"
    assert run(monkeypatch, "train", "webshop-quickstart", *TINY, "--out", folder) == 0
    assert "webshop-generated-24" in capsys.readouterr().out

    assert run(monkeypatch, "eval", folder, "--episodes", 3, "--out", tmp_path / "eval") == 0
    capsys.readouterr()
    card = json.loads((tmp_path / "eval" / "test.json").read_text())
    assert card["panel"]["name"].startswith("webshop-generated-24")
    assert card["template"].startswith("webshop-terse-")
    assert 0.0 <= card["outcomes"]["all"]["score"] <= 1.0
    assert card["panel"]["official"] is None
    episodes = list(read_episodes(tmp_path / "eval" / "test.jsonl.gz"))
    assert all(("type" in episode.parts) == episode.terminated for episode in episodes)
    assert set(card["outcomes"]["all"]["parts"]) == {name for episode in episodes for name in episode.parts}

    settings = ["data=generated", "products=24"]
    assert run(monkeypatch, "play", "webshop", *settings, "--agent", folder, "--auto") == 0
    assert "after" in capsys.readouterr().out
    assert run(monkeypatch, "play", "webshop", *settings, "--agent", "expert", "--auto") == 0
    said = capsys.readouterr().out
    assert "SWITCH  find" in said
    assert "click[buy now]" in said
    monkeypatch.setattr(sys, "stdin", StringIO("1\nface creams\nclick[back to search]\nq\n"))
    assert run(monkeypatch, "play", "webshop", *settings) == 0
    assert "search[face creams]" in capsys.readouterr().out
    assert run(monkeypatch, "tasks", "webshop", *settings, "--split", "test") == 0
    listed = capsys.readouterr()
    assert listed.out.splitlines()[0].startswith("webshop-generated-24")
    assert f"{len(listed.out.splitlines())} tasks, sha256" in listed.err
