"""Exchange of rare words in demonstrations, so that a small model learns to copy words whatever they are.

A model that is trained for minutes learns to copy the words that it copied often. A word that it met a few times, it
replaces by one of those. But what a demonstration shows of a rare word is mostly where it stands: copy the word at this
place, choose what is named here and there. This stays true if the word is exchanged for another everywhere in the turn.
So some turns are shown with their rare words exchanged. Frequent words, numbers and tags stay, as they have meanings to
be learned. The idea is that of anonymised entities (Hermann et al. 2015, arXiv 1506.03340).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from hiper.plan_execute.parse import SWITCH_WORDS
from hiper.rows import Row

RARE = 0.02
"""The largest share of turns that a rare word occurs in."""


def rename(rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, share: float, seed: int) -> list[Row]:
    """Exchange the rare words of some rows.

    In such a row each rare word is exchanged for a rare word drawn at random, the same one throughout, and different
    ones for different words.

    Args:
        rows: The rows of demonstrations. What is rare is counted over them.
        tokenizer: The word-level tokenizer that made them.
        share: The share of the rows, chosen at random.
        seed: The seed of all choices.
    """
    rng = np.random.default_rng(seed)
    rare = _rare_words(rows, tokenizer)
    other = np.arange(len(tokenizer))
    renamed = []
    for row, chosen in zip(rows, rng.random(len(rows)) < share, strict=True):
        if chosen:
            here = np.intersect1d(_words(row), rare)
            other[here] = rng.choice(rare, len(here), replace=False)
            prompt, response = (tuple(other[list(ids)].tolist()) for ids in (row.prompt_ids, row.response_ids))
            row = replace(row, prompt_ids=prompt, response_ids=response)
            other[here] = here
        renamed.append(row)
    return renamed


def _rare_words(rows: Iterable[Row], tokenizer: PreTrainedTokenizerBase) -> NDArray[np.int64]:
    """Return the tokens of words that occur in few rows or in none."""
    count = np.zeros(len(tokenizer), np.int64)
    total = 0
    for row in rows:
        count[_words(row)] += 1
        total += 1
    words = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    return np.flatnonzero(np.array([_is_name(word) for word in words]) & (count <= RARE * total))


def _is_name(word: str) -> bool:
    """Whether a word may stand for another. Punctuation, tags, numbers below a hundred and switch words may not."""
    return word[0].isalnum() and not (word.isdigit() and len(word) < 3) and word not in SWITCH_WORDS


def _words(row: Row) -> NDArray[np.int64]:
    return np.unique(np.array(row.prompt_ids + row.response_ids))
