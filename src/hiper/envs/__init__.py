"""Text environments: the protocol, the registry, and those that ship."""

from hiper.envs.base import EndReason, Info, Observation, Start, Step, TextEnv
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
    "make",
    "names",
    "register",
]
