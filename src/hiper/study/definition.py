"""The definition of a study, read from YAML.

    name: generated-games
    recipe: quickstart                  # a shipped recipe, or a YAML file, possibly beside this one
    settings: {evaluation.every: 5}     # settings of all runs and warm starts, by dotted key
    seeds: [0, 1, 2]
    methods:                            # the others are compared with the first one
      hiper: {}
      grpo:
        settings:
          advantages: {type: grpo}      # a section given whole replaces the recipe's
          rollout.group_size: 8

    tuning:                             # optional: try the same few values for every method before the study
      seeds: [100]                      # none of the study's own
      settings: {training.iterations: 6, evaluation.splits: [valid_seen]}   # not the study's own tasks
      grid: {learner.lr: [1.0e-4, 3.0e-4]}

    sweep:                              # optional: repeat all of this for each value of one setting
      setting: env.boxes
      values: [1, 2, 4]

All runs of a seed begin from one policy, which was warm-started under the study's own settings. A method with other
prompts cannot use this policy. With ``warm_start: own`` it gets a warm start under its own settings. Methods that give
the same other name there, as in ``warm_start: flat``, share one under their settings.

The docstrings below the fields are the reference of the format.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from importlib import resources
from importlib.resources.abc import Traversable
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from hiper.analysis.comparison.settings import differing, flat
from hiper.config import load_config, parse_setting
from hiper.errors import UserError, suggestion
from hiper.files import user_path
from hiper.strict_yaml import find_yaml, read_mapping, shipped_files
from hiper.validation import StrictModel, parse_model

Settings = Mapping[str, Any]
Name = Annotated[str, Field(pattern=r"^[A-Za-z][\w.+-]*$")]


def _distinct(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(seeds)) < len(seeds):
        raise ValueError("a seed is named twice")
    return seeds


Seeds = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1), AfterValidator(_distinct)]

STUDY_KEYS = ("name", "seed", "seeds", "methods")
"""Keys that the study decides, so that they cannot be settings of its runs."""

COMMON_PREFIXES = ("env.", "evaluation.")
"""Prefixes of the settings in which methods cannot differ."""
INHERITED_PREFIXES = ("prompt.template", "model.path", "model.nano.", "warm_start.")
"""Prefixes of the settings that are fixed for a run which begins from a warm start."""


class MethodDefinition(StrictModel):
    """A method of a study: what its runs have in common."""

    recipe: str | None = None
    """Name of a shipped recipe, or a YAML file; None: the recipe of the study."""
    settings: Settings = Field(default_factory=dict)
    """Settings of this method by dotted key, on top of the study's. A section given whole replaces the recipe's."""
    warm_start: Name = "shared"
    """Which policy its runs begin from.

    "shared": that of all methods. "own": one under its own settings. Another name: one that all methods with this name
    share. It is made under their settings, so their templates, models and warm starts must be set alike.
    """


class Tuning(StrictModel):
    """Settings to try for every method; each method is studied with those that did best (:mod:`.tuning`)."""

    seeds: Seeds
    """Seeds of the trials; none of them may be a seed of the study."""
    grid: dict[str, Annotated[tuple[Any, ...], Field(min_length=1)]] = Field(min_length=1)
    """Values to try by dotted key; every combination is tried for every method."""
    settings: Settings = Field(default_factory=dict)
    """Settings of the trials only, by dotted key, on top of the study's and the method's."""

    @model_validator(mode="after")
    def _varied_alone(self) -> Self:
        for key in self.grid:
            if own := next((own for own in self.settings if own.startswith(f"{key}.")), None):
                raise ValueError(f"its settings hold '{own}', which its grid varies with all of '{key}'")
        return self


class Sweep(StrictModel):
    """Repetition of the whole study for several values of one setting (:mod:`.sweep`)."""

    setting: str
    """Dotted key of the setting that varies."""
    values: tuple[bool | int | float | str, ...] = Field(min_length=2)
    """Values of the setting, at least two; each gets a folder ``SETTING=VALUE``."""

    @field_validator("values")
    @classmethod
    def _each_once(cls, values: tuple[bool | int | float | str, ...]) -> tuple[bool | int | float | str, ...]:
        if len({point_name(value) for value in values}) < len(values):
            raise ValueError("two values are the same, or their folders would be")
        return values


def point_name(value: object) -> str:
    """Return the name of a sweep's value, which is also a part of its folder's name."""
    return re.sub(r"[^\w.+-]", "_", str(value))


class Study(StrictModel):
    """A study: several methods, each trained with the same seeds, compared on the same held-out tasks."""

    name: Name
    """Name of the study; by default its folder is ``runs/study-NAME``."""
    recipe: str
    """Name of a shipped recipe, or a YAML file, possibly beside the study's file."""
    settings: Settings = Field(default_factory=dict)
    """Settings of all runs and warm starts by dotted key, in place of the recipe's."""
    seeds: Seeds
    """Seeds of the runs; every method is trained once with each."""
    methods: dict[Name, MethodDefinition] = Field(min_length=1)
    """Methods by name; the others are compared with the first one."""
    tuning: Tuning | None = None
    """Settings to choose for each method before the study; None: no tuning."""
    sweep: Sweep | None = None
    """Setting for whose values the study is repeated; None: the study is done once."""

    @model_validator(mode="after")
    def _settings_are_free(self) -> Self:
        swept = () if self.sweep is None else (self.sweep.setting,)
        tuned = () if self.tuning is None else (*self.tuning.grid, *self.tuning.settings)
        for settings in (self.settings, swept, tuned, *(method.settings for method in self.methods.values())):
            for key in STUDY_KEYS:
                if key in settings:
                    raise ValueError(
                        f"'{key}' is no setting of a study's runs: its methods and seeds decide it; choose them with "
                        "--methods and --seeds"
                    )
        return self

    @model_validator(mode="after")
    def _varied_alone(self) -> Self:
        grid = () if self.tuning is None else self.tuning.grid
        varied = [(key, "tuning.grid") for key in grid]
        if self.sweep is not None:
            varied.append((self.sweep.setting, "sweep.setting"))
            if own := _overlapping(self.sweep.setting, grid):
                raise ValueError(
                    f"tuning.grid varies '{own}', while sweep.setting varies '{self.sweep.setting}': leave out one"
                )
        for key, by in varied:
            for name, own in _setting_itself(key, self.methods):
                raise ValueError(f"method '{name}' sets '{own}' itself, while {by} varies '{key}': leave out one")
            if own := next((own for own in self.settings if within(own, key)), None):
                raise ValueError(f"the settings of all runs hold '{own}', which {by} varies")
        return self

    @model_validator(mode="after")
    def _reaches_every_method(self) -> Self:
        settings = [(key, "say it in each method") for key in self.settings]
        if self.tuning is not None:
            settings += [(key, "leave it out of tuning.settings") for key in self.tuning.settings]
        for key, advice in settings:
            for name, method in self.methods.items():
                if section := next((own for own in method.settings if key.startswith(f"{own}.")), None):
                    raise ValueError(
                        f"'{key}' would not reach method '{name}', which gives '{section}' whole: {advice}"
                    )
        return self

    @model_validator(mode="after")
    def _tuned_elsewhere(self) -> Self:
        if self.tuning and (shared := set(self.seeds) & set(self.tuning.seeds)):
            raise ValueError(f"tuning.seeds: {min(shared)} is a seed of the study itself; choose others there or here")
        return self


