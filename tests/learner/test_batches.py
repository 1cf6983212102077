from __future__ import annotations

import pytest

from hiper.learner.batches import minibatches

ROWS = [f"row {i}" for i in range(103)]


@pytest.mark.parametrize("size", [1, 7, 50, 103, 1000])
def test_each_row_is_in_one_minibatch(size: int):
    batches = list(minibatches(ROWS, size, seed=0))
    assert sorted(row for batch in batches for row in batch) == sorted(ROWS)
    sizes = [len(batch) for batch in batches]
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= min(size, 103) / 1.5


def test_the_order_depends_on_the_seed_alone():
    assert list(minibatches(ROWS, 10, seed=1)) == list(minibatches(ROWS, 10, seed=1))
    assert list(minibatches(ROWS, 10, seed=1)) != list(minibatches(ROWS, 10, seed=2))
    assert list(minibatches(ROWS, 200, seed=1)) != [ROWS]
