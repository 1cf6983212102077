"""Text environments: the protocol, the registry, and those that ship."""

from hiper.envs.base import EndReason, Info, Observation, Start, Step, TextEnv
from hiper.envs.checks import check_env
from hiper.envs.panels import Panel, Task
from hiper.envs.registry import make, names, register

__all__ = [
    "EndReason",
    "Info",
    "Observation",
    "Panel",
    "Start",
    "Step",
    "Task",
    "TextEnv",
    "check_env",
    "make",
    "names",
    "register",
]
