from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from hiper.envs.webshop import search
from hiper.envs.webshop.analysis import terms
from hiper.envs.webshop.search import Index, stored_length
from hiper.envs.webshop.stemmer import stem

# The examples of Porter's paper, rule by rule, each taken through to the end.
PORTER = """
caresses caress|ponies poni|ties ti|caress caress|cats cat|feed feed|agreed agre|plastered plaster|bled bled
motoring motor|sing sing|conflated conflat|troubled troubl|sized size|hopping hop|tanned tan|falling fall|hissing hiss
fizzed fizz|failing fail|filing file|happy happi|sky sky|relational relat|conditional condit|rational ration
valenci valenc|hesitanci hesit|digitizer digit|conformabli conform|radicalli radic|differentli differ|vileli vile
analogousli analog|vietnamization vietnam|predication predic|operator oper|feudalism feudal|decisiveness decis
hopefulness hope|callousness callous|formaliti formal|sensitiviti sensit|sensibiliti sensibl|triplicate triplic
formative form|formalize formal|electriciti electr|electrical electr|hopeful hope|goodness good|revival reviv
allowance allow|inference infer|airliner airlin|gyroscopic gyroscop|adjustable adjust|defensible defens
irritant irrit|replacement replac|adjustment adjust|dependent depend|adoption adopt|completion complet
tension tension|homologou homolog
communism commun|activate activ|angulariti angular|homologous homolog|effective effect|bowdlerize bowdler
probate probat|rate rate|cease ceas|controll control|roll roll
"""
# Where his later releases, which Lucene follows, depart from it; Snowball's "porter" gives "possibli", "archaeologi".
DEPARTURES = "possibly possibl|possible possibl|archaeology archaeolog|as as|by by|is is"


@pytest.mark.parametrize("pair", [*PORTER.strip().replace("\n", "|").split("|"), *DEPARTURES.split("|")])
def test_stems(pair: str) -> None:
    word, expected = pair.split()
    assert stem(word) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Men's T-Shirts & Tanks", ["men", "t", "shirt", "tank"]),
        ("the cat’s pyjamas, and NOT a dog", ["cat", "pyjama", "dog"]),
        ("49x59in 1,000.5 3.5mm 5'6 U.S.A b.1", ["49x59in", "1,000.5", "3.5mm", "5'6", "u.s.a", "b", "1"]),
        ("snake_case __ size:large 8:30 don't", ["snake_cas", "size:larg", "8", "30", "don't"]),
        ("e\u0301te\u0301 co\xadop", ["e\u0301te\u0301", "co\xadop"]),
        ("❤❤️ ✔️ok ★ ☆ 👩‍👧 🇩🇪🇫🇷", ["❤", "❤️", "✔️", "ok", "★", "👩‍👧", "🇩🇪", "🇫🇷"]),
        ("palladia® oak™ 5°", ["palladia", "®", "oak", "™", "5"]),
        ("小米 ひら カタカナ 한국어 ไทย", ["小", "米", "ひ", "ら", "カタカナ", "한국어", "ไทย"]),
        ("x" * 300, ["x" * 255, "x" * 45]),
        ("size size", ["size", "size"]),
        (" \n--- ", []),
    ],
)
def test_terms(text: str, expected: list[str]) -> None:
    assert terms(text) == expected


@pytest.mark.parametrize(
    ("length", "stored"), [(0, 0), (24, 24), (39, 39), (40, 40), (41, 40), (58, 56), (61, 60), (215, 200), (2047, 1944)]
)
def test_lengths_are_stored_with_four_bits(length: int, stored: int) -> None:
    """The excess over 24: 34 is 100010 in binary, of which 1000 and so 32 are left; 2023 = 11111100111 leaves 1920."""
    assert stored_length(length) == stored


DOCUMENTS = [
    "red mug red tea",
    "blue mug",
    "",
    "tea tea tea and a cup " + "word " * 60,
    "blue mug",
    "mugs for tea, a red one",
]


