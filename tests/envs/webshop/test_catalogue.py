from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from random import Random

import numpy as np
import pytest

from hiper.envs.webshop import streaming
from hiper.envs.webshop.catalogue import Catalogue, ProductReader
from hiper.envs.webshop.product import Instruction, decode, read_human_instructions, read_product
from hiper.envs.webshop.shop import Shop
from hiper.envs.webshop.streaming import read_list, read_pairs
from hiper.errors import UserError


def read_all(items, attributes=None, human=None):
    known = {item["asin"]: {"attributes": []} for item in items} if attributes is None else attributes
    return list(ProductReader(items, known.items(), None if human is None else human.items()))


def test_an_entry_becomes_a_product(make_item) -> None:
    colours = [{"value": " Sand/Stone ", "image": None}, {"value": "RED"}]
    item = make_item(
        name="A Mug",
        small_description="holds tea",
        pricing="$1,019.99 to $1,100.0 to $7",
        customization_options={"Color": colours, "Size": None, "Fit Type": []},
    )
    product = read_product(item, ("dishwasher safe",), ())
    assert product.features == ("holds tea",)
    assert product.listed == (1019.99, 1100.0)
    assert product.price_tag == "$1019.99 to $1100.0"
    assert product.options == {"color": ("sand | stone", "red"), "fit type": ()}
    assert product.query == "mugs"
    assert product.document == "a mug  holds tea color: sand | stone, red, and fit type: "


@pytest.mark.parametrize("price", ["", None])
def test_what_has_no_price_costs_a_hundred(make_item, price) -> None:
    product = read_product(make_item(pricing=price), (), ())
    assert (product.listed, product.price_tag) == ((100.0,), "$100.0")


def test_only_the_first_feature_is_searched(make_product) -> None:
    assert make_product(features=("First", "Second"), description="Fine").document == "mug fine first "


def test_a_product_comes_back_as_it_was(make_product) -> None:
    product = make_product(
        title="Tasse à thé “M” ❤️\x00\n\ud83d",
        listed=(1.5, 2.25),
        features=("a", ""),
        options={"size": ("s", "s"), "b": ()},
        attributes=("x",),
        instructions=(Instruction("Find me", ("x",), None), Instruction("I want", ("x",), ("s", "red"))),
    )
    assert decode(product.encode()) == product


def test_attributes_and_instructions_come_from_the_other_file(make_item) -> None:
    request = {"attributes": ["soft", "warm"], "instruction": "Find me soft", "instruction_attributes": ["soft"]}
    known = {"B1": request, "B2": {"attributes": ["cold"]}, "B3": {}}
    products = read_all([make_item("B1"), make_item("B2"), make_item("B3"), make_item("B4")], known)
    assert [product.attributes for product in products] == [("soft", "warm"), ("cold",), (), ()]
    assert [product.instructions for product in products] == [(Instruction("Find me soft", ("soft",)),), (), (), ()]


def test_peoples_instructions_take_the_place_of_the_others(make_item) -> None:
    known = {"B1": {"attributes": ["soft"], "instruction": "Find me soft", "instruction_attributes": ["soft"]}}
    asked = [
        {"instruction": "I want it soft.", "instruction_attributes": ["soft"], "instruction_options": ["red"]},
        {"instruction": "anything", "instruction_attributes": [], "instruction_options": []},
    ]
    (product,) = read_all([make_item("B1")], known, {"B1": asked})
    assert product.instructions == (Instruction("I want it soft", ("soft",), ("red",)),)
    (product,) = read_all([make_item("B1")], known, {})
    assert product.instructions == ()


def test_what_the_original_leaves_out_is_counted_and_told(make_item, caplog: pytest.LogCaptureFixture) -> None:
    items = [
        make_item("B1"),
        make_item("nan"),
        make_item("B1", name="again"),
        make_item("B2345678901"),
        make_item("B2"),
    ]
    reader = ProductReader(items, {"B1": {}, "B2": {}}.items())
    assert [product.asin for product in reader] == ["B1", "B2"]
    assert reader.left_out == {"no proper asin": 2, "an asin met before": 1}
    (record,) = caplog.records
    assert "left out 3 of the products' entries" in record.getMessage()
    assert "1 with an asin met before, 2 with no proper asin" in record.getMessage()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"name": None}, r"product 'B1': 'name' should be a text, it is 'None'"),
        ({"small_description": [1]}, "'small_description' should be a list of texts"),
        ({"pricing": "ask us"}, r"'pricing' should read like .* it is 'ask us'"),
        ({"pricing": "$1.2.3"}, "'pricing' should read like"),
        ({"pricing": "$" + "9" * 400}, "'pricing' should read like"),
        ({"customization_options": {"Size": ["s"]}}, "'customization_options' should give a list of values by name"),
        ({"customization_options": "red"}, "'customization_options' should give"),
        ({"customization_options": 3}, "'customization_options' should be a mapping or a text or null"),
    ],
)
def test_broken_entries_are_named(make_item, change, complaint) -> None:
    with pytest.raises(UserError, match=complaint):
        read_all([make_item("B1", **change)])