def within(key: str, section: str) -> bool:
    """Return whether a dotted key is that section or lies in it."""
    return f"{key}.".startswith(f"{section}.")


def _overlapping(key: str, others: Iterable[str]) -> str | None:
    """Return the first of other keys that sets the same thing: an equal key, one inside it, or one around it."""
    return next((other for other in others if within(key, other) or within(other, key)), None)


def _setting_itself(key: str, methods: Mapping[str, MethodDefinition]) -> Iterator[tuple[str, str]]:
    """Yield the methods that set a key of all runs themselves, each with its own key that does so."""
    for name, method in methods.items():
        if own := _overlapping(key, method.settings):
            yield name, own


def study_names() -> list[str]:
    """Return the names of the shipped studies."""
    return list(_studies())


def load_study(
    source: str,
    overrides: Sequence[str] = (),
    seeds: Sequence[int | str] | None = None,
    methods: Sequence[str] | None = None,
) -> Study:
    """Read a study, and check it down to the settings of each run.

    Args:
        source: name of a shipped study, or a YAML file.
        overrides: ``dotted.key=value`` settings of all its runs.
        seeds: seeds in place of the study's; None: its own.
        methods: names of the methods to keep; None: all.

    Raises:
        UserError: there is no such study or file, or something in it is wrong; the message names it.
    """
    tree = read_mapping(find_yaml(source, _studies(), "study"))
    changes = dict(map(parse_setting, overrides))
    study = parse_model(Study, tree, source, "study")
    _check_warm_start_names(study, source)
    chosen = {
        **tree,
        "settings": {**study.settings, **changes},
        "seeds": study.seeds if seeds is None else seeds,
        "methods": study.methods if methods is None else _chosen(study, methods),
    }
    study = parse_model(Study, chosen, source, "study")
    for key in changes:
        for name, own in _setting_itself(key, study.methods):
            raise UserError(
                f"{source}: '{key}' would not reach method '{name}', which sets '{own}' itself: change it in the "
                "study's file, or leave the method out with --methods"
            )
    study = study if source in _studies() else _with_files_beside(study, user_path(source).parent)
    try:
        for point in points_of(study).values():
            _check_methods(point)
            if point.tuning is not None:
                _check_methods(trials_of(point, point.tuning))
    except UserError as error:
        raise UserError(f"{source}, {error}") from None
    return study


