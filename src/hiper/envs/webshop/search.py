"""Okapi BM25 over the products' documents, equal to Lucene's down to the rounding.

The score of document d for a query is the sum over the query's distinct terms of

    boost * idf * tf / (tf + k1 * (1 - b + b * dl / avgdl)),    idf = ln(1 + (N - df + 0.5) / (df + 0.5)),

where boost is how often the query says the term and dl the number of terms in d, rounded down to four significant bits
as Lucene stores it (avgdl is not rounded). Source: Lucene 9, ``BM25Similarity`` and ``SmallFloat.intToByte4``; like
there, each summand is of single, the sum of double precision and rounded in the end. Equal scores rank by position.

bm25s, the library of choice, has Lucene's formula, but takes lengths as they are and keeps one finished number for each
posting; equal rankings cannot be had from it.

N documents that have a term, V terms, P postings (a term in a document) by term and then by document, S distinct
pairs of frequency and rounded length, which are all that a posting's score depends on beside its term.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from functools import cached_property, lru_cache
from itertools import count, repeat
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hiper.envs.webshop.analysis import terms
from hiper.envs.webshop.arrays import allocate, hold, mapped

HITS = 50
"""How many products a search finds at most."""
K1, B = np.float32(0.9), np.float32(0.4)
"""Anserini's defaults."""

_EXACT = 24
"""Lengths below are stored as they are; above, what exceeds this is rounded."""
_BLOCK = 1 << 22
"""Postings sorted at a time."""
_SMALL = 1 << 21
"""Postings of an index that remembers what a term adds to scores."""
_REMEMBERED = 1 << 14
"""Terms of which it does."""


@dataclass(frozen=True)
class Index:
    """An inverted index. Nothing in it changes; opened from a folder, it is shared by all processes that do."""

    key_V: NDArray[np.uint64]
    """A number for each term, in ascending order: see :func:`_key`."""
    start_V1: NDArray[np.int64]
    """Where the postings of each term begin; one more at the end."""
    idf_V: NDArray[np.float32]
    document_P: NDArray[np.int32]
    kind_P: NDArray[np.uint16]
    """The pair of frequency and length, as an index into ``saturation_S``."""
    saturation_S: NDArray[np.float32]
    """1 + tf / (k1 * (1 - b + b * dl / avgdl))."""

    @classmethod
    def of(cls, texts: Iterable[str], folder: Path | None = None) -> Index:
        """The index of ``texts``.

        Args:
            texts: one per document.
            folder: an existing folder to keep the index in, for :meth:`open`; None: it is held in memory.
        """
        return _index(_read(texts), folder)

    @classmethod
    def open(cls, folder: Path) -> Index:
        """The index kept in ``folder``, memory-mapped.

        Raises:
            OSError, ValueError: there is none.
        """
        return cls(**{part.name: mapped(folder, part.name) for part in fields(cls)})

    def search(self, query: str, limit: int = HITS) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
        """The best documents for ``query``, best first, and their scores; only those that share a term with it."""
        found = [part for asked in Counter(terms(query)).items() if (part := self._asked(*asked)) is not None]
        if not found:
            return np.empty(0, np.intp), np.empty(0, np.float32)
        document_p = np.concatenate([documents for documents, _ in found])
        summand_p = np.concatenate([summands for _, summands in found])
        return _best(np.bincount(document_p, summand_p).astype(np.float32), limit)

    @cached_property
    def _asked(self) -> Callable[[str, int], tuple[NDArray[np.int32], NDArray[np.float32]] | None]:
        """:meth:`_summands`, which a small index remembers."""
        return lru_cache(_REMEMBERED)(self._summands) if len(self.document_P) <= _SMALL else self._summands

    def _summands(self, term: str, boost: int) -> tuple[NDArray[np.int32], NDArray[np.float32]] | None:
        """The documents that have a term, and what it adds to their scores; None where none has it."""
        key = _key(term)
        at = int(np.searchsorted(self.key_V, key))
        if at == len(self.key_V) or self.key_V[at] != key:
            return None
        postings = slice(*self.start_V1[at : at + 2].tolist())
        weight = np.float32(boost) * self.idf_V[at]
        return self.document_P[postings], weight - weight / self.saturation_S[self.kind_P[postings]]


def _idf(documents: int, having_V: NDArray[np.int64]) -> NDArray[np.float32]:
    idf_V: NDArray[np.float32] = np.log(1 + (documents - having_V + 0.5) / (having_V + 0.5)).astype(np.float32)
    return idf_V


