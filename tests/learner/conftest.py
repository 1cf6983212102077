"""What tests of the learner share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from transformers import Qwen2ForCausalLM

from hiper.advantages import Critic
from hiper.config import LearnerConfig
from hiper.learner.learner import Learner
from hiper.models.actor_critic import ActorCritic

MakeLearner = Callable[..., Learner]


@pytest.fixture(scope="session")
def make_learner(make_qwen2: Callable[..., Qwen2ForCausalLM]) -> MakeLearner:
    """A learner of a tiny model. Keywords are settings of the learner, but for the first three."""

    def make(
        critic: str = "shared", sizes: dict[str, Any] | None = None, values: Critic = "decisions", **settings: Any
    ) -> Learner:
        policy = make_qwen2(**sizes or {})
        backbone = make_qwen2(seed=1, **sizes or {}).get_decoder() if critic == "own" else None
        config = LearnerConfig(**({"lr": 1e-2, "critic_lr": 1e-2, "kl_coef": 0.0} | settings))
        model = ActorCritic(policy, backbone, detached=critic == "detached", critic=values)
        return Learner(model, config, pad_id=0, temperature=1.0)

    return make
