"""The one typed tree of settings. Every default is stated here (or in the part it configures) and nowhere else.

A recipe is a YAML file of this shape; ``dotted.key=value`` on the command line overrides it. Unknown keys are refused
with the nearest valid name, and the resolved tree is saved with every run.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from importlib.resources.abc import Traversable
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeAlias

import yaml
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator

from hiper.advantages import ESTIMATORS, GRPO, HAE, RLOO, GiGPO, ReinforcePP, Shaping, TokenGAE, TurnGAE
from hiper.errors import UserError, suggestion
from hiper.plan_execute.prompts import Overflow
from hiper.strict_yaml import parse_yaml

Lapse: TypeAlias = Literal["stray", "slip", "stale-subgoal"]
"""A kind of mistake in demonstrations, see :func:`hiper.imitation.demonstrations.demonstrate`."""

LAPSES: tuple[Lapse, ...] = ("stray", "slip", "stale-subgoal")
"""All of them."""


class Section(BaseModel):
    """A part of the tree: immutable, and without room for misspelt keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class EnvConfig(BaseModel):
    """Which environment. Keys beyond these are options of the environment itself, checked by it."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str = "alfworld"
    train_split: str = "train"
    train_tasks: int | None = Field(None, ge=1)
    """Train on a fixed subset of so many tasks; None: all."""

    @model_validator(mode="after")
    def _no_split(self) -> Self:
        if "split" in self.options:
            raise ValueError("'split' is no option here: splits are env.train_split and evaluation.splits")
        return self

    @property
    def options(self) -> dict[str, Any]:
        """What :func:`hiper.envs.make` gets besides name and split."""
        return dict(self.model_extra or {})


class PromptConfig(Section):
    """How turns are shown to the model."""

    template: str = "instruct"
    """A shipped template's name or a YAML file."""
    history_window: int = Field(2, ge=0)
    max_tokens: int = Field(2048, ge=1)
    overflow: Overflow = "drop_history"
    """What to do with a longer prompt; it is counted in any case."""
    include_tags: bool = True
    """Tags of a block share its advantage."""


class NanoConfig(Section):
    """Sizes of a nano model."""

    layers: int = Field(2, ge=1)
    hidden: int = Field(128, ge=8)
    feed_forward: int = Field(384, ge=8)
    heads: int = Field(4, ge=1)
    kv_heads: int = Field(4, ge=1)
    max_positions: int = Field(1024, ge=64)
    rope_theta: float = Field(1e6, gt=1)
    induction: bool = False
    """Begin with heads that find equal words, see hiper.models.induction; for 2 layers or more, 3 heads or more, and
    as many key-value heads."""

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.induction and not (self.layers >= 2 and self.heads == self.kv_heads >= 3):
            raise ValueError("induction needs layers >= 2, heads >= 3 and kv_heads equal to heads")
        if self.hidden % (2 * self.heads):
            raise ValueError(f"hidden ({self.hidden}) must be a multiple of 2 * heads ({2 * self.heads})")
        if self.heads % self.kv_heads:
            raise ValueError(f"heads ({self.heads}) must be a multiple of kv_heads ({self.kv_heads})")
        return self


