"""The environment of a run's settings, and the held-out splits that its data contain. Imports no torch."""

from __future__ import annotations

from contextlib import suppress

from hiper import envs
from hiper.config import Config
from hiper.envs.base import TextEnv
from hiper.errors import NoSplitError


def make_env(config: Config, split: str) -> TextEnv:
    """Make the environment of the settings over one split."""
    return envs.make(config.env.name, split=split, **config.env.options)


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
