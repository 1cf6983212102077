"""The settings as one typed tree, with every default.

The text under a field is its entry in the reference of settings. The parameters of estimators and of shaping, with
their defaults, are defined in :mod:`hiper.advantages`.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from hiper.advantages import HAE, Shaping
from hiper.config.estimators import AdvantageConfig
from hiper.config.models import ModelConfig
from hiper.config.prompts import PromptConfig
from hiper.config.warm_start import WarmStartConfig
from hiper.validation import COOLEST, HOTTEST, StrictModel, check_temperature


class OpenSection(BaseModel):
    """A section whose further keys are options of the part it names. That part checks them."""

    model_config = ConfigDict(extra="allow", frozen=True)

    @property
    def options(self) -> dict[str, Any]:
        """The further keys and their values."""
        return dict(self.model_extra or {})


class EnvConfig(OpenSection):
    """The environment. All other keys are options of the environment itself."""

    name: str = "alfworld"
    """The name of a shipped environment, or ``module:function`` for another."""
    train_split: str = "train"
    """The split of tasks to train on."""
    train_tasks: int | None = Field(None, ge=1, le=1_000_000_000)
    """Train on a fixed subset of this many tasks. None: use all tasks of the split."""

    @model_validator(mode="after")
    def _check_options(self) -> Self:
        if "split" in self.options:
            raise ValueError("'split' is no option here: splits are env.train_split and evaluation.splits")
        return self


class RolloutConfig(StrictModel):
    """How episodes are collected."""

    episodes: int = Field(128, ge=1, le=1_000_000)
    """The number of episodes per iteration."""
    group_size: int = Field(1, ge=1, le=1_000_000)
    """The number of episodes per task. ``episodes`` must be a multiple of it."""
    dynamic_sampling: int = Field(0, ge=0, le=1_000)
    """The maximum number of rounds of dynamic sampling. 0: there is none.

    Each round replaces the groups whose episodes all have the same return by groups of other tasks.
    """
    slots: int = Field(128, ge=1, le=100_000)
    """The number of episodes that run side by side."""
    temperature: float = Field(1.0, ge=COOLEST, le=HOTTEST)
    """The sampling temperature during training."""
    max_response_tokens: int = Field(512, ge=1, le=1_000_000)
    """The maximum length of a response in tokens."""
    ahead: int = Field(0, ge=0, le=1)
    """1: sample the next iteration while this one is learned, under weights one update older. 0: do not.

    It needs a sampler with weights of its own, such as ``vllm``, and ``learner.importance_cap``.
    """

    @model_validator(mode="after")
    def _check_groups(self) -> Self:
        if self.episodes % self.group_size:
            raise ValueError(f"episodes ({self.episodes}) must be a multiple of group_size ({self.group_size})")
        if self.dynamic_sampling and self.group_size == 1:
            raise ValueError("dynamic_sampling compares the episodes of a group: set group_size to 2 or more")
        return self


class SamplerConfig(OpenSection):
    """The part that samples responses. All other keys are options of the sampler itself."""

    type: str = "transformers"
    """The name of the sampler. ``transformers`` samples from the model in training, in the same process."""
    choose: Literal["anything", "admissible"] = "anything"
    """What a response may be. ``admissible``: its form is valid, and its action is one of the admissible ones.

    The sampler leaves out every token that leads elsewhere. This is for playing and evaluating, not for training.
    """


class LoraConfig(StrictModel):
    """LoRA: train small adapters beside a frozen model. It needs the extra ``lora``, and a ``model.path``."""

    rank: int = Field(16, ge=1, le=4096)
    """The rank of an adapter's two matrices."""
    alpha: float = Field(32, gt=0, le=1e6)
    """The scale of adapters. What they add is multiplied by alpha / rank."""
    targets: str | tuple[str, ...] = "all-linear"
    """The names of the layers that get adapters, such as ``[q_proj, v_proj]``. ``all-linear``: all but the head.

    Any other text is a regular expression for whole names, such as ``.*layers\\.2\\d\\..*_proj`` for layers 20 to 29.
    """
    quantize: Literal["none", "4bit"] = "none"
    """The format of the frozen model. ``4bit``: 4-bit NormalFloat (QLoRA); it needs the extra ``bitsandbytes``."""

    @field_validator("targets")
    @classmethod
    def _check_pattern(cls, targets: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if isinstance(targets, str):
            try:
                re.compile(targets)
            except re.error as error:
                raise ValueError(f"{targets!r} is no regular expression: {error}") from error
        return targets


class LearnerConfig(StrictModel):
    """Proximal policy optimisation (PPO)."""

    lr: float = Field(1e-6, ge=0, le=1e30)
    """The learning rate of the policy."""
    critic_lr: float = Field(1e-5, ge=0, le=1e30)
    """The learning rate of the critic."""
    weight_decay: float = Field(0.01, ge=0, le=100)
    """The weight decay of AdamW, for policy and critic."""
    critic_warmup_iterations: int = Field(0, ge=0, le=1_000_000_000)
    """The number of first iterations that train the critic alone. An untrained critic gives misleading advantages."""
    warmup_iterations: int = Field(0, ge=0, le=1_000_000_000)
    """The number of iterations over which the policy's learning rate rises linearly from zero."""
    final_lr_fraction: float = Field(1.0, ge=0, le=1)
    """Both learning rates fall linearly to this fraction at the last iteration. 1: they stay constant."""
    epochs: int = Field(1, ge=1, le=10_000)
    """Passes over the collected turns in each iteration."""
    minibatch_turns: int = Field(256, ge=1, le=1_000_000_000)
    """The number of turns in a mini-batch. Each mini-batch is one optimizer step."""
    micro_batch_tokens: int = Field(16_384, ge=1, le=1_000_000_000)
    """The maximum number of tokens in one forward pass, with padding. Gradients accumulate over a mini-batch."""
    clip: float = Field(0.2, gt=0, le=1e9)
    """The clip range of the PPO ratio: between 1 - clip and 1 + clip."""
    dual_clip: float = Field(3.0, gt=1, le=1e9)
    """The bound on the PPO ratio for tokens with a negative advantage."""
    kl_coef: float = Field(0.01, ge=0, le=1e9)
    """The weight of the KL divergence from the frozen reference policy. 0: no reference policy is loaded."""
    target_kl: float | None = Field(None, gt=0, le=1e9)
    """The maximum KL divergence per token of a mini-batch from the policy that sampled it. None: no maximum.

    Beyond it, the rest of the update leaves the policy unchanged.
    """
    entropy_coef: float = Field(0.001, ge=0, le=1e9)
    """The weight of the entropy bonus."""
    value_coef: float = Field(1.0, ge=0, le=1e9)
    """The weight of the value loss."""
    value_clip: float | None = Field(0.5, gt=0, le=1e9)
    """The maximum change of a value in the clipped value loss. None: do not clip."""
    importance_cap: float | None = Field(None, gt=0, le=1e9)
    """The maximum importance weight of a token in the policy loss. None: there are no weights.

    The weight is the token's probability under the learner before the update over that under the sampler.
    """
    max_grad_norm: float = Field(1.0, gt=0, le=1e9)
    """The maximum norm of gradients. Larger gradients are scaled down."""
    lora: LoraConfig | None = None
    """Train adapters in place of the whole model. None: train the whole model."""
    sharding: Literal["none", "fsdp"] = "none"
    """How processes hold weights, gradients and moments. The numbers computed are the same.

    - ``none``: each process holds all of them.
    - ``fsdp``: each process holds an equal part (FSDP2). Layers are gathered while they compute.
    """
    offload: bool = False
    """If true, weights, gradients and moments rest in the CPU's memory, and layers go to the GPU while they compute.

    It is a part of ``sharding: fsdp``, which works with one process too.
    """
    optimizer: Literal["adamw", "adamw_fused", "adamw_8bit"] = "adamw"
    """The implementation of AdamW.

    - ``adamw``: torch's plain one.
    - ``adamw_fused``: torch's fused one. It is faster, and rounds differently.
    - ``adamw_8bit``: the moments take one byte each. It needs the extra ``bitsandbytes``.
    """

    @model_validator(mode="after")
    def _check_memory(self) -> Self:
        sharded = self.sharding == "fsdp"
        if self.offload and not sharded:
            raise ValueError(
                "offload is a part of sharding: set sharding to fsdp (one process will do), or offload to false"
            )
        if sharded and self.optimizer == "adamw_8bit":
            raise ValueError("adamw_8bit cannot be sharded: set optimizer to adamw_fused, or sharding to none")
        if sharded and self.lora is not None and self.lora.quantize != "none":
            raise ValueError("a quantised model cannot be sharded: set lora.quantize or sharding to none")
        return self


class EvaluationConfig(StrictModel):
    """Evaluation on held-out tasks, during and after training."""

    splits: tuple[str, ...] = Field(("valid_seen",), min_length=1)
    """The splits to evaluate on."""
    splits_if_present: tuple[str, ...] = ()
    """Further splits, used only if the data have them. A run's saved settings list those under ``splits``."""
    tasks: int | None = Field(None, ge=1, le=1_000_000_000)
    """Evaluate during training on a fixed subset of this many tasks per split. None: use all tasks."""
    every: int = Field(5, ge=0, le=1_000_000_000)
    """The number of iterations between evaluations. 0: evaluate only before and after training."""
    temperature: Annotated[float, AfterValidator(check_temperature)] = 0.4
    """The sampling temperature. 0: always choose the most likely token."""
    final_tasks: int | None = Field(None, ge=1, le=1_000_000_000)
    """Evaluate before and after training on this many tasks per split. None: use all tasks."""


class AlarmConfig(StrictModel):
    """The limits at which training has probably collapsed (:mod:`hiper.training.alarms`). Null disables an alarm."""

    patience: int = Field(3, ge=1, le=1_000_000_000)
    """The number of consecutive iterations beyond a limit that raise the alarm."""
    entropy: float | None = 0.005
    """The minimum entropy per token, in nats. None: no alarm."""
    kl: float | None = 1.0
    """The maximum KL divergence per token from the reference policy, in nats. None: no alarm."""
    update_kl: float | None = 0.1
    """The maximum KL divergence per token that one update causes, in nats. None: no alarm."""
    mismatch: float | None = 0.02
    """The maximum KL divergence per token between sampler and learner, in nats. None: no alarm.

    Both should be the same policy. Rounding explains about 1e-8 in float32, and from 1e-4 to 1e-2 in bfloat16.
    """
    never_switched: float | None = 0.95
    """The maximum fraction of episodes without a second subgoal. None: no alarm."""
    switch_rate: float | None = 0.95
    """The maximum fraction of turns that replace the subgoal. None: no alarm."""
    repeated_actions: float | None = 0.5
    """The maximum fraction of turns that repeat an action on the same observation. None: no alarm."""
    invalid: float | None = 0.5
    """The maximum fraction of turns without a valid response. None: no alarm."""
    without_spread: float | None = 0.95
    """The maximum fraction of groups whose episodes all have the same return. None: no alarm.

    An estimator that compares the episodes of a group learns nothing from such a group.
    """
    value_low: float | None = -0.5
    """The minimum explained variance of V_low. None: no alarm."""
    value_high: float | None = -0.5
    """The minimum explained variance of V_high. None: no alarm."""
    value_switch: float | None = -0.5
    """The minimum explained variance of V_switch. None: no alarm."""
    value_turn: float | None = -0.5
    """The minimum explained variance of the value before each response. None: no alarm."""
    value_token: float | None = -0.5
    """The minimum explained variance of token values. None: no alarm."""


class TrainingConfig(StrictModel):
    """The training loop."""

    iterations: int = Field(150, ge=0, le=1_000_000_000)
    """The number of iterations. Each collects episodes and updates the policy once."""
    checkpoint_every: int = Field(10, ge=1, le=1_000_000_000)
    """The number of iterations between checkpoints."""
    checkpoint_minutes: float | None = Field(30, ge=0, le=1_000_000_000, allow_inf_nan=False)
    """The minutes since the last checkpoint after which an iteration saves one too. None: iterations alone count."""
    keep_checkpoints: int = Field(2, ge=1, le=1_000_000_000)
    """The number of newest checkpoints to keep."""
    threads: int | None = Field(None, ge=1, le=1_024)
    """The number of CPU threads. None: torch decides."""
    trackers: tuple[str, ...] = ("tensorboard",)
    """Where metrics go beside ``metrics.jsonl``: ``tensorboard``, ``wandb``, ``mlflow``, ``trackio``.

    ``module:Class`` names a tracker of one's own.
    """
    device: str = "auto"
    """The torch device, for example ``cpu`` or ``cuda:1``. ``auto``: a GPU if there is one, otherwise the CPU."""


class Config(StrictModel):
    """All settings of a run."""

    name: str = "run"
    """The name of the run. Reports and figures show it."""
    seed: int = Field(0, ge=0, le=2**63 - 1)
    """The seed of all random choices of the run."""
    env: EnvConfig = EnvConfig()
    """The environment."""
    prompt: PromptConfig = PromptConfig()
    """How a turn is shown to the model."""
    model: ModelConfig = ModelConfig()
    """The policy and the critic."""
    warm_start: WarmStartConfig = WarmStartConfig()
    """Supervised fine-tuning before reinforcement learning."""
    rollout: RolloutConfig = RolloutConfig()
    """How episodes are collected."""
    sampler: SamplerConfig = SamplerConfig()
    """The part that samples responses."""
    shaping: Shaping = Shaping()
    """Penalties added to the environment's rewards."""
    advantages: AdvantageConfig = HAE()
    """The advantage estimator, chosen by ``type``, and its parameters."""
    learner: LearnerConfig = LearnerConfig()
    """Proximal policy optimisation."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """Evaluation on held-out tasks."""
    alarms: AlarmConfig = AlarmConfig()
    """The limits at which training has probably collapsed."""
    training: TrainingConfig = TrainingConfig()
    """The training loop."""

    @model_validator(mode="after")
    def _check_lora(self) -> Self:
        if self.learner.lora is not None and self.model.path is None:
            raise ValueError("learner.lora trains adapters of a pretrained model: name it with model.path")
        return self

    @model_validator(mode="after")
    def _check_renaming(self) -> Self:
        if self.warm_start.rename and self.model.path is not None:
            raise ValueError(
                "warm_start.rename exchanges words that a nano model knows, and model.path has a vocabulary of its "
                "own: set it to 0"
            )
        return self

    @model_validator(mode="after")
    def _check_ahead(self) -> Self:
        if self.rollout.ahead and self.learner.importance_cap is None:
            raise ValueError(
                "rollout.ahead learns from samples of older weights, which need importance weights: set "
                "learner.importance_cap, for example to 2"
            )
        return self

    @model_validator(mode="after")
    def _check_estimator(self) -> Self:
        estimator, name = self.advantages, self.advantages.type
        if estimator.grouped and self.rollout.group_size == 1:
            raise ValueError(
                f"advantages.type '{name}' compares episodes of one task: set rollout.group_size to 2 or more "
                "(published: 8, of 128 episodes)"
            )
        if estimator.critic == "none" and self.learner.critic_warmup_iterations:
            raise ValueError(
                f"advantages.type '{name}' has no critic to train first: set learner.critic_warmup_iterations to 0"
            )
        return self

    @model_validator(mode="after")
    def _check_plan_memory(self) -> Self:
        if self.prompt.plan_memory != "critic":
            return self
        if self.advantages.critic == "none":
            raise ValueError(
                f"prompt.plan_memory 'critic' is for a critic, and advantages.type '{self.advantages.type}' has none: "
                "set it to both or none"
            )
        if self.model.critic != "own":
            raise ValueError(
                f"prompt.plan_memory 'critic' lets the critic read other prompts than the policy, and model.critic "
                f"'{self.model.critic}' reads what the policy computes: set model.critic to own, or prompt.plan_memory "
                "to both"
            )
        return self

    def to_yaml(self) -> str:
        """The whole tree as YAML, defaults included."""
        return str(yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True))