def _best(score_N: NDArray[np.float32], limit: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Positions and values of the ``limit`` greatest positive scores; of equal ones, the first."""
    # Floats from zero on are ordered as their bits are. With positions below these, all ranks differ.
    rank_N = (score_N.view(np.int32).astype(np.int64) << 32) - np.arange(len(score_N))
    best = np.partition(rank_N, -limit)[-limit:] if len(rank_N) > limit else rank_N
    position = -np.sort(best)[::-1] & 0xFFFFFFFF
    score = score_N[position]
    positive = np.count_nonzero(score)
    return position[:positive], score[:positive]


@lru_cache(1 << 16)
def _key(term: str) -> np.uint64:
    """Stands for a term: 64 bits of a hash, so that no index has to hold or compare texts.

    A word that no document has would be taken for another with a chance of V / 2**64.
    """
    encoded = term.encode(errors="surrogatepass")  # there are halves of characters in scraped texts
    return np.uint64(int.from_bytes(hashlib.blake2b(encoded, digest_size=8).digest(), "big"))


def stored_length(length: int) -> int:
    """A document's length as Lucene gets it back: four significant bits of what exceeds 24."""
    excess = length - _EXACT
    if excess < 16:
        return length
    shift = excess.bit_length() - 4
    return _EXACT + (excess >> shift << shift)


@dataclass
class _Read:
    """The documents' terms, before they are sorted."""

    vocabulary: dict[str, int] = field(default_factory=lambda: defaultdict(count().__next__))
    """Numbers of the terms, as they were met."""
    pairs: dict[tuple[int, int], int] = field(default_factory=lambda: defaultdict(count().__next__))
    """Numbers of the pairs of frequency and stored length."""
    documents: int = 0
    """Those that have a term."""
    length: int = 0
    """Of all documents together, in terms."""
    distinct: array[int] = field(default_factory=lambda: array("i"))
    """Distinct terms of each document."""
    term_P: array[int] = field(default_factory=lambda: array("i"))
    """By document."""
    kind_P: array[int] = field(default_factory=lambda: array("H"))


def _read(texts: Iterable[str]) -> _Read:
    read = _Read()
    for text in texts:
        found = terms(text)
        counted = Counter(found)
        read.documents += bool(found)
        read.length += len(found)
        read.distinct.append(len(counted))
        read.term_P.extend(map(read.vocabulary.__getitem__, counted))
        pairs = zip(counted.values(), repeat(stored_length(len(found))))
        read.kind_P.extend(map(read.pairs.__getitem__, pairs))
    return read


def _index(read: _Read, folder: Path | None) -> Index:
    """Sorts the postings by term, a block of documents at a time, so that beside the result little memory is needed."""
    keys = np.array([_key(term) for term in read.vocabulary], dtype=np.uint64)
    order_V = np.argsort(keys)
    rank_V = np.empty_like(order_V)
    rank_V[order_V] = np.arange(len(order_V))
    term_P, kind_P = np.frombuffer(read.term_P, np.int32), np.frombuffer(read.kind_P, np.uint16)
    start_V1 = np.concatenate([[0], np.cumsum(np.bincount(term_P, minlength=len(keys))[order_V])])
    index = Index(
        key_V=hold(folder, "key_V", keys[order_V]),
        start_V1=hold(folder, "start_V1", start_V1),
        idf_V=hold(folder, "idf_V", _idf(read.documents, np.diff(start_V1))),
        document_P=allocate(folder, "document_P", len(term_P), np.int32),
        kind_P=allocate(folder, "kind_P", len(term_P), np.uint16),
        saturation_S=hold(folder, "saturation_S", _saturation(read)),
    )
    free_V = start_V1[:-1].copy()
    end_N = np.cumsum(np.frombuffer(read.distinct, np.int32), dtype=np.int64)
    for start in range(0, len(term_P), _BLOCK):
        rank_p = rank_V[term_P[start : start + _BLOCK]]
        sorted_p = np.argsort(rank_p, kind="stable")
        rank_p = rank_p[sorted_p]
        first_v = np.flatnonzero(np.diff(rank_p, prepend=-1))
        times_v = np.diff(first_v, append=len(rank_p))
        place_p = free_V[rank_p] + np.arange(len(rank_p)) - np.repeat(first_v, times_v)
        free_V[rank_p[first_v]] += times_v
        index.document_P[place_p] = np.searchsorted(end_N, start + sorted_p, side="right")
        index.kind_P[place_p] = kind_P[start + sorted_p]
    return index if folder is None else Index.open(folder)


def _saturation(read: _Read) -> NDArray[np.float32]:
    average = np.float32(read.length / max(1, read.documents))
    times_S, length_S = np.array(list(read.pairs), dtype=np.float32).reshape(-1, 2).T
    one = np.float32(1)
    inverse_S = one / (K1 * ((one - B) + B * length_S / average))
    return one + times_S * inverse_S
