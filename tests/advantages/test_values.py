"""The description of value heads fits the arrays, the estimators and the settings."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from helpers.slow_estimators import random_batch
from hiper.advantages import ESTIMATORS, HAE, HEADS, HEADS_OF, Credit, Head, Turns, head_names, values
from hiper.config import AlarmConfig
from hiper.training.alarms import WATCHES

OF_ESTIMATORS = {
    "hae": ("low", "high", "switch"),
    "turn-gae": ("turn",),
    "token-gae": ("token",),
    "grpo": (),
    "rloo": (),
    "gigpo": (),
    "reinforce++": (),
}


def test_every_critic_and_its_heads() -> None:
    assert {critic: head_names(critic) for critic in HEADS_OF} == {
        "decisions": ("low", "high", "switch"),
        "turn": ("turn",),
        "token": ("token",),
        "none": (),
    }
    for heads in HEADS_OF.values():
        assert len({head.per_token for head in heads}) <= 1


def test_the_heads_of_the_shipped_estimators() -> None:
    assert {name: head_names(kind.critic) for name, kind in ESTIMATORS.items()} == OF_ESTIMATORS
    assert {name: tuple(h.name for h in kind().heads) for name, kind in ESTIMATORS.items()} == OF_ESTIMATORS


@pytest.mark.parametrize(
    ("hae", "heads"),
    [
        (HAE(switch_form="value-gap"), ["low", "high"]),
        (HAE(switch_form="none"), ["low", "high"]),
        (HAE(time_scales="one"), ["low", "high", "switch"]),
        (HAE(switch_form="none", time_scales="one"), ["low", "high"]),
    ],
)
def test_a_form_without_v_switch_says_so(hae: HAE, heads: list[str]) -> None:
    assert [head.name for head in hae.heads] == heads


@pytest.mark.parametrize("head", HEADS, ids=lambda head: head.name)
def test_a_head_names_arrays_that_there_are(head: Head) -> None:
    batch = random_batch(np.random.default_rng(0))
    assert {head.values} <= {field.name for field in fields(Turns)}
    assert {head.target} <= {field.name for field in fields(Credit)}
    found = head.values_in(batch)
    assert found is getattr(batch, head.values)
    assert found is not None
    mask = head.trained_in(batch)
    assert mask.shape == found.shape == (batch.token_mask_BK if head.per_token else batch.mask_BT).shape
    expected = {"high": batch.boundary_BT, "token": batch.token_mask_BK}.get(head.name, batch.mask_BT)
    assert mask.tolist() == expected.tolist()


def test_the_table_of_the_module_is_the_description() -> None:
    lines = [line for line in (values.__doc__ or "").splitlines() if line.startswith("| `")]
    cells = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines]
    critic_of = {head: critic for critic, heads in HEADS_OF.items() for head in heads}
    reads = {"behind subgoal": "behind the subgoal", "before response": "before the response"}
    assert cells == [
        [
            head.name,
            critic_of[head],
            reads.get(head.read, "before each response token"),
            head.trained,
            head.values,
            head.target,
        ]
        for head in HEADS
    ]


def test_every_head_has_an_alarm_and_a_limit() -> None:
    watched = {watch.limit for watch in WATCHES if watch.limit.startswith("value_")}
    assert watched == {name for name in AlarmConfig.model_fields if name.startswith("value_")}
    assert watched == {f"value_{head.name}" for head in HEADS}


def test_undivided_credit_is_told_apart_by_nothing() -> None:
    batch = random_batch(np.random.default_rng(0))
    names = {name: list(kind()(batch).advantages(batch)) for name, kind in ESTIMATORS.items()}
    assert names.pop("hae") == ["low", "high", "switch"]
    assert names.pop("token-gae") == ["low", "token"]
    assert set(map(tuple, names.values())) == {("low",)}
