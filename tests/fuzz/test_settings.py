"""Settings of every kind: YAML, recipes, overrides, studies, templates; and short trainings under odd settings."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import shutil
from collections.abc import Iterator, Mapping
from importlib import resources
from io import StringIO
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from rich.console import Console

from helpers.fuzzing import ODD_TEXTS, altered, check_message, damaged, fuzzed, inputs
from hiper.advantages import Shaping
from hiper.config import Config, flatten, load_config, recipe_names, recipe_text, validate_config
from hiper.config.estimators import parameters_of
from hiper.display.console import Display
from hiper.errors import UserError, printable, shortened
from hiper.plan_execute.render import PromptContext, Template
from hiper.plan_execute.templates import read_template
from hiper.runs.folder import Run
from hiper.strict_yaml import parse_yaml
from hiper.study.definition import Study, load_study, points_of, settings_of, study_names
from hiper.training.trainer import train

pytestmark = pytest.mark.fuzz

PACKAGE = resources.files("hiper")
RECIPES = [recipe_text(name) for name in recipe_names()]
STUDIES = [(PACKAGE / "studies" / f"{name}.yaml").read_text(encoding="utf-8") for name in study_names()]
TEMPLATES = [
    file.read_text(encoding="utf-8")
    for folder in ("plan_execute", "envs/alfworld", "envs/webshop")
    for file in PACKAGE.joinpath(folder, "templates").iterdir()
]
LINES = [line for text in (*RECIPES, *STUDIES) for line in text.splitlines(keepends=True)]

SCALARS = st.one_of(
    st.sampled_from(ODD_TEXTS),
    st.integers(-(10**20), 10**20).map(str),
    st.floats().map(repr),
    st.text(max_size=20),
)
DOCUMENTS = st.one_of(
    st.sampled_from([*RECIPES, *STUDIES]).flatmap(lambda text: damaged(text, [*ODD_TEXTS, *LINES[:200]])),
    st.lists(st.one_of(st.sampled_from(ODD_TEXTS), st.sampled_from(LINES), st.text(max_size=5)), max_size=12).map(
        "".join
    ),
    st.text(max_size=60),
    SCALARS.map(lambda text: f"x: {text}"),
)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "given.yaml"


def write(file: Path, text: str) -> None:
    file.write_bytes(text.encode("utf-8", "surrogatepass"))


@inputs(2000)
@given(text=DOCUMENTS)
def test_yaml(text: str) -> None:
    def load() -> Any:
        try:
            return parse_yaml(text)
        except yaml.YAMLError as error:
            raise UserError(str(error)) from error

    def use(value: Any) -> None:
        for part in leaves(value):
            assert part is None or type(part) in (str, bool, int, float)
        assert repr(parse_yaml(yaml.safe_dump(value, sort_keys=False))) == repr(value)

    fuzzed("YAML documents", load, use, given=text)


def leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from leaves(part)
    else:
        yield value


def check_config(config: Config) -> None:
    """Demand that settings read back from their own text as themselves, as they do in a run's folder."""
    assert validate_config(parse_yaml(config.to_yaml()), "config.yaml") == config


@inputs(1000)
@given(text=st.sampled_from(RECIPES).flatmap(lambda text: damaged(text, [*ODD_TEXTS, *LINES])))
def test_recipes(file: Path, text: str) -> None:
    write(file, text)
    fuzzed("recipes", lambda: load_config(str(file)), check_config, given=text, names=[str(file)])


KEYS = [key for key, _ in flatten(Config().model_dump())]
OVERRIDES = st.builds(
    "{}={}".format,
    st.one_of(
        st.sampled_from(KEYS),
        st.sampled_from(KEYS).flatmap(lambda key: damaged(key, [".", "..", "x", "model", " ", "☃"], most=1)),
        st.sampled_from(sorted({key.rpartition(".")[0] for key in KEYS if "." in key})),
        st.sampled_from(ODD_TEXTS),
    ),
    st.one_of(
        SCALARS,
        st.sampled_from(KEYS).map(lambda key: f"{{{key.rpartition('.')[2]}: 1}}"),
        st.sampled_from(
            ["{type: grpo}", "{type: hae, gamma: 2}", "{type: x:Y}", "[a, b]", "[valid_seen]", "cpu", "cuda:99"]
        ),
    ),
)


