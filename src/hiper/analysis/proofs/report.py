"""Everything that `hiper verify` proved and measured, in one record."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hiper.analysis.proofs.episodes import EpisodeCheck
from hiper.analysis.proofs.proofs import Bias, Departure, Passing, Unbiased, Variance


@dataclass(frozen=True)
class Verification:
    """Everything that `hiper verify` found out."""

    unbiased: Sequence[Unbiased]
    value_gap_share: tuple[float, float]
    """Smallest and largest ratio of the value-gap form's expected switch gradient to beta times the exact one."""
    variances: Sequence[Variance]
    biases: Sequence[Bias]
    passing: Sequence[Passing]
    departures: Sequence[Departure]
    episodes: EpisodeCheck | None
    """The check on a run's episodes; None: no run was given."""
    iteration: int | None = None
    """The run's iteration that these episodes come from."""

    @property
    def failed(self) -> list[str]:
        """Names of estimators that are claimed to be unbiased but are not."""
        return [check.estimator for check in self.unbiased if check.claimed and not check.holds]

    def to_json(self) -> dict[str, Any]:
        """Return all numbers as a tree for JSON."""
        tree: dict[str, Any] = {"unbiased": [dataclasses.asdict(u) | {"holds": u.holds} for u in self.unbiased]}
        tree["value_gap_share_of_beta"] = self.value_gap_share
        tree["variances"] = [dataclasses.asdict(v) | {"ratios": v.ratios.tolist()} for v in self.variances]
        tree["biases"] = [dataclasses.asdict(bias) for bias in self.biases]
        tree["passing"] = [dataclasses.asdict(passing) for passing in self.passing]
        tree["departures"] = [dataclasses.asdict(departure) for departure in self.departures]
        if (check := self.episodes) is not None:
            verdicts = {"target_verdict": check.target_verdict, "variance_verdict": check.variance_verdict}
            tree["episodes"] = {"iteration": self.iteration} | dataclasses.asdict(check) | verdicts
        return tree
