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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import resources
from importlib.resources.abc import Traversable
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from hiper.analysis.comparison.settings import differing, flat
from hiper.config import load_config, parse_setting
from hiper.errors import UserError, suggestion
from hiper.strict_yaml import find_yaml, read_mapping, shipped_files
from hiper.validation import StrictModel, parse_model

Settings = Mapping[str, Any]
Name = Annotated[str, Field(pattern=r"^[A-Za-z][\w.+-]*$")]


def _distinct(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(seeds)) < len(seeds):
        raise ValueError("a seed is named twice")
    return seeds


Seeds = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1), AfterValidator(_distinct)]

OWN_BUSINESS = ("name", "seed", "seeds", "methods")
"""What a study decides itself: no settings of its runs."""

THE_SAME_FOR_ALL = ("env.", "evaluation.")
"""Settings in which methods cannot differ begin like this."""
DECIDED_BY_WARM_STARTS = ("prompt.template", "model.path", "model.nano.", "warm_start.")
"""Settings that a run cannot change any more when it begins from a warm start."""


class MethodDefinition(StrictModel):
    """One method."""

    recipe: str | None = None
    """None: the study's."""
    settings: Settings = Field(default_factory=dict)
    """On top of the study's."""
    warm_start: Literal["shared", "own"] = "shared"


class Tuning(StrictModel):
    """Settings tried for every method alike; each method is studied with those that did best (:mod:`.tuning`)."""

    seeds: Seeds
    grid: dict[str, Annotated[tuple[Any, ...], Field(min_length=1)]] = Field(min_length=1)
    """By dotted key; every combination is tried."""
    settings: Settings = Field(default_factory=dict)
    """Of the trials alone, on top of the study's and the methods' own."""

    @model_validator(mode="after")
    def _varied_alone(self) -> Self:
        for key in self.grid:
            if own := next((own for own in self.settings if own.startswith(f"{key}.")), None):
                raise ValueError(f"its settings hold '{own}', which its grid varies with all of '{key}'")
        return self


class Sweep(StrictModel):
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


class Study(StrictModel):
    """See the module."""

    name: Name
    recipe: str
    settings: Settings = Field(default_factory=dict)
    seeds: Seeds
    methods: dict[Name, MethodDefinition] = Field(min_length=1)
    tuning: Tuning | None = None
    sweep: Sweep | None = None

    @model_validator(mode="after")
    def _settings_are_free(self) -> Self:
        swept = () if self.sweep is None else (self.sweep.setting,)
        tuned = () if self.tuning is None else (*self.tuning.grid, *self.tuning.settings)
        for settings in (self.settings, swept, tuned, *(method.settings for method in self.methods.values())):
            for key in OWN_BUSINESS:
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
            if own := _meeting(self.sweep.setting, grid):
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
    """Whether a dotted key is that section, or lies in it."""
    return f"{key}.".startswith(f"{section}.")


def _meeting(key: str, others: Iterable[str]) -> str | None:
    """The first of other keys of which one value decides about the other: the same, in it, or around it."""
    return next((other for other in others if within(key, other) or within(other, key)), None)


def _setting_itself(key: str, methods: Mapping[str, MethodDefinition]) -> Iterator[tuple[str, str]]:
    """The methods that decide about a setting of all runs themselves, each with the key by which it does."""
    for name, method in methods.items():
        if own := _meeting(key, method.settings):
            yield name, own


def study_names() -> list[str]:
    """Names of the shipped studies."""
    return list(_studies())


def load_study(
    source: str,
    overrides: Sequence[str] = (),
    seeds: Sequence[int | str] | None = None,
    methods: Sequence[str] | None = None,
) -> Study:
    """A shipped study by name, or a YAML file; ``dotted.key=value`` overrides are settings of all its runs.

    Args:
        source: its name, or the file.
        overrides: see above.
        seeds: in place of the study's; None: as it says.
        methods: of the study's, the only ones; None: all.

    Raises:
        UserError: no such study or file, or something in it is wrong, down to each run's settings; all is named.
    """
    tree = read_mapping(find_yaml(source, _studies(), "study"))
    changes = dict(map(parse_setting, overrides))
    study = parse_model(Study, tree, source, "study")
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
    study = study if source in _studies() else _with_files_beside(study, Path(source).parent)
    try:
        for point in points_of(study).values():
            _check_methods(point)
            if point.tuning is not None:
                _check_methods(trials_of(point, point.tuning))
    except UserError as error:
        raise UserError(f"{source}, {error}") from None
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
    settings = _on_top(study.settings, {**chosen.settings, "name": method or study.name, "seed": seed})
    return chosen.recipe or study.recipe, [f"{key}={json.dumps(value)}" for key, value in settings.items()]


def _on_top(below: Settings, above: Settings) -> Settings:
    """Both, in the order in which they count: a section given whole replaces what was said of it before."""
    return {**{key: value for key, value in below.items() if key not in above}, **above}


def _splits(study: Study) -> set[str]:
    """Whose tasks all runs of a study are evaluated on, as far as the data hold them."""
    evaluation = load_config(*settings_of(study, None, study.seeds[0])).evaluation
    return {*evaluation.splits, *evaluation.splits_if_present}


def _chosen(study: Study, names: Sequence[str]) -> dict[str, MethodDefinition]:
    for name in names:
        if name not in study.methods:
            raise UserError(f"study '{study.name}' has no method '{name}'; {suggestion(name, study.methods)}")
    return {name: method for name, method in study.methods.items() if name in names}


def _check_methods(study: Study) -> None:
    for name in study.methods:
        try:
            _check_method(study, name)
        except UserError as error:
            raise UserError(f"method '{name}': {error}") from None


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


def _studies() -> dict[str, Traversable]:
    """The files of the shipped studies by name."""
    return shipped_files(resources.files("hiper") / "studies")
