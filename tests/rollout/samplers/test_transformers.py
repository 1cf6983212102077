"""Sampling: honest log-probabilities, whatever shares the batch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, cast

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    DynamicCache,
    PreTrainedModel,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from hiper.errors import DivergedError, UserError
from hiper.models import llama
from hiper.models.actor_critic import ActorCritic, RowBatch
from hiper.models.weights import PolicyWeights
from hiper.rollout.samplers import Request, Sample, SamplingParams, decoding, sample_all
from hiper.rollout.samplers.transformers import TransformersOptions, TransformersSampler, draw, uniforms
from hiper.rows import Row
from hiper.seeding import derive_seed

MakeQwen2 = Callable[..., Qwen2ForCausalLM]

EOS, PAD = 1, 0
PROMPTS = [(5, 9, 2, 33, 7), (8,), (6, 30, 31, 4, 17, 11, 12, 13), (20, 21), (3, 3, 3), (22, 9, 9, 2)]
FREE = SamplingParams(temperature=1.0, max_tokens=12)
GREEDY = SamplingParams(temperature=0.0, max_tokens=12)
CHANCE = torch.tensor([0.5], dtype=torch.float64)


@pytest.fixture(params=["our own decoding", "transformers' decoding"])
def model(request: pytest.FixtureRequest, make_qwen2: MakeQwen2, monkeypatch: pytest.MonkeyPatch) -> PreTrainedModel:
    model = make_qwen2()
    if request.param != "our own decoding":
        monkeypatch.setattr(llama, "understands", lambda decoder: False)
    chosen = type(decoding.begin(model, PROMPTS, 1, PAD))
    assert (chosen is decoding.ShortcutDecoding) == (request.param == "our own decoding")
    return model


class Tokens:
    """All that a sampler asks of a tokenizer."""

    def __init__(self, eos_token_id: int = EOS) -> None:
        self.eos_token_id, self.pad_token_id = eos_token_id, PAD


def sampler(
    model: PreTrainedModel, ends: Collection[int] = (EOS,), batch_tokens: int = 65_536, **weights: Any
) -> TransformersSampler:
    first, *others = ends
    model.generation_config.eos_token_id = others
    one = TransformersSampler(cast(Any, Tokens(first)), TransformersOptions(batch_tokens=batch_tokens))
    one.load(PolicyWeights(model, **weights), 7)
    return one


def requests(prompts: Sequence[Sequence[int]], params: SamplingParams, seed: int) -> list[Request]:
    """Each prompt's seed depends on the prompt, not on its place."""
    return [Request(prompt, params, derive_seed(seed, *prompt)) for prompt in prompts]


def drawn(
    one: TransformersSampler, prompts: Sequence[Sequence[int]], params: SamplingParams, seed: int
) -> list[Sample]:
    return sample_all(one, requests(prompts, params, seed))


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_log_probabilities_are_those_of_a_full_forward(model: PreTrainedModel, temperature: float):
    samples = drawn(sampler(model), PROMPTS, SamplingParams(temperature, 12), seed=3)
    for prompt, sample in zip(PROMPTS, samples, strict=True):
        logits = model(input_ids=torch.tensor([[*prompt, *sample.ids]])).logits[0, len(prompt) - 1 : -1]
        expected = torch.log_softmax(logits / (temperature or 1.0), -1)
        expected = expected.gather(1, torch.tensor(sample.ids).unsqueeze(1)).squeeze(1)
        torch.testing.assert_close(torch.tensor(sample.logprobs), expected, rtol=1e-5, atol=1e-5)


def test_greedy_takes_the_likeliest_token(model: PreTrainedModel):
    for prompt, sample in zip(PROMPTS, drawn(sampler(model), PROMPTS, GREEDY, seed=0), strict=True):
        logits = model(input_ids=torch.tensor([[*prompt, *sample.ids]])).logits[0, len(prompt) - 1 : -1]
        assert tuple(logits.argmax(-1).tolist()) == sample.ids


