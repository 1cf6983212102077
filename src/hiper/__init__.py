"""HiPER: hierarchical plan-execute reinforcement learning for LLM agents (arXiv 2602.16165).

The public face. Names are imported when they are first used, so that ``import hiper`` costs nothing and the estimators
need numpy alone. Besides the names below, all of :mod:`hiper.advantages` can be had here: ``from hiper import HAE``.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hiper.advantages import *  # noqa: F403
    from hiper.api import clone_expert, evaluate, load_policy, open_run, resume, train
    from hiper.config import Config, load_config
    from hiper.envs import EndReason, Observation, Panel, Start, Step, Task, TextEnv, check_env
    from hiper.envs import make as make_env
    from hiper.episode import Episode
    from hiper.errors import UserError
    from hiper.processes import together
    from hiper.runs.folder import Run

__version__ = version("hiper")

__all__ = [
    "Config",
    "EndReason",
    "Episode",
    "Observation",
    "Panel",
    "Run",
    "Start",
    "Step",
    "Task",
    "TextEnv",
    "UserError",
    "check_env",
    "clone_expert",
    "evaluate",
    "load_config",
    "load_policy",
    "make_env",
    "open_run",
    "resume",
    "together",
    "train",
]

_PLACES = {
    "hiper.api": ("clone_expert", "evaluate", "load_policy", "open_run", "resume", "train"),
    "hiper.config": ("Config", "load_config"),
    "hiper.envs": ("EndReason", "Observation", "Panel", "Start", "Step", "Task", "TextEnv", "check_env"),
    "hiper.episode": ("Episode",),
    "hiper.errors": ("UserError",),
    "hiper.processes": ("together",),
    "hiper.runs.folder": ("Run",),
}
"""Where the public names are defined."""


def __getattr__(name: str) -> Any:
    if name == "make_env":
        return import_module("hiper.envs").make
    for module, names in _PLACES.items():
        if name in names:
            return getattr(import_module(module), name)
    if not name.startswith("_") and name in (advantages := import_module("hiper.advantages")).__all__:
        return getattr(advantages, name)
    raise AttributeError(f"module 'hiper' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, *import_module("hiper.advantages").__all__])