def test_a_missing_key_is_named(make_item) -> None:
    item = make_item("B1")
    del item["query"]
    with pytest.raises(UserError, match="product 'B1': the key 'query' is missing"):
        read_all([item])
    with pytest.raises(UserError, match="entry 1 of the products has no 'asin'"):
        list(ProductReader(["B1"], {}.items()))


def test_broken_attributes_are_named(make_item) -> None:
    with pytest.raises(UserError, match="attributes of product 'B1': 'instruction_attributes' should be a list of one"):
        read_all([make_item("B1")], {"B1": {"attributes": [], "instruction": "Find", "instruction_attributes": []}})
    for entry in ([{"instruction": "I want"}], None, 3):
        with pytest.raises(UserError, match=r"attributes of product 'B1': should be a mapping.*two files swapped\?"):
            read_all([make_item("B1")], {"B1": entry})
    with pytest.raises(UserError, match="human instructions for product 'B1': should be a list"):
        read_human_instructions({"instruction": "I want"}, "B1")


def test_files_of_different_catalogues_are_refused(make_item) -> None:
    with pytest.raises(UserError, match="describes none of the products"):
        read_all([make_item("B1")], {"B2": {"attributes": []}})


def test_products_without_attributes_are_counted_and_told(make_item, caplog: pytest.LogCaptureFixture) -> None:
    assert len(read_all([make_item("B1"), make_item("B2"), make_item("B3")], {"B2": {"attributes": []}})) == 3
    (record,) = caplog.records
    assert "says nothing of 2 of the 3 products" in record.getMessage()


VALUES = [1, 23, -4.5e3, 'a, ]b\\"', "ü€😀", {"c": [1, {"d": None}]}, [], {}, True, 67]


@pytest.mark.parametrize("chunk", [1, 2, 7, 1 << 20])
@pytest.mark.parametrize("indent", [None, 3])
def test_streaming_reads_what_json_reads(tmp_path: Path, monkeypatch, chunk: int, indent: int | None) -> None:
    monkeypatch.setattr(streaming, "_CHUNK", chunk)
    file = tmp_path / "values.json"
    file.write_text(json.dumps(VALUES, indent=indent, ensure_ascii=False), encoding="utf-8")
    assert list(read_list(file)) == VALUES
    pairs = {f"key {index}": value for index, value in enumerate(VALUES)}
    file.write_text(json.dumps(pairs, indent=indent))
    assert list(read_pairs(file)) == list(pairs.items())


def test_streaming_reads_nothing_from_nothing(tmp_path: Path) -> None:
    (tmp_path / "list").write_text(" [ ] ")
    (tmp_path / "object").write_text("{}")
    assert list(read_list(tmp_path / "list")) == list(read_pairs(tmp_path / "object")) == []


BROKEN = ['[{"a": 1}, {"a"', "[1 2]", "[1,", '["a', "[tru]", "[1] 2", "[]]", "[" * 10**5, f"[{'1' * 5000}]"]


@pytest.mark.parametrize("text", BROKEN, ids=lambda text: text[:9])
def test_streaming_refuses_what_is_cut_or_broken(tmp_path: Path, text: str) -> None:
    file = tmp_path / "items.json"
    file.write_text(text)
    with pytest.raises(UserError, match=r"items.json' is no complete JSON file \(character \d+: .*fetch it again"):
        list(read_list(file))


