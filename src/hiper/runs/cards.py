"""Result cards: everything that someone needs to reproduce, compare or distrust the numbers of an evaluation."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from hiper.errors import UserError, shortened, unreadable
from hiper.files import with_checksum, without_checksum, write_text
from hiper.outcomes import Outcome

CARD_VERSION = 3
EVALUATED = ("weights_sha256", "environment", "panel", "template", "history_window", "sampling", "seed")
"""The fields of a card on which its outcomes depend."""


@dataclass(frozen=True, slots=True)
class CardEnvironment:
    """The environment that was played."""

    name: str
    version: str
    """The environment raises it when the same actions give other observations or rewards."""
    max_turns: int
    options: Mapping[str, Any]
    """Its settings apart from the split."""


@dataclass(frozen=True, slots=True)
class CardPanel:
    """The tasks that were played."""

    name: str
    tasks: int
    sha256: str
    """Hash over the identifiers of the tasks."""
    official: bool | None
    """Whether the tasks are those of the published benchmark; None: unknown."""


@dataclass(frozen=True, slots=True)
class CardSampling:
    """How responses were sampled."""

    temperature: float
    max_tokens: int
    """Longest response, in tokens."""
    choose: str = "anything"
    """``admissible``: responses were chosen among the valid ones with an admissible action."""


def _check_numbers(name: str, outcome: Outcome) -> None:
    """Check the numbers of an outcome that came from a file.

    Raises:
        TypeError: one of them is something else.
    """
    low, high = outcome.interval
    numbers = (
        low,
        high,
        outcome.episodes,
        outcome.won,
        outcome.success,
        outcome.score,
        outcome.turns,
        outcome.truncated,
    )
    if not all(isinstance(number, int | float) for number in (*numbers, *outcome.invalid.values())):
        raise TypeError(f"the outcome of '{name}' holds something that is no number")


@dataclass(frozen=True, slots=True)
class Card:
    """One evaluation of one policy. Fields are in the order of the JSON."""

    hiper: str
    """Version of this package."""
    date: str
    """ISO 8601, in UTC."""
    command: str
    """The command line that made the card."""
    checkpoint: str
    """Whose weights were evaluated, in words."""
    weights_sha256: str | None
    """Hash over the names and bytes of all parameters; None in cards of samplers that could not tell."""
    environment: CardEnvironment
    panel: CardPanel
    template: str
    """Name, version and beginning of the hash of the prompt template."""
    history_window: int
    """Past turns shown in a prompt."""
    prompt: Mapping[str, Any] = field(default_factory=dict, kw_only=True)
    """The settings ``chat_template_args`` and ``thinking``, where they are set."""
    sampling: CardSampling
    seed: int
    seconds: float
    """Wall time of the evaluation."""
    machine: str
    """Processor architecture and Python version."""
    outcomes: Mapping[str, Outcome]
    """By task type; ``all`` holds all episodes."""

    @property
    def overall(self) -> Outcome:
        """The outcome over all task types."""
        return self.outcomes["all"]

    def differs_from(self, other: Card) -> str | None:
        """Return the first field that makes this another evaluation than ``other``; None: they would come out equal."""
        mine, others = (json.loads(json.dumps(card.to_json(), default=str)) for card in (self, other))
        return next((name for name in EVALUATED if mine[name] != others[name]), None)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary, stamped with :data:`CARD_VERSION`."""
        return {"card": CARD_VERSION, **dataclasses.asdict(self)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Rebuild a card from what :meth:`to_json` returned.

        Raises:
            KeyError, TypeError: a field is missing, unknown or of the wrong shape.
            ValueError: the card has another version, or contradicts itself.
        """
        fields = dict(record)
        if (version := fields.pop("card")) != CARD_VERSION:
            raise ValueError(f"version {version} is not {CARD_VERSION}")
        outcomes = {
            name: Outcome(**{**outcome, "interval": tuple(outcome["interval"])})
            for name, outcome in fields.pop("outcomes").items()
        }
        for name, outcome in outcomes.items():
            _check_numbers(name, outcome)
            told = len(outcome.won_by_task), outcome.won_by_task.count("1")
            if told != (outcome.episodes, outcome.won):
                raise ValueError(f"won_by_task of '{name}' contradicts its episodes and won")
        if "all" not in outcomes:
            raise ValueError("its outcomes lack 'all'")
        return cls(
            environment=CardEnvironment(**fields.pop("environment")),
            panel=CardPanel(**fields.pop("panel")),
            sampling=CardSampling(**fields.pop("sampling")),
            outcomes=outcomes,
            **fields,
        )

    def write(self, path: Path) -> None:
        """Write the card, whole or not at all."""
        record = json.loads(json.dumps(self.to_json(), default=str))
        write_text(path, json.dumps(with_checksum(record), indent=2) + "\n")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a card.

        Raises:
            UserError: the file is no readable card, or a card of another version.
        """
        try:
            record, _ = without_checksum(json.loads(path.read_text(encoding="utf-8")))
            version = record["card"]
            if version == CARD_VERSION:
                return cls.from_json(record)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(
                f"{path} is not a readable result card ({unreadable(error)}): move it away to go without it; "
                "hiper train --resume RUN makes the last card of a run again"
            ) from error
        raise UserError(
            f"{path} is a result card of version {shortened(version)}, and this hiper reads version {CARD_VERSION}: "
            "read the run with the hiper that made it"
        )