def slow_scores(texts: list[str], query: str) -> dict[int, float]:
    """The formula of the module, document by document, in double precision."""
    found = [Counter(terms(text)) for text in texts]
    documents = sum(map(bool, found))
    average = sum(sum(counts.values()) for counts in found) / documents
    scores: dict[int, float] = {}
    for position, counts in enumerate(found):
        length = stored_length(sum(counts.values()))
        for term, boost in Counter(terms(query)).items():
            having = sum(term in other for other in found)
            idf = math.log(1 + (documents - having + 0.5) / (having + 0.5))
            if counts[term]:
                gain = counts[term] / (counts[term] + 0.9 * (0.6 + 0.4 * length / average))
                scores[position] = scores.get(position, 0.0) + boost * idf * gain
    return scores


@pytest.mark.parametrize(
    "query", ["mug", "red tea", "tea tea mug", "blue zebra", "a cup of word", "mugs mugs mugs red"]
)
def test_scores_are_those_of_the_formula(query: str) -> None:
    found, scores = Index.of(DOCUMENTS).search(query)
    expected = slow_scores(DOCUMENTS, query)
    assert found.tolist() == sorted(expected, key=lambda position: (-round(expected[position], 6), position))
    assert scores.tolist() == pytest.approx([expected[position] for position in found], abs=1e-6)


def test_a_score_worked_by_hand() -> None:
    """Two documents of 1 and 3 terms, average 2; "cup" is in one: idf = ln 2, tf = 1, dl = 3."""
    found, scores = Index.of(["mug", "cup mug mug"]).search("Cups")
    assert found.tolist() == [1]
    assert scores[0] == pytest.approx(math.log(2) / (1 + 0.9 * (0.6 + 0.4 * 3 / 2)))


def test_equal_scores_rank_by_position_and_only_so_many_are_found() -> None:
    index = Index.of(["mug"] * 70 + ["mug mug"])
    assert index.search("mug")[0].tolist() == [70, *range(49)]
    assert index.search("mug", limit=2)[0].tolist() == [70, 0]


@pytest.mark.parametrize("query", ["", "   ", "the of and", "zebra", "!?"])
def test_what_finds_nothing(query: str) -> None:
    found, scores = Index.of(DOCUMENTS).search(query)
    assert len(found) == len(scores) == 0


def test_halves_of_characters_are_no_obstacle() -> None:
    assert Index.of(["mug \ud83d\udc00x", "\ud83d cup"]).search("cup \ud83d")[0].tolist() == [1]


def test_an_index_without_terms() -> None:
    assert len(Index.of(["", "the"]).search("mug")[0]) == 0


@pytest.mark.parametrize("block", [1, 3, 1 << 22])
def test_on_disk_in_blocks_and_in_memory_are_the_same(tmp_path: Path, monkeypatch, block: int) -> None:
    here = Index.of(DOCUMENTS)
    monkeypatch.setattr(search, "_BLOCK", block)
    kept = Index.of(iter(DOCUMENTS), tmp_path)
    for index in (kept, Index.open(tmp_path)):
        assert isinstance(index.document_P, np.memmap)
        assert not index.document_P.flags.writeable
        for query in ("mug", "tea red", "word"):
            (found, scores), (expected, expected_scores) = index.search(query), here.search(query)
            assert (found.tolist(), scores.tolist()) == (expected.tolist(), expected_scores.tolist())


def test_searches_find_what_lucene_found(official_shop, recorded) -> None:
    index = Index.of(product.document for product in official_shop.products)
    asins = [product.asin for product in official_shop.products]
    assert len(recorded["searches"]) == 88
    for query, answer in recorded["searches"].items():
        found, scores = index.search(query)
        assert [asins[position] for position in found] == [asin for asin, _ in answer], query
        assert scores.tolist() == pytest.approx([score for _, score in answer], abs=1e-4), query