@inputs(2000)
@given(
    overrides=st.one_of(
        st.lists(st.deferred(lambda: overrides_in_range()), min_size=1, max_size=3),
        st.lists(OVERRIDES, min_size=1, max_size=3),
    )
)
def test_overrides(overrides: list[str]) -> None:
    def use(config: Config) -> None:
        check_config(config)
        *_, last = overrides
        key, _, text = last.partition("=")
        found = dict(flatten(config.model_dump())).get(key)
        if key in KEYS and found is not None and type(found) in (int, float):
            assert float(found) == float(text.strip("'\"").replace("_", "") if "0x" not in text else int(text, 16))

    keys = [setting.partition("=")[0] for setting in overrides]
    names = [
        "dotted.key=value",
        *(key.rpartition(".")[0] for key in keys if "." in key),
        *(key.partition(".")[0] for key in keys),
    ]
    names = [shown for name in names if (shown := printable(shortened(name, 50).removesuffix("...")))]
    fuzzed("overrides", lambda: load_config("quickstart", overrides), use, given="\n".join(overrides), names=names)


WORK = (
    "iterations",
    "epochs",
    "turns",
    "tasks",
    "episodes",
    "train_tasks",
    "final_tasks",
    "dynamic_sampling",
    "batch_turns",
)
"""Settings that say how much is to be done. A large number is long, not wrong."""
SIZES = (
    "nano.",
    "slots",
    "threads",
    "group_size",
    "path",
    "template",
    "trackers",
    "device",
    "splits",
    "type",
    "env.",
    "sampler.",
    "name",
)


