"""Numbers in a row, laid out as arrays."""

from __future__ import annotations

from hiper.advantages import on_grid, prefix_mask


def test_one_number_per_place_in_order() -> None:
    mask = prefix_mask([2, 3, 1])
    assert mask.tolist() == [[True, True, False], [True, True, True], [True, False, False]]
    filled = on_grid([1, 2, 3, 4, 5, 6], mask)
    assert filled.tolist() == [[1, 2, 0], [3, 4, 5], [6, 0, 0]]
    assert filled[mask].tolist() == [1, 2, 3, 4, 5, 6]
    assert on_grid(["a", "b"], prefix_mask([1, 1]), object).tolist() == [["a"], ["b"]]