def test_streaming_says_what_else_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "items.json"
    with pytest.raises(UserError, match=r"items.json' cannot be read: No such file"):
        list(read_list(file))
    file.write_text("{}")
    with pytest.raises(UserError, match=r"should hold a JSON list and begin .* '\{\}'; were two files swapped\?"):
        list(read_list(file))
    file.write_text("<!DOCTYPE html>")
    with pytest.raises(UserError, match=r"begins with '<!DOCTYPE html>'"):
        list(read_list(file))
    file.write_text(" ")
    with pytest.raises(UserError, match="it is empty; fetch it again"):
        list(read_list(file))
    file.write_bytes(b'["\xff"]')
    with pytest.raises(UserError, match="is no UTF-8 text"):
        list(read_list(file))


def test_streaming_never_holds_the_file(tmp_path: Path) -> None:
    file = tmp_path / "items.json"
    file.write_text(json.dumps([{"text": "x" * 1000}] * 30_000))
    tracemalloc.start()
    assert sum(len(value["text"]) for value in read_list(file)) == 30_000_000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * 2**20


def test_prices_are_drawn_in_order_for_those_that_list_a_range(make_product) -> None:
    listed = [(5.0,), (1.0, 2.0), (7.0,), (10.0, 30.0)]
    catalogue = Catalogue.of((make_product(f"B{n}", listed=prices) for n, prices in enumerate(listed)), Random(3))
    rng = Random(3)
    assert catalogue.prices_N.tolist() == [5.0, 1.0 + rng.random(), 7.0, 10.0 + 20.0 * rng.random()]


def test_on_disk_and_in_memory_are_the_same(make_product, tmp_path: Path) -> None:
    products = [make_product(f"B{number}", title="ü" * number, listed=(1.0, 2.0)) for number in range(5)]
    here = Catalogue.of(products, Random(1))
    kept = Catalogue.of(products, Random(1), tmp_path)
    again = Catalogue.open(tmp_path)
    for catalogue in (here, kept, again):
        assert list(catalogue) == products
        assert [catalogue[index] for index in (4, 0, 4)] == [products[4], products[0], products[4]]
        assert catalogue.fingerprint == here.fingerprint
        assert catalogue.prices_N.tolist() == here.prices_N.tolist()
    assert isinstance(again.prices_N, np.memmap)
    assert not again.prices_N.flags.writeable


def test_the_fingerprint_tells_catalogues_apart(make_product) -> None:
    def fingerprint(*products, seed=1):
        return Catalogue.of(products, Random(seed)).fingerprint

    ranged = make_product(listed=(1.0, 2.0))
    prints = [fingerprint(make_product()), fingerprint(make_product(title="Cup")), fingerprint(ranged)]
    assert len({*prints, fingerprint(ranged, seed=2)}) == 4
    assert fingerprint(make_product()) == prints[0]


def test_positions_out_of_reach_and_empty_catalogues(make_product) -> None:
    catalogue = Catalogue.of([make_product()], Random(1))
    for position in (-1, 1):
        with pytest.raises(IndexError):
            catalogue[position]
    with pytest.raises(UserError, match="holds no products"):
        Catalogue.of([], Random(1))


def test_official_prices_are_the_recorded_ones(official_shop, recorded) -> None:
    catalogue = official_shop.products
    prices = {product.asin: price for product, price in zip(catalogue, catalogue.prices_N, strict=True)}
    assert prices == recorded["prices"]


def test_two_entries_for_a_product_are_refused(make_item) -> None:
    pairs = [("B1", {"attributes": ["red"]}), ("B1", {"attributes": ["blue"]})]
    with pytest.raises(UserError, match="two entries of attributes for product 'B1'"):
        ProductReader([make_item("B1")], pairs)
    with pytest.raises(UserError, match="two entries of human instructions for product 'B1'"):
        ProductReader([make_item("B1")], pairs[:1], [("B1", []), ("B1", [])])


def test_files_with_a_byte_order_mark_are_read_and_web_pages_are_named(tmp_path: Path) -> None:
    file = tmp_path / "items.json"
    file.write_text('["a", 1]', encoding="utf-8-sig")
    assert list(read_list(file)) == ["a", 1]
    file.write_text("<!doctype html><html></html>")
    with pytest.raises(UserError, match="looks like a web page: fetch the file again"):
        list(read_list(file))


def test_options_without_number_are_refused(make_product) -> None:
    options = {str(name): tuple("abcdefghij") for name in range(10)}
    product = make_product(options=options, instructions=(Instruction("a mug", ("red",)),))
    with pytest.raises(UserError, match=r"more than 30,000,000 goals, .* with 10,000,000,000 combinations"):
        Shop.of("many", [product])