def sections(model: type[BaseModel] = Config, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting that is neither a section nor work nor a size, with a strategy of values in its range."""
    for name, field in model.model_fields.items():
        key = f"{prefix}{name}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from sections(field.annotation, f"{key}.")
        elif not any(key.endswith(f".{work}") for work in WORK) and not any(part in key for part in SIZES):
            limits = {
                kind: getattr(part, kind)
                for part in field.metadata
                for kind in ("ge", "gt", "le", "lt")
                if hasattr(part, kind)
            }
            kinds = get_args(field.annotation) or (field.annotation,)
            low = limits.get("ge", limits.get("gt", -1e30))
            high = limits.get("le", limits.get("lt", 1e30))
            if float in kinds:
                yield key, st.one_of(st.sampled_from([low, high, 0.0, 1.0, low + 1e-9]), st.floats(low, high))
            elif int in kinds:
                yield key, st.one_of(st.sampled_from([int(max(low, -1)), int(min(high, 2**63)), 1]), st.integers(1, 50))
            elif bool in kinds:
                yield key, st.booleans()
            elif get_origin(field.annotation) is Literal:
                yield key, st.sampled_from(kinds)


IN_RANGE = [
    *sections(),
    *(
        (f"shaping.{field.name}", st.sampled_from([0.0, -1e9, -1e-9, 1.0, -1e300, -10.0]))
        for field in dataclasses.fields(Shaping)
    ),
    *(
        (f"advantages.{name}", st.sampled_from([0.0, 1.0, 0.5, 1e-9, 2, True, "none", "value-gap", 1e300]))
        for name in parameters_of("hae")
    ),
]


def overrides_in_range() -> st.SearchStrategy[str]:
    """Overrides whose values lie in the range of their setting."""
    return st.sampled_from(IN_RANGE).flatmap(lambda pair: pair[1].map(lambda value: f"{pair[0]}={json.dumps(value)}"))


TYPES = ["hae", "turn-gae", "token-gae", "grpo", "rloo", "gigpo", "reinforce++"]


@inputs(150)
@given(
    chosen=st.lists(st.sampled_from(IN_RANGE), min_size=1, max_size=4).flatmap(
        lambda pairs: st.tuples(*(st.tuples(st.just(key), values) for key, values in pairs))
    ),
    kind=st.sampled_from([None, None, *TYPES]),
)
def test_settings_in_use(
    tiny_recipe: Path, tmp_path_factory: pytest.TempPathFactory, chosen: Any, kind: str | None
) -> None:
    """Settings that are accepted are trained with: to the end, or to a message that says what to change."""
    out = tmp_path_factory.mktemp("used")
    small = [
        "warm_start.tasks=4",
        "warm_start.epochs=1",
        "rollout.episodes=4",
        "training.iterations=1",
        "evaluation.final_tasks=2",
    ]
    own = [f"{key}={json.dumps(value)}" for key, value in chosen]
    if kind is not None:
        own = [
            f"advantages={{type: {kind}}}",
            "rollout.group_size=2",
            *(text for text in own if not text.startswith("advantages.")),
        ]

    def load() -> Run:
        run = Run.create(out / "run", load_config(tiny_recipe, [*small, *own]))
        train(run, Display(command="fuzz", console=Console(file=StringIO())))
        return run

    def use(run: Run) -> None:
        assert run.finished
        for record in run.metrics():
            assert all(math.isfinite(value) for value in record.values()), record
        assert not run.problems(after=1)

    keys = [part for key, _ in chosen for part in (key, key.rpartition(".")[0], key.rpartition(".")[2])]
    fuzzed(
        "settings in use",
        load,
        use,
        given="\n".join(own),
        names=[*keys, "learner.lr", "advantages", "rollout", "prompt"],
        seconds=60,
    )
    shutil.rmtree(out)


def usable_study(study: Study) -> None:
    for point in points_of(study).values():
        for method in (None, *point.methods):
            recipe, settings = settings_of(point, method, point.seeds[-1])
            check_config(load_config(recipe, settings))


SMALL_STUDY = """\
name: small
recipe: boxes
seeds: [0, 1]
settings: {rollout.episodes: 8}
tuning: {seeds: [100], settings: {evaluation.splits: [train]}, grid: {learner.lr: [1.0e-3, 2.0e-3]}}
sweep: {setting: env.boxes, values: [1, 2]}
methods:
  hiper: {}
  grpo: {settings: {advantages: {type: grpo}, rollout.group_size: 2, learner.critic_warmup_iterations: 0}}
"""


@inputs(500)
@given(text=st.sampled_from([SMALL_STUDY, SMALL_STUDY, STUDIES[-1]]).flatmap(lambda text: damaged(text, ODD_TEXTS)))
def test_study_files(file: Path, text: str) -> None:
    write(file, text)
    fuzzed("study files", lambda: load_study(str(file)), usable_study, given=text, names=[str(file)], seconds=20)


@inputs(500)
@given(tree=altered(yaml.safe_load(SMALL_STUDY)))
def test_study_trees(file: Path, tree: Any) -> None:
    text = yaml.safe_dump(tree)
    write(file, text)
    fuzzed("study files", lambda: load_study(str(file)), usable_study, given=text, names=[str(file)], seconds=20)


CONTEXTS = [
    PromptContext("put a mug in a shelf.", [("a room. a mug 1.", "look")], "fork 3", "find", ("look", "take mug 1"), 1),
    PromptContext("g", [], "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!", None, None, 0),
    PromptContext("a" * 3000, [("1 " * 3000, "x" * 3000)], " \n\u00a0" * 3000, "", ("x" * 3000,), 1),
]  # fmt: skip
RULES = [
    "(a+)+$",
    "(a*)*b",
    "(a|aa)+$",
    "(?P<item>.*)*x",
    ".*.*.*=",
    "(\\w+\\s?)+!",
    "(",
    "(?P<x",
    "\\",
    "[",
    "(?i)a",
    "",
    "^|$",
    "a{0,9}{0,9}b",
]


def usable_template(template: Template) -> str | None:
    again = yaml.safe_load(template.to_yaml())
    assert type(template.data).model_validate(again) == template.data
    assert isinstance(template.wording, list)
    try:
        for context in CONTEXTS:
            rendered = template.render(context)
            assert isinstance(rendered, str) or all(isinstance(message["content"], str) for message in rendered)
            template.understand("take mug 1", context)
    except UserError as error:  # an expression of exponential time, or a rewrite without an end
        assert re.search("takes more than 1 s|never comes to an end", str(error))  # noqa: PT017
        check_message(str(error))
        return "stopped"
    return None


@inputs(500)
@given(
    tree=st.sampled_from([yaml.safe_load(text) for text in TEMPLATES]).flatmap(altered),
    rule=st.one_of(st.sampled_from(RULES), st.text("ab()[]*+?|.\\{}1,^$", max_size=12)),
    place=st.sampled_from(["none", "observation", "goal", "groups", "aliases", "word", "free"]),
    put=st.sampled_from(["", "\\1", "\\g<x>", "{", "x\\", "\\0", "\\9"]),
    repeat=st.booleans(),
)
def test_templates(file: Path, tree: Any, rule: str, place: str, put: str, repeat: bool) -> None:
    if isinstance(tree, Mapping):
        tree = dict(tree)
        if place in ("observation", "goal"):
            tree[place] = {"rewrite": [{"find": rule, "put": put, "repeat": repeat}]}
        elif place == "groups":
            tree["admissible"] = {"groups": [{"match": f"(?P<item>{rule})", "show": "x {items}"}]}
        elif place == "aliases":
            tree["actions"] = {"aliases": [{"find": rule, "show": "thing {n}", "action": "take {name}"}]}
        elif place in ("word", "free"):
            tree["actions"] = {place: [{"find": rule, "put": put}]}
    text = yaml.safe_dump(tree)
    write(file, text)
    fuzzed(
        "templates", lambda: Template(read_template(file)), usable_template, given=text, names=[str(file)], seconds=5
    )
