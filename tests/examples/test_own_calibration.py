"""A calibration of a user's own, as the notebook has it: it runs, its laws hold, and it stays short."""

import ast
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "examples" / "own_calibration.ipynb"


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    folder = tmp_path_factory.mktemp("notebook")
    NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(folder)}}).execute()
    return notebook


@pytest.fixture(scope="module")
def told(executed):
    """What each cell of code printed or showed, as text."""
    cells = [cell for cell in executed.cells if cell.cell_type == "code"]
    return [
        "".join(part.get("text") or part.get("data", {}).get("text/plain", "") for part in cell.outputs)
        for cell in cells
    ]


def test_its_laws_are_inherited_and_hold(told):
    assert "passed" in told[2] and "failed" not in told[2] and "error" not in told[2]


def test_what_changed_is_published_and_what_did_not_is_carried(told):
    assert "strip_charge: 2 fresh, 1 carried, 0 fallback" in told[3]
    assert [word for word in told[4].split() if word in {"[0:0,", "[7:0,", "[9:0,"}] == ["[0:0,", "[7:0,", "[9:0,"]


def test_it_is_drawn(executed):
    data = [output["data"] for cell in executed.cells for output in cell.get("outputs", ()) if "data" in output]
    assert any("image/png" in found for found in data)


def test_the_calibration_and_its_experiment_have_thirty_lines():
    first = next(cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code")
    source = first.source.partition("\n")[2]
    classes = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
    lines = [line for node in classes for line in ast.get_source_segment(source, node).splitlines() if line.strip()]
    assert [node.name for node in classes] == ["StripCharge", "Mine"]
    assert len(lines) <= 30
