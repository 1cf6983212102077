"""Results become files whole, the figure last, and it is said where they are."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from hiper.commands.output import write_results
from hiper.display.console import Display


def write(folder: Path, value: float, document: str | None = None) -> tuple[list[str], str]:
    """The files that were there when the figure was drawn, and what was said."""
    screen = StringIO()
    before: list[str] = []

    def draw(path: Path) -> None:
        before.extend(sorted(file.name for file in folder.iterdir()))
        path.write_bytes(b"figure")

    write_results(folder, "x", Display(console=Console(file=screen, width=200)), {"é": value}, draw, document)
    return before, screen.getvalue()


def test_the_figure_comes_last(tmp_path: Path):
    before, said = write(tmp_path, 0.5, "# x\n")
    assert before == ["x.json", "x.md"]
    assert json.loads((tmp_path / "x.json").read_text()) == {"é": 0.5}
    assert (tmp_path / "x.md").read_text() == "# x\n"
    assert (tmp_path / "x.png").read_bytes() == b"figure"
    assert said.strip() == f"written: {tmp_path / 'x'}.md, .json, .png"


def test_there_may_be_no_document(tmp_path: Path):
    before, said = write(tmp_path, 0.5)
    assert before == ["x.json"]
    assert said.strip() == f"written: {tmp_path / 'x'}.json, .png"


def test_nan_is_never_written(tmp_path: Path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write(tmp_path, float("nan"))
    assert list(tmp_path.iterdir()) == []
