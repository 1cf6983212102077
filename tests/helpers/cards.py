"""Result cards for tests that care about their outcomes alone."""

from __future__ import annotations

from collections.abc import Mapping

from hiper.outcomes import Outcome
from hiper.runs.cards import Card, CardEnvironment, CardPanel, CardSampling


def make_card(outcomes: Mapping[str, Outcome]) -> Card:
    return Card(
        hiper="0.1.0",
        date="2026-01-02T03:04:05+00:00",
        command="hiper train tiny",
        checkpoint="tiny, iteration 0",
        weights_sha256="1" * 64,
        environment=CardEnvironment("corridor", "1", 6, {"cells": 3}),
        panel=CardPanel("corridor/held_out", outcomes["all"].episodes, "0123456789abcdef" * 4, None),
        template="terse-1-05f21f0e",
        history_window=1,
        sampling=CardSampling(1.0, 24),
        seed=7,
        seconds=1.5,
        machine="x86_64, Python 3.11.7",
        outcomes=outcomes,
    )


def outcome(won_by_task: str) -> Outcome:
    won = won_by_task.count("1")
    share = won / len(won_by_task)
    return Outcome(len(won_by_task), won, won_by_task, share, (0.0, 1.0), share, 5.0, 0, {})
