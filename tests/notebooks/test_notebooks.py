"""Every notebook runs from top to bottom on this machine alone, and shows what it promises: a figure and a table, and no error.

That they are committed without outputs is checked in tests/contract/test_notebooks_are_clean.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PLOTLY = "application/vnd.plotly.v1+json"
VIEW = "application/vnd.jupyter.widget-view+json"

pytestmark = pytest.mark.medium


def run(path: Path, folder: Path) -> list[dict[str, Any]]:
    """Every output of a notebook, run in a new kernel with `folder` as its working folder."""
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_figures_and_tables(path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "notebooks"
    folder.mkdir()
    (tmp_path / "data").symlink_to(ROOT / "data")  # notebooks draw from ../data/results
    outputs = run(path, folder)
    figures = [o["data"][PLOTLY] for o in outputs if PLOTLY in o.get("data", {})]
    views = [o["data"] for o in outputs if VIEW in o.get("data", {})]
    assert figures or views
    assert all("image/png" in view for view in views), "a view comes with a picture for readers that run none"
    assert all(figure["data"] for figure in figures)
    assert [o for o in outputs if "<table" in o.get("data", {}).get("text/html", "")]
    assert not [o for o in outputs if o["output_type"] == "error"]
    warned = [o["text"] for o in outputs if o["output_type"] == "stream" and o["name"] == "stderr"]
    assert not warned, "a notebook that warns its reader: " + "\n".join(warned)
    assert not list(folder.iterdir()), "a notebook leaves no files behind"
