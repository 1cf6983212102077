from __future__ import annotations

import random

import pytest

from hiper.models.batches import micro_batches, padding_share


def test_by_hand():
    assert micro_batches([3, 9, 4, 4, 2], max_tokens=12, most_padding=1.0) == [[4, 0, 2], [3], [1]]
    assert micro_batches([3, 9, 4, 4, 2], max_tokens=12, most_padding=0.2) == [[4, 0], [2, 3], [1]]
    assert micro_batches([3, 9, 4, 4, 2], max_tokens=12, most_padding=0.0) == [[4], [0], [2, 3], [1]]
    assert padding_share([3, 9, 4, 4, 2], [[4, 0, 2], [3], [1]]) == pytest.approx(3 / 25)


def test_a_sequence_that_is_too_long_is_a_batch_of_its_own():
    assert micro_batches([3, 50, 3], max_tokens=12) == [[0, 2], [1]]


def test_nothing():
    assert micro_batches([], max_tokens=12) == []
    assert padding_share([], []) == 0.0


def test_everything_is_there_once_and_fits():
    rng = random.Random(0)
    lengths = [rng.randrange(1, 90) for _ in range(300)]
    batches = micro_batches(lengths, max_tokens=500)
    assert all(padding_share([lengths[i] for i in batch], [range(len(batch))]) <= 0.1 for batch in batches)
    assert sorted(i for batch in batches for i in batch) == list(range(300))
    assert max(len(batch) * max(lengths[i] for i in batch) for batch in batches) <= 500


def test_little_is_padding_with_lengths_as_in_games():
    """Prompts grow over an episode from some 40 tokens to a hundred; a mini-batch is 256 turns."""
    rng = random.Random(0)
    lengths = [int(rng.triangular(40, 110, 75)) + rng.randrange(10, 20) for _ in range(256)]
    for max_tokens, most in ((4096, 7), (16_384, 5)):
        batches = micro_batches(lengths, max_tokens)
        assert padding_share(lengths, batches) < 0.1
        assert len(batches) <= most  # without cutting them up too far
