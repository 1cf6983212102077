"""None"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from hiper.advantages import ESTIMATORS, HAE, Estimator, GiGPO, ReinforcePP, TokenGAE, TurnGAE
from hiper.config import (
    Config,
    apply_overrides,
    load,
    load_config,
    models,
    prompts,
    recipe_names,
    recipe_summary,
    tree,
    validate_config,
    warm_start,
)
from hiper.config.estimators import parameters_of
from hiper.config.load import MOVED_KEYS, rename_moved_keys
from hiper.errors import UserError


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_parses_and_says_what_it_is_for(name: str):
    config = load_config(name)
    assert config.name == name
    assert recipe_summary(name).endswith(".")
    assert config.advantages.type in ESTIMATORS


def test_the_recipes_of_the_issue_ship():
    assert {"quickstart", "alfworld-nano", "alfworld-qwen2.5-1.5b", "alfworld-qwen2.5-7b"} <= set(recipe_names())


@pytest.mark.parametrize(
    "name", ["alfworld-qwen2.5-0.5b", "alfworld-qwen2.5-1.5b", "alfworld-qwen2.5-7b", "alfworld-qwen3-4b"]
)
def test_the_published_hyperparameters(name: str):
    config = load_config(name)
    learner, advantages = config.learner, dataclasses.asdict(config.advantages)
    assert (learner.lr, learner.critic_lr, learner.weight_decay) == (1e-6, 1e-5, 0.01)
    assert (learner.clip, learner.dual_clip, learner.kl_coef, learner.entropy_coef) == (0.2, 3.0, 0.01, 0.001)
    assert (learner.value_clip, learner.max_grad_norm, learner.minibatch_turns, learner.epochs) == (0.5, 1.0, 256, 1)
    assert (advantages["gamma"], advantages["lambda_turn"], advantages["lambda_seg"]) == (1.0, 1.0, 0.95)
    assert (config.shaping.invalid_penalty, config.shaping.keep_penalty) == (-0.1, -0.3)
    assert (config.rollout.episodes, config.rollout.max_response_tokens, config.prompt.max_tokens) == (128, 512, 2048)
    assert (config.training.iterations, config.evaluation.every, config.evaluation.temperature) == (150, 5, 0.4)
    assert config.model.critic == "own"


def test_the_resolved_tree_reads_back_as_itself(tmp_path: Path):
    config = load_config("quickstart", ["seed=7", "advantages.lambda_seg=0.9"])
    file = tmp_path / "resolved.yaml"
    file.write_text(config.to_yaml())
    assert load_config(file) == config
    assert "switch_form: termination-value" in config.to_yaml()  # defaults are written out


@pytest.mark.parametrize(
    ("setting", "nearest"),
    [
        ("lerner.lr=1", "learner.lr"),
        ("learner.clop=0.2", "learner.clip"),
        ("model.nano.hiden=64", "model.nano.hidden"),
        ("shaping.keep_penality=-1", "shaping.keep_penalty"),
        ("advantages.gama=1", "advantages.gamma"),
        ("advantages.type=hea", "hae"),
        ("advantages={type: grpo, scalle: true}", "advantages.scale"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_name(setting: str, nearest: str):
    with pytest.raises(UserError, match=f"did you mean '{nearest}'"):
        load_config("quickstart", [setting])


@pytest.mark.parametrize(
    ("setting", "meant"),
    [
        ("iterations=3", "'training.iterations'"),
        ("lr=1", "'learner.lr' or 'warm_start.lr' or 'warm_start.dagger.lr' or 'warm_start.imperfect.lr'"),
        ("learner.lambda_turn=1", "'advantages.lambda_turn'"),
    ],
)
def test_an_unknown_key_may_belong_to_another_section(setting: str, meant: str):
    with pytest.raises(UserError, match=f"did you mean {meant}\\?"):
        load_config("quickstart", [setting])


def test_keys_that_another_estimator_has_are_not_suggested():
    with pytest.raises(UserError) as caught:
        load_config("quickstart", ["advantages.type=grpo", "rollout.group_size=8"])
    said = str(caught.value)
    for key in ("gamma", "normalize"):
        assert f"advantages.type 'grpo' has no '{key}'; leave it out, and if the recipe gives it, give" in said
    assert "as in advantages='{type: grpo}'" in said
    assert "did you mean" not in said
    with pytest.raises(UserError, match="'turn-gae' has no 'lambda_seg'"):
        load_config("quickstart", ["advantages={type: turn-gae, lambda_seg: 1}"])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("evaluation.splits=valid_seen", r"splits: a list is needed, as in \[valid_seen\] \(given: 'valid_seen'\)"),
        ("learner.clip=high", r"learner\.clip: .*number.*'high'"),
        ("learner.clip=-1", r"learner\.clip: .*greater than 0.*-1"),
        ("training.iterations=1.5", r"training\.iterations: a whole number is needed \(given: 1\.5\)"),
        ("prompt.overflow=ignore", r"prompt\.overflow: .*'drop_history'.*'ignore'"),
        ("rollout.group_size=3", r"rollout: episodes \(128\) must be a multiple of group_size \(3\)"),
        ("model.nano.hidden=100", r"model\.nano: hidden \(100\) must be a multiple of 2 \* heads \(8\)"),
        ("shaping.keep_penalty=1", r"keep_penalty is 1.*zero or negative"),
        ("advantages.gamma=2", r"gamma is 2.*between 0 and 1"),
        ("advantages={type: turn-gae, lambda_turn: 3}", r"advantages: lambda_turn is 3.*between 0 and 1"),
        ("advantages={type: gigpo, weight: -1}", r"advantages: weight is -1.*zero or positive"),
        ("advantages={type: grpo}", r"'grpo' compares episodes of one task: set rollout\.group_size"),
        ("advantages={type: reinforce++}", r"'reinforce\+\+' has no critic.*critic_warmup_iterations to 0"),
        ("env.split=train", r"env: 'split' is no option here"),
        ("learner.lr=yes", r"learner\.lr: a number is needed \(given: True"),
        ("training.iterations=true", r"training\.iterations: a number is needed"),
        ("advantages.gamma=on", r"advantages\.gamma: a number is needed"),
        ("learner.lr=.inf", r"learner\.lr: a finite number is needed"),
        ("rollout.temperature=.nan", r"rollout\.temperature: .*nan"),
        ("evaluation.splits=[]", r"evaluation\.splits: .*at least 1"),
        ("learner.critic_lr=1e300", r"learner\.critic_lr: .*less than or equal to.*1e\+300"),
        ("learner.clip=1e300", r"learner\.clip: .*less than or equal"),
        ("learner.kl_coef=1e300", r"learner\.kl_coef: .*less than or equal"),
        ("model.nano.hidden=100000", r"model\.nano\.hidden: .*less than or equal to 16384"),
        ("model.nano.layers=100000", r"model\.nano\.layers: .*less than or equal to 200"),
        ("model.nano={hidden: 16384, layers: 200}", r"model\.nano: it would have 218,\S+ weights"),
        ("shaping.invalid_penalty=-1e300", r"invalid_penalty is -1e\+300.*not below -1,000,000"),
        ("advantages={type: gigpo, weight: 1e300}", r"weight is 1e\+300"),
        ("rollout.temperature=inf", r"rollout\.temperature: a finite number is needed"),
        ("rollout.temperature=1e-300", r"rollout\.temperature: .*greater than or equal to 0\.001"),
        ("evaluation.temperature=1e-300", r"evaluation\.temperature: the temperature is 1e-300: give 0 \(greedy\), or"),
        ("seed=99999999999999999999", r"seed: .*less than or equal"),
        ("rollout.episodes=1000000000", r"rollout\.episodes: .*less than or equal"),
        ("learner.lr=!!int abc", r"learner\.lr.*not valid YAML: 'abc' is no number"),
        ("evaluation.every=12:30:45", r"evaluation\.every.*base 60"),
        ("name=" + "[" * 1000, r"name.*deeper than 50 levels"),
        ("a." * 1000 + "b=1", r"no setting has a key of more than 20 parts"),
        ("learner=3", r"learner: a section is needed.*3"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_wrong(setting: str, message: str):
    with pytest.raises(UserError, match=message):
        load_config("quickstart", [setting])


@pytest.mark.parametrize("setting", ["x" * 100_000, "y" * 100_000 + "=1", "learner.clip=" + "z" * 100_000])
def test_messages_repeat_little_of_a_long_input(setting: str):
    with pytest.raises(UserError) as caught:
        load_config("quickstart", [setting])
    assert len(str(caught.value)) < 500


def test_of_very_many_mistakes_the_first_are_told():
    with pytest.raises(UserError, match="and 995 more") as caught:
        load_config("quickstart", [f"learner.x{n}=1" for n in range(1000)])
    assert len(str(caught.value).splitlines()) == 6


@pytest.mark.parametrize(
    "settings",
    [
        ["warm_start.turns=100", "warm_start.epochs=2"],
        ["warm_start={epochs: 2, turns: 100}"],
        ["warm_start.imperfect.turns=100", "warm_start.imperfect.epochs=1"],
    ],
)
def test_epochs_beside_turns_are_refused(settings: list[str]):
    with pytest.raises(UserError, match=r"epochs has no effect beside warm_start\.(imperfect\.)?turns, which is 100"):
        load_config("quickstart", settings)
    if len(settings) == 2:
        assert load_config("quickstart", [settings[1], settings[0].replace("100", "null")])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["model.path=x", "model.nano.layers=3"], "model.nano.layers has no effect: model.path names a model (x)"),
        (["warm_start.tasks=0", "warm_start.lr=0.1"], "warm_start.lr has no effect: warm_start.tasks is 0"),
        (
            ["warm_start.imperfect.epochs=0", "warm_start.imperfect.lr=0.1"],
            "warm_start.imperfect.lr has no effect: warm_start.imperfect.epochs is 0",
        ),
        (
            ["warm_start.dagger.rounds=0", "warm_start.dagger.lr=0.1"],
            "warm_start.dagger.lr has no effect: warm_start.dagger.rounds is 0",
        ),
        (
            [
                "advantages={type: grpo}",
                "rollout.group_size=8",
                "learner.critic_warmup_iterations=0",
                "learner.value_coef=2",
            ],
            "learner.value_coef has no effect: advantages.type 'grpo' has no critic",
        ),
    ],
)
def test_a_setting_without_effect_is_said(settings: list[str], message: str, caplog: pytest.LogCaptureFixture):
    load._say_idle.cache_clear()
    load_config("quickstart", settings)
    assert message in caplog.text
    caplog.clear()
    load_config("quickstart", settings[:-1])
    assert not caplog.text


def test_thinking_and_arguments_of_chat_templates(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    plain = load_config("alfworld-qwen2.5-1.5b")
    assert (plain.prompt.thinking, plain.prompt.chat_template_args, plain.prompt.credits_thinking) == (None, {}, False)
    settings = ["prompt.chat_template_args.enable_thinking=false", "prompt.chat_template_args.n=[1, {a: null}]"]
    config = load_config("alfworld-qwen2.5-1.5b", [*settings, "prompt.thinking.credit=action"])
    assert config.prompt.chat_template_args == {"enable_thinking": False, "n": [1, {"a": None}]}
    assert config.prompt.thinking == prompts.ThinkingConfig(credit="action", open="<think>", close="</think>")
    assert config.prompt.credits_thinking
    saved = tmp_path / "saved.yaml"
    saved.write_text(config.to_yaml())
    assert load_config(saved) == config
    saved.write_text(plain.to_yaml())  # here the section is null
    assert load_config(saved, ["prompt.thinking.credit=none"]).prompt.thinking == prompts.ThinkingConfig()
    assert not caplog.text
    load._say_idle.cache_clear()
    load_config("quickstart", ["prompt.thinking={}"])
    assert "prompt.thinking has no effect: a nano model does not think" in caplog.text


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("prompt.thinking={credit: some}", r"prompt\.thinking\.credit: .*'none' or 'action'"),
        (
            "prompt.thinking={cerdit: none}",
            "unknown key 'prompt.thinking.cerdit'; did you mean 'prompt.thinking.credit'",
        ),
        ("prompt.thinking={open: ''}", r"prompt\.thinking\.open: "),
        ("prompt.thinking={close: '<think>'}", r"prompt\.thinking: open and close must differ"),
        ("prompt.thinking={open: ' <think>'}", "must not begin or end with white space"),
        ("prompt.thinking=true", r"prompt\.thinking: a section is needed"),
        ("prompt.chat_template_args=enable_thinking", r"prompt\.chat_template_args: a section is needed"),
        ("prompt.chat_template_args={level: .nan}", r"prompt\.chat_template_args: numbers must be finite"),
        ("prompt.chat_template_args={levels: [.inf]}", r"prompt\.chat_template_args: numbers must be finite"),
        ("prompt.chat_template_args={1: a}", r"prompt\.chat_template_args"),
    ],
)
def test_wrong_settings_of_thinking_are_named(setting: str, message: str):
    with pytest.raises(UserError, match=message):
        load_config("alfworld-qwen2.5-1.5b", [setting])


def test_all_that_is_wrong_is_said_at_once():
    with pytest.raises(UserError, match=r"(?s)learner\.clip.*training\.iterations"):
        load_config("quickstart", ["learner.clip=-1", "training.iterations=-1"])


def test_overrides_are_read_as_yaml():
    tree = apply_overrides(
        {"a": {"b": 1, "c": 2}}, ["a.b=1e-3", "a.d=null", "e.f=[x, y]", "g={h: 1}", "i=", "j=text", "k=a=b"]
    )
    assert tree == {
        "a": {"b": 0.001, "c": 2, "d": None},
        "e": {"f": ["x", "y"]},
        "g": {"h": 1},
        "i": None,
        "j": "text",
        "k": "a=b",
    }


def test_overrides_leave_the_original_alone():
    tree = {"a": {"b": 1}}
    apply_overrides(tree, ["a.b=2"])
    assert tree == {"a": {"b": 1}}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("learner.lr", "not of the form"),
        ("=3", "not of the form"),
        ("learner..lr=3", "not of the form"),
        ("seed.more=3", "'seed' is a value, not a section"),
        ("seed=[1", "not valid YAML"),
    ],
)
def test_malformed_overrides(setting: str, message: str):
    with pytest.raises(UserError, match=message):
        apply_overrides({"seed": 0}, [setting])


def test_an_unknown_recipe_is_refused_with_the_nearest_name():
    with pytest.raises(UserError, match=r"'quikstart' is neither .*; did you mean 'quickstart'"):
        load_config("quikstart")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [", "not a readable YAML file"),
        (b"learner: {lr: 1}\nseed: 1\nlearner: {}\n", "the key 'learner' is repeated.*\n.*line 3"),
        (b"- a", "mapping.*list"),
        (b"[]", "mapping.*list"),
        (b"\xff\xfe\xfa", "not a readable YAML file"),
        (b"", "is empty or damaged: it should hold a mapping"),
        (b"# nothing\n", "is empty or damaged: it should hold a mapping"),
    ],
)
def test_a_broken_recipe_file(tmp_path: Path, content: bytes, message: str):
    file = tmp_path / "broken.yaml"
    file.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        load_config(file)
    assert str(file) in str(caught.value)


def test_a_recipe_without_settings_is_all_defaults(tmp_path: Path):
    file = tmp_path / "defaults.yaml"
    file.write_text("{}")
    assert load_config(file) == Config()


def loaded_modules(*imports: str) -> set[str]:
    """The modules in memory of a new process after these imports, each with its parent packages."""
    code = f"import sys, {', '.join(imports)}; print(*sys.modules)"
    return set(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split())


def test_settings_load_without_the_parts_that_they_configure():
    loaded = loaded_modules("hiper.config")
    assert "hiper.config.tree" in loaded
    for module in ("torch", "transformers", "tokenizers", "regex", "matplotlib"):
        assert module not in loaded
    units = {name.split(".")[1] for name in loaded if name.startswith("hiper.")}
    assert units <= {"config", "advantages", "strict_yaml", "validation", "files", "errors", "plugins"}


def test_messages_about_settings_do_not_wait_for_torch():
    assert loaded_modules("hiper.config", "hiper.cli").isdisjoint({"torch", "transformers"})


def sections() -> Iterator[ast.ClassDef]:
    for module in (tree, models, prompts, warm_start):
        for node in ast.parse(inspect.getsource(module)).body:
            if isinstance(node, ast.ClassDef):
                yield node


def test_every_setting_is_described():
    """The reference of settings is made of the text under each field."""
    described = []
    for section in sections():
        assert ast.get_docstring(section), section.name
        for field, text in zip(section.body, [*section.body[1:], None], strict=True):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                name = f"{section.name}.{field.target.id}"
                assert isinstance(text, ast.Expr), f"{name} has no description"
                assert isinstance(text.value, ast.Constant), f"{name} has no description"
                first = str(text.value.value).partition("\n")[0]
                assert first.endswith("."), f"{name}: the first line should be whole sentences"
                if ast.unparse(field.annotation).endswith("| None"):
                    assert "None" in str(text.value.value), f"{name}: what does None mean?"
                described.append(name)
    assert {f"{type(part).__name__}.{field}" for part in parts(Config()) for field in type(part).model_fields} <= set(
        described
    )


def parts(section: BaseModel) -> Iterator[BaseModel]:
    yield section
    for _, value in section:
        if isinstance(value, BaseModel):
            yield from parts(value)


def test_a_moved_key_still_loads(tmp_path: Path):
    """Run folders and policies on disk have the old names."""
    assert MOVED_KEYS == {"rollout.batch_tokens": "sampler.batch_tokens"}
    file = tmp_path / "old.yaml"
    file.write_text("rollout: {batch_tokens: 4096, slots: 8}\n")
    config = load_config(file)
    assert config.sampler.type == "transformers"
    assert config.sampler.options == {"batch_tokens": 4096}
    assert config.rollout.slots == 8
    assert load_config(file, ["sampler.type=other"]).sampler.options == {"batch_tokens": 4096}
    assert load_config("quickstart", ["rollout.batch_tokens=512"]).sampler.options == {"batch_tokens": 512}


def test_a_moved_key_beside_its_new_name_is_refused(tmp_path: Path):
    file = tmp_path / "old.yaml"
    file.write_text("rollout: {batch_tokens: 4096}\n")
    with pytest.raises(
        UserError, match=r"old\.yaml: 'rollout\.batch_tokens' is the old name of 'sampler\.batch_tokens'"
    ):
        load_config(file, ["sampler.batch_tokens=1"])


def test_renaming_leaves_the_original_alone():
    tree = {"rollout": {"batch_tokens": 1}}
    assert rename_moved_keys(tree) == {"rollout": {}, "sampler": {"batch_tokens": 1}}
    assert tree == {"rollout": {"batch_tokens": 1}}
    assert rename_moved_keys({"rollout": 3}) == {"rollout": 3}


def test_options_of_the_sampler_are_kept_and_written():
    config = load_config("quickstart", ["sampler={type: mine, url: here}"])
    assert config.sampler.options == {"url": "here"}
    assert Config.model_validate(yaml.safe_load(config.to_yaml())) == config


@pytest.mark.parametrize("name", ESTIMATORS)
def test_an_estimator_is_chosen_by_its_type(name: str):
    overrides = [f"advantages={{type: {name}}}", "rollout.group_size=8", "learner.critic_warmup_iterations=0"]
    config = load_config("quickstart", overrides)
    assert config.advantages == ESTIMATORS[name]()
    assert Config.model_validate(yaml.safe_load(config.to_yaml())) == config


def test_the_published_defaults_of_the_baselines():
    defaults = {name: dataclasses.asdict(kind()) for name, kind in ESTIMATORS.items()}
    assert all(kind.type == name for name, kind in ESTIMATORS.items())
    gae = {"gamma": 1.0, "bootstrap_truncated": False, "normalize": True}
    assert defaults["turn-gae"] == gae | {"lambda_turn": 1.0}
    assert defaults["token-gae"] == gae | {"lambda_token": 1.0}
    assert defaults["grpo"] == {"scale": True, "statistics": "turns"}
    assert defaults["rloo"] == {"statistics": "turns"}
    assert defaults["gigpo"] == {"gamma": 0.95, "weight": 1.0, "scale": True, "similarity": None}
    assert defaults["reinforce++"] == {"gamma": 1.0, "scale": True}


def test_hae_is_what_is_meant_where_no_estimator_is_named():
    assert Config().advantages == HAE()
    assert load_config("quickstart", ["advantages={gamma: 0.9}"]).advantages == HAE(gamma=0.9)
    assert load_config("quickstart", ["advantages={type: turn-gae, gamma: 0.9}"]).advantages == TurnGAE(gamma=0.9)
    assert Config(advantages=TokenGAE()).advantages == TokenGAE()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ["model.critic=shared"],
            "model.critic 'shared' reads .*: set model.critic to own, or prompt.plan_memory to both",
        ),
        (["model.critic=detached"], "model.critic 'detached' reads what the policy computes"),
        (
            ["advantages={type: rloo}", "rollout.group_size=2"],
            "advantages.type 'rloo' has none: set it to both or none",
        ),
    ],
)
def test_a_memory_of_the_critic_alone_needs_a_critic_with_a_backbone(settings: list[str], message: str):
    with pytest.raises(UserError, match=message):
        validate_config(apply_overrides({}, ["prompt.plan_memory=critic", *settings]), "settings")
    others = apply_overrides({}, ["prompt.plan_memory=both", *settings])
    assert validate_config(others, "settings").prompt.plan_memory == "both"
    assert Config().prompt.plan_memory == "none"


# --- The section `advantages`: an estimator by its type, written and read back ----------------------------------------


WRITTEN: list[tuple[Estimator, str]] = [
    (
        HAE(0.95, normalize=True),
        """\