class ModelConfig(Section):
    """Policy and critic."""

    path: str | None = None
    """A Hugging Face name or directory of a causal LM; None: a nano model, made on the spot."""
    nano: NanoConfig = NanoConfig()
    critic: Literal["own", "shared", "detached"] = "own"
    """A backbone of its own (a copy of the policy's at the start); or the policy's, trained by both losses; or the
    policy's hidden states as they are, which costs next to nothing and leaves the policy alone. Where the estimator
    needs no critic there is none."""
    param_dtype: Literal["float32", "bfloat16"] = "float32"
    compute_dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: bfloat16 where the hardware has it, else float32."""
    gradient_checkpointing: bool = False


class ImperfectConfig(Section):
    """A last stage of the warm start, of demonstrations whose lapses are imitated too.

    The policy then begins as a player who errs, with much to try and room to improve, though what it has learned to
    see before is not lost.
    """

    epochs: float = Field(0.0, ge=0)
    """Passes over the demonstrated tasks; 0: no such stage, unless ``turns`` says how much."""
    turns: int | None = Field(None, ge=1)
    """As that of the stage before."""
    perturb: float = Field(0.5, ge=0, le=1)
    lapses: tuple[Lapse, ...] | None = None
    """Their kinds; None: those of before. Where one loses an episode, it is imitated with all that led to it."""
    lr: float = Field(5e-4, gt=0)


class WarmStartConfig(Section):
    """Supervised fine-tuning on the expert's demonstrations, before reinforcement learning."""

    tasks: int = Field(64, ge=0)
    """Demonstrated tasks, of the training split; 0: no warm start."""
    perturb: float = Field(0.1, ge=0, le=1)
    """Share of turns at which another action than the expert's is played, so that recovery is shown. Only the expert's
    decisions are imitated."""
    lapses: tuple[Lapse, ...] = LAPSES
    """Their kinds, drawn with equal chances: strays to some other action, slips as the expert knows them, follows a
    subgoal of before."""
    epochs: float = Field(3.0, gt=0)
    """Passes over the demonstrations; each pass plays them anew with other perturbations."""
    turns: int | None = Field(None, ge=1)
    """Imitate so many turns, in as many passes as they take, whatever ``epochs`` says: as much practice where episodes
    are short as where they are long."""
    batch_turns: int = Field(64, ge=1)
    lr: float = Field(1e-3, gt=0)
    prompt_loss: float = Field(0.0, ge=0, le=1)
    """Weight of the language-modelling loss on the prompt, which helps models that begin from nothing."""
    imperfect: ImperfectConfig = ImperfectConfig()


class RolloutConfig(Section):
    """How episodes are collected."""

    episodes: int = Field(128, ge=1)
    """Per iteration."""
    group_size: int = Field(1, ge=1)
    """Episodes per task; ``episodes`` must be a multiple of it."""
    dynamic_sampling: int = Field(0, ge=0)
    """Most rounds in which groups whose episodes were all paid the same are replaced by groups of other tasks."""
    slots: int = Field(128, ge=1)
    """Episodes that run side by side."""
    temperature: float = Field(1.0, gt=0)
    max_response_tokens: int = Field(512, ge=1)
    batch_tokens: int = Field(131_072, ge=1)
    """Most tokens of one generation batch, padding included."""

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.episodes % self.group_size:
            raise ValueError(f"episodes ({self.episodes}) must be a multiple of group_size ({self.group_size})")
        if self.dynamic_sampling and self.group_size == 1:
            raise ValueError("dynamic_sampling compares the episodes of a group: set group_size to 2 or more")
        return self


def _estimator_type(value: Any) -> str:
    """The ``type`` of a section of settings, HAE where none is named, or of an estimator itself."""
    return str(value.get("type", HAE.type) if isinstance(value, Mapping) else getattr(value, "type", value))


AdvantageConfig: TypeAlias = Annotated[
    Annotated[HAE, Tag("hae")]
    | Annotated[TurnGAE, Tag("turn-gae")]
    | Annotated[TokenGAE, Tag("token-gae")]
    | Annotated[GRPO, Tag("grpo")]
    | Annotated[RLOO, Tag("rloo")]
    | Annotated[GiGPO, Tag("gigpo")]
    | Annotated[ReinforcePP, Tag("reinforce++")],
    Discriminator(_estimator_type),
]
"""Which estimator, by ``type``; the other keys are its parameters, whose defaults stand with each."""


