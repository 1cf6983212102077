"""Execute the notebooks of docs/notebooks, and keep what their cells print.

    python tools/notebooks.py            # run them, and write their outputs

Only printed text is kept: pictures and warnings would make the files large, and differ from machine to machine.
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbformat.v4 import new_output

FOLDER = Path(__file__).parents[1] / "docs" / "notebooks"


def executed(file: Path, folder: Path) -> Any:
    """Return a notebook as it is after its cells have run in a folder, one after the other.

    Raises:
        CellExecutionError: A cell failed.
    """
    notebook = nbformat.read(file, as_version=4)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(folder)}}).execute(
        env=os.environ | {"JUPYTER_COLUMNS": "96"}
    )
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            text = "".join(map(printed, cell.outputs))
            cell.outputs = [new_output("stream", name="stdout", text=text)] if text.strip() else []
            cell.execution_count = None
    return notebook


def printed(output: Any) -> str:
    """Return the text of an output, without colors and without warnings."""
    if output.output_type == "stream":
        text = output.text if output.name == "stdout" else ""
    else:  # rich shows its lines as objects
        text = output.get("data", {}).get("text/plain", "")
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def main() -> None:
    """Execute all notebooks and write them."""
    for file in sorted(FOLDER.glob("*.ipynb")):
        with tempfile.TemporaryDirectory() as folder:
            nbformat.write(executed(file, Path(folder)), file)


if __name__ == "__main__":
    main()
