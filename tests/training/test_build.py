"""Putting a run together, and saying early what does not fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import Qwen2ForCausalLM, Qwen2Tokenizer

from hiper.config import Config, load_config, overridden
from hiper.envs.base import Decision
from hiper.envs.small.corridor import CorridorEnv
from hiper.errors import UserError
from hiper.imitation.demonstrations import demonstrate
from hiper.plan_execute.tokenizer import encode_text
from hiper.rollout.samplers.transformers import TransformersSampler
from hiper.training import build as assembly
from hiper.training.build import Assembly, assemble
from hiper.training.splits import make_env, resolve_splits


@pytest.fixture
def settings(tiny_recipe: Path) -> Callable[..., Config]:
    base = load_config(tiny_recipe).model_dump()

    def changed(*overrides: str) -> Config:
        return Config.model_validate(overridden(base, overrides))

    return changed


@pytest.fixture
def parts(settings: Callable[..., Config]) -> Assembly:
    return assemble(settings())


def test_the_parts(parts: Assembly):
    assert len(parts.env.panel) > 0
    assert set(parts.held_out) == {"held_out"}
    agent = parts.agent()
    assert agent.params.temperature == parts.config.rollout.temperature
    assert parts.agent(0.0).params.temperature == 0.0
    assert isinstance(agent.sampler, TransformersSampler)
    assert agent.sampler.model is parts.learner.model.policy  # always the current weights


def test_a_nano_model_knows_every_word_of_its_prompts(parts: Assembly):
    for env in (parts.env, *parts.held_out.values()):
        for task in env.panel:
            for turn in demonstrate(env, task.id, perturb=0.5, seed=9).turns:
                assert parts.tokenizer.unk_token_id not in parts.prompts.build(turn.context).ids


def test_equal_settings_give_equal_parts(settings: Callable[..., Config]):
    one, other = assemble(settings()), assemble(settings())
    assert one.tokenizer.get_vocab() == other.tokenizer.get_vocab()
    for a, b in zip(one.learner.model.parameters(), other.learner.model.parameters(), strict=True):
        assert a.equal(b)


@pytest.mark.parametrize("name", ["prompt.max_tokens=490", "rollout.max_response_tokens=450"])
def test_prompts_and_responses_that_do_not_fit_are_refused(settings: Callable[..., Config], name: str):
    with pytest.raises(UserError, match=r"prompt\.max_tokens.*512 positions.*model\.nano\.max_positions"):
        assemble(settings(name))


def test_a_saved_model_says_how_much_it_holds(
    settings: Callable[..., Config],
    make_qwen2: Callable[..., Qwen2ForCausalLM],
    bpe_tokenizer: Qwen2Tokenizer,
    tmp_path: Path,
):
    make_qwen2(vocab_size=len(bpe_tokenizer), max_position_embeddings=100).save_pretrained(tmp_path)
    bpe_tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"come to 114 tokens, and the model has 100 positions; allow fewer tokens$"):
        assemble(settings(f"model.path={tmp_path}"))


def test_actions_that_a_nano_model_cannot_say_are_refused(
    settings: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
):
    class Shouting(CorridorEnv):
        """Two spaces between words, which a word-level tokenizer does not keep."""

        def _admissible(self) -> tuple[str, ...]:
            return tuple(action.replace(" ", "  ") for action in super()._admissible())

        def expert(self) -> Any:
            return Shouter()

    class Shouter:
        def reset(self, start: object) -> None: ...

        def acted(self, action: str, observation: object) -> None: ...

        def act(self, observation: Any) -> Decision:
            return Decision(True, "find the door", observation.admissible[0])

    def shouting(config: Config, split: str) -> CorridorEnv:
        plain: Any = make_env(config, split)
        return Shouting(plain.panel, plain.max_turns)

    monkeypatch.setattr(assembly, "make_env", shouting)
    with pytest.raises(UserError, match=r"cannot say .* actions of 'corridor', such as '.*  .*model\.path"):
        assemble(settings())


def test_words_seen_nowhere_are_unknown(parts: Assembly):
    assert parts.tokenizer.unk_token_id in encode_text(parts.tokenizer, "xylophone")


def test_optional_splits_are_resolved_by_what_the_data_hold(settings: Callable[..., Config]):
    settled = resolve_splits(settings("evaluation.splits_if_present=[train, nowhere, held_out]")).evaluation
    assert settled.splits == ("held_out", "train")
    assert settled.splits_if_present == ()


def test_an_optional_split_that_is_there_and_broken_is_not_passed_over(tmp_path: Path):
    (tmp_path / "train").mkdir()
    optional = {"splits": ["train"], "splits_if_present": ["train", "valid_unseen"]}
    config = Config.model_validate({"env": {"name": "alfworld", "data": str(tmp_path)}, "evaluation": optional})
    with pytest.raises(UserError, match="holds no playable game"):
        resolve_splits(config)
