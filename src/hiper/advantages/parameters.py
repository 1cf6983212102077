"""Checks of estimators' parameters. Messages name the setting."""

from __future__ import annotations

from typing import Any, get_args

from hiper.errors import UserError


def check_fractions(parameters: object, *names: str) -> None:
    """Check that each named parameter lies in [0, 1].

    Raises:
        UserError: One does not.
    """
    for name in names:
        if not 0.0 <= (value := getattr(parameters, name)) <= 1.0:
            raise UserError(f"{name} is {value}; it must lie between 0 and 1")


def check_choices(parameters: object, **choices: Any) -> None:
    """Check that each named parameter is one of the strings of its ``Literal``.

    Raises:
        UserError: One is not.
    """
    for name, choice in choices.items():
        if (value := getattr(parameters, name)) not in get_args(choice):
            raise UserError(f"{name} is '{value}'; it must be one of {', '.join(get_args(choice))}")
