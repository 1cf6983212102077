"""What a study is made of, read from YAML.

    name: generated-games
    recipe: quickstart                  # a shipped recipe, or a YAML file, also one beside this file
    settings: {evaluation.every: 5}     # of all runs and warm starts, by dotted key
    seeds: [0, 1, 2]
    methods:                            # the first one is what the others are compared with
      hiper: {}
      grpo:
        settings:
          advantages: {type: grpo}      # a section given whole replaces the recipe's
          rollout.group_size: 8

    tuning:                             # optional: the same few values for every method, tried before the study
      seeds: [100]                      # others than the study's
      settings: {training.iterations: 6, evaluation.splits: [valid_seen]}   # on other tasks than the study's
      grid: {learner.lr: [1.0e-4, 3.0e-4]}

    sweep:                              # optional: all of this once for each value of one setting
      setting: env.boxes
      values: [1, 2, 4]

All runs of a seed begin from one frozen policy, warm-started under the study's own settings. A method that reads other
prompts cannot: with ``warm_start: own`` it gets one under its own settings.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from importlib.resources.abc import Traversable
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from hiper.compare.settings import differing, flat
from hiper.config import Section, load_config, read_setting, read_tree
from hiper.errors import UserError, suggestion

Settings = Mapping[str, Any]
Name = Annotated[str, Field(pattern=r"^[A-Za-z][\w.+-]*$")]

OWN_BUSINESS = ("name", "seed")
"""Settings that a study makes itself."""

THE_SAME_FOR_ALL = ("env.", "evaluation.")
"""Settings in which methods cannot differ begin like this."""
DECIDED_BY_WARM_STARTS = ("prompt.template", "model.path", "model.nano.", "warm_start.")
"""Settings that a run cannot change any more when it begins from a warm start."""


class MethodDefinition(Section):
    """One method."""

    recipe: str | None = None
    """None: the study's."""
    settings: Settings = Field(default_factory=dict)
    """On top of the study's."""
    warm_start: Literal["shared", "own"] = "shared"


class Tuning(Section):
    """Settings tried for every method alike; each method is studied with those that did best (:mod:`.tuning`)."""

    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(min_length=1)
    grid: dict[str, Annotated[tuple[Any, ...], Field(min_length=1)]] = Field(min_length=1)
    """By dotted key; every combination is tried."""
    settings: Settings = Field(default_factory=dict)
    """Of the trials alone, on top of the study's and the methods' own."""


class Sweep(Section):
    """The whole study at each of several values of one setting (:mod:`.sweep`)."""

    setting: str
    """A dotted key."""
    values: tuple[bool | int | float | str, ...] = Field(min_length=2)

    @field_validator("values")
    @classmethod
    def _each_once(cls, values: tuple[bool | int | float | str, ...]) -> tuple[bool | int | float | str, ...]:
        if len({point_name(value) for value in values}) < len(values):
            raise ValueError("two values are the same, or their folders would be")
        return values


def point_name(value: object) -> str:
    """A value of a sweep as it is called, in folders too."""
    return re.sub(r"[^\w.+-]", "_", str(value))


class Study(Section):
    """See the module."""

    name: Name
    recipe: str
    settings: Settings = Field(default_factory=dict)
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(min_length=1)
    methods: dict[Name, MethodDefinition] = Field(min_length=1)
    tuning: Tuning | None = None
    sweep: Sweep | None = None

    @field_validator("seeds")
    @classmethod
    def _each_once(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) < len(seeds):
            raise ValueError("a seed is named twice")
        return seeds

    @model_validator(mode="after")
    def _settings_are_free(self) -> Self:
        swept = () if self.sweep is None else (self.sweep.setting,)
        tuned = () if self.tuning is None else (*self.tuning.grid, *self.tuning.settings)
        for settings in (self.settings, swept, tuned, *(method.settings for method in self.methods.values())):
            for key in OWN_BUSINESS:
                if key in settings:
                    raise ValueError(f"'{key}' is no setting of a study: it follows from methods and seeds")
        return self

    @model_validator(mode="after")
    def _varied_alone(self) -> Self:
        varied = {} if self.sweep is None else {self.sweep.setting: "sweep.setting"}
        varied |= {} if self.tuning is None else dict.fromkeys(self.tuning.grid, "tuning.grid")
        for key, by in varied.items():
            for name, method in self.methods.items():
                if key in method.settings:
                    raise ValueError(f"method '{name}' sets '{key}' itself, which {by} varies")
            if key in self.settings:
                raise ValueError(f"the settings of all runs hold '{key}', which {by} varies")
        return self

    @model_validator(mode="after")
    def _reaches_every_method(self) -> Self:
        for key in self.settings:
            for name, method in self.methods.items():
                if section := next((own for own in method.settings if key.startswith(f"{own}.")), None):
                    raise ValueError(
                        f"'{key}' would not reach method '{name}', which gives '{section}' whole: say it in each method"
                    )
        return self

    @model_validator(mode="after")
    def _tuned_elsewhere(self) -> Self:
        if self.tuning and (shared := set(self.seeds) & set(self.tuning.seeds)):
            raise ValueError(f"tuning.seeds: {min(shared)} is a seed of the study itself; tune on others")
        return self


def study_names() -> list[str]:
    """Names of the shipped studies."""
    return sorted(file.name.removesuffix(".yaml") for file in _studies().iterdir() if file.name.endswith(".yaml"))


