"""The examples run as they stand."""

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    notebook = nbformat.read(EXAMPLES / "quickstart.ipynb", as_version=4)
    folder = tmp_path_factory.mktemp("notebook")
    NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(folder)}}).execute()
    return notebook


def outputs(notebook):
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [output for cell in cells for output in cell.outputs]


def test_the_notebook_shows_link_table_and_plot(executed):
    data = [output["data"] for output in outputs(executed) if "data" in output]
    assert any("http://127.0.0.1" in str(found.get("text/plain")) for found in data)
    assert any("beamspot: " in str(found.get("text/plain")) for found in data)
    assert any("image/png" in found for found in data)


def test_the_notebook_has_ten_lines(executed):
    lines = [
        line for cell in executed.cells if cell.cell_type == "code" for line in cell.source.splitlines() if line.strip()
    ]
    assert len(lines) <= 10


def test_the_script_does_the_same(tmp_path):
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "quickstart.py")], cwd=tmp_path, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert "Dask dashboard: http" in done.stdout and "certified" in done.stdout
    assert (tmp_path / "quickstart" / "beamspot.png").stat().st_size > 10_000
