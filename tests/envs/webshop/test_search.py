"""None"""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from pathlib import Path
from random import Random

import numpy as np
import pytest

from hiper.envs.webshop import search
from hiper.envs.webshop.analysis import terms
from hiper.envs.webshop.catalogue import Catalogue
from hiper.envs.webshop.goals import Goals, split_goals
from hiper.envs.webshop.product import Instruction
from hiper.envs.webshop.search import Index, stored_length
from hiper.envs.webshop.shop import Shop
from hiper.envs.webshop.stemmer import stem
from hiper.errors import UserError

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


# ---  -----------------------------------------------------------------------------------------------------------------


ASK = (Instruction("Find me soft mugs", ("soft",)),)


def draw(*products, seed=5):
    rng = Random(seed)
    catalogue = Catalogue.of(products, rng)
    goals = Goals.draw(catalogue, rng, seed)
    return [goals.goal(index, catalogue) for index in range(len(goals))]


def test_a_goal_for_every_combination_of_options(make_product) -> None:
    """Options by name, the last one's values changing fastest; then shuffled."""
    options = {"size": ("s", "m", "l"), "color": ("red", "teal")}
    goals = draw(make_product(options=options, instructions=ASK, listed=(25.0,)), seed=8)
    rng = Random(8)
    limit = max(rng.sample([30.0, 40.0, 50.0, 60.0], 2))
    texts = [
        f"Find me soft mugs with color: {color}, and size: {size}, and price lower than {limit:.2f} dollars"
        for color, size in itertools.product(("red", "teal"), ("s", "m", "l"))
    ]
    Random(8).shuffle(texts)
    assert [goal.instruction for goal in goals] == texts
    assert {goal.limit for goal in goals} == {limit}
    assert {goal.attributes for goal in goals} == {("soft",)}
    assert sorted(goal.options for goal in goals)[0] == (("color", "red"), ("size", "l"))


def test_products_without_options_and_without_instructions(make_product) -> None:
    quiet, plain = make_product("B1"), make_product("B2", instructions=ASK)
    impossible = make_product("B3", instructions=ASK, options={"size": ()})
    (goal,) = draw(quiet, plain, impossible)
    assert goal.product == plain
    assert goal.options == ()
    assert goal.instruction.startswith("Find me soft mugs, and price lower than ")


@pytest.mark.parametrize(("price", "limits"), [(960.0, {970.0, 980.0, 990.0}), (975.5, {990.0}), (985.0, {1e6})])
def test_dear_products_leave_little_or_no_choice(make_product, price: float, limits: set[float]) -> None:
    for seed in range(20):
        (goal,) = draw(make_product(instructions=ASK, listed=(price,)), seed=seed)
        assert goal.limit in limits - {970.0}  # the lowest is never the greater of two
        assert ("price lower than" in goal.instruction) == (goal.limit < 1e6)


def test_limits_continue_the_stream_of_the_prices(make_product) -> None:
    goals = draw(
        make_product("B1", instructions=ASK, listed=(5.0, 6.0)), make_product("B2", instructions=ASK, listed=(7.0, 8.0))
    )
    rng = Random(5)
    rng.random(), rng.random()
    above = [10.0, 20.0, 30.0, 40.0]
    expected = {"B1": max(rng.sample(above, 2)), "B2": max(rng.sample(above, 2))}
    assert {goal.product.asin: goal.limit for goal in goals} == expected


def test_people_say_which_options_they_want(make_product) -> None:
    said = Instruction("I want a red one", ("soft",), ("red", "s"))
    (goal,) = draw(make_product(instructions=(said,), options={"size": ("s", "m")}))
    assert goal.options == (("", "red"), ("", "s"))
    assert goal.instruction.startswith("I want a red one, and price lower than ")


def test_the_digest_tells_goals_apart(make_product) -> None:
    one, other = draw(make_product(instructions=ASK, options={"size": ("s", "m")}))
    assert one.digest != other.digest
    assert {one.digest, other.digest} == {
        g.digest for g in draw(make_product(instructions=ASK, options={"size": ("s", "m")}))
    }


def test_on_disk_and_in_memory_are_the_same(make_product, tmp_path: Path) -> None:
    catalogue = Catalogue.of([make_product(instructions=ASK, options={"size": tuple("abcdefgh")})], Random(1))
    here = Goals.draw(catalogue, Random(1), 1)
    Goals.draw(catalogue, Random(1), 1, tmp_path)
    kept = Goals.open(tmp_path)
    assert isinstance(kept.order_G, np.memmap)
    assert len(kept) == len(here) == 8
    assert all(kept.goal(index, catalogue) == here.goal(index, catalogue) for index in range(8))


def combinations(shop: Shop, split: str) -> set[tuple[str, str]]:
    """What a split asks for, read off the instructions: the product and what is said of it but for the price."""
    goals = (shop.goals.goal(index, shop.products) for index in split_goals(shop.goals, shop.products, split).tolist())
    return {(goal.product.asin, goal.instruction.partition(", and price lower than ")[0]) for goal in goals}


@pytest.mark.parametrize("name", ["generated_shop", "official_shop"])
def test_no_test_goal_is_met_in_training(name: str, request) -> None:
    """Neither the goal, nor its product with its combination of options."""
    shop = request.getfixturevalue(name)
    splits = {split: split_goals(shop.goals, shop.products, split) for split in ("test", "validation", "train")}
    assert len(splits["test"]) == min(500, len(shop.goals) // 5)
    for one, other in itertools.combinations(splits, 2):
        assert not set(splits[one].tolist()) & set(splits[other].tolist())
        assert not combinations(shop, one) & combinations(shop, other)
    assert sum(map(len, splits.values())) > 0.99 * len(shop.goals)


def test_repeated_combinations_are_kept_out_of_later_splits(make_product) -> None:
    """A product that lists its one size ten times over gives ten goals with the same product and options."""
    repeated = make_product("B1", instructions=ASK, options={"size": ("s",) * 10})
    rest = [make_product(f"B{number}", instructions=ASK, options={"size": tuple("ab")}) for number in range(2, 12)]
    shop = Shop.of("mugs", [repeated, *rest])
    kept = [split_goals(shop.goals, shop.products, split) for split in ("test", "validation", "train")]
    asins = [{shop.goals.goal(int(i), shop.products).product.asin for i in split} for split in kept]
    assert sum("B1" in some for some in asins) == 1
    assert sum(map(len, kept)) < len(shop.goals) == 30


def test_splits_that_do_not_exist(make_product) -> None:
    shop = Shop.of("mugs", [make_product(instructions=ASK)])
    with pytest.raises(UserError, match="no split 'valid'; there are test, validation, train"):
        split_goals(shop.goals, shop.products, "valid")
    with pytest.raises(UserError, match="has 1 goals, too few for the split 'test'"):
        split_goals(shop.goals, shop.products, "test")


def test_official_goals_are_the_recorded_ones(official_shop, recorded) -> None:
    assert len(official_shop.goals) == recorded["n_goals"] == 6910
    known = dict(enumerate(recorded["goals_head"]))
    known |= {episode["goal_index"]: episode["goal"] for episode in recorded["episodes"]}
    assert len(known) == 129  # one episode's goal is among the first 50
    for index, goal in known.items():
        mine = official_shop.goals.goal(index, official_shop.products)
        assert {
            "asin": mine.product.asin,
            "instruction_text": mine.instruction,
            "price_upper": mine.limit,
            "goal_options": dict(mine.options),
            "attributes": list(mine.attributes),
        }.items() <= goal.items()
        assert json.dumps(dict(mine.options)) == json.dumps(goal["goal_options"])
