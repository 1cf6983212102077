"""Putting a run together, and saying early what does not fit."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from transformers import Qwen2ForCausalLM, Qwen2Tokenizer

from helpers.made import turns_of
from hiper.config import Config, apply_overrides, load_config
from hiper.envs.base import Decision
from hiper.envs.small.corridor import CorridorEnv
from hiper.episode import Episode
from hiper.errors import UserError
from hiper.imitation.demonstrations import Experts, demonstrate
from hiper.imitation.fine_tuning import imitation_rows
from hiper.plan_execute.tokenizer import encode_text
from hiper.rollout.collector import collect, contexts_of
from hiper.rollout.environment import make_env, resolve_splits
from hiper.rollout.players import Assignment
from hiper.rollout.samplers.transformers import TransformersSampler
from hiper.training.assign import assign_credit, rows_of
from hiper.training.build import Parts, build
from hiper.training.metrics import plan_memory_metrics


@pytest.fixture
def settings(tiny_recipe: Path) -> Callable[..., Config]:
    base = load_config(tiny_recipe).model_dump()

    def changed(*overrides: str) -> Config:
        return Config.model_validate(apply_overrides(base, overrides))

    return changed


@pytest.fixture
def parts(settings: Callable[..., Config]) -> Parts:
    return build(settings())


def test_the_parts(parts: Parts):
    assert len(parts.env.panel) > 0
    assert set(parts.held_out) == {"held_out"}
    assert parts.agent.params.temperature == parts.config.rollout.temperature
    assert parts.agent.at(0.0).params.temperature == 0.0
    assert parts.agent.at(0.0).sampler is parts.agent.sampler
    assert isinstance(parts.agent.sampler, TransformersSampler)


def test_a_nano_model_knows_every_word_of_its_prompts(parts: Parts):
    for env in (parts.env, *parts.held_out.values()):
        for task in env.panel:
            for turn in turns_of(demonstrate(env, task.id, perturb=0.5, seed=9)):
                assert parts.tokenizer.unk_token_id not in parts.prompts.build(turn.context).ids


def test_equal_settings_give_equal_parts(settings: Callable[..., Config]):
    one, other = build(settings()), build(settings())
    assert one.tokenizer.get_vocab() == other.tokenizer.get_vocab()
    assert one.learner.weights().sha256() == other.learner.weights().sha256()


@pytest.mark.parametrize("name", ["prompt.max_tokens=490", "rollout.max_response_tokens=450"])
def test_prompts_and_responses_that_do_not_fit_are_refused(settings: Callable[..., Config], name: str):
    with pytest.raises(UserError, match=r"prompt\.max_tokens.*512 positions.*model\.nano\.max_positions"):
        build(settings(name))


def test_a_saved_model_says_how_much_it_holds(
    settings: Callable[..., Config],
    make_qwen2: Callable[..., Qwen2ForCausalLM],
    bpe_tokenizer: Qwen2Tokenizer,
    tmp_path: Path,
):
    make_qwen2(vocab_size=len(bpe_tokenizer), max_position_embeddings=100).save_pretrained(tmp_path)
    bpe_tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"is 114 tokens, but the model has 100 positions; allow fewer tokens$"):
        build(settings(f"model.path={tmp_path}"))


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

    original = make_env

    def shouting(config: Config, split: str) -> CorridorEnv:
        plain: Any = original(config, split)
        return Shouting(plain.panel, plain.max_turns)

    monkeypatch.setattr("hiper.rollout.environment.make_env", shouting)
    with pytest.raises(UserError, match=r"cannot say .* actions of 'corridor', such as '.*  .*model\.path"):
        build(settings())


def test_words_seen_nowhere_are_unknown(parts: Parts):
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


# --- Samplers -------------------------------------------------------------------------------------------------------


class Echoing(TransformersSampler):
    """A sampler of a user's own, found as ``module:Class``."""


def test_options_of_the_sampler_reach_it(settings: Callable[..., Config], monkeypatch: pytest.MonkeyPatch):
    sampler = build(settings("sampler.batch_tokens=4321")).agent.sampler
    assert isinstance(sampler, TransformersSampler)
    assert sampler.batch_tokens == 4321


def test_a_sampler_of_ones_own(settings: Callable[..., Config], monkeypatch: pytest.MonkeyPatch):
    module = ModuleType("my_samplers")
    module.Echoing = Echoing  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "my_samplers", module)
    assert type(build(settings("sampler.type=my_samplers:Echoing")).agent.sampler) is Echoing


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sampler.batch_tokns=1", "sampler 'transformers': unknown key 'batch_tokns'; did you mean 'batch_tokens'"),
        ("sampler.batch_tokens=0", r"sampler 'transformers': batch_tokens: .*greater than or equal to 1 \(given: 0\)"),
        ("sampler.type=transformer", "there is no sampler 'transformer'; did you mean 'transformers'"),
        (
            "sampler.type=json:loads",
            "sampler 'json:loads' is a function; a class with an attribute 'options' is needed",
        ),
    ],
)
def test_a_wrong_sampler_is_refused(settings: Callable[..., Config], override: str, message: str):
    with pytest.raises(UserError, match=message):
        build(settings(override))


