"""Which settings make a method, and which only say what one run of it was begun from."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from hiper.config import Config, flatten

WARM_STARTS = "warm-starts"
"""The folder of a study's warm starts."""
OF_A_MACHINE = {"training.threads", "training.device", "learner.micro_batch_tokens", "sampler.batch_tokens"}
"""Where a run is computed, and how much at once."""
OF_A_RUN = {"seed", *OF_A_MACHINE}
"""A method's runs may differ in these."""


def flat(config: Config) -> dict[str, Any]:
    """The settings by dotted key; of the path of a study's warm start, what does not change when it is moved."""
    settings = dict(flatten(config.model_dump(mode="json")))
    if config.model.path is not None:
        # A study's warm starts lie in its folder, wherever that is or was.
        settings["model.path"] = re.sub(rf"^.*/(?={WARM_STARTS}/)", "", config.model.path)
    return settings


def method_settings(config: Config) -> dict[str, Any]:
    """What all runs of a method have in common. A policy to begin from whose path names the seed is one for all."""
    settings = {key: value for key, value in flat(config).items() if key not in OF_A_RUN}
    if config.model.path is not None:
        settings["model.path"] = settings["model.path"].replace(f"seed{config.seed}", "seed*")
    return settings


def differing(trees: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys at which not all are equal, or which some lack."""
    keys = dict.fromkeys(key for tree in trees for key in tree)
    missing = object()
    return [key for key in keys if any(tree.get(key, missing) != trees[0].get(key, missing) for tree in trees)]
