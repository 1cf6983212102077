"""Estimators by name: those that ship, those registered at run time, and a user's own at ``module:Class``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from hiper.advantages.estimator import Estimator
from hiper.advantages.values import HEADS_OF
from hiper.errors import UserError
from hiper.plugins import resolve

AnyEstimator = TypeVar("AnyEstimator", bound=Estimator)

SHIPPED = (
    "hiper.advantages.hae:HAE",
    "hiper.advantages.gae:TurnGAE",
    "hiper.advantages.gae:TokenGAE",
    "hiper.advantages.grpo:GRPO",
    "hiper.advantages.rloo:RLOO",
    "hiper.advantages.gigpo:GiGPO",
    "hiper.advantages.reinforce_pp:ReinforcePP",
)
"""The list of estimators, one line each. A class states its own name, as ``type``."""

_registered: dict[str, type[Estimator]] = {}

ESTIMATORS: Mapping[str, type[Estimator]] = MappingProxyType(_registered)
"""Every registered estimator, by the ``type`` that settings name."""


def register_estimator(kind: type[AnyEstimator]) -> type[AnyEstimator]:
    """Add an estimator to :data:`ESTIMATORS` under its ``type``. Usable as a decorator above ``@dataclass``.

    Raises:
        UserError: The class is no estimator, or the name belongs to another one.
    """
    check_estimator_class(kind)
    if _registered.setdefault(kind.type, kind) is not kind:
        raise UserError(f"an estimator is already registered as '{kind.type}'; choose another name")
    return kind


def find_estimator(name: str) -> type[Estimator]:
    """Return the estimator class registered as ``name``, or found there if ``name`` is "module:Class".

    >>> find_estimator("rloo")
    <class 'hiper.advantages.rloo.RLOO'>

    Raises:
        UserError: There is no such class, or it is no estimator.
    """
    kind: type[Estimator] = resolve(
        "advantage estimator",
        name,
        ESTIMATORS,
        fits=lambda found: isinstance(found, type) and issubclass(found, Estimator),
        needs="a class derived from hiper.advantages.Estimator",
    )
    check_estimator_class(kind)
    return kind


def check_estimator_class(kind: Any) -> None:
    """Check that a class keeps the rules of :class:`Estimator` that need no call.

    Raises:
        UserError: It does not; the message names the class and the rule.
    """
    name = getattr(kind, "__name__", repr(kind))
    if not (isinstance(kind, type) and issubclass(kind, Estimator)):
        raise UserError(f"'{name}' is no estimator: it must be derived from hiper.advantages.Estimator")
    if left := sorted(kind.__abstractmethods__):
        raise UserError(f"estimator '{name}' does not define {', '.join(left)}")
    if "__dataclass_fields__" not in vars(kind):
        raise UserError(f"estimator '{name}' must be a frozen dataclass: put @dataclass(frozen=True) above the class")
    if kind.critic not in HEADS_OF:
        raise UserError(f"estimator '{name}' has critic '{kind.critic}'; it must be one of {', '.join(HEADS_OF)}")
    for field in dataclasses.fields(kind):
        if field.name == "type":
            raise UserError(f"estimator '{name}' has a parameter 'type', which settings use for the estimator's name")
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise UserError(f"estimator '{name}': the parameter '{field.name}' needs a default")


for _place in SHIPPED:
    register_estimator(find_estimator(_place))
