"""Panels of generated tasks are frozen: results on them can be compared between machines and over time.

A change of a generator that changes a task on purpose raises the environment's version and gives new numbers here.
"""

from __future__ import annotations

import pytest

from hiper import envs

HOUSEHOLD = {
    ("tiny", "train"): "952aa244be2b1d0d95b16374b0ee5ae2a36fdec78943eca2ee4923bb0f0d953a",
    ("tiny", "valid_seen"): "c12681aeb0d7d65a6170692b51a05d3107f0cd1b5ce4814467264f12f0eef2e2",
    ("tiny", "valid_unseen"): "e8c1a0b5359e7fcbd55f8587098c48f6612783be55444bceb124418f93206f67",
    ("small", "train"): "b4ddcbd1f97a98eb85058692d8baf1ede78489972047dc63e6f903a59d1c73e7",
    ("small", "valid_seen"): "a8dd43c66ab74ba294f8a9b8665b04d04ecb31313fe79f1cdf525df9c4488499",
    ("small", "valid_unseen"): "9bfce7f70db60d7826a4541a2b47cbd860ba1726a56b97f31ddf75270f688310",
}
"""Of the first 40 games, by size and split."""

SHOPS = {
    (300, "train"): "808003c8bc722cafc233c51cc1f865a898297229563f68c768d3a04cf5f460e4",
    (300, "validation"): "2c99a67b2d6bd229f2adbc37cefba63c8eb96028361f37f3632e4a97c5126498",
    (300, "test"): "cb732e7fc3758bc26136859fd7702ed4d5f94e77041161309831c87d92c5de58",
    (1000, "train"): "9a6f59da4e071d0a4c9b49d03abd550133441aa7ef5546758bc4e2363d2847fe",
    (1000, "validation"): "a473d719494f6cf3e4d681e0343d3b1a2b5f66f131703bc78f665a6de96e2310",
    (1000, "test"): "d07d03a2cc69d1e01403ea21be31ac7a946b079ce5a310fa1b987cafcec05107",
}
"""By number of products and split."""


@pytest.mark.parametrize(("size", "split"), HOUSEHOLD)
def test_generated_households(size: str, split: str):
    env = envs.make("alfworld", data="generated", games=40, size=size, split=split)
    assert env.panel.hash == HOUSEHOLD[size, split]


@pytest.mark.parametrize(("products", "split"), SHOPS)
def test_generated_shops(products: int, split: str):
    env = envs.make("webshop", data="generated", products=products, split=split, nouns="words")
    assert env.panel.hash == SHOPS[products, split]
