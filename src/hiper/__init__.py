"""HiPER: hierarchical plan-execute reinforcement learning for LLM agents (arXiv 2602.16165).

The public face. Names are imported when they are first used, so that ``import hiper`` costs nothing and the estimators
need numpy alone.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hiper.advantages import (
        GRPO,
        HAE,
        RLOO,
        Credit,
        Estimator,
        GiGPO,
        ReinforcePP,
        Shaping,
        TokenGAE,
        TurnGAE,
        Turns,
        check_estimator,
    )
    from hiper.api import clone_expert, evaluate, load_policy, open_run, resume, train
    from hiper.config import Config, load_config
    from hiper.envs import EndReason, Observation, Panel, Start, Step, Task, TextEnv, check_env
    from hiper.envs import make as make_env
    from hiper.episode import Episode
    from hiper.errors import UserError
    from hiper.runs.folder import Run

__version__ = version("hiper")

_PLACES = {
    "hiper.advantages": (
        "GRPO",
        "HAE",
        "RLOO",
        "Credit",
        "Estimator",
        "GiGPO",
        "ReinforcePP",
        "Shaping",
        "TokenGAE",
        "TurnGAE",
        "Turns",
        "check_estimator",
    ),
    "hiper.api": ("clone_expert", "evaluate", "load_policy", "open_run", "resume", "train"),
    "hiper.config": ("Config", "load_config"),
    "hiper.envs": ("EndReason", "Observation", "Panel", "Start", "Step", "Task", "TextEnv", "check_env"),
    "hiper.episode": ("Episode",),
    "hiper.errors": ("UserError",),
    "hiper.runs.folder": ("Run",),
}
"""Where the public names are defined."""
_ALIASES = {"make_env": ("hiper.envs", "make")}

__all__ = [
    "GRPO",
    "HAE",
    "RLOO",
    "Config",
    "Credit",
    "EndReason",
    "Episode",
    "Estimator",
    "GiGPO",
    "Observation",
    "Panel",
    "ReinforcePP",
    "Run",
    "Shaping",
    "Start",
    "Step",
    "Task",
    "TextEnv",
    "TokenGAE",
    "TurnGAE",
    "Turns",
    "UserError",
    "check_env",
    "check_estimator",
    "clone_expert",
    "evaluate",
    "load_config",
    "load_policy",
    "make_env",
    "open_run",
    "resume",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _ALIASES:
        module, attribute = _ALIASES[name]
        return getattr(import_module(module), attribute)
    for module, names in _PLACES.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module 'hiper' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