class LearnerConfig(Section):
    """Proximal policy optimisation (PPO)."""

    lr: float = Field(1e-6, ge=0)
    critic_lr: float = Field(1e-5, ge=0)
    weight_decay: float = Field(0.01, ge=0)
    critic_warmup_iterations: int = Field(0, ge=0)
    """First iterations in which the critic alone learns: credit from an untrained critic can only mislead."""
    warmup_iterations: int = Field(0, ge=0)
    """Iterations over which the policy's learning rate rises linearly from zero."""
    final_lr_fraction: float = Field(1.0, ge=0, le=1)
    """Both learning rates fall linearly to this fraction of themselves at the last iteration."""
    epochs: int = Field(1, ge=1)
    minibatch_turns: int = Field(256, ge=1)
    micro_batch_tokens: int = Field(16_384, ge=1)
    """Most tokens of one forward pass, padding included; gradients accumulate over a mini-batch."""
    clip: float = Field(0.2, gt=0)
    dual_clip: float = Field(3.0, gt=1)
    kl_coef: float = Field(0.01, ge=0)
    """Weight of the KL divergence from the frozen reference policy; 0: no reference is loaded."""
    target_kl: float | None = Field(None, gt=0)
    """Where a mini-batch's KL divergence per token from the policy that sampled it is larger, the policy stands still
    for the rest of the update; None: never."""
    entropy_coef: float = Field(0.001, ge=0)
    value_coef: float = Field(1.0, ge=0)
    value_clip: float | None = Field(0.5, gt=0)
    max_grad_norm: float = Field(1.0, gt=0)


class EvaluationConfig(Section):
    """Evaluation on held-out tasks during and after training."""

    splits: tuple[str, ...] = Field(("valid_seen",), min_length=1)
    splits_if_present: tuple[str, ...] = ()
    """Further splits, where the data hold them; a run's saved settings name those found among ``splits``."""
    tasks: int | None = Field(None, ge=1)
    """A fixed subset of so many tasks per split for the evaluations during training; None: all."""
    every: int = Field(5, ge=0)
    """Iterations between evaluations; 0: only before and after training."""
    temperature: float = Field(0.4, ge=0)
    final_tasks: int | None = Field(None, ge=1)
    """Tasks per split for the evaluations before and after training; None: all."""


class AlarmConfig(Section):
    """When training has probably collapsed (:mod:`hiper.training.alarms`); null switches an alarm off."""

    patience: int = Field(3, ge=1)
    """Iterations in a row that a metric must lie beyond its limit."""
    entropy: float | None = 0.005
    """Least entropy per token."""
    kl: float | None = 1.0
    """Most KL divergence per token from the reference."""
    update_kl: float | None = 0.1
    """Most KL divergence per token that an update may cause."""
    never_switched: float | None = 0.95
    """Most episodes without a second subgoal."""
    switch_rate: float | None = 0.95
    """Most turns that replace the subgoal."""
    repeated_actions: float | None = 0.5
    """Most turns that play an action again on the same observation."""
    invalid: float | None = 0.5
    """Most turns without a valid response."""
    without_spread: float | None = 0.95
    """Most groups whose episodes were all paid the same, from which a comparison of episodes learns nothing."""
    value_low: float | None = -0.5
    """Least explained variance of V_low; those below likewise."""
    value_high: float | None = -0.5
    value_switch: float | None = -0.5
    value_token: float | None = -0.5


class TrainingConfig(Section):
    """The loop."""

    iterations: int = Field(150, ge=0)
    checkpoint_every: int = Field(10, ge=1)
    keep_checkpoints: int = Field(2, ge=1)
    threads: int | None = Field(None, ge=1)
    """CPU threads; None: torch's own choice."""
    device: str = "auto"