def load_study(source: str, overrides: Sequence[str] = ()) -> Study:
    """A shipped study by name, or a YAML file; ``dotted.key=value`` overrides are settings of all its runs.

    Raises:
        UserError: no such study or file, or something in it is wrong, down to each run's settings; all is named.
    """
    shipped, file = _studies() / f"{source}.yaml", Path(source)
    if not shipped.is_file() and not file.is_file():
        raise UserError(f"'{source}' is neither a shipped study nor a YAML file; {suggestion(source, study_names())}")
    tree = read_tree(shipped if shipped.is_file() else file)
    changes = dict(map(read_setting, overrides))
    try:
        study = Study.model_validate(tree)
        study = Study.model_validate({**tree, "settings": {**study.settings, **changes}})
    except ValidationError as error:
        raise UserError(f"{source}: " + "\n  ".join(map(_problem, error.errors()))) from None
    study = study if shipped.is_file() else _with_files_beside(study, file.parent)
    for point in points_of(study).values():
        for stage in (point,) if point.tuning is None else (point, trials_of(point, point.tuning)):
            for name in stage.methods:
                try:
                    _check_method(stage, name)
                except UserError as error:
                    raise UserError(f"{source}, method '{name}': {error}") from None
    return study


def points_of(study: Study) -> dict[str, Study]:
    """The studies that a sweep is made of, by the value of its setting; of a study without one, itself, nameless."""
    if study.sweep is None:
        return {"": study}
    key, values = study.sweep.setting, study.sweep.values
    settings = {point_name(value): {**study.settings, key: value} for value in values}
    return {name: study.model_copy(update={"settings": own, "sweep": None}) for name, own in settings.items()}


def trials_of(study: Study, tuning: Tuning) -> Study:
    """The tuning of a study as a study of its own: a method for each method and each combination of the grid.

    Raises:
        UserError: it would look at tasks that the study itself reports.
    """
    methods = {
        trial_name(name, number): method.model_copy(update={"settings": {**method.settings, **combination}})
        for name, method in study.methods.items()
        for number, combination in enumerate(combinations(tuning))
    }
    settings = {**study.settings, **tuning.settings}
    trials = Study(
        name=f"{study.name}-tuning", recipe=study.recipe, settings=settings, seeds=tuning.seeds, methods=methods
    )
    told, tried = (load_config(*settings_of(s, None, s.seeds[0])).evaluation.splits for s in (study, trials))
    if shared := set(told) & set(tried):
        raise UserError(
            f"the study reports success on {', '.join(sorted(shared))}: tune on another split, with "
            "evaluation.splits in tuning.settings"
        )
    return trials


def trial_name(method: str, number: int) -> str:
    """The method of :func:`trials_of` that tries a method under the combination of that number."""
    return f"{method}-trial{number}"


def combinations(tuning: Tuning) -> list[dict[str, Any]]:
    """Every combination of the grid's values, by dotted key."""
    return [dict(zip(tuning.grid, values, strict=True)) for values in product(*tuning.grid.values())]


def settings_of(study: Study, method: str | None, seed: int) -> tuple[str, list[str]]:
    """The recipe of a run and its settings, before it is told which policy to begin from; None: the shared warm start.

    They are what the command line takes.
    """
    chosen = MethodDefinition() if method is None else study.methods[method]
    settings = {**study.settings, **chosen.settings, "name": method or study.name, "seed": seed}
    return chosen.recipe or study.recipe, [f"{key}={json.dumps(value)}" for key, value in settings.items()]


def _check_method(study: Study, name: str) -> None:
    """Make sure that a run can be told what to do, and begin where the others do."""
    config = load_config(*settings_of(study, name, study.seeds[0]))
    shared = load_config(*settings_of(study, None, study.seeds[0]))
    trees = [flat(config), flat(shared)]
    if keys := [key for key in differing(trees) if key.startswith(THE_SAME_FOR_ALL)]:
        raise UserError(f"{', '.join(keys)}: methods are compared on the same tasks; set it for the whole study")
    if study.methods[name].warm_start == "own":
        return
    if keys := [key for key in differing(trees) if key.startswith(DECIDED_BY_WARM_STARTS)]:
        raise UserError(
            f"{', '.join(keys)}: not as in the warm start that all methods begin from; set it for the whole study, or "
            "give the method one of its own with warm_start: own"
        )


def _with_files_beside(study: Study, folder: Path) -> Study:
    """Recipes that lie beside the study are named by their paths."""

    def located(recipe: str) -> str:
        return str(folder / recipe) if (folder / recipe).is_file() else recipe

    methods = {
        name: method.model_copy(update={"recipe": method.recipe and located(method.recipe)})
        for name, method in study.methods.items()
    }
    return study.model_copy(update={"recipe": located(study.recipe), "methods": methods})


def _problem(problem: Any) -> str:
    path: Sequence[str] = [str(part) for part in problem["loc"]]
    if problem["type"] == "extra_forbidden":
        section = MethodDefinition if path[0] == "methods" else Study
        return f"unknown key '{'.'.join(path)}'; {suggestion(path[-1], section.model_fields)}"
    if problem["type"] == "missing":
        return f"'{'.'.join(path)}' is missing"
    return f"{'.'.join(path) or 'study'}: {problem['msg'].removeprefix('Value error, ')}"


def _studies() -> Traversable:
    """The folder of the shipped studies."""
    return resources.files("hiper") / "studies"