advantages:
  type: hae
  gamma: 0.95
  lambda_turn: 1.0
  lambda_seg: 0.95
  switch_form: termination-value
  bootstrap_truncated: true
  normalize: true
  time_scales: two
  lambda_boundary: 0.0
""",
    ),
    (
        TurnGAE(0.95, bootstrap_truncated=True),
        """\
advantages:
  type: turn-gae
  gamma: 0.95
  lambda_turn: 1.0
  bootstrap_truncated: true
  normalize: true
""",
    ),
    (
        TokenGAE(lambda_token=0.5),
        """\
advantages:
  type: token-gae
  gamma: 1.0
  lambda_token: 0.5
  bootstrap_truncated: false
  normalize: true
""",
    ),
    (
        GiGPO(),
        """\
advantages:
  type: gigpo
  gamma: 0.95
  weight: 1.0
  scale: true
  similarity: null
""",
    ),
    (
        ReinforcePP(scale=False),
        """\
advantages:
  type: reinforce++
  gamma: 1.0
  scale: false
""",
    ),
]
"""Sections as runs have always saved them."""


@pytest.mark.parametrize(("estimator", "section"), WRITTEN, ids=lambda value: getattr(value, "type", ""))
def test_saved_sections_are_read_and_written_the_same(estimator: Estimator, section: str):
    tree = yaml.safe_load(section) | {"rollout": {"group_size": 2}}
    config = Config.model_validate(tree)
    assert config.advantages == estimator
    assert section in config.to_yaml()
    assert Config.model_validate(config.model_dump()) == Config.model_validate_json(config.model_dump_json()) == config


def test_a_section_is_a_mapping():
    with pytest.raises(ValueError, match=r"a section is needed, as in advantages='\{type: hae\}'"):
        Config.model_validate({"advantages": "grpo"})


def test_the_parameters_of_an_estimator_are_those_of_its_class():
    assert parameters_of("gigpo") == ["gamma", "weight", "scale", "similarity"]
    with pytest.raises(UserError, match="did you mean 'gigpo'"):
        parameters_of("gigpoo")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["learner.offload=true"], "set sharding to fsdp"),
        (["learner.sharding=fsdp", "learner.optimizer=adamw_8bit"], "adamw_8bit cannot be sharded"),
        (["learner.sharding=fsdp", "model.path=x", "learner.lora={quantize: 4bit}"], "quantised model cannot be shard"),
    ],
)
def test_ways_of_saving_memory_that_exclude_each_other(settings: list[str], said: str):
    with pytest.raises(UserError, match=said):
        load_config("quickstart", settings)