class Config(Section):
    """Everything that decides what a run does."""

    name: str = "run"
    seed: int = Field(0, ge=0)
    env: EnvConfig = EnvConfig()
    prompt: PromptConfig = PromptConfig()
    model: ModelConfig = ModelConfig()
    warm_start: WarmStartConfig = WarmStartConfig()
    rollout: RolloutConfig = RolloutConfig()
    shaping: Shaping = Shaping()
    advantages: AdvantageConfig = HAE()
    learner: LearnerConfig = LearnerConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    alarms: AlarmConfig = AlarmConfig()
    training: TrainingConfig = TrainingConfig()

    @model_validator(mode="after")
    def _estimator_has_what_it_needs(self) -> Self:
        estimator, name = self.advantages, self.advantages.type
        if estimator.grouped and self.rollout.group_size == 1:
            raise ValueError(
                f"advantages.type '{name}' compares episodes of one task: set rollout.group_size to 2 or more "
                "(published: 8, of 128 episodes)"
            )
        if estimator.critic == "none" and self.learner.critic_warmup_iterations:
            raise ValueError(
                f"advantages.type '{name}' has no critic that could learn first: set "
                "learner.critic_warmup_iterations to 0"
            )
        return self

    def to_yaml(self) -> str:
        """The resolved tree."""
        return str(yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True))


def recipe_names() -> list[str]:
    """Names of the shipped recipes."""
    return sorted(file.name.removesuffix(".yaml") for file in _recipes().iterdir() if file.name.endswith(".yaml"))


