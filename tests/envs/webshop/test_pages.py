from __future__ import annotations

from collections.abc import Callable

import pytest

from hiper.envs.webshop.pages import Place, View, follow, page, parse, receipt
from hiper.envs.webshop.shop import Shop

SAYS = "Find me a mug"


@pytest.fixture(scope="module")
def shop(make_product) -> Shop:
    options = {"color": ("red", "natural"), "size": ("s", "natural", "5 [ft]", "buy now")}
    features = ("", " round ", "\n", "deep\nand wide")
    mugs = [make_product(f"B00000000{number}", title="Mug") for number in range(10)]
    best = make_product("B0000000MU", title=" Mug mug & <Mug> ", features=features, options=options, listed=(1.5, 20.0))
    lamp = make_product("B0000000LA", title="Lamp", description=" \t", attributes=("bright", "warm"))
    return Shop.of("mugs", [*mugs, best, lamp])


@pytest.fixture
def walk(shop) -> Callable[..., View]:
    """Where a number of actions lead, all of which must be understood."""

    def to(*actions: str, shop: Shop = shop) -> View:
        view = View()
        for action in actions:
            after = follow(shop, view, action)
            assert after is not None, action
            view = after
        return view

    return to


def texts(shop: Shop, view: View) -> list[str]:
    return page(shop, view, SAYS).text.removeprefix(f"Instruction: [SEP] {SAYS} [SEP] ").split(" [SEP] ")


ITEM = ("search[red mug]", "click[b0000000mu]")


def test_the_first_page(shop) -> None:
    seen = page(shop, View(), SAYS)
    assert seen.text == "WebShop [SEP] Instruction: [SEP] Find me a mug [SEP] Search"
    assert (seen.clickables, seen.search_bar) == (("search",), True)
    assert page(shop, View(), None).text == "WebShop [SEP] Search"


def test_results_come_ten_to_a_page(shop, walk) -> None:
    first = walk("search[red mug]")
    seen = page(shop, first, SAYS)
    assert texts(shop, first)[:5] == [
        "Back to Search",
        "Page 1 (Total results: 11)",
        "Next >",
        "B0000000MU",
        "Mug mug & <Mug>",
    ]
    assert texts(shop, first)[5:9] == ["$1.5 to $20.0", "B000000000", "Mug", "$9.99"]
    assert seen.clickables == ("back to search", "next >", "b0000000mu", *(f"b00000000{number}" for number in range(9)))
    assert not seen.search_bar
    second = walk("search[red mug]", "click[Next >]")
    assert texts(shop, second) == [
        *("Back to Search", "Page 2 (Total results: 11)", "< Prev", "Next >", "B000000009", "Mug", "$9.99")
    ]
    assert page(shop, second, SAYS).clickables == ("back to search", "< prev", "next >", "b000000009")
    assert texts(shop, walk("search[red mug]", *["click[next >]"] * 3))[1:] == [
        *("Page 4 (Total results: 11)", "< Prev", "Next >")
    ]
    assert walk("search[red mug]", "click[next >]", "click[< prev]") == first


def test_an_item_and_what_is_said_of_it(shop, walk) -> None:
    view = walk(*ITEM)
    assert texts(shop, view) == [
        *("Back to Search", "< Prev", "color", "red", "natural", "size", "s", "natural", "5 [ft]", "buy now"),
        *("Mug mug & <Mug>", "Price: $1.5 to $20.0", "Rating: N.A.", "Description", "Features", "Reviews", "Buy Now"),
    ]
    # Every label once, where it is met first.
    assert page(shop, view, SAYS).clickables == (
        *("back to search", "< prev", "description", "features", "reviews", "buy now", "red", "natural", "s", "5 [ft]"),
    )
    features = walk(*ITEM, "click[features]")
    assert texts(shop, features) == ["Back to Search", "< Prev", "", "round", "deep\nand wide"]
    assert page(shop, features, SAYS).clickables == ("back to search", "< prev")
    assert texts(shop, walk(*ITEM, "click[reviews]")) == ["Back to Search", "< Prev"]
    # A blank text is shown as an empty one; only one that is empty, or blank with a line break, vanishes.
    assert texts(shop, walk("search[lamp]", "click[b0000000la]", "click[description]")) == [
        "Back to Search",
        "< Prev",
        "",
    ]
    assert texts(shop, walk(*ITEM, "click[description]")) == ["Back to Search", "< Prev"]


def test_attributes_are_shown_if_asked_for(shop, walk) -> None:
    lamp = ("search[lamp]", "click[b0000000la]")
    assert follow(shop, walk(*lamp), "click[attributes]") is None
    open_shop = shop.showing_attributes()
    assert texts(open_shop, walk(*lamp, shop=open_shop))[-3:] == ["Reviews", "Attributes", "Buy Now"]
    assert texts(open_shop, walk(*lamp, "click[attributes]", shop=open_shop))[2:] == [
        *("bright", "warm", "garden", "mugs", "Home › Kitchen › Mugs")
    ]


