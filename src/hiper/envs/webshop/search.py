"""Okapi BM25 over the products' documents, equal to Lucene's down to the rounding.

The score of document d for a query is the sum over the query's distinct terms of

    boost * idf * tf / (tf + k1 * (1 - b + b * dl / avgdl)),    idf = ln(1 + (N - df + 0.5) / (df + 0.5)),

where boost is the number of times that the query has the term, and dl the number of terms in d. Lucene rounds dl down
to four significant bits, but not avgdl. Source: Lucene 9, ``BM25Similarity`` and ``SmallFloat.intToByte4``. As there,
each summand has single precision, and the sum has double precision and is rounded in the end. Equal scores rank by
position.

The library bm25s has Lucene's formula, but does not round lengths and keeps one finished number for each posting. It
cannot give equal rankings.

Legend: N documents that have a term; V terms; P postings (a term in a document) by term and then by document; S
distinct pairs of frequency and rounded length. A posting's score depends on its term and on its pair alone.
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
"""The largest number of products that a search finds."""
K1, B = np.float32(0.9), np.float32(0.4)
"""The defaults of Anserini."""

_EXACT = 24
"""The length up to which lengths are exact. Above it, the excess is rounded."""
_BLOCK = 1 << 22
"""The number of postings sorted at a time."""
_SMALL = 1 << 21
"""The largest number of postings of an index that caches what terms add to scores."""
_REMEMBERED = 1 << 14
"""The number of terms in that cache."""


@dataclass(frozen=True)
class Index:
    """An inverted index. Nothing in it changes. Processes that open it from a folder share its memory."""

    key_V: NDArray[np.uint64]
    """The number of each term (see :func:`_key`), in ascending order."""
    start_V1: NDArray[np.int64]
    """The beginning of each term's postings, and the end of the last."""
    idf_V: NDArray[np.float32]
    document_P: NDArray[np.int32]
    kind_P: NDArray[np.uint16]
    """The pair of frequency and length of each posting, as an index into ``saturation_S``."""
    saturation_S: NDArray[np.float32]
    """The value of 1 + tf / (k1 * (1 - b + b * dl / avgdl)) for each pair."""

    @classmethod
    def of(cls, texts: Iterable[str], folder: Path | None = None) -> Index:
        """Make the index of ``texts``.

        Args:
            texts: one text per document.
            folder: an existing folder to keep the index in, for :meth:`open`; None: keep it in memory.
        """
        return _index(_read(texts), folder)

    @classmethod
    def open(cls, folder: Path) -> Index:
        """Open the index kept in ``folder``, memory-mapped.

        Raises:
            OSError, ValueError: there is no index.
        """
        return cls(**{part.name: mapped(folder, part.name) for part in fields(cls)})

    def search(self, query: str, limit: int = HITS) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
        """Return the best documents for ``query``, best first, and their scores. They share a term with the query."""
        found = [part for asked in Counter(terms(query)).items() if (part := self._asked(*asked)) is not None]
        if not found:
            return np.empty(0, np.intp), np.empty(0, np.float32)
        document_p = np.concatenate([documents for documents, _ in found])
        summand_p = np.concatenate([summands for _, summands in found])
        return _best(np.bincount(document_p, summand_p).astype(np.float32), limit)

    @cached_property
    def _asked(self) -> Callable[[str, int], tuple[NDArray[np.int32], NDArray[np.float32]] | None]:
        """Return :meth:`_summands`. A small index caches its results."""
        return lru_cache(_REMEMBERED)(self._summands) if len(self.document_P) <= _SMALL else self._summands

    def _summands(self, term: str, boost: int) -> tuple[NDArray[np.int32], NDArray[np.float32]] | None:
        """Return the documents that have a term, and what it adds to their scores. None: no document has it."""
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
    """Return positions and values of the ``limit`` greatest positive scores. Of equal scores, the first count."""
    # Floats from zero on have the order of their bits. With the position in the lower bits, all ranks differ.
    rank_N = (score_N.view(np.int32).astype(np.int64) << 32) - np.arange(len(score_N))
    best = np.partition(rank_N, -limit)[-limit:] if len(rank_N) > limit else rank_N
    position = -np.sort(best)[::-1] & 0xFFFFFFFF
    score = score_N[position]
    positive = np.count_nonzero(score)
    return position[:positive], score[:positive]


@lru_cache(1 << 16)
def _key(term: str) -> np.uint64:
    """Return the number of a term: 64 bits of a hash, so that no index has to hold or compare texts.

    A word that no document has is taken for another with probability V / 2**64.
    """
    encoded = term.encode(errors="surrogatepass")  # scraped texts hold halves of characters
    return np.uint64(int.from_bytes(hashlib.blake2b(encoded, digest_size=8).digest(), "big"))


def stored_length(length: int) -> int:
    """Return a document's length as Lucene stores it: four significant bits of what exceeds 24."""
    excess = length - _EXACT
    if excess < 16:
        return length
    shift = excess.bit_length() - 4
    return _EXACT + (excess >> shift << shift)


@dataclass
class _Read:
    """The documents' terms, before they are sorted."""

    vocabulary: dict[str, int] = field(default_factory=lambda: defaultdict(count().__next__))
    """The numbers of the terms, in the order of their first occurrence."""
    pairs: dict[tuple[int, int], int] = field(default_factory=lambda: defaultdict(count().__next__))
    """The numbers of the pairs of frequency and stored length."""
    documents: int = 0
    """The number of documents that have a term."""
    length: int = 0
    """The length of all documents together, in terms."""
    distinct: array[int] = field(default_factory=lambda: array("i"))
    """The number of distinct terms of each document."""
    term_P: array[int] = field(default_factory=lambda: array("i"))
    """The terms of the postings, by document."""
    kind_P: array[int] = field(default_factory=lambda: array("H"))
    """The pairs of the postings, by document."""


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
    """Sort the postings by term, a block of documents at a time. So little memory is needed beside the result."""
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
