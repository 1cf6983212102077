"""The settings of a run: the typed tree with every default, and how it is loaded.

A recipe is a YAML file of the tree's shape. ``dotted.key=value`` settings on the command line override it. Unknown keys
are errors, and every run saves its whole tree.
"""

from hiper.config.estimators import AdvantageConfig
from hiper.config.load import (
    apply_overrides,
    flatten,
    given_keys,
    load_config,
    parse_setting,
    recipe_names,
    recipe_summary,
    recipe_text,
    validate_config,
)
from hiper.config.models import ModelConfig, NanoConfig
from hiper.config.prompts import Overflow, PromptConfig, ThinkingConfig
from hiper.config.tree import (
    AlarmConfig,
    Config,
    EnvConfig,
    EvaluationConfig,
    LearnerConfig,
    LoraConfig,
    RolloutConfig,
    SamplerConfig,
    TrainingConfig,
)
from hiper.config.warm_start import LAPSES, WARM_START_PREFIXES, DaggerConfig, ImperfectConfig, Lapse, WarmStartConfig

__all__ = [
    "LAPSES",
    "WARM_START_PREFIXES",
    "AdvantageConfig",
    "AlarmConfig",
    "Config",
    "DaggerConfig",
    "EnvConfig",
    "EvaluationConfig",
    "ImperfectConfig",
    "Lapse",
    "LearnerConfig",
    "LoraConfig",
    "ModelConfig",
    "NanoConfig",
    "Overflow",
    "PromptConfig",
    "RolloutConfig",
    "SamplerConfig",
    "ThinkingConfig",
    "TrainingConfig",
    "WarmStartConfig",
    "apply_overrides",
    "flatten",
    "given_keys",
    "load_config",
    "parse_setting",
    "recipe_names",
    "recipe_summary",
    "recipe_text",
    "validate_config",
]
