"""Models of data that people write, and messages about what is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import Field, ValidationError

from hiper.errors import SHOWN_CHARACTERS, UserError
from hiper.validation import StrictModel, keys_at, parse_model


@dataclass(frozen=True)
class Sizes:
    width: int = 1
    height: int = 1


class Wheel(StrictModel):
    spokes: int = Field(ge=3)
    colour: str = "black"


class Bicycle(StrictModel):
    name: str
    wheels: tuple[Wheel, ...] = ()
    by_name: dict[str, Wheel] = Field(default_factory=dict)
    spare: Wheel | None = None
    sizes: Sizes = Sizes()


def problems(data: Any) -> list[str]:
    with pytest.raises(UserError) as caught:
        parse_model(Bicycle, data, "shop.yaml", "bicycle")
    source, _, said = str(caught.value).partition(": ")
    assert source == "shop.yaml"
    return said.split("\n  ")


def test_data_become_a_model_that_cannot_change():
    bicycle = parse_model(Bicycle, {"name": "a", "wheels": [{"spokes": 3}]}, "shop.yaml", "bicycle")
    assert bicycle == Bicycle(name="a", wheels=(Wheel(spokes=3),))
    with pytest.raises(ValidationError, match="frozen"):
        bicycle.name = "b"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"nme": 1}, "unknown key 'nme'; did you mean 'name'?"),
        ({"wheels": [{"spokes": 3, "color": "red"}]}, "unknown key 'wheels.0.color'; did you mean 'colour'?"),
        (
            {"by_name": {"front": {"spoke": 3, "spokes": 3}}},
            "unknown key 'by_name.front.spoke'; did you mean 'spokes'?",
        ),
        ({"spare": {"spokes": 3, "colours": 1}}, "unknown key 'spare.colours'; did you mean 'colour'?"),
        ({"sizes": {"widht": 1}}, "unknown key 'sizes.widht'; did you mean 'width'?"),
        ({"spare": {}}, "'spare.spokes' is missing"),
        ({"spare": 3}, "spare: a section is needed, with keys and values in it (given: 3)"),
        ({"sizes": 3}, "sizes: a section is needed, with keys and values in it (given: 3)"),
        ({"by_name": [1]}, "by_name: a section is needed, with keys and values in it (given: [1])"),
        ({"spare": {"spokes": 2}}, "spare.spokes: it should be greater than or equal to 3 (given: 2)"),
    ],
)
def test_a_problem_is_named_with_its_place(wrong: dict[str, Any], message: str):
    assert problems({"name": "a", **wrong}) == [message]


def test_all_problems_are_named_at_once():
    assert problems({"spare": {"spokes": "x"}, "sixes": 1}) == [
        "'name' is missing",
        "spare.spokes: a whole number is needed (given: 'x')",
        "unknown key 'sixes'; did you mean 'sizes'?",
    ]


def test_the_data_as_a_whole_have_a_name():
    assert problems([1]) == ["bicycle: a section is needed, with keys and values in it (given: [1])"]


def test_a_long_value_is_shown_in_part():
    [message] = problems({"name": "a", "spare": "x" * 1000})
    assert message.endswith("xxx...)")
    assert len(message) < SHOWN_CHARACTERS + 100


def test_keys_of_a_section():
    assert keys_at(Bicycle, []) == ["name", "wheels", "by_name", "spare", "sizes"]
    assert keys_at(Bicycle, ["wheels", "0"]) == keys_at(Bicycle, ["spare"]) == ["spokes", "colour"]
    assert keys_at(Bicycle, ["sizes"]) == ["width", "height"]
    assert keys_at(Bicycle, ["name"]) == []
