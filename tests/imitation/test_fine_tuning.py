"""The warm start: what is imitated, and the loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
import torch
from transformers import Qwen2ForCausalLM

from helpers.made import turns_of
from hiper.config import LearnerConfig
from hiper.envs.base import EndReason
from hiper.envs.small.corridor import CorridorEnv, make, shortest
from hiper.errors import UserError
from hiper.imitation.demonstrations import demonstrate
from hiper.imitation.fine_tuning import FineTuning, demonstration_rows, lr_scale, shuffled_batches
from hiper.learner.learner import Learner
from hiper.models.actor_critic import ActorCritic
from hiper.plan_execute.parse import response_text
from hiper.plan_execute.prompts import PromptBuilder
from hiper.plan_execute.render import Template
from hiper.plan_execute.tokenizer import build_word_tokenizer
from hiper.rows import Row
from hiper.seeding import derive_seed

MakeQwen2 = Callable[..., Qwen2ForCausalLM]

ROWS = [Row((5, 9, 2), (33, 7, 12, 1), None), Row((8,), (3, 39), None), Row((6, 30, 31, 4, 17), (11,), None)]


def learner_of(policy: Qwen2ForCausalLM, micro_batch_tokens: int = 10_000) -> Learner:
    config = LearnerConfig(micro_batch_tokens=micro_batch_tokens, max_grad_norm=1e9)
    return Learner(ActorCritic(policy, None), config, pad_id=0, temperature=0.3)


def negative_log_likelihoods(policy: Qwen2ForCausalLM, row: Row) -> tuple[torch.Tensor, torch.Tensor]:
    """Of prompt tokens but the first, and of response tokens."""
    ids = torch.tensor([*row.prompt_ids, *row.response_ids])
    logits = policy(input_ids=ids.unsqueeze(0)).logits[0, :-1]
    losses = torch.nn.functional.cross_entropy(logits, ids[1:], reduction="none")
    return losses[: len(row.prompt_ids) - 1], losses[len(row.prompt_ids) - 1 :]


@pytest.mark.parametrize("with_prompts", [False, True])
def test_losses_of_prompts_and_responses(make_qwen2: MakeQwen2, with_prompts: bool):
    learner = learner_of(make_qwen2())  # its sampling temperature has no part in imitation
    responses, prompts = learner.imitate().losses(ROWS, with_prompts=with_prompts)
    expected = [negative_log_likelihoods(make_qwen2(), row) for row in ROWS]
    torch.testing.assert_close(responses, torch.cat([said for _, said in expected]), rtol=1e-5, atol=1e-5)
    if with_prompts:
        torch.testing.assert_close(prompts, torch.cat([read for read, _ in expected]), rtol=1e-5, atol=1e-5)
    else:
        assert len(prompts) == 0


@pytest.mark.parametrize("prompt_loss", [0.0, 0.3])
def test_a_step_averages_over_the_whole_mini_batch(make_qwen2: MakeQwen2, prompt_loss: float):
    """However it is cut into micro-batches: here into one, and into one for each row."""
    losses: list[float] = []
    results = []
    for tokens in (10_000, 1):
        policy = make_qwen2()
        learner = learner_of(policy, tokens)
        tuning = FineTuning(learner.imitate(), 1, 1e-3, prompt_loss)
        tuning.step(ROWS)
        losses += tuning.losses
        results.append(torch.cat([p.detach().flatten() for p in policy.parameters()]))
    parts = [negative_log_likelihoods(make_qwen2(), row) for row in ROWS]
    expected = (
        torch.cat([said for _, said in parts]).mean() + prompt_loss * torch.cat([read for read, _ in parts]).mean()
    )
    assert losses == pytest.approx([expected.item()] * 2, rel=1e-5)
    torch.testing.assert_close(*results, rtol=0, atol=1e-5)


def test_demonstrations_are_learned(make_qwen2: MakeQwen2):
    tuning = FineTuning(learner_of(make_qwen2()).imitate(), 60, 1e-2)
    for batch in islice(shuffled_batches(ROWS, 3, seed=0), 60):
        tuning.step(batch)
    assert len(tuning.losses) == 60
    assert tuning.losses[-1] < 0.05 < tuning.losses[0]


def test_the_rate_rises_and_falls():
    assert [lr_scale(step, 40) for step in (0, 1, 3, 4, 22, 39)] == [0.25, 0.5, 1.0, 1.0, 0.5, pytest.approx(1 / 36)]
    assert [lr_scale(step, 1000) for step in (0, 19, 20, 510)] == [0.05, 1.0, 1.0, 0.5]
    assert [lr_scale(step, 2) for step in (0, 1)] == [1.0, 1.0]
    assert lr_scale(0, 1) == 1.0


def test_tuning_goes_on_where_another_was(make_qwen2: MakeQwen2, tmp_path: Path):
    whole, first, second = (FineTuning(learner_of(make_qwen2()).imitate(), 6, 1e-2, 0.1) for _ in range(3))
    batches = list(islice(shuffled_batches(ROWS, 2, seed=0), 6))
    for batch in batches:
        whole.step(batch)
    for batch in batches[:4]:
        first.step(batch)
    first.imitation.save(tmp_path / "state", {"losses": first.losses})
    assert second.imitation.notes(tmp_path / "state") == {"losses": first.losses}
    second.losses = list(second.imitation.load(tmp_path / "state")["losses"])
    for batch in batches[4:]:
        second.step(batch)
    assert second.losses == whole.losses
    for name, tuning in (("whole", whole), ("second", second)):
        tuning.imitation.save(tmp_path / name, {})
    one, other = (torch.load(tmp_path / name)["policy"] for name in ("whole", "second"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_warm_start_leaves_the_critic_alone(make_qwen2: MakeQwen2):
    learner = learner_of(make_qwen2())
    before = [score.values for score in learner.score(ROWS)]
    FineTuning(learner.imitate(), 1, 1e-3).step(ROWS)
    assert [score.values.tolist() for score in learner.score(ROWS)] == [values.tolist() for values in before]


def test_divergence_is_said(make_qwen2: MakeQwen2):
    policy = make_qwen2()
    with torch.no_grad():
        policy.model.norm.weight.fill_(math.nan)
    with pytest.raises(UserError, match=r"diverged at step 0.*lower warm_start\.lr"):
        FineTuning(learner_of(policy).imitate(), 1, 1e-3).step(ROWS)


def test_batches_are_passes_in_new_orders():
    rows = [Row((n,), (n,), None) for n in range(10)]
    batches = list(islice(shuffled_batches(rows, 5, seed=0), 4))
    first, second = batches[0] + batches[1], batches[2] + batches[3]
    for each in (first, second):
        assert sorted(row.prompt_ids for row in each) == [row.prompt_ids for row in rows]
    assert first != second
    assert batches == list(islice(shuffled_batches(rows, 5, seed=0), 4))
    assert [len(batch) for batch in islice(shuffled_batches(rows, 4, seed=0), 4)] == [4, 4, 4, 4]
    assert len(next(shuffled_batches(rows, 99, seed=0))) == 10


# --- Rows -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def env() -> CorridorEnv:
    return make("train", 4, 8)


@pytest.fixture(scope="module")
def prompts(env: CorridorEnv) -> PromptBuilder:
    template = Template.load("terse")
    turns = [turn for task in env.panel for turn in turns_of(demonstrate(env, task.id))]
    texts = [text for turn in turns for text in (str(template.render(turn.context)), response_text(turn.decision))]
    return PromptBuilder(
        template,
        build_word_tokenizer(texts, template.wording),
        history_window=1,
        max_tokens=None,
        overflow="drop_history",
    )


def test_rows_are_the_decisions_worth_imitating(env: CorridorEnv, prompts: PromptBuilder):
    tokenizer, tasks = prompts.tokenizer, [task.id for task in env.panel.tasks[:12]]
    rows = demonstration_rows(env, tasks, prompts, tokenizer, perturb=0.3, seed=4)
    played = [demonstrate(env, task, derive_seed(4, task), perturb=0.3) for task in tasks]
    turns = [turn for episode in played if episode.won for turn in turns_of(episode) if turn.target]
    # A lapse may ring the alarm, or cost too many turns.
    assert {episode.end for episode in played} == {EndReason.WON, EndReason.LOST, EndReason.TURN_LIMIT}
    assert len(rows) == len(turns) < sum(len(episode.turns) for episode in played)
    for row, turn in zip(rows, turns, strict=True):
        assert list(row.prompt_ids) == prompts.build(turn.context).ids
        assert row.response_ids[-1] == tokenizer.eos_token_id
        said = str(tokenizer.decode(list(row.response_ids[:-1])))
        assert said.split() == " ".join(tokenizer.tokenize(response_text(turn.decision))).split()


def test_lapses_are_imitated_with_the_episodes_they_lose(env: CorridorEnv, prompts: PromptBuilder):
    tasks = [task.id for task in env.panel.tasks[:12]]
    given = demonstration_rows(env, tasks, prompts, prompts.tokenizer, perturb=0.6, lapses_too=True, seed=4)
    played = [demonstrate(env, task, derive_seed(4, task), perturb=0.6) for task in tasks]
    kept = [episode for episode in played if episode.end != EndReason.TURN_LIMIT]
    assert any(not episode.won for episode in kept)
    turns = [turn for episode in kept for turn in turns_of(episode)]
    assert not all(turn.target for turn in turns)
    assert [list(row.prompt_ids) for row in given] == [prompts.build(turn.context).ids for turn in turns]


def test_episodes_that_ran_out_of_turns_show_nothing(env: CorridorEnv, prompts: PromptBuilder):
    short = CorridorEnv(env.panel, max_turns=1)
    tasks = [task.id for task in env.panel.tasks if shortest(task.id) > 1]
    assert demonstration_rows(short, tasks, prompts, prompts.tokenizer, perturb=0.0, lapses_too=True, seed=4) == []


def test_seeds_change_the_lapses(env: CorridorEnv, prompts: PromptBuilder):
    tasks = [task.id for task in env.panel.tasks[:12]]

    def rows(seed: int) -> list[Row]:
        return demonstration_rows(env, tasks, prompts, prompts.tokenizer, perturb=0.3, seed=seed)

    assert rows(0) == rows(0)
    assert rows(0) != rows(1)
