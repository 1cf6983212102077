"""The environment of a run's settings, and the held-out splits that its data contain. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from hiper import envs
from hiper.config import Config
from hiper.display.console import Display
from hiper.envs.base import TextEnv
from hiper.errors import NoSplitError


def make_env(config: Config, split: str) -> TextEnv:
    """Make the environment of the settings over one split."""
    return envs.make(config.env.name, split=split, **config.env.options)


def open_splits(config: Config, splits: Sequence[str], display: Display) -> list[TextEnv]:
    """Make the environments of several splits, and show which one is being opened."""
    envs_of_splits = []
    for split in splits:
        with display.bar(f"opening {config.env.name}, {split}"):
            envs_of_splits.append(make_env(config, split))
    return envs_of_splits


def resolve_splits(config: Config) -> Config:
    """Return the settings with ``evaluation.splits`` completed by the optional splits that the data contain.

    Raises:
        UserError: The data of an optional split exist but cannot be used.
    """
    found = []
    for split in config.evaluation.splits_if_present:
        with suppress(NoSplitError):
            make_env(config, split)
            found.append(split)
    splits = tuple(dict.fromkeys([*config.evaluation.splits, *found]))
    evaluation = config.evaluation.model_copy(update={"splits": splits, "splits_if_present": ()})
    return config.model_copy(update={"evaluation": evaluation})
