"""Rare words are exchanged for others: equal ones stay equal, and frequent words, numbers and tags stay."""

from __future__ import annotations

import pytest

from hiper.config import load_config
from hiper.envs.base import Decision
from hiper.errors import UserError
from hiper.imitation.renaming import rename
from hiper.plan_execute.tokenizer import (
    SPACE,
    build_subword_tokenizer,
    build_word_tokenizer,
    encode_response,
    encode_text,
)
from hiper.rows import Row

WORDS = [f"thing{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(200)]
PROMPTS = [f"page 1 : item 1 {word} $ 5 item 2 lamp $ 7 . task {word} under 3 ." for word in WORDS]
DECISIONS = [Decision(False, f"find {word}", f"search {word} lamp {word}") for word in WORDS]
TOKENIZER = build_word_tokenizer([*PROMPTS, "find search 128 unheard"])
ROWS = [
    Row(tuple(encode_text(TOKENIZER, prompt)), tuple(encode_response(TOKENIZER, decision)), None)
    for prompt, decision in zip(PROMPTS, DECISIONS, strict=True)
]


def said(row: Row) -> str:
    return str(TOKENIZER.decode([*row.prompt_ids, *row.response_ids]))


def test_equal_words_stay_equal_and_frequent_ones_stay():
    for before, after in zip(ROWS, rename(ROWS, TOKENIZER, 1.0, seed=0), strict=True):
        old = [*before.prompt_ids, *before.response_ids]
        new = [*after.prompt_ids, *after.response_ids]
        exchanged = {a: b for a, b in zip(old, new, strict=True) if a != b}
        assert len(exchanged) <= 1  # of the words of a row one alone is rare
        assert new == [exchanged.get(token, token) for token in old]
        assert len(set(new)) == len(set(old))


def test_words_are_exchanged_for_any_rare_word_and_for_nothing_else():
    rare = {TOKENIZER.convert_tokens_to_ids(word) for word in (*WORDS, "128", "unheard")}
    drawn: set[int] = set()
    for seed in range(20):
        for before, after in zip(ROWS, rename(ROWS, TOKENIZER, 1.0, seed), strict=True):
            drawn |= set(after.prompt_ids) - set(before.prompt_ids)
    assert drawn == rare


def test_parts_of_words_are_exchanged_for_parts_alike():
    """A beginning for a beginning, another part for another part, so that rows read as words of the same lengths."""
    tokenizer = build_subword_tokenizer([*PROMPTS, "search"], 180)
    rows = [
        Row(tuple(encode_text(tokenizer, prompt)), tuple(encode_response(tokenizer, decision)), None)
        for prompt, decision in zip(PROMPTS, DECISIONS, strict=True)
    ]
    assert max(len(encode_text(tokenizer, word)) for word in WORDS) > 1
    changed, spelled = 0, {token: word for word, token in tokenizer.get_vocab().items()}
    for before, after in zip(rows, rename(rows, tokenizer, 1.0, seed=0), strict=True):
        old, new = [*before.prompt_ids, *before.response_ids], [*after.prompt_ids, *after.response_ids]
        exchanged = {a: b for a, b in zip(old, new, strict=True) if a != b}
        changed += len(exchanged)
        assert new == [exchanged.get(token, token) for token in old]
        assert len(set(new)) == len(set(old))
        for a, b in exchanged.items():
            assert spelled[a].startswith(SPACE) == spelled[b].startswith(SPACE)
            assert spelled[b].removeprefix(SPACE).isalnum()
    assert changed > 20


def test_rows_that_are_not_chosen_stay_and_so_many_are_chosen():
    renamed = rename(ROWS, TOKENIZER, 0.5, seed=3)
    kept = sum(a is b for a, b in zip(ROWS, renamed, strict=True))
    assert 70 <= kept <= 130
    assert rename(ROWS, TOKENIZER, 0.0, seed=3) == ROWS
    assert rename(ROWS, TOKENIZER, 0.5, seed=3) == renamed
    assert rename(ROWS, TOKENIZER, 0.5, seed=4) != renamed


def test_it_reads_as_the_same_task_about_another_thing():
    (first, *_) = rename(ROWS, TOKENIZER, 1.0, seed=0)
    word = said(first).split(" item 1 ")[1].split()[0]
    assert word not in ("thingaa", "lamp")
    assert said(first) == said(ROWS[0]).replace("thingaa", word)


def test_a_model_of_parts_of_words_is_refused():
    with pytest.raises(UserError, match=r"warm_start\.rename exchanges words that a nano model knows"):
        load_config("quickstart", ["warm_start.rename=0.5", "model.path=owner/name"])
