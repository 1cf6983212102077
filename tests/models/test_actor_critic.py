"""Rows in batches, and what a forward pass reads from them."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

from hiper.advantages import HEADS_OF, Critic
from hiper.models import actor_critic, llama
from hiper.models.actor_critic import (
    HEADS,
    ActorCritic,
    Outputs,
    RowBatch,
    ValueHeads,
    hidden_states,
)
from hiper.models.batches import idle_share, micro_batches, padding_share
from hiper.rows import Row

MakeQwen2 = Callable[..., Qwen2ForCausalLM]

CPU = torch.device("cpu")
ROWS = [
    Row((5, 9, 2), (33, 7, 12, 1), low_index=1),
    Row((8,), (3, 39), low_index=None),
    Row((6, 30, 31, 4, 17), (11,), low_index=0),
]


def make_qwen3() -> Qwen3ForCausalLM:
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
    }
    model = Qwen3ForCausalLM(Qwen3Config(vocab_size=40, initializer_range=0.25, **sizes))
    model.eval()
    return model


@pytest.fixture(params=["qwen2", "qwen2 checkpointed", "qwen3"])
def policy(request: pytest.FixtureRequest, make_qwen2: MakeQwen2) -> PreTrainedModel:
    if request.param == "qwen3":
        return make_qwen3()
    model = make_qwen2()
    if "checkpointed" in request.param:
        model.gradient_checkpointing_enable()
        model.train()
    return model


# --- Collation ------------------------------------------------------------------------------------------------------


def test_a_batch_by_hand():
    batch = RowBatch.of(ROWS, pad_id=0, device=CPU)
    assert batch.input_ids_NL.tolist() == [[5, 9, 2, 33, 7, 12, 1], [8, 3, 39, 0, 0, 0, 0], [6, 30, 31, 4, 17, 11, 0]]
    # From the last prompt token to the end of the response.
    assert batch.row_M.tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 2, 2]
    assert batch.position_M.tolist() == [2, 3, 4, 5, 6, 0, 1, 2, 4, 5]
    assert batch.state_K.tolist() == [0, 1, 2, 3, 5, 6, 8]
    assert batch.target_K.tolist() == [33, 7, 12, 1, 3, 39, 11]
    # V_low at the response token given (no index: before the first), V_high and V_switch at the last prompt token.
    assert batch.value_state_N3.tolist() == [[2, 0, 0], [5, 5, 5], [9, 8, 8]]
    assert batch.position_M[batch.value_state_N3].tolist() == [[4, 2, 2], [0, 0, 0], [5, 4, 4]]


@pytest.mark.parametrize(
    "row", [Row((), (3,), 0), Row((3,), (), None), Row((3,), (4, 5), 2), Row((3,), (4, 5), -1)], ids=str
)
def test_rows_that_cannot_be_read_are_refused(row: Row):
    with pytest.raises(ValueError, match=r"row 1: .* tokens, V_low at"):
        RowBatch.of([ROWS[0], row], pad_id=0, device=CPU)


# --- The policy -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_log_probabilities_and_entropies_are_those_of_transformers(policy: PreTrainedModel, temperature: float):
    outputs = ActorCritic(policy, None)(RowBatch.of(ROWS, 0, CPU), temperature)
    logprobs, entropies = [], []
    for row in ROWS:  # each row on its own, without padding
        logits = policy(input_ids=torch.tensor([[*row.prompt_ids, *row.response_ids]])).logits[0]
        distribution = torch.distributions.Categorical(logits=logits[len(row.prompt_ids) - 1 : -1] / temperature)
        logprobs.append(distribution.log_prob(torch.tensor(row.response_ids)))
        entropies.append(distribution.entropy())
    torch.testing.assert_close(outputs.logprobs_K, torch.cat(logprobs), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(outputs.entropy_K, torch.cat(entropies), rtol=1e-5, atol=1e-5)
    alone = ActorCritic(policy, None)(RowBatch.of(ROWS, 0, CPU), temperature, values=False)
    assert torch.equal(alone.logprobs_K, outputs.logprobs_K)
    assert alone.values_PH.shape == (len(ROWS), 0)


def test_what_pads_a_batch_does_not_matter(policy: PreTrainedModel):
    model = ActorCritic(policy, None)
    one, other = (model(RowBatch.of(ROWS, pad_id, CPU), 1.0) for pad_id in (0, 25))
    torch.testing.assert_close(one.logprobs_K, other.logprobs_K)
    torch.testing.assert_close(one.values_PH, other.values_PH)


def test_logits_in_pieces_give_the_same_numbers_and_gradients(make_qwen2: MakeQwen2, monkeypatch: pytest.MonkeyPatch):
    def run() -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
        policy = make_qwen2()
        outputs = ActorCritic(policy, None)(RowBatch.of(ROWS, 0, CPU), 0.8)
        (outputs.logprobs_K.sum() + 0.3 * outputs.entropy_K.sum()).backward()
        return outputs.logprobs_K, outputs.entropy_K, [p.grad for p in policy.parameters() if p.grad is not None]

    at_once = run()
    monkeypatch.setattr(actor_critic, "MOST_LOGITS", 2 * 40 + 1)  # two tokens at a time
    torch.testing.assert_close(run(), at_once, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["qwen2", "qwen3"])
def test_packed_rows_compute_what_padded_rows_compute(
    make_qwen2: MakeQwen2, monkeypatch: pytest.MonkeyPatch, family: str
):
    """Flash attention needs a GPU. Torch's own takes packed rows too, in place of it, with a mask of all pairs."""

    def make(seed: int) -> PreTrainedModel:
        torch.manual_seed(seed)
        return make_qwen2(seed=seed) if family == "qwen2" else make_qwen3()

    def outcome() -> tuple[Outputs, list[Tensor]]:
        model = ActorCritic(make(0), make(1).get_decoder(), shortcut=False)
        torch.nn.init.normal_(model.heads.out.weight, generator=torch.Generator().manual_seed(0))
        outputs = model(RowBatch.of(ROWS, 0, CPU), 0.7)
        (outputs.logprobs_K.sum() + outputs.values_PH.square().sum()).backward()
        return outputs, [p.grad for p in model.parameters() if p.grad is not None]

    padded, gradients = outcome()
    seen: list[tuple[int, ...]] = []
    monkeypatch.setattr(actor_critic, "packs", lambda decoder: True)
    original = hidden_states

    def noting(decoder: PreTrainedModel, *given: Any) -> Tensor:
        told = decoder.register_forward_pre_hook(
            lambda _, __, named: seen.append(tuple(named["input_ids"].shape)), with_kwargs=True
        )
        states = original(decoder, *given)
        told.remove()
        return states

    monkeypatch.setattr(actor_critic, "hidden_states", noting)
    packed, others = outcome()
    assert seen == [(1, sum(map(len, ROWS)))] * 2  # policy and critic: one row without padding
    for one, other in zip(padded, packed, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert len(gradients) == len(others) > 20
    for one, other in zip(gradients, others, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_flash_attention_packs_and_takes_no_shortcut(make_qwen2: MakeQwen2):
    decoder = make_qwen2().get_decoder()
    assert not llama.packs(decoder)
    assert llama.understands(decoder)
    decoder.config._attn_implementation_internal = "flash_attention_2"
    assert llama.packs(decoder)
    assert not llama.understands(decoder)


# --- The critic -----------------------------------------------------------------------------------------------------


def test_values_begin_at_zero_whatever_was_drawn_before():
    torch.manual_seed(1)
    one = ValueHeads(32)
    torch.manual_seed(2)
    other = ValueHeads(32)
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
    assert one(torch.randn(5, 3, 32)).eq(0).all()


def test_each_head_reads_its_own_place(make_qwen2: MakeQwen2):
    model = ActorCritic(make_qwen2(), None)
    torch.nn.init.normal_(model.heads.out.weight)
    values_PH = model(RowBatch.of(ROWS, 0, CPU), 1.0).values_PH
    for row, values in zip(ROWS, values_PH, strict=True):
        ids = torch.tensor([[*row.prompt_ids, *row.response_ids]])
        hidden = model.policy.get_decoder()(input_ids=ids).last_hidden_state[0]
        low = len(row.prompt_ids) + (-1 if row.low_index is None else row.low_index)
        before = len(row.prompt_ids) - 1
        for h, position in enumerate((low, before, before)):
            alone = model.heads(hidden[position].expand(1, 3, -1))[0, h]
            torch.testing.assert_close(values[h], alone, rtol=1e-4, atol=1e-4)
    assert HEADS == ("low", "high", "switch")


@pytest.mark.parametrize(("critic", "policy_learns"), [("own", False), ("detached", False), ("shared", True)])
def test_whom_value_losses_reach(make_qwen2: MakeQwen2, critic: str, policy_learns: bool):
    policy = make_qwen2()
    backbone = make_qwen2(seed=1).get_decoder() if critic == "own" else None
    model = ActorCritic(policy, backbone, detached=critic == "detached")
    model.copy_backbone()
    torch.nn.init.normal_(model.heads.out.weight)
    values_PH = model(RowBatch.of(ROWS, 0, CPU), 1.0).values_PH
    values_PH.sum().backward()
    assert any(p.grad is not None for p in policy.parameters()) == policy_learns
    assert all(p.grad is not None for p in model.critic_parameters())
    shared = ActorCritic(make_qwen2(), None)
    shared.heads.load_state_dict(model.heads.state_dict())
    torch.testing.assert_close(values_PH, shared(RowBatch.of(ROWS, 0, CPU), 1.0).values_PH)  # copied: same values


def test_bfloat16_is_for_the_backbone_only(make_qwen2: MakeQwen2):
    model = ActorCritic(make_qwen2(), None)
    torch.nn.init.normal_(model.heads.out.weight)
    batch = RowBatch.of(ROWS, 0, CPU)
    exact = model(batch, 1.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = model(batch, 1.0)
    assert outputs.values_PH.dtype == outputs.logprobs_K.dtype == torch.float32
    difference = (outputs.logprobs_K - exact.logprobs_K).abs().max()
    assert 1e-5 < difference < 0.5
    (outputs.values_PH.sum() + outputs.logprobs_K.sum()).backward()
    assert all(p.grad.dtype == torch.float32 for p in model.policy.parameters() if p.grad is not None)


@pytest.mark.parametrize("own", [True, False])
def test_what_each_critic_values(make_qwen2: MakeQwen2, own: bool):
    """The same hidden layer and one output: the value depends on the place alone."""
    batch = RowBatch.of(ROWS, 0, CPU)
    values: dict[Critic, torch.Tensor] = {}
    for critic in HEADS_OF:
        backbone = make_qwen2(seed=1).get_decoder() if own else None
        model = ActorCritic(make_qwen2(), backbone, critic=critic)
        if critic != "none":
            torch.nn.init.constant_(model.heads.out.weight, 0.1)
            torch.nn.init.normal_(model.heads.up.weight, generator=torch.Generator().manual_seed(0))
        else:
            assert not list(model.heads.parameters())
        values[critic] = model(batch, 1.0).values_PH
    assert {critic: tuple(v.shape) for critic, v in values.items()} == {
        "decisions": (3, 3), "turn": (3, 1), "token": (7, 1), "none": (3, 0)
    }  # fmt: skip
    # Before the response there is V_high, the value of a turn, and that of the first token.
    torch.testing.assert_close(values["turn"][:, 0], values["decisions"][:, HEADS.index("high")])
    torch.testing.assert_close(values["token"][[0, 4, 6], 0], values["turn"][:, 0])
    # V_low of the first row is read behind token 1, where token 2 begins.
    torch.testing.assert_close(values["token"][2, 0], values["decisions"][0, 0])
    assert values["token"][:, 0].unique().numel() == 7


def test_micro_batches_by_hand():
    assert micro_batches([3, 9, 4, 4, 2], max_tokens=12, most_padding=1.0) == [[4, 0, 2], [3], [1]]
    assert micro_batches([3, 9, 4, 4, 2], max_tokens=12, most_padding=0.2) == [[4, 0], [2, 3], [1]]
    assert micro_batches([3, 9, 4, 4, 2], max_tokens=12, most_padding=0.0) == [[4], [0], [2, 3], [1]]
    assert padding_share([3, 9, 4, 4, 2], [[4, 0, 2], [3], [1]]) == pytest.approx(3 / 25)


def test_the_share_of_time_that_processes_wait_by_hand():
    """Loads of 12 and 9 padded tokens: in 12 steps of two processes, 3 are spent waiting. With one batch one waits."""
    assert idle_share([[4, 0, 2], [3], [1]], [3, 9, 4, 2, 2], 1) == 0.0
    assert idle_share([[0, 1, 2, 3], [4]], [3, 3, 3, 3, 9], 2) == pytest.approx(3 / 24)
    assert idle_share([[0, 1, 2]], [5, 5, 5], 3) == pytest.approx(2 / 3)
    assert idle_share([], [], 2) == 0.0


def test_a_sequence_that_is_too_long_is_a_batch_of_its_own():
    assert micro_batches([3, 50, 3], max_tokens=12) == [[0, 2], [1]]


def test_no_sequences_give_no_batches():
    assert micro_batches([], max_tokens=12) == []
    assert padding_share([], []) == 0.0


def test_every_sequence_is_in_one_batch_that_fits():
    rng = random.Random(0)
    lengths = [rng.randrange(1, 90) for _ in range(300)]
    batches = micro_batches(lengths, max_tokens=500)
    assert all(padding_share([lengths[i] for i in batch], [range(len(batch))]) <= 0.1 for batch in batches)
    assert sorted(i for batch in batches for i in batch) == list(range(300))
    assert max(len(batch) * max(lengths[i] for i in batch) for batch in batches) <= 500


def test_little_is_padding_with_lengths_as_in_games():
    """Prompts grow over an episode from some 40 tokens to a hundred; a mini-batch is 256 turns."""
    rng = random.Random(0)
    lengths = [int(rng.triangular(40, 110, 75)) + rng.randrange(10, 20) for _ in range(256)]
    for max_tokens, most in ((4096, 7), (16_384, 5)):
        batches = micro_batches(lengths, max_tokens)
        assert padding_share(lengths, batches) < 0.1
        assert len(batches) <= most  # without cutting them up too far


@pytest.mark.parametrize("values", ["decisions", "turn", "token"])
def test_a_critic_may_read_other_prompts(make_qwen2: MakeQwen2, values: Critic):
    """Its values are those of rows with its prompts, and what the policy says is that of rows with the policy's."""
    model = ActorCritic(make_qwen2(), make_qwen2(seed=1).get_decoder(), critic=values)
    torch.nn.init.normal_(model.heads.out.weight)
    others = [replace(row, critic_prompt_ids=(9, *row.prompt_ids, 3, 4)) for row in ROWS]
    assert [len(row) for row in others] == [len(row) + 3 for row in ROWS]
    batch, critic = (RowBatch.of(rows, 0, CPU) for rows in (others, [row.for_critic for row in others]))
    longer = RowBatch.of([replace(row, prompt_ids=(9, *row.prompt_ids, 3, 4)) for row in ROWS], 0, CPU)
    plain, outputs = model(RowBatch.of(ROWS, 0, CPU), 1.0), model(batch, 1.0, critic)
    assert torch.equal(outputs.logprobs_K, plain.logprobs_K)
    assert torch.equal(outputs.entropy_K, plain.entropy_K)
    assert torch.equal(outputs.values_PH, model(longer, 1.0).values_PH)
    assert not torch.allclose(outputs.values_PH, plain.values_PH)