def test_an_unknown_tracker_is_told_before_anything_is_trained(settings: Callable[..., Config]):
    with pytest.raises(UserError, match="there is no tracker 'tensorbord'; did you mean 'tensorboard'"):
        build(settings("training.trackers=[tensorbord]"))


# --- The memory of the plan -----------------------------------------------------------------------------------------


def test_a_critic_alone_reads_the_subgoals_so_far(settings: Callable[..., Config]):
    """Its rows have prompts of its own; what is sampled, and what is credited, are the policy's as ever."""
    parts = build(settings("prompt.plan_memory=critic", "model.critic=own", "prompt.plan_memory_tokens=20"))
    assert parts.critic_prompts is not None
    assert parts.prompts.label == build(settings()).prompts.label
    assert {str(number) for number in range(1, 7)} | {"plans"} <= parts.tokenizer.get_vocab().keys()
    chosen = [Assignment(task.id, 0, 0) for task in parts.env.panel.tasks[:6]]
    episodes, _ = collect(parts.env, chosen, Experts(0.5), slots=6)
    episodes = [with_tokens(parts, episode) for episode in episodes]
    rows = rows_of(episodes, parts.critic_prompts)
    assert [dataclasses.replace(row, critic_prompt_ids=None) for row in rows] == rows_of(episodes)
    contexts = [context for episode in episodes for context in contexts_of(episode)]
    assert any(len(context.plans) > 1 for context in contexts)
    for row, context in zip(rows, contexts, strict=True):
        plans = " , ".join(f"{turn + 1} {subgoal}" for turn, subgoal in context.plans)
        said, before = (str(parts.tokenizer.decode(list(ids or ()))) for ids in (row.critic_prompt_ids, row.prompt_ids))
        assert said.replace(f"plans {plans} . ", "") == before
        assert (said != before) == bool(plans)
    scores = parts.learner.score(rows)
    plain = parts.learner.score(rows_of(episodes))
    assert all((a.logprobs == b.logprobs).all() for a, b in zip(scores, plain, strict=True))
    assigned = assign_credit(episodes, scores, parts.config.shaping, parts.config.advantages)
    assert [row.row for row in assigned.rows] == rows
    before = parts.learner.weights().sha256()
    parts.learner.update(assigned.rows, seed=0)
    assert parts.learner.weights().sha256() != before
    dropped = plan_memory_metrics(episodes, parts.critic_prompts)["prompt/plans_dropped"]
    assert dropped == sum(map(parts.critic_prompts.dropped_plans, contexts)) / len(contexts)
    assert plan_memory_metrics(episodes, parts.prompts) == {}


def with_tokens(parts: Parts, episode: Episode) -> Episode:
    """The episode as if the policy had said it."""
    turns = []
    for turn, context in zip(episode.turns, contexts_of(episode), strict=True):
        ids = tuple(encode_text(parts.tokenizer, turn.text))
        said = dataclasses.replace(
            turn,
            prompt_ids=tuple(parts.prompts.build(context).ids),
            response_ids=ids,
            logprobs=(-1.0,) * len(ids),
            kinds=(1, 2, *(3,) * (len(ids) - 2)),
            low_index=0,
        )
        turns.append(said)
    return dataclasses.replace(episode, turns=tuple(turns))


def test_both_read_the_subgoals_so_far_also_in_demonstrations(settings: Callable[..., Config]):
    parts = build(settings("prompt.plan_memory=both"))
    assert parts.critic_prompts is None
    assert parts.prompts.label.endswith("-plans-64")
    locked = next(task.id for task in parts.env.panel if task.type == "locked")
    episode = demonstrate(parts.env, locked)
    rows = imitation_rows(episode, parts.prompts, parts.tokenizer)
    assert "plans" not in str(parts.tokenizer.decode(list(rows[0].prompt_ids)))
    assert "plans 1 find the key . subgoal find the key ." in str(parts.tokenizer.decode(list(rows[1].prompt_ids)))


def test_a_template_without_plans_cannot_show_them(settings: Callable[..., Config]):
    plain = settings("advantages={type: turn-gae}", "prompt.template=terse-act", "shaping.keep_penalty=0")
    build(plain)
    with pytest.raises(
        UserError, match=r"'terse-act' asks for no plans, so it can show none; set prompt\.plan_memory to"
    ):
        build(plain.model_copy(update={"prompt": plain.prompt.model_copy(update={"plan_memory": "both"})}))
