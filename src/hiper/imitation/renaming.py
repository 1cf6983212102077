"""Exchange of rare words in demonstrations, so that a small model learns to copy words whatever they are.

A model that is trained for minutes learns to copy the words that it copied often. A word that it met a few times, it
replaces by one of those. But what a demonstration shows of a rare word is mostly where it stands: copy the word at this
place, choose what is named here and there. This stays true if the word is exchanged for another everywhere in the turn.
So some turns are shown with their rare words exchanged. Frequent words, numbers and tags stay, as they have meanings to
be learned. With a vocabulary of subwords, rare parts of words are exchanged, so whole words become others. The idea is
that of anonymised entities (Hermann et al. 2015, arXiv 1506.03340).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from hiper.plan_execute.parse import SWITCH_WORDS
from hiper.plan_execute.tokenizer import SPACE, is_subword
from hiper.rows import Row

RARE = 0.02
"""The largest share of turns that a rare word occurs in."""


def rename(rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, share: float, seed: int) -> list[Row]:
    """Exchange the rare words of some rows.

    In such a row each rare word is exchanged for a rare word drawn at random, the same one throughout, and different
    ones for different words. A subword is exchanged for another that begins a word, or does not, like itself.

    Args:
        rows: The rows of demonstrations. What is rare is counted over them.
        tokenizer: The tokenizer of a nano model that made them.
        share: The share of the rows, chosen at random.
        seed: The seed of all choices.
    """
    rng = np.random.default_rng(seed)
    kinds = _rare_words(rows, tokenizer)
    other = np.arange(len(tokenizer))
    renamed = []
    for row, chosen in zip(rows, rng.random(len(rows)) < share, strict=True):
        if chosen:
            words = _words(row)
            for rare in kinds:
                here = np.intersect1d(words, rare)
                other[here] = rng.choice(rare, len(here), replace=False)
            prompt, response = (tuple(other[list(ids)].tolist()) for ids in (row.prompt_ids, row.response_ids))
            row = replace(row, prompt_ids=prompt, response_ids=response)
            other[words] = words
        renamed.append(row)
    return renamed


def _rare_words(rows: Iterable[Row], tokenizer: PreTrainedTokenizerBase) -> list[NDArray[np.int64]]:
    """Return the tokens that occur in few rows or in none: words, or beginnings of words and other parts of words."""
    count = np.zeros(len(tokenizer), np.int64)
    total = 0
    for row in rows:
        count[_words(row)] += 1
        total += 1
    words = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    rare = count <= RARE * total
    if not is_subword(tokenizer):
        return [np.flatnonzero(np.array([_is_name(word) for word in words]) & rare)]
    begins = np.array([word.startswith(SPACE) and _is_name(word[1:]) for word in words])
    goes_on = np.array([word.isalnum() for word in words])
    return [np.flatnonzero(kind & rare) for kind in (begins, goes_on)]


def _is_name(word: str) -> bool:
    """Whether a word may stand for another. Punctuation, tags, numbers below a hundred and switch words may not."""
    return word[:1].isalnum() and not (word.isdigit() and len(word) < 3) and word not in SWITCH_WORDS


def _words(row: Row) -> NDArray[np.int64]:
    return np.unique(np.array(row.prompt_ids + row.response_ids))
