"""Generated products."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from helpers.missing import skip_without
from hiper.envs.webshop import generate
from hiper.envs.webshop.catalogue import Catalogue
from hiper.envs.webshop.generate import PRODUCTS_PER_KIND, assortment, generate_files, generate_products, write_files
from hiper.envs.webshop.nouns import ascii_words
from hiper.envs.webshop.product import Product, read_attributes, read_product
from hiper.envs.webshop.reward import judge
from hiper.envs.webshop.shop import Shop
from hiper.errors import UserError


@pytest.fixture(scope="module")
def products() -> list[Product]:
    return list(generate_products(800))


def dearest_bound(price: float) -> float:
    """The highest bound that a request for something of this price can name, as the benchmark makes its requests."""
    return [10.0 * n for n in range(1, 100) if 10.0 * n > price][3]


@pytest.mark.parametrize(
    ("count", "seed", "digest"), [(4, 0, "6c7a6d533748aef1"), (64, 0, "cf91a0dd72038333"), (64, 1, "df6b80043dfbe8e9")]
)
def test_equal_arguments_give_equal_products_everywhere(count: int, seed: int, digest: str):
    content = json.dumps(generate_files(count, seed))
    assert hashlib.sha256(content.encode()).hexdigest().startswith(digest)


def test_the_example_in_the_documentation():
    assert generate.__doc__
    assert repr(generate_files(4)[0][0]["name"]) in generate.__doc__


def test_files_read_as_the_official_ones_do(tmp_path: Path):
    items, attributes = (json.loads(path.read_text()) for path in write_files(tmp_path, 30, seed=2))
    read = [read_product(item, *read_attributes(attributes[item["asin"]], item["asin"])) for item in items]
    assert read == list(generate_products(30, seed=2))


def test_entries_have_the_keys_of_the_official_files():
    data = Path(__file__).parents[4] / "shared" / "data" / "webshop"
    if not data.is_dir():
        skip_without("official products", data)
    items, attributes = generate_files(200)
    official = json.loads((data / "items_shuffle_1000.json").read_text())
    known = {key for item in official for key in item}
    assert all(set(item) <= known for item in items)
    assert set.intersection(*(set(item) for item in official)) <= set(items[0])
    values = [content for item in official for content in (item["customization_options"] or {}).values() if content]
    known = {key for content in values for value in content for key in value}
    for made in items[0]["customization_options"].values():
        assert all({"value", "is_selected"} <= set(value) <= known for value in made)
    asked = json.loads((data / "items_ins_v2_1000.json").read_text())
    assert {key for item in attributes.values() for key in item} == {key for item in asked.values() for key in item}


@pytest.mark.parametrize("count", [1, 3, 17, 100])
def test_a_shop_has_as_many_products_as_asked_for_each_with_an_id_of_its_own(count: int):
    made = list(generate_products(count))
    assert len(made) == len({product.asin for product in made}) == count
    assert all(len(product.asin) == 10 for product in made)
    assert len({product.query for product in made}) <= max(1, count // PRODUCTS_PER_KIND)
    assert len(Catalogue.of(made, Random(0))) == count


@pytest.mark.parametrize("count", [0, -1])
def test_a_shop_without_products_is_refused(count: int):
    with pytest.raises(UserError, match=f"at least one product; {count} were asked for"):
        list(generate_products(count))


def test_requests_ask_for_what_the_product_has(products: list[Product]):
    for product in products:
        for request in product.instructions:
            assert request.text.startswith("Find me ")
            assert product.query in request.text
            assert 1 <= len(request.attributes) <= 3
            assert set(request.attributes) <= set(product.attributes)
            assert all(name in request.text for name in request.attributes)
    asked = [len(product.instructions) for product in products]
    assert sum(asked) == 600  # all but the dear twin of every four
    assert sum(math.prod(map(len, p.options.values())) for p in products if p.instructions) > 2000


def test_every_attribute_can_be_read_somewhere(products: list[Product]):
    hidden = 0
    for product in products:
        text = " ".join(product.features).lower()
        assert all(name in text for name in product.attributes)
        assert any(name in product.title.lower() for name in product.attributes)
        hidden += any(name not in product.title.lower() for name in product.attributes)
    assert 200 < hidden < 600


def test_one_of_every_four_is_like_another_but_too_dear_for_requests_for_it(products: list[Product]):
    positions = Counter[int]()
    for start in range(0, len(products), 4):
        twins = products[start + 2 : start + 4]
        dear, cheap = sorted(twins, key=lambda product: -product.listed[0])
        positions[twins.index(dear)] += 1
        assert (dear.query, dear.attributes, dear.options) == (cheap.query, cheap.attributes, cheap.options)
        assert dear.asin != cheap.asin
        assert not dear.instructions
        assert cheap.instructions
        assert dear.listed[0] > dearest_bound(cheap.listed[-1])
    assert min(positions.values()) > 60  # neither the first nor the second of the pair as a rule


def test_there_is_something_to_choose_from(products: list[Product]):
    """Most requests are met by few of the things of their kind, so that titles and prices must be read."""
    met, kin = 0, 0
    for product in products:
        for request in product.instructions:
            same = [other for other in products if other.query == product.query]
            kin += len(same)
            met += sum(set(request.attributes) <= set(other.attributes) for other in same)
    assert kin / 600 > 15
    assert met / kin < 0.35


def test_every_request_is_met_by_the_product_in_mind(generated_shop: Shop):
    """Also under the benchmark's own comparison of colours, which takes "standard" for "tan"."""
    products, goals = generated_shop.products, generated_shop.goals
    prices = dict(zip((product.asin for product in products), products.prices_N, strict=True))
    for index in range(len(goals)):
        goal = goals.goal(index, products)
        chosen = [option if isinstance(option, str) else option[1] for option in goal.options]
        judged = judge(goal.product, chosen, float(prices[goal.product.asin]), goal, ascii_words)
        assert judged.total == 1.0, goal


def test_prices_options_and_kinds_vary(products: list[Product]):
    ranges = [product for product in products if len(product.listed) == 2]
    assert 60 < len(ranges) < 180
    assert all(low < high for low, high in (product.listed for product in ranges))
    assert len({product.query for product in products}) == len(assortment().kinds)
    assert len({product.category for product in products}) == 5
    for product in products:
        assert all(2 <= len(values) <= 4 for values in product.options.values())
    assert {len(product.options) for product in products} == {1, 2}


def test_the_tables_are_consistent():
    tables = assortment()
    assert set(tables.places.values()) == {"before", "with", "for"}
    used = {name for kind in tables.kinds for group in kind.attributes for name in group}
    assert used == set(tables.places)
    assert {option for kind in tables.kinds for option in kind.options} == set(tables.options)
    for kind in tables.kinds:
        assert len(kind.attributes) >= 4
        assert 0 < kind.price[0] < kind.price[1]
        assert len(kind.path.split(" › ")) >= 3
