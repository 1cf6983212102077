"""Responses that have to match a pattern, under tokenizers of both kinds."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import regex
import torch
from transformers import PreTrainedTokenizerBase, Qwen2ForCausalLM, Qwen2Tokenizer

from hiper.errors import UserError
from hiper.models.weights import PolicyWeights
from hiper.plan_execute.choices import response_pattern
from hiper.plan_execute.spans import TokenReader
from hiper.plan_execute.tokenizer import (
    build_subword_tokenizer,
    build_word_tokenizer,
    is_subword,
    is_word_level,
    round_trip,
)
from hiper.rollout.samplers import Request, SamplingParams, Workplace, sample_all
from hiper.rollout.samplers.transformers import TransformersOptions, TransformersSampler
from hiper.rollout.samplers.vllm import VllmOptions, VllmSampler
from hiper.seeding import derive_seed

ACTIONS = ("take pot 1", "take potato 1", "go to fridge 10", "go to fridge 1", "search[<your query>]")
WORDS = ["<switch> KEEP </switch> <subgoal> find the pot </subgoal> <action> search [ mug ] </action>", *ACTIONS[:4]]


@pytest.fixture(params=["words", "subwords", "bytes"])
def tokenizer(request: pytest.FixtureRequest, bpe_tokenizer: Qwen2Tokenizer) -> PreTrainedTokenizerBase:
    pytest.importorskip("llguidance")
    made: PreTrainedTokenizerBase = bpe_tokenizer
    if request.param != "bytes":
        made = build_word_tokenizer(WORDS) if request.param == "words" else build_subword_tokenizer(WORDS, 200)
    assert is_word_level(made) == (request.param == "words")
    assert is_subword(made) == (request.param == "subwords")
    return made


def pattern_of(tokenizer: PreTrainedTokenizerBase) -> str:
    return response_pattern(ACTIONS, write=lambda text: round_trip(tokenizer, text))


def sampler_of(
    tokenizer: PreTrainedTokenizerBase, make_qwen2: Callable[..., Qwen2ForCausalLM], spare: int = 5
) -> TransformersSampler:
    model = make_qwen2(vocab_size=len(tokenizer) + spare, max_position_embeddings=512)
    model.generation_config.eos_token_id = None
    sampler = TransformersSampler(tokenizer, TransformersOptions())
    sampler.load(PolicyWeights(model), 0)
    return sampler


def asked(pattern: str | None, count: int, temperature: float = 1.0, tokens: int = 400) -> list[Request]:
    params = SamplingParams(temperature, tokens)
    return [Request((5, 9 + n % 7, 12), params, derive_seed("choices", n), pattern) for n in range(count)]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_every_response_matches(
    tokenizer: PreTrainedTokenizerBase, make_qwen2: Callable[..., Qwen2ForCausalLM], temperature: float
):
    pattern, reader = pattern_of(tokenizer), TokenReader(tokenizer)
    samples = sample_all(sampler_of(tokenizer, make_qwen2), asked(pattern, 40, temperature))
    texts = [reader.read(sample.ids, ended=sample.finished).text for sample in samples]
    assert all(sample.finished for sample in samples)
    assert all(re.fullmatch(pattern, text) for text in texts), texts
    if temperature:
        said = {re.sub(r".*<action> ?(\w+ ?\w* ?\w+ ?\d*).*", r"\1", text, flags=re.DOTALL) for text in texts}
        assert len(said) > 4
        free = sample_all(sampler_of(tokenizer, make_qwen2), asked(None, 40, temperature, 20))
        assert not any(re.fullmatch(pattern, str(tokenizer.decode(list(sample.ids)))) for sample in free)


def test_log_probabilities_are_those_of_the_tokens_that_are_left(
    tokenizer: PreTrainedTokenizerBase, make_qwen2: Callable[..., Qwen2ForCausalLM]
):
    """Recomputed token by token: which texts are beginnings of a match, by the library regex."""
    sampler, pattern, reader = sampler_of(tokenizer, make_qwen2), pattern_of(tokenizer), TokenReader(tokenizer)
    request = asked(pattern, 1)[0]
    sample = sample_all(sampler, [request])[0]
    assert sampler._weights is not None
    model: Any = sampler._weights.model
    with torch.no_grad():
        logits_TV = model(torch.tensor([[*request.prompt, *sample.ids]])).logits[0, len(request.prompt) - 1 : -1]
    whole = regex.compile(pattern)
    special = {*tokenizer.all_special_ids}

    def may_follow(before: tuple[int, ...], token: int) -> bool:
        if token == tokenizer.eos_token_id:
            return whole.fullmatch(reader.read(before, ended=False).text) is not None
        if token in special or token >= len(tokenizer):
            return False
        text = reader.read((*before, token), ended=False).text
        if "\N{REPLACEMENT CHARACTER}" in text:
            return False
        # A word is whole, so a space follows it, unless it is the last one.
        goes_on = f"{text} " if is_word_level(tokenizer) else text
        return whole.fullmatch(text) is not None or whole.fullmatch(goes_on, partial=True) is not None

    last = len(sample.ids) - 1
    for t in {0, 1, 2, last - 3, last - 1, last}:
        left = [may_follow(sample.ids[:t], token) for token in range(logits_TV.shape[1])]
        expected = logits_TV[t].masked_fill(~torch.tensor(left), float("-inf")).log_softmax(-1)
        assert sample.logprobs[t] == pytest.approx(float(expected[sample.ids[t]]), abs=1e-4), (t, sum(left))


def test_requests_with_and_without_pattern_share_a_sampler(
    tokenizer: PreTrainedTokenizerBase, make_qwen2: Callable[..., Qwen2ForCausalLM]
):
    sampler, pattern = sampler_of(tokenizer, make_qwen2), pattern_of(tokenizer)
    free, chosen = asked(None, 6), asked(pattern, 6)
    together = sample_all(sampler, [*free, *chosen])
    assert together == [*sample_all(sampler, free), *sample_all(sampler, chosen)]


@pytest.mark.parametrize("tokenizer", [build_word_tokenizer(WORDS), build_subword_tokenizer(WORDS, 200)])
def test_an_engine_refuses_patterns_for_the_tokens_of_nano_models(tokenizer: PreTrainedTokenizerBase):
    sampler = VllmSampler(tokenizer, VllmOptions(url="http://127.0.0.1:9"))
    try:
        with pytest.raises(UserError, match=r"tokenizers of nano models.*sampler.type=transformers"):
            sampler.settle(Workplace(patterns=True))
    finally:
        sampler.close()