@pytest.mark.parametrize("params", [GREEDY, FREE])
def test_who_shares_the_batch_does_not_matter(model: PreTrainedModel, params: SamplingParams):
    together = drawn(sampler(model), PROMPTS, params, seed=0)
    alone = [drawn(sampler(model), [prompt], params, seed=0)[0] for prompt in PROMPTS]
    small = drawn(sampler(model, batch_tokens=40), PROMPTS, params, seed=0)
    turned = drawn(sampler(model), PROMPTS[::-1], params, seed=0)[::-1]
    assert [s.ids for s in together] == [s.ids for s in alone] == [s.ids for s in small] == [s.ids for s in turned]


def test_both_ways_of_decoding_draw_the_same(make_qwen2: MakeQwen2, monkeypatch: pytest.MonkeyPatch):
    model = make_qwen2()
    ours = drawn(sampler(model), PROMPTS, FREE, seed=5)
    monkeypatch.setattr(decoding, "PREFILL_TOKENS", {"cpu": 8})  # prompts are read in several parts
    in_parts = drawn(sampler(model), PROMPTS, FREE, seed=5)
    monkeypatch.setattr(llama, "understands", lambda decoder: False)
    theirs = drawn(sampler(model), PROMPTS, FREE, seed=5)
    assert [s.ids for s in ours] == [s.ids for s in theirs] == [s.ids for s in in_parts]


def test_models_of_other_families_are_sampled():
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
    }
    other = Qwen3ForCausalLM(Qwen3Config(vocab_size=40, initializer_range=0.25, **sizes)).eval()
    together = drawn(sampler(other), PROMPTS, GREEDY, seed=0)
    assert [s.ids for s in together] == [drawn(sampler(other), [p], GREEDY, seed=0)[0].ids for p in PROMPTS]


def test_seeds(model: PreTrainedModel):
    one = sampler(model)
    torch.manual_seed(0)
    first = drawn(one, PROMPTS, FREE, seed=1)
    torch.manual_seed(99)  # the global generator has no part in it
    assert drawn(one, PROMPTS, FREE, seed=1) == first
    assert drawn(one, PROMPTS, FREE, seed=2) != first


def test_the_model_is_left_as_it_was(model: PreTrainedModel):
    for training in (True, False):
        model.train(training)
        drawn(sampler(model), PROMPTS[:1], FREE, seed=0)
        assert model.training == training


# --- Which way of decoding ------------------------------------------------------------------------------------------

HYBRID: dict[str, Any] = {
    "layer_types": ["linear_attention", "full_attention"],
    **{"linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8},
}


def of_kind(kind: str, **settings: Any) -> PreTrainedModel:
    """A tiny random model of an architecture."""
    sizes = {"vocab_size": 40, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "head_dim": 8}
    ids = {"pad_token_id": PAD, "eos_token_id": EOS, "bos_token_id": None}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.3}
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **{**sizes, **ids, **heads, **settings})
    return cast(PreTrainedModel, AutoModelForCausalLM.from_config(config).eval())


def assert_honest(model: PreTrainedModel) -> None:
    """The log-probabilities of samples are the learner's, also where rows left the batch."""
    whole = drawn(sampler(model), PROMPTS, FREE, seed=3)
    one = sampler(model, {EOS, whole[0].ids[1], whole[3].ids[2]})
    samples = drawn(one, PROMPTS, FREE, seed=3)
    assert len({len(sample.ids) for sample in samples}) > 1
    rows = [Row(prompt, sample.ids, None) for prompt, sample in zip(PROMPTS, samples, strict=True)]
    with torch.no_grad():
        learned = ActorCritic(model, None, critic="none")(RowBatch.of(rows, PAD, model.device), 1.0).logprobs_K
    sampled = torch.tensor([logprob for sample in samples for logprob in sample.logprobs])
    torch.testing.assert_close(sampled, learned, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "settings", "way"),
    [
        ("qwen3", {}, "select"),
        ("qwen3_5_text", HYBRID, "reorder"),
        ("lfm2", {"layer_types": ["conv", "full_attention"]}, "reorder"),
        ("mamba", {"state_size": 8}, "full"),
        ("rwkv", {"attention_hidden_size": 32}, "full"),
        ("recurrent_gemma", {"lru_width": 32, "block_types": ["recurrent", "attention"]}, "full"),
    ],
)
def test_each_model_is_decoded_in_a_way_that_is_the_learners(
    kind: str, settings: dict[str, Any], way: str, caplog: pytest.LogCaptureFixture
):
    """Recurrent layers cannot be picked by rows, and some models take no cache of keys and values at all."""
    model = of_kind(kind, **settings)
    assert decoding.choose_way(model, PAD) == way
    assert_honest(model)
    assert ("is sampled without one, slowly" in caplog.text) == (way == "full")


