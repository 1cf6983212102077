"""Objects found by name, and the messages where there are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hiper.errors import UserError
from hiper.plugins import resolve

REGISTRY: dict[str, Any] = {"ordered": "collections:OrderedDict", "list": list, "number": 3}


def test_a_registered_name_is_an_object_or_where_it_is_imported_from() -> None:
    from collections import OrderedDict

    assert resolve("mapping", "ordered", REGISTRY) is OrderedDict
    assert resolve("mapping", "list", REGISTRY) is list


def test_any_other_name_is_module_and_attribute() -> None:
    assert resolve("path", "pathlib:Path", REGISTRY) is Path
    assert resolve("method", "pathlib:Path.exists", REGISTRY) is Path.exists


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("orderd", r"^there is no thing 'orderd'; did you mean 'ordered'\?$"),
        ("zzz", r"^there is no thing 'zzz'; known are ordered, list, number$"),
        ("no_such_module:Thing", r"there is no module 'no_such_module'\. If its file is .* set PYTHONPATH=\. before"),
        ("pathlib.nowhere:Thing", r"no module 'pathlib\.nowhere'"),
        ("pathlib:Pth", r"thing 'pathlib:Pth' cannot be imported: 'pathlib' has no 'Pth'; did you mean 'Path'\?"),
        ("pathlib:Path.exist", r"'pathlib' has no 'Path\.exist'; did you mean 'exists'\?"),
        ("pathlib:", r"'pathlib:' is not of the form module:name"),
        (":Path", r"':Path' is not of the form module:name"),
        (".local:Path", r"'\.local:Path' is not of the form module:name"),
        ("number", r"thing 'number' is of type int; a class or a function is needed"),
        ("math:pi", r"thing 'math:pi' is of type float; a class or a function is needed"),
    ],
)
def test_what_cannot_be_found_is_said(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        resolve("thing", name, REGISTRY)


def test_another_kind_may_be_asked_for() -> None:
    def is_string_class(found: object) -> bool:
        return isinstance(found, type) and issubclass(found, str)

    assert resolve("text", "builtins:str", {}, fits=is_string_class) is str
    with pytest.raises(UserError, match="text 'builtins:int' is a class of another kind; a kind of str is needed"):
        resolve("text", "builtins:int", {}, fits=is_string_class, needs="a kind of str")
    with pytest.raises(UserError, match="text 'builtins:len' is a function"):
        resolve("text", "builtins:len", {}, fits=is_string_class, needs="a kind of str")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import no_such_library", "'plugin_at_fault:make' cannot be imported: No module named 'no_such_library'"),
        ("def make(:", "cannot be imported: invalid syntax"),
    ],
)
def test_a_fault_in_the_module_is_not_taken_for_a_missing_module(
    source: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plugin_at_fault.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        resolve("thing", "plugin_at_fault:make", {})
    assert "PYTHONPATH" not in str(caught.value)