def recipe_summary(name: str) -> str:
    """What a shipped recipe is for: the first paragraph of the comment it begins with."""
    lines = (_recipes() / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    return " ".join(line.removeprefix("# ") for line in takewhile(lambda line: line.startswith("# "), lines))


def recipe_text(name: str) -> str:
    """Return the YAML of a shipped recipe, comments included.

    Raises:
        UserError: there is no such recipe.
    """
    file = _recipes() / f"{name}.yaml"
    if not file.is_file():
        raise UserError(f"'{name}' is no shipped recipe; {suggestion(name, recipe_names())}")
    return file.read_text(encoding="utf-8")


def load_config(source: str | Path, overrides: Sequence[str] = ()) -> Config:
    """A shipped recipe by name, or a YAML file, with ``dotted.key=value`` overrides.

    Raises:
        UserError: no such recipe or file, or a key or value is wrong; the message names it.
    """
    shipped = _recipes() / f"{source}.yaml"
    if not shipped.is_file() and not Path(source).is_file():
        raise UserError(
            f"'{source}' is neither a shipped recipe nor a YAML file; {suggestion(str(source), recipe_names())}"
        )
    tree = read_mapping(shipped if shipped.is_file() else Path(source))
    return validate_config(apply_overrides(tree, overrides), str(source))


def read_mapping(file: Path | Traversable) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        UserError: it cannot be read, is empty, or holds something else.
    """
    try:
        tree = parse_yaml(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{file} is not a readable YAML file: {error}") from error
    if tree is None:
        raise UserError(f"{file} is empty or damaged: it should hold a mapping of keys to values")
    if not isinstance(tree, dict):
        raise UserError(f"{file} should hold a mapping of keys to values; it holds a {type(tree).__name__}")
    return tree


def validate_config(tree: Mapping[str, Any], source: str) -> Config:
    """The typed tree.

    Raises:
        UserError: names every wrong key and value, with the nearest valid name for unknown keys.
    """
    try:
        config = Config.model_validate(tree)
    except ValidationError as error:
        raise UserError(f"{source}: " + "\n  ".join(_problems(error))) from None
    if misread := list(_misread(tree, config)):
        raise UserError(f"{source}: " + "\n  ".join(misread))
    return config


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """All values of a tree of mappings, each with its dotted key."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _misread(tree: Mapping[str, Any], config: Config) -> Iterator[str]:
    """What was understood in another way than it was meant."""
    understood = dict(flatten(config.model_dump()))
    for key, given in flatten(tree):
        if isinstance(given, bool) and type(understood.get(key)) in (int, float):
            yield f"{key}: a number is needed (given: {given!r}; YAML reads yes, no, on and off so)"
        if isinstance(given, float) and not math.isfinite(given):
            yield f"{key}: a finite number is needed (given: {given!r})"


def apply_overrides(tree: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A copy of ``tree`` with ``dotted.key=value`` settings in place of its own; values are read as YAML.

    Raises:
        UserError: a setting is not of that form, or goes below something that is a value.
    """
    changed = copy.deepcopy(dict(tree))
    for override in overrides:
        key, value = parse_setting(override)
        *parents, leaf = key.split(".")
        section: Any = changed
        for parent in parents:
            section = section.setdefault(parent, {})
            if not isinstance(section, dict):
                raise UserError(f"'{override}': '{parent}' is a value, not a section")
        section[leaf] = value
    return changed


def parse_setting(text: str) -> tuple[str, Any]:
    """Key and value of ``dotted.key=value``, the value read as YAML.

    Raises:
        UserError: it is not of that form.
    """
    key, equals, value = text.partition("=")
    if not equals or not all(key.split(".")):
        raise UserError(f"'{text}' is not of the form dotted.key=value")
    try:
        return key, _number(yaml.safe_load(value))
    except yaml.YAMLError as error:
        raise UserError(f"'{text}': the value is not valid YAML: {error}") from error


def _number(value: Any) -> Any:
    """YAML 1.1 reads 1e-3 as text; people mean a number."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _problems(error: ValidationError) -> Iterator[str]:
    for problem in error.errors():
        path = [str(part) for part in problem["loc"]]
        estimator = path.pop(1) if path[:1] == ["advantages"] and path[1:] else None
        unknown = problem["type"] in ("extra_forbidden", "unexpected_keyword_argument")
        if problem["type"] == "union_tag_invalid":
            given = _estimator_type(problem["input"])
            yield f"no advantage estimator '{given}'; {suggestion(given, ESTIMATORS)}"
        elif unknown and estimator and any(path[-1] in _parameters(other) for other in ESTIMATORS):
            yield (
                f"advantages.type '{estimator}' has no '{path[-1]}': to do without the recipe's, give the section "
                f"whole, as in advantages='{{type: {estimator}}}'"
            )
        elif unknown:
            keys = _parameters(estimator) if estimator else _keys_at(path[:-1])
            options = f"; an option of the environment would be env.{path[0]}" if len(path) == 1 else ""
            yield f"unknown key '{'.'.join(path)}'; {_meant(path[-1], keys)}{options}"
        elif problem["type"] in ("model_type", "dataclass_type"):
            yield f"{'.'.join(path)}: a section is needed, with settings in it (given: {problem['input']!r})"
        else:
            message = problem["msg"].removeprefix("Value error, ")
            given = "" if isinstance(problem["input"], Mapping) else f" (given: {problem['input']!r})"
            yield f"{'.'.join(path) or 'recipe'}: {message}{given}"


def _meant(leaf: str, keys: Sequence[str]) -> str:
    """What an unknown key could mean: one like it in its section, or one of the same name in another."""
    elsewhere = [f"'{key}'" for key, _ in flatten(Config().model_dump()) if key.endswith(f".{leaf}")]
    return f"did you mean {' or '.join(elsewhere)}?" if elsewhere else suggestion(leaf, keys)


def _parameters(estimator: str) -> list[str]:
    """The keys of the settings of an estimator."""
    return [field.name for field in dataclasses.fields(ESTIMATORS[estimator])]


def _keys_at(path: Sequence[str]) -> list[str]:
    """The valid keys of the section at ``path``."""
    section: Any = Config()
    for part in path:
        section = getattr(section, part, None)
    if isinstance(section, BaseModel):
        return list(type(section).model_fields)
    return [field.name for field in dataclasses.fields(section)] if dataclasses.is_dataclass(section) else []


def _recipes() -> Traversable:
    """The folder of the shipped recipes."""
    return resources.files("hiper") / "recipes"
