"""Recipes that extend others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hiper.config import load_config, recipe_names, recipe_text
from hiper.config.extending import merge
from hiper.errors import UserError


def test_sections_are_joined_key_by_key():
    base: dict[str, Any] = {"name": "a", "learner": {"lr": 1, "clip": 0.2}, "evaluation": {"splits": ["x", "y"]}}
    own = {"name": "b", "learner": {"lr": 2}, "evaluation": {"splits": ["z"]}}
    expected = {"name": "b", "learner": {"lr": 2, "clip": 0.2}, "evaluation": {"splits": ["z"]}}
    assert merge(base, own) == expected
    assert base["learner"] == {"lr": 1, "clip": 0.2}


def test_another_part_takes_no_options_of_the_base_s():
    base: dict[str, Any] = {
        "advantages": {"type": "hae", "lambda_seg": 0.9},
        "env": {"name": "alfworld", "size": "tiny"},
    }
    assert merge(base, {"advantages": {"type": "grpo"}})["advantages"] == {"type": "grpo"}
    assert merge(base, {"env": {"name": "webshop"}})["env"] == {"name": "webshop"}
    assert merge(base, {"env": {"name": "alfworld", "games": 3}})["env"] == {**base["env"], "games": 3}
    assert merge(base, {"advantages": {"gamma": 0.9}})["advantages"] == {**base["advantages"], "gamma": 0.9}


def test_a_file_extends_a_file_beside_it_which_extends_a_shipped_recipe(tmp_path: Path):
    (tmp_path / "base.yaml").write_text("extends: quickstart\nlearner: {lr: 1.0e-2}\nseed: 3\n")
    (tmp_path / "mine.yaml").write_text("extends: base.yaml\nname: mine\nseed: 4\n")
    mine, shipped = load_config(tmp_path / "mine.yaml", ["training.iterations=1"]), load_config("quickstart")
    assert (mine.name, mine.seed, mine.learner.lr, mine.training.iterations) == ("mine", 4, 1e-2, 1)
    assert mine.warm_start == shipped.warm_start
    assert mine.learner.critic_lr == shipped.learner.critic_lr
    file = tmp_path / "resolved.yaml"
    file.write_text(mine.to_yaml())
    assert load_config(file) == mine
    assert "extends" not in mine.to_yaml()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("extends: 3\n", "should be the name of a recipe"),
        ("extends: quikstart\n", "quickstart"),
        ("extends: mine.yaml\n", "cannot extend itself"),
        ("extends: quickstart\nlerner: {lr: 1}\n", "unknown key"),
    ],
)
def test_wrong_bases_are_told(text: str, message: str, tmp_path: Path):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        load_config(tmp_path / "mine.yaml")


MODELS = ("qwen2.5-0.5b", "qwen2.5-1.5b", "qwen2.5-7b", "qwen3-4b")


def test_every_model_has_its_recipes():
    expected = {f"{env}-{model}{kind}" for env in ("alfworld", "webshop") for model in MODELS for kind in ("", "-lora")}
    assert {*expected, "alfworld-smollm2-135m"} <= set(recipe_names())


@pytest.mark.parametrize("env", ["alfworld", "webshop"])
@pytest.mark.parametrize("model", MODELS)
def test_recipes_differ_in_what_they_say_alone(env: str, model: str):
    first, plain = load_config(f"{env}-qwen2.5-1.5b"), load_config(f"{env}-{model}")
    lora = load_config(f"{env}-{model}-lora")
    same = ("env", "rollout", "shaping", "advantages", "learner", "evaluation", "training", "warm_start")
    for section in same:
        assert getattr(plain, section) == getattr(first, section)
    assert plain.model.param_dtype == "float32"
    assert (lora.model.path, lora.model.param_dtype, lora.model.critic) == (plain.model.path, "bfloat16", "own")
    assert lora.learner.lora is not None
    assert (lora.learner.lr, lora.learner.critic_lr) == (1e-5, 1e-4)
    assert (plain.prompt.chat_template_args == {"enable_thinking": False}) == (model == "qwen3-4b")
    published = model in ("qwen2.5-1.5b", "qwen2.5-7b")
    assert ("no results for this model" in recipe_text(f"{env}-{model}")) == (not published)
