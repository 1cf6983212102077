"""What an estimator is: its formula, and what it says about itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

from hiper.advantages.types import Credit, Turns
from hiper.advantages.values import HEADS_OF, Critic, Head


@dataclass(frozen=True)
class Estimator(ABC):
    """Base class of estimators. A subclass is a frozen dataclass whose fields are its parameters.

    Every parameter needs a type and a default. A parameter that means the same as one of another estimator has the same
    name (``gamma``, ``lambda_turn``, ``bootstrap_truncated``): comparisons hand such settings on.
    """

    type: ClassVar[str]
    """The value of ``advantages.type`` that chooses the estimator; "module:Class" unless the class names another."""
    title: ClassVar[str]
    """The estimator's name in tables; the class's name unless the class states another."""
    critic: ClassVar[Critic] = "none"
    """The kind of critic whose values it reads (:mod:`hiper.advantages.values`)."""
    grouped: ClassVar[bool] = False
    """Whether it compares several episodes of one task, so that ``Turns.group_B`` is needed."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.type = vars(cls).get("type", f"{cls.__module__}:{cls.__qualname__}")
        cls.title = vars(cls).get("title", cls.__name__)

    @abstractmethod
    def __call__(self, turns: Turns) -> Credit:
        """Compute the credit of every decision.

        Raises:
            ValueError: ``turns`` lacks an array that the estimator needs.
        """

    @property
    def heads(self) -> tuple[Head, ...]:
        """The value heads that it reads and trains: all heads of its critic, unless its settings need fewer."""
        return HEADS_OF[self.critic]

    def unscaled(self) -> Self:
        """Return the same estimator without division by a standard deviation, so that credit is in units of reward."""
        return self

    def forms(self) -> Mapping[str, Self]:
        """Return the variants that a comparison shows, by title."""
        return {self.title: self}