def test_options_are_chosen_and_forgotten(walk) -> None:
    chosen = walk(*ITEM, "click[s]", "click[red]", "click[features]", "click[< prev]")
    assert chosen.options == {"size": "s", "color": "red"}
    assert walk(*ITEM, "click[red]", "click[natural]").options == {"color": "red", "size": "natural"}  # the last such
    assert walk(*ITEM, "click[s]", "click[< prev]") == walk("search[red mug]")
    assert walk(*ITEM, "click[s]", "click[< prev]", "click[b0000000mu]").options == {}
    assert walk("search[red mug]", "click[next >]", "click[b000000009]", "click[< prev]").number == 2
    assert walk(*ITEM, "click[back to search]") == View()


def test_buying_ends_the_visit(shop, walk) -> None:
    bought = walk(*ITEM, "click[s]", "click[natural]", "click[red]", "click[buy now]")
    assert bought.place is Place.DONE
    assert follow(shop, bought, "search[red mug]") is None
    seen = receipt(shop.products[bought.item], {"size": "5' & <up>", "color": "é"}, 0.25)
    assert (
        '[SEP] options [SEP] {"color": "\\u00e9", "size": "5\\u0027 \\u0026 \\u003cup\\u003e"} [SEP] attrs' in seen.text
    )
    assert seen.text.startswith("Thank you for shopping with us! [SEP] Your code: [SEP] None [SEP] (Paste it")
    assert seen.text.endswith("(min 0.0, max 1.0) [SEP] 0.25 [SEP] Reward Details [SEP] None")


@pytest.mark.parametrize(
    ("action", "parsed"),
    [
        ("click[Buy Now]", ("click", "buy now")),
        ("search[a] b]", ("search", "a] b")),
        ("click[b] and then", ("click", "b")),
        ("click[5 [ft]]", ("click[5 ", "ft]")),
        ("CLICK[x]", ("CLICK", "x")),
        *((odd, None) for odd in ("", "click", "click[buy now", "search[]", "[x]", "click x]", "search[\n]")),
    ],
)
def test_the_form_of_actions(action: str, parsed) -> None:
    assert parse(action) == parsed


@pytest.mark.parametrize(
    "action",
    [
        *("", "click", "SEARCH[mug]", "Click[< prev]", "click[buy now", "search[]", "search", "look", "click[]"),
        *("click[B0ZZZZZZZZ]", "click[b0000000mu]", "click[next >]", "click[search]", "click[xxl]", "click[5 [ft]]"),
    ],
)
def test_what_is_not_understood_on_an_item(shop, walk, action: str) -> None:
    assert follow(shop, walk(*ITEM), action) is None


def test_what_is_not_understood_elsewhere(shop, walk) -> None:
    for action in ("click[search]", "click[back to search]", "click[b0000000mu]"):
        assert follow(shop, View(), action) is None
    for action in ("click[< prev]", "click[b000000009]", "click[buy now]"):
        assert follow(shop, walk("search[red mug]"), action) is None
    for action in ("click[buy now]", "click[red]", "click[description]"):
        assert follow(shop, walk(*ITEM, "click[features]"), action) is None


def test_searching_works_everywhere_and_may_find_nothing(shop, walk) -> None:
    assert walk(*ITEM, "click[features]", "search[lamp]") == walk("search[LAMP]")
    for query in ("zebra", "the", "?!", " ", "<r>", "<c> garden", "<a> bright"):
        view = walk(f"search[{query}]")
        assert texts(shop, view) == ["Back to Search", "Page 1 (Total results: 0)", "Next >"]
    assert walk("search[<q> mugs]").found == walk("search[q mugs]").found


def test_views_never_change(walk, shop) -> None:
    view = walk(*ITEM, "click[red]")
    before = dict(view.options)
    follow(shop, view, "click[natural]")
    assert view.options == before


def test_recorded_episodes(official_shop, recorded) -> None:
    """All 80, character for character; the last pages with the rewards that were recorded."""
    steps = 0
    for episode in recorded["episodes"]:
        view, says = View(), episode["goal"]["instruction_text"]
        for step in episode["steps"]:
            if step["action"] is not None:
                view = follow(official_shop, view, step["action"]) or view
            done = view.place is Place.DONE
            product = official_shop.products[view.item] if done else None
            seen = receipt(product, view.options, step["reward"]) if product else page(official_shop, view, says)
            assert seen.text == step["observation"]
            assert {"has_search_bar": seen.search_bar, "clickables": list(seen.clickables)} == step["available"]
            assert done == step.get("done", False)
            steps += 1
    assert steps == 685
