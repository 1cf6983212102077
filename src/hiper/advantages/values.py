"""Value heads: where each is read, when it is trained, and which arrays belong to it. The one description of them.

| head     | critic    | read                           | trained at  | array of Turns | target of Credit   |
|----------|-----------|--------------------------------|-------------|----------------|--------------------|
| `low`    | decisions | behind the subgoal             | every turn  | `v_low_BT`     | `return_low_BT`    |
| `high`   | decisions | before the response            | boundaries  | `v_high_BT`    | `return_high_BT`   |
| `switch` | decisions | before the response            | every turn  | `v_switch_BT`  | `return_switch_BT` |
| `turn`   | turn      | before the response            | every turn  | `value_BT`     | `return_BT`        |
| `token`  | token     | before each response token     | every token | `v_token_BK`   | `return_token_BK`  |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypeAlias

from hiper.advantages.types import Bools, Credit, Floats, Turns

Critic: TypeAlias = Literal["decisions", "turn", "token", "none"]
"""The kinds of critic: three values a turn, one for each decision; one value a turn; one value a token; no critic."""


@dataclass(frozen=True)
class Head:
    """One scalar output of a critic."""

    name: str
    """The head's name in stored credit (``value/NAME``), in metrics and in alarms."""
    read: Literal["before response", "behind subgoal", "before token"]
    """The place of a response where the value is read."""
    trained: Literal["every turn", "boundaries", "every token"]
    """The places that have a regression target."""
    values: str
    """The field of :class:`Turns` that holds the values."""
    target: str
    """The field of :class:`Credit` that holds the regression targets."""
    baseline_of: str
    """The name in :meth:`Credit.advantages` of the advantage that is target minus value, before normalisation."""

    @property
    def per_token(self) -> bool:
        """Whether there is a value for each token, (B, K), rather than for each turn, (B, T)."""
        return self.read == "before token"

    def values_in(self, turns: Turns) -> Floats | None:
        """The head's values, (B, T) or (B, K); None where they were not given."""
        values: Floats | None = getattr(turns, self.values)
        return values

    def targets_in(self, credit: Credit) -> Floats | None:
        """The head's regression targets, (B, T) or (B, K); None where the estimator gives it nothing to learn."""
        targets: Floats | None = getattr(credit, self.target)
        return targets

    def trained_in(self, turns: Turns) -> Bools:
        """The mask, (B, T) or (B, K), of the places that have a regression target."""
        if self.trained == "boundaries":
            return turns.boundary_BT
        return turns.token_mask_BK if self.per_token else turns.mask_BT


LOW = Head("low", "behind subgoal", "every turn", "v_low_BT", "return_low_BT", "low")
HIGH = Head("high", "before response", "boundaries", "v_high_BT", "return_high_BT", "high")
SWITCH = Head("switch", "before response", "every turn", "v_switch_BT", "return_switch_BT", "switch")
TURN = Head("turn", "before response", "every turn", "value_BT", "return_BT", "low")
TOKEN = Head("token", "before token", "every token", "v_token_BK", "return_token_BK", "token")

HEADS_OF: Mapping[Critic, tuple[Head, ...]] = MappingProxyType(
    {"decisions": (LOW, HIGH, SWITCH), "turn": (TURN,), "token": (TOKEN,), "none": ()}
)
"""The heads of each kind of critic, in the order of its outputs. All heads of a critic have one value a turn, or all of
them have one a token."""

HEADS: tuple[Head, ...] = tuple(head for heads in HEADS_OF.values() for head in heads)
"""Every head there is."""


def head_names(critic: Critic) -> tuple[str, ...]:
    """The names of a critic's heads, in the order of its outputs."""
    return tuple(head.name for head in HEADS_OF[critic])