def test_a_model_that_no_way_serves_is_refused_when_it_is_loaded():
    """Its tokens see later ones, so no sampler can know what the learner computes."""
    model = of_kind("qwen3")
    decoder = model.get_decoder()
    plain = decoder.forward

    def seeing_all(**inputs: Any) -> Any:
        output = plain(**inputs)
        output.last_hidden_state = output.last_hidden_state + output.last_hidden_state.mean(1, keepdim=True)
        return output

    decoder.forward = seeing_all
    with pytest.raises(UserError, match=r"\(qwen3\) cannot be sampled and trained as one policy.*see later ones"):
        sampler(model)


def test_a_cache_that_is_wrong_is_not_used(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(DynamicCache, "batch_select_indices", lambda self, rows: self.reorder_cache(rows - 1))
    model = of_kind("qwen3")
    assert decoding.choose_way(model, PAD) == "reorder"
    assert_honest(model)


def test_a_model_is_checked_once(monkeypatch: pytest.MonkeyPatch, make_qwen2: MakeQwen2):
    checked: list[PreTrainedModel] = []

    def choose(model: PreTrainedModel, *rest: Any) -> decoding.Way:
        checked.append(model)
        return "select"

    monkeypatch.setattr(decoding, "choose_way", choose)
    model, other = make_qwen2(), make_qwen2(seed=5)
    one = sampler(model)
    for version, loaded in enumerate((model, other, other)):
        one.load(PolicyWeights(loaded), version)
    assert checked == [model, other]


# --- Ends -----------------------------------------------------------------------------------------------------------


def test_a_response_ends_with_any_of_the_tokens_that_end_it(model: PreTrainedModel):
    whole = drawn(sampler(model), PROMPTS, GREEDY, seed=0)
    ends = {whole[0].ids[2], whole[2].ids[1]}
    one = sampler(model, ends)
    for uncut, sample in zip(whole, drawn(one, PROMPTS, GREEDY, seed=0), strict=True):
        first = next((i for i, token in enumerate(uncut.ids) if token in ends), None)
        length = len(uncut.ids) if first is None else first + 1
        assert sample.ids == uncut.ids[:length]
        assert len(sample.logprobs) == length
        assert sample.finished == (first is not None)


def test_a_response_is_cut_off_at_the_limit(model: PreTrainedModel):
    for limit in (1, 3):
        for sample in drawn(sampler(model), PROMPTS, SamplingParams(1.0, limit), seed=0):
            assert len(sample.ids) == len(sample.logprobs) <= limit
            assert sample.finished == (sample.ids[-1] == EOS)
            assert sample.finished or len(sample.ids) == limit


def test_finished_rows_leave_the_batch(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch):
    sizes: list[int] = []

    def counting(logits: torch.Tensor, temperature: float, chance: torch.Tensor) -> tuple[torch.Tensor, ...]:
        sizes.append(len(logits))
        token, logprob = draw(logits, temperature, chance)
        if len(sizes) == 2:
            token[:3] = EOS  # half of the rows end with their second token
        return token, logprob

    monkeypatch.setattr("hiper.rollout.samplers.transformers.draw", counting)
    samples = drawn(sampler(model), PROMPTS, SamplingParams(1.0, 6), seed=11)
    assert sizes[:3] == [6, 6, 3]
    assert sorted(sizes, reverse=True) == sizes
    assert sum(len(sample.ids) == 2 and sample.finished for sample in samples) >= 3


def test_rows_that_go_on_are_not_disturbed_by_those_that_leave(model: PreTrainedModel):
    """With every token but a few ending the response, rows leave at many points; the others must not notice."""
    whole = drawn(sampler(model), PROMPTS, GREEDY, seed=0)
    for ends in ({whole[0].ids[0], whole[1].ids[3]}, {whole[3].ids[1], whole[4].ids[1], whole[5].ids[2]}):
        one = sampler(model, ends)
        for uncut, sample in zip(whole, drawn(one, PROMPTS, GREEDY, seed=0), strict=True):
            assert sample.ids == uncut.ids[: len(sample.ids)]


def test_no_prompts_no_samples(model: PreTrainedModel):
    assert drawn(sampler(model), [], FREE, seed=0) == []


# --- A sampler's life ---------------------------------------------------------------------------------------------


def test_answers_come_batch_by_batch_and_later_requests_wait(model: PreTrainedModel):
    one = sampler(model, batch_tokens=40)  # two prompts a batch
    first = [one.submit(request) for request in requests(PROMPTS[:4], FREE, 0)]
    one.run()
    assert 0 < sum(future.done() for future in first) < 4
    later = one.submit(*requests(PROMPTS[4:5], FREE, 0))
    while not all(future.done() for future in first):
        assert not later.done()
        one.run()
    one.run()
    assert later.done()
    answers = [*(future.result() for future in first), later.result()]
    assert [a.ids for a in answers] == [s.ids for s in drawn(sampler(model), PROMPTS[:5], FREE, 0)]


def test_requests_with_other_parameters_are_sampled_by_them(model: PreTrainedModel):
    one = sampler(model)
    mixed = [*requests(PROMPTS, FREE, 0), *requests(PROMPTS, GREEDY, 0)]
    expected = [*drawn(one, PROMPTS, FREE, 0), *drawn(one, PROMPTS, GREEDY, 0)]
    assert sample_all(one, mixed) == expected


def test_each_sample_names_the_weights_it_is_from(model: PreTrainedModel, make_qwen2: MakeQwen2):
    one = sampler(model)
    before = drawn(one, PROMPTS, GREEDY, 0)
    one.load(PolicyWeights(make_qwen2(seed=5)), 8)
    after = drawn(one, PROMPTS, GREEDY, 0)
    assert {sample.version for sample in before} == {7}
    assert {sample.version for sample in after} == {8}
    assert [sample.ids for sample in before] != [sample.ids for sample in after]


def test_what_is_cancelled_is_not_sampled(model: PreTrainedModel):
    one = sampler(model)
    kept, dropped = (one.submit(request) for request in requests(PROMPTS[:2], FREE, 0))
    dropped.cancel()
    one.run()
    assert kept.done()
    assert dropped.cancelled()
    left = one.submit(*requests(PROMPTS[:1], FREE, 0))
    one.close()
    assert left.cancelled()


def test_an_error_is_told_to_every_request_of_the_batch(model: PreTrainedModel):
    for parameter in model.parameters():
        parameter.data.fill_(float("nan"))
    one = sampler(model)
    futures = [one.submit(request) for request in requests(PROMPTS, FREE, 0)]
    one.run()
    for future in futures:
        with pytest.raises(DivergedError, match="NaN or infinity"):
            future.result()


def test_the_shortcut_can_be_switched_off(make_qwen2: MakeQwen2, monkeypatch: pytest.MonkeyPatch):
    """And is taken by no model a module of which is wrapped or hooked: its wrapper must see every call."""
    model = make_qwen2()
    expected = drawn(sampler(model), PROMPTS, GREEDY, 0)
    monkeypatch.setattr(llama, "read", None)
    monkeypatch.setattr(llama, "extend", None)
    assert [s.ids for s in drawn(sampler(model, shortcut=False), PROMPTS, GREEDY, 0)] == [s.ids for s in expected]
    calls: list[object] = []
    model.model.layers[1].register_forward_pre_hook(lambda *call: calls.append(call))
    assert [s.ids for s in drawn(sampler(model), PROMPTS, GREEDY, 0)] == [s.ids for s in expected]
    assert calls


# --- Drawing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_distribution(temperature: float):
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0])
    expected = torch.softmax(logits / temperature, -1)
    tokens, logprobs = draw(logits.expand(20_000, -1), temperature, uniforms(range(20_000), 1)[:, 0])
    shares = torch.bincount(tokens, minlength=4) / 20_000
    torch.testing.assert_close(shares, expected, rtol=0, atol=0.015)  # four standard deviations
    torch.testing.assert_close(logprobs, expected.log()[tokens])


