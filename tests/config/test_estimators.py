"""The section `advantages`: an estimator by its type, written and read back."""

from __future__ import annotations

import pytest
import yaml

from hiper.advantages import HAE, Estimator, GiGPO, ReinforcePP, TokenGAE, TurnGAE
from hiper.config import Config
from hiper.config.estimators import parameters_of
from hiper.errors import UserError

WRITTEN: list[tuple[Estimator, str]] = [
    (
        HAE(0.95, normalize=True),
        """\
advantages:
  type: hae
  gamma: 0.95
  lambda_turn: 1.0
  lambda_seg: 0.95
  switch_form: termination-value
  bootstrap_truncated: true
  normalize: true
  time_scales: two
  lambda_boundary: 0.0
""",
    ),
    (
        TurnGAE(0.95, bootstrap_truncated=True),
        """\
advantages:
  type: turn-gae
  gamma: 0.95
  lambda_turn: 1.0
  bootstrap_truncated: true
  normalize: true
""",
    ),
    (
        TokenGAE(lambda_token=0.5),
        """\
advantages:
  type: token-gae
  gamma: 1.0
  lambda_token: 0.5
  bootstrap_truncated: false
  normalize: true
""",
    ),
    (
        GiGPO(),
        """\
advantages:
  type: gigpo
  gamma: 0.95
  weight: 1.0
  scale: true
  similarity: null
""",
    ),
    (
        ReinforcePP(scale=False),
        """\
advantages:
  type: reinforce++
  gamma: 1.0
  scale: false
""",
    ),
]
"""Sections as runs have always saved them."""


@pytest.mark.parametrize(("estimator", "section"), WRITTEN, ids=lambda value: getattr(value, "type", ""))
def test_saved_sections_are_read_and_written_the_same(estimator: Estimator, section: str):
    tree = yaml.safe_load(section) | {"rollout": {"group_size": 2}}
    config = Config.model_validate(tree)
    assert config.advantages == estimator
    assert section in config.to_yaml()
    assert Config.model_validate(config.model_dump()) == Config.model_validate_json(config.model_dump_json()) == config


def test_a_section_is_a_mapping():
    with pytest.raises(ValueError, match=r"a section is needed, as in advantages='\{type: hae\}'"):
        Config.model_validate({"advantages": "grpo"})


def test_the_parameters_of_an_estimator_are_those_of_its_class():
    assert parameters_of("gigpo") == ["gamma", "weight", "scale", "similarity"]
    with pytest.raises(UserError, match="did you mean 'gigpo'"):
        parameters_of("gigpoo")
