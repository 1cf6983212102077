"""Early alarms for a training that collapses: a metric beyond its limit for several iterations in a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from hiper.advantages import HEADS
from hiper.config import AlarmConfig
from hiper.runs import metrics as names


@dataclass(frozen=True)
class Watch:
    """A metric that is watched, and the side of its limit that is wrong."""

    limit: str
    """The setting of :class:`~hiper.config.AlarmConfig` with the limit. It is the alarm's name too."""
    metric: str
    side: Literal["below", "above"]
    """The side of the limit that rings the alarm."""
    meaning: str
    """What the alarm may mean, and what helps."""


WATCHES = (
    Watch("entropy", names.ENTROPY.name, "below", "the policy hardly explores: lower learner.lr, raise entropy_coef"),
    Watch("kl", names.REFERENCE_KL.name, "above", "the policy has left its reference: lower learner.lr, raise kl_coef"),
    Watch("update_kl", names.POLICY_KL.name, "above", "one update moves the policy too far: lower learner.lr"),
    Watch(
        "mismatch",
        names.MISMATCH_KL.name,
        "above",
        "sampler and learner compute different policies: see model.compute_dtype, or choose another model",
    ),
    Watch(
        "never_switched", names.NEVER_SWITCHED.name, "above", "subgoals are never replaced: see shaping.keep_penalty"
    ),
    Watch("switch_rate", names.SWITCH_RATE.name, "above", "subgoals are replaced every turn: see shaping.keep_penalty"),
    Watch("repeated_actions", names.REPEATED_ACTIONS.name, "above", "the agent goes round in circles"),
    Watch(
        "invalid",
        names.INVALID_FORM.name,
        "above",
        "responses lose their form: warm-start longer, see shaping.invalid_penalty",
    ),
    Watch(
        "without_spread",
        names.GROUPS_WITHOUT_SPREAD.name,
        "above",
        "groups have nothing to compare: other tasks, more episodes a group, or see rollout.dynamic_sampling",
    ),
    *(
        Watch(
            f"value_{head}",
            names.EXPLAINED_VARIANCE.of(head),
            "below",
            "the critic is worse than none: see learner.critic_lr",
        )
        for head in (head.name for head in HEADS)
    ),
)


@dataclass(frozen=True)
class Alarm:
    """A ringing alarm."""

    name: str
    metric: str
    value: float
    """The metric's latest value."""
    limit: float
    side: Literal["below", "above"]
    iterations: int
    """The number of iterations in a row beyond the limit, at least."""
    meaning: str

    def __str__(self) -> str:
        return (
            f"{self.metric} is {self.value:.3g}, {self.side} {self.limit:g} for {self.iterations} iterations; "
            f"{self.meaning}"
        )


def alarms(history: Sequence[Mapping[str, float]], limits: AlarmConfig) -> list[Alarm]:
    """Return the alarms that ring after the last iteration of ``history``.

    An iteration without the metric, as in methods without a critic, silences its alarm.

    Args:
        history: The metrics of iterations, in order.
        limits: The limits, and for how many iterations a metric must be beyond one.
    """
    recent = history[-limits.patience :]
    if len(recent) < limits.patience:
        return []
    ringing = []
    for watch in WATCHES:
        limit = getattr(limits, watch.limit)
        values = [record[watch.metric] for record in recent if watch.metric in record]
        if limit is not None and len(values) == len(recent) and all(_beyond(v, limit, watch.side) for v in values):
            details = (values[-1], limit, watch.side, len(recent), watch.meaning)
            ringing.append(Alarm(watch.limit, watch.metric, *details))
    return ringing


def _beyond(value: float, limit: float, side: Literal["below", "above"]) -> bool:
    """Whether a value is beyond its limit. NaN is beyond any."""
    return not (value >= limit if side == "below" else value <= limit)


def as_metrics(ringing: Sequence[Alarm]) -> dict[str, float]:
    """Return a metric per alarm: 1 if it rings, else 0."""
    ringing_names = {alarm.name for alarm in ringing}
    return {names.ALARM.of(watch.limit): float(watch.limit in ringing_names) for watch in WATCHES}


def newly(ringing: Sequence[Alarm], before: Mapping[str, float]) -> list[Alarm]:
    """Return the alarms that did not ring in ``before``, the metrics of the previous iteration."""
    return [alarm for alarm in ringing if not before.get(names.ALARM.of(alarm.name))]