def test_a_draw_is_the_inverse_of_the_cumulated_probabilities():
    logits = torch.tensor([0.2, 0.0, 0.5, 0.3, 0.0]).log().expand(7, -1)
    chance = torch.tensor([0.0, 0.1, 0.2, 0.69, 0.71, 0.99, 1.0 - 2**-53], dtype=torch.float64)
    assert draw(logits, 1.0, chance)[0].tolist() == [0, 0, 2, 2, 3, 3, 3]


def test_a_seed_gives_the_same_numbers_in_any_company():
    assert torch.equal(uniforms([3, 1 << 61], 5)[1], uniforms([1 << 61], 9)[0, :5])
    assert not torch.equal(uniforms([3], 5), uniforms([4], 5))
    assert uniforms([], 5).shape == (0, 5)


def test_greedy_log_probabilities_are_the_models_own():
    tokens, logprobs = draw(torch.tensor([[0.0, 3.0]]), 0.0, CHANCE)
    assert tokens.tolist() == [1]
    torch.testing.assert_close(logprobs, torch.tensor([3.0]) - torch.tensor([0.0, 3.0]).logsumexp(0))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_weights_beyond_numbers_are_said(temperature: float):
    """Also where nothing is drawn, and before a GPU is asked to draw."""
    logits = torch.tensor([[0.0, 1.0], [float("nan"), 1.0]])
    with pytest.raises(DivergedError, match="hold NaN or infinity"):
        draw(logits, temperature, CHANCE.expand(2))
    draw(torch.tensor([[0.0, float("-inf")]]), temperature, CHANCE)  # what may not be said is no trouble


