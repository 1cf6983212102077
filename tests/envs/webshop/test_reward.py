from __future__ import annotations

from collections.abc import Callable

import pytest

from hiper.envs.webshop import nouns
from hiper.envs.webshop.goals import Goal
from hiper.envs.webshop.nouns import TAGGERS, ascii_words, choose_tagger
from hiper.envs.webshop.pages import View, follow
from hiper.envs.webshop.reward import Reward, alike, judge
from hiper.errors import UserError


@pytest.fixture
def judged(make_product) -> Callable[..., Reward]:
    """A purchase where the right product was bought but for what a test says."""

    def judge_it(options=(), price=5.0, attributes=("soft",), wanted=(), limit=10.0, kind=(), **bought) -> Reward:
        asked = make_product(title="Red Mug", attributes=("soft", "warm"), **dict(kind))
        goal = Goal(asked, "Find me", attributes, wanted, limit)
        product = make_product(**({"title": "Red Mug", "attributes": ("soft", "warm")} | bought))
        return judge(product, options, price, goal, ascii_words)

    return judge_it


def test_the_right_purchase_is_worth_one(judged) -> None:
    reward = judged(options=("s",), wanted=(("size", "s"),))
    assert reward.total == 1.0
    assert reward.parts == {"type": 1.0, "attributes": 1.0, "options": 1.0, "price": 1.0}
    assert "options" not in judged().parts


def test_a_reward_worked_by_hand(judged) -> None:
    """Two of three attributes, one of two options, too dear: (2 + 1 + 0) / (3 + 2 + 1)."""
    reward = judged(
        attributes=("soft", "warm", "machine wash"),
        wanted=(("size", "medium"), ("color", "teal")),
        options=("red", "medium"),
        price=10.01,
    )
    assert (reward.attributes, reward.options, reward.price) == (pytest.approx(2 / 3), 0.5, False)
    assert reward.total == 0.5
    assert judged(price=10.0).price


@pytest.mark.parametrize(
    ("title", "kind", "expected"),
    [
        ("Red Mug", {"query": "lamps", "product_category": "x"}, (1.0, 1.0, False, False)),
        ("Red Lamp", {"query": "lamps", "product_category": "x"}, (1.0, 0.5, False, False)),
        ("Red, dark red", {}, (1.0, 0.5, True, True)),
        ("Lamp", {}, (0.0, 0.0, True, True)),
        ("123", {}, (0.0, 0.0, True, True)),
    ],
)
def test_types_by_title_search_and_category(judged, title: str, kind: dict[str, str], expected) -> None:
    reward = judged(title=title, **kind)
    assert (reward.type, reward.title, reward.same_query, reward.same_category) == expected
    assert reward.total == reward.type


@pytest.mark.parametrize(("shared", "same", "expected"), [(1, False, 0.5), (1, True, 1.0), (0, True, 0.0)])
def test_types_between(make_product, shared: int, same: bool, expected: float) -> None:
    """One of five nouns is 0.2, which alone is not enough for the full type."""
    goal = Goal(make_product(title="a b c d e"), "Find me", ("soft",), (), 10.0)
    bought = make_product(title="a x" if shared else "x", query="mugs" if same else "cups", product_category="")
    assert judge(bought, (), 5.0, goal, ascii_words).type == expected


def test_a_faint_likeness_of_long_titles(make_product) -> None:
    """One of eleven nouns is less than a tenth, whatever the category."""
    goal = Goal(make_product(title="a b c d e f g h i j k"), "Find me", ("soft",), (), 10.0)
    reward = judge(make_product(title="k"), (), 5.0, goal, ascii_words)
    assert (reward.same_query, reward.same_category, reward.type) == (True, True, 0.1)
    # A wanted title without any noun counts as a likeness of a fifth.
    nameless = Goal(make_product(title="77"), "Find me", ("soft",), (), 10.0)
    assert judge(make_product(title="k"), (), 5.0, nameless, ascii_words).title == 0.2


@pytest.mark.parametrize(
    ("path", "same"),
    [("c › a › x", True), ("a › a › x", False), ("a ›  b", True), ("b", False), ("a›c", True)],
)
def test_two_levels_make_a_category(judged, path: str, same: bool) -> None:
    assert judged(kind={"product_category": "a › b › c"}, product_category=path).same_category == same


