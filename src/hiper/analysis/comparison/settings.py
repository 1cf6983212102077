"""Settings that define a method, and settings that belong to one run of it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from hiper.config import Config, flatten

WARM_STARTS = "warm-starts"
"""Name of the folder that holds the warm starts of a study."""
MACHINE_KEYS = {"training.threads", "training.device", "learner.micro_batch_tokens", "sampler.batch_tokens"}
"""Settings of the machine: where a run is computed, and how much at once."""
RUN_SPECIFIC_KEYS = {"seed", *MACHINE_KEYS}
"""Settings in which runs of one method may differ."""


def flat(config: Config) -> dict[str, Any]:
    """Return the settings by dotted key. The path of a study's warm start is shortened to the part inside the study."""
    settings = dict(flatten(config.model_dump(mode="json")))
    if config.model.path is not None:
        # A study may be moved together with its warm starts.
        settings["model.path"] = re.sub(rf"^.*/(?={WARM_STARTS}/)", "", config.model.path)
    return settings


def method_settings(config: Config) -> dict[str, Any]:
    """Return the settings that all runs of a method share, by dotted key.

    The seed in the path of a first policy is replaced by a star: runs that begin from the policy of their own seed
    belong to one method.
    """
    settings = {key: value for key, value in flat(config).items() if key not in RUN_SPECIFIC_KEYS}
    if config.model.path is not None:
        settings["model.path"] = settings["model.path"].replace(f"seed{config.seed}", "seed*")
    return settings


def differing(trees: Sequence[Mapping[str, Any]], prefixes: tuple[str, ...] = ("",)) -> list[str]:
    """Return the keys whose values differ between trees, or that some trees lack.

    Args:
        trees: settings by dotted key.
        prefixes: only keys that begin with one of these count.
    """
    keys = dict.fromkeys(key for tree in trees for key in tree)
    missing = object()
    return [
        key
        for key in keys
        if key.startswith(prefixes) and any(tree.get(key, missing) != trees[0].get(key, missing) for tree in trees)
    ]