def test_bfloat16_autocast(model: PreTrainedModel):
    exact = drawn(sampler(model), PROMPTS, GREEDY, seed=0)
    rough = drawn(sampler(model, autocast=torch.bfloat16), PROMPTS, GREEDY, seed=0)
    assert all(isinstance(sample, Sample) for sample in rough)
    first = torch.tensor([[a.logprobs[0], b.logprobs[0]] for a, b in zip(exact, rough, strict=True)])
    assert 0 < (first[:, 0] - first[:, 1]).abs().max() < 0.5


# --- Prompts in pieces, and the format of the cache -------------------------------------------------------------------


def decoded(model: PreTrainedModel, **settings: Any) -> tuple[torch.Tensor, decoding.TransformersDecoding]:
    """The logits of a prefill and of one more token."""
    begun = decoding.TransformersDecoding(model, PROMPTS, PAD, **settings)
    with torch.no_grad():
        return torch.stack([begun.prefill(), begun.extend(torch.full((len(PROMPTS),), 9))]), begun


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen3", "gpt_neox"])
@pytest.mark.parametrize("most", [1, 2, 3])
def test_prompts_in_pieces_give_the_same_logits(kind: str, most: int, monkeypatch: pytest.MonkeyPatch):
    model = of_kind(kind)
    whole, _ = decoded(model)
    widths: list[int] = []
    forward = decoding.TransformersDecoding._forward

    def counting(self: decoding.TransformersDecoding, ids: torch.Tensor) -> torch.Tensor:
        widths.append(ids.shape[1])
        return forward(self, ids)

    monkeypatch.setattr(decoding.TransformersDecoding, "_forward", counting)
    pieces, _ = decoded(model, most_tokens=most * len(PROMPTS))
    assert max(widths) == most
    assert sum(widths) == max(map(len, PROMPTS)) + 1
    torch.testing.assert_close(pieces, whole, rtol=1e-4, atol=1e-5)


def test_windows_of_attention_are_read_at_once():
    model = of_kind("mistral", sliding_window=3)
    torch.testing.assert_close(decoded(model, most_tokens=1)[0], decoded(model)[0])


def formats(begun: decoding.TransformersDecoding) -> set[torch.dtype]:
    return {cast(Any, layer).keys.dtype for layer in begun._cache.layers}


def test_the_cache_has_the_format_of_attention(monkeypatch: pytest.MonkeyPatch):
    """Rounding keys once more changes nothing, because attention in bfloat16 rounds them anyway."""
    model = of_kind("qwen3")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        small, begun = decoded(model)
        assert formats(begun) == {torch.bfloat16}
        monkeypatch.setattr(decoding, "SmallCache", DynamicCache)
        plain, begun = decoded(model)
        assert formats(begun) == {torch.float32}
    assert torch.equal(small, plain)
    assert formats(decoded(model)[1]) == {torch.float32}
