"""The reference pages are what the code says, and name everything there is."""

from __future__ import annotations

import re

import pytest

import reference
from hiper import envs
from hiper.config import Config, flatten


@pytest.mark.parametrize("name", reference.PAGES)
def test_pages_are_up_to_date(name: str):
    written = (reference.FOLDER / name).read_text(encoding="utf-8")
    assert written == reference.PAGES[name](), "run `make reference`"


def test_every_setting_has_a_row():
    rows = [(key, row) for key, part in parts_of("settings.md") for row in re.findall(r"^\| `([^`]+)` \|", part, re.M)]
    there = {row if key == "top level" else f"{key}.{row}" for key, row in rows}
    there |= {key for key, _ in rows}  # a section may be null
    wanted = {key for key, _ in flatten(Config().model_dump(mode="json")) if not key.startswith("advantages.")}
    assert {key for key in wanted if not key.startswith(("sampler.", "env."))} <= there
    assert {f"env.name: {name}" for name in ("alfworld", "boxes", "corridor", "webshop")} <= {k for k, _ in rows}
    assert {"env.name: alfworld.size", "sampler.type: transformers.batch_tokens", "advantages.type: hae.gamma"} <= there


def parts_of(name: str) -> list[tuple[str, str]]:
    """The headings of a page, each with the text below it."""
    text = (reference.FOLDER / name).read_text(encoding="utf-8")
    return [(part.partition("\n")[0], part) for part in re.split(r"^##+ ", text, flags=re.M)[1:]]


def test_every_environment_has_a_part():
    headings = {heading for heading, _ in parts_of("settings.md")}
    assert {f"env.name: {name}" for name in envs.registry.names() if ":" not in name} <= headings


def test_a_field_without_a_docstring_is_an_error():
    with pytest.raises(ValueError, match=r"Undocumented\.key has no docstring below it"):
        reference.documented(Undocumented)


class Undocumented:
    key: int = 1


def test_an_argument_without_a_docstring_is_an_error():
    def make(split: str, size: int = 1) -> None:
        """Make it.

        Args:
            split: the split.
        """

    with pytest.raises(ValueError, match="'size' is not documented"):
        reference.arguments_of(make)


def test_metrics_are_grouped_by_the_comments_above_them():
    source = "# Time. In seconds.\nA = Metric(\n    1)\n\nB = Metric(2)\n# Words\n# and more.\nC = Metric(3)\n# End.\n"
    assert reference.groups_of_metrics(source) == [("Time. In seconds.", ["A", "B"]), ("Words and more.", ["C"])]


@pytest.mark.parametrize(
    ("default", "text"),
    [(1e-6, "`1e-6`"), (None, "`null`"), (True, "`true`"), (("a",), "`[a]`"), (2.0, "`2`"), ("x", "`x`"), ({}, "`{}`")],
)
def test_defaults_are_shown_as_yaml(default: object, text: str):
    assert reference.shown(default) == text