@pytest.mark.parametrize("place", [{"title": "Red Mug Machine Wash"}, {"description": "A MACHINE WASH mug"}])
def test_attributes_may_be_named_anywhere(judged, place: dict[str, str]) -> None:
    assert judged(attributes=("machine wash",), **place).attributes == 1.0
    assert judged(attributes=("machine wash",), features=("good", "Machine wash")).attributes == 1.0
    assert judged(attributes=("machine wash",), features=("machine", "dry wash")).attributes == 0.0


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("easy to use", "use easy", True),  # one set of words holds the other
        ("essential oil", "essential oils", True),  # 2 * 13 / 27 = 96 %
        ("long sleeve", "short sleeve", False),  # "sleeve" against "sleeve long": 2 * 6 / 17 = 71 %
        ("3x-large", "xx-large", True),  # "large 3x" against "large xx": 2 * 7 / 16 = 88 %
        ("small", "x-small 2", True),
        ("medium", "large", False),
        ("x-large", "large", True),
        ("COTTON-blend!", "blend cotton", True),
        ("", "", False),
        ("!", "mug", False),
        ("é", "é", False),  # what lies beyond ASCII in Latin-1 is dropped
    ],
)
def test_what_is_alike(one: str, other: str, expected: bool) -> None:
    assert alike(one, other) == alike(other, one) == expected


@pytest.mark.parametrize(
    ("chosen", "wanted", "met"),
    [
        ("navy-multi", ("color", "navy stripes"), 1.0),  # the colour alone is compared, with the pair's words
        ("b-blue", ("color", "a-blue"), 1.0),
        ("red", ("color", "blue"), 0.0),
        ("dark blue", ("color", "blue"), 1.0),
        ("gold", ("color", "golden"), 0.0),  # "gold" against "color golden": 2 * 4 / 16 = 50 %
        ("color", ("color", "blue"), 0.0),  # a pair that holds a colour by itself comes down to it
        ("color", ("color", "a-blue"), 1.0),  # the original's quirk: the option's name is among the words
        ("light blue", ("", "sky blue"), 1.0),  # as people write them, both sides come down to their colour
        ("grey", ("", "gray"), 0.0),
    ],
)
def test_options_and_colours(judged, chosen: str, wanted: tuple[str, str], met: float) -> None:
    assert judged(options=(chosen,), wanted=(wanted,)).options == met


def test_taggers() -> None:
    assert ascii_words("Men's T-Shirt, 2 Pack thé") == ("men", "s", "t", "shirt", "pack", "th")
    with pytest.raises(UserError, match=r"no noun tagger 'spacey'; did you mean 'spacy'\?"):
        choose_tagger("spacey")


def test_spacy_is_taken_where_it_is(monkeypatch) -> None:
    monkeypatch.setattr(nouns, "find_spec", lambda name: None if name == nouns.SPACY_MODEL else object())
    assert choose_tagger("auto") == "words"
    assert choose_tagger("spacy") == "spacy"
    nouns.spacy_nouns.cache_clear()
    with pytest.raises(UserError, match=r"'en_core_web_sm' is not installed: pip install 'hiper\[webshop\]'"):
        TAGGERS["spacy"]()
    monkeypatch.setattr(nouns, "find_spec", lambda name: object())
    assert choose_tagger("auto") == "spacy"


def test_spacys_nouns() -> None:
    """Common and proper nouns, where spaCy and its model are installed."""
    pytest.importorskip("en_core_web_sm", reason="spaCy's small English model is not installed")
    found = TAGGERS["spacy"]()("The red mug of Berlin is very heavy")
    assert "mug" in found
    assert "berlin" in found
    assert not {"the", "of", "is", "very"} & set(found)


def test_recorded_rewards(official_shop, recorded) -> None:
    """Every part of all 69 purchases, to the last bit."""
    purchases = 0
    for episode in recorded["episodes"]:
        if "reward_info" not in episode:
            continue
        view = View()
        for step in episode["steps"][1:]:
            view = follow(official_shop, view, step["action"]) or view
        goal = official_shop.goals.goal(episode["goal_index"], official_shop.products)
        product, price = official_shop.products[view.item], float(official_shop.products.prices_N[view.item])
        reward = judge(product, view.options.values(), price, goal, ascii_words)
        parts = {
            "r_type": reward.type,
            "r_att": reward.attributes,
            "query_match": reward.same_query,
            "category_match": reward.same_category,
            "title_score": reward.title,
            "r_price": reward.price,
            **({} if reward.options is None else {"r_option": reward.options}),
        }
        weights = {"w_att", "w_option", "w_price"}
        assert parts == {name: part for name, part in episode["reward_info"].items() if name not in weights}
        assert reward.total == episode["steps"][-1]["reward"]
        purchases += 1
    assert purchases == 69
