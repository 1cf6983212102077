from __future__ import annotations

import pytest

from helpers.missing import Data, skip_without, told_of


def reason(what: Data) -> str:
    with pytest.raises(pytest.skip.Exception) as skipped:
        skip_without(what, "/nowhere")
    return f"Skipped: {skipped.value.msg}"


def test_skips_for_want_of_data_are_counted():
    told = told_of([reason("official games"), reason("recorded cases"), "Skipped: root", reason("official games")])
    assert told == (
        "3 tests need data outside the repository and were skipped (2 official games, 1 recorded cases): "
        "see CONTRIBUTING.md"
    )


def test_nothing_is_told_where_all_data_are_there():
    assert told_of(["Skipped: root may write anywhere"]) == ""