def points_of(study: Study) -> dict[str, Study]:
    """Return the studies of a sweep by the name of their value; a study without a sweep has the name ""."""
    if study.sweep is None:
        return {"": study}
    key, values = study.sweep.setting, study.sweep.values
    settings = {point_name(value): {**study.settings, key: value} for value in values}
    return {name: study.model_copy(update={"settings": own, "sweep": None}) for name, own in settings.items()}


def trials_of(study: Study, tuning: Tuning) -> Study:
    """Return the tuning of a study as a study, with a method for each method and each combination of the grid.

    Raises:
        UserError: the trials would be judged on tasks that the study itself reports.
    """
    methods = {
        trial_name(name, number): method.model_copy(
            update={"settings": _on_top(_on_top(method.settings, tuning.settings), combination)}
        )
        for name, method in study.methods.items()
        for number, combination in enumerate(combinations(tuning))
    }
    trials = study.model_copy(
        update={
            "name": f"{study.name}-tuning",
            "settings": _on_top(study.settings, tuning.settings),
            "seeds": tuning.seeds,
            "methods": methods,
            "tuning": None,
        }
    )
    if shared := _splits(study) & _splits(trials):
        raise UserError(
            f"the study reports success on {', '.join(sorted(shared))}: tune on another split, with evaluation.splits "
            "and evaluation.splits_if_present in tuning.settings"
        )
    return trials


def trial_name(method: str, number: int) -> str:
    """Return the name of the method of :func:`trials_of` that tries the combination of that number."""
    return f"{method}-trial{number}"


def combinations(tuning: Tuning) -> list[dict[str, Any]]:
    """Return all combinations of the grid's values, each by dotted key."""
    return [dict(zip(tuning.grid, values, strict=True)) for values in product(*tuning.grid.values())]


