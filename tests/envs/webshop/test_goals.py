from __future__ import annotations

import itertools
import json
from pathlib import Path
from random import Random

import numpy as np
import pytest

from hiper.envs.webshop.catalogue import Catalogue
from hiper.envs.webshop.goals import Goals, split_goals
from hiper.envs.webshop.product import Instruction
from hiper.envs.webshop.shop import Shop
from hiper.errors import UserError

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