def warm_start_of(study: Study, method: str) -> str | None:
    """Return the name of the warm start that a method's runs begin from; None: the one of all methods."""
    named = study.methods[method].warm_start
    return {"shared": None, "own": method}.get(named, named)


def settings_of(study: Study, method: str | None, seed: int) -> tuple[str, list[str]]:
    """Return the recipe of a run and its settings as the command line takes them, without its first policy.

    Args:
        study: the study.
        method: name of the method; None: the shared warm start.
        seed: seed of the run.
    """
    chosen = MethodDefinition() if method is None else study.methods[method]
    settings = _on_top(study.settings, {**chosen.settings, "name": method or study.name, "seed": seed})
    return chosen.recipe or study.recipe, [f"{key}={json.dumps(value)}" for key, value in settings.items()]


def _on_top(below: Settings, above: Settings) -> Settings:
    """Merge settings in the order of their precedence: a section given whole replaces earlier settings of it."""
    return {**{key: value for key, value in below.items() if key not in above}, **above}


def _splits(study: Study) -> set[str]:
    """Return the splits that all runs of a study are evaluated on, as far as the data contain them."""
    evaluation = load_config(*settings_of(study, None, study.seeds[0])).evaluation
    return {*evaluation.splits, *evaluation.splits_if_present}


def _chosen(study: Study, names: Sequence[str]) -> dict[str, MethodDefinition]:
    for name in names:
        if name not in study.methods:
            raise UserError(f"study '{study.name}' has no method '{name}'; {suggestion(name, study.methods)}")
    return {name: method for name, method in study.methods.items() if name in names}


def _check_warm_start_names(study: Study, source: str) -> None:
    """Check that each named warm start is that of several methods. A name that only one gives is a slip."""
    for name, method in study.methods.items():
        known = ["shared", "own", *(other.warm_start for key, other in study.methods.items() if key != name)]
        if (named := method.warm_start) not in known:
            said = f"{source}, method '{name}': no other method has 'warm_start: {named}'"
            raise UserError(f"{said}; {suggestion(named, dict.fromkeys(known))}")


def _check_methods(study: Study) -> None:
    for name in study.methods:
        try:
            _check_method(study, name)
        except UserError as error:
            raise UserError(f"method '{name}': {error}") from None


def _check_method(study: Study, name: str) -> None:
    """Check that the settings of a method are valid, and that its runs can begin where the others do."""
    config = load_config(*settings_of(study, name, study.seeds[0]))
    shared = load_config(*settings_of(study, None, study.seeds[0]))
    if keys := differing([flat(config), flat(shared)], COMMON_PREFIXES):
        raise UserError(f"{', '.join(keys)}: methods are compared on the same tasks; set it for the whole study")
    start = warm_start_of(study, name)
    same = None if start is None else next(other for other in study.methods if warm_start_of(study, other) == start)
    first = load_config(*settings_of(study, same, study.seeds[0]))
    if keys := differing([flat(config), flat(first)], INHERITED_PREFIXES):
        others = "all methods" if same is None else f"method '{same}' and others"
        raise UserError(
            f"{', '.join(keys)}: not as in the warm start that {others} begin from; set it for the whole study, or "
            "give the method one of its own with warm_start: own"
        )


def _with_files_beside(study: Study, folder: Path) -> Study:
    """Return the study with recipes beside its file given by their paths."""

    def located(recipe: str) -> str:
        with suppress(UserError):  # a text that is no path may still be a recipe's name
            if (beside := user_path(folder / recipe)).is_file():
                return str(beside)
        return recipe

    methods = {
        name: method.model_copy(update={"recipe": method.recipe and located(method.recipe)})
        for name, method in study.methods.items()
    }
    return study.model_copy(update={"recipe": located(study.recipe), "methods": methods})


def _studies() -> dict[str, Traversable]:
    """Return the files of the shipped studies by name."""
    return shipped_files(resources.files("hiper") / "studies")
