"""Three packages, one direction; and a command line that answers before the heavy libraries are read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("awkward", "dask", "distributed", "numpy", "scipy", "sqlalchemy", "uproot", "zarr")


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("lint-imports")
    command = [program, "--config", ROOT / "pyproject.toml", "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def build(folder: Path, **modules: str) -> None:
    """A small house with the three packages, where `calib_x="import jobs"` is module `calib.x`."""
    sources = {"calib/__init__.py": "", "jobs/__init__.py": "", "pipeline/__init__.py": ""}
    sources["pipeline/experiments/__init__.py"] = ""
    for name in ("__init__", "experiment", "simulation", "demonstration", "simulate/__init__", "reconstruct/__init__"):
        sources[f"pipeline/experiments/ref10/{name}.py"] = ""
    sources |= {f"{name.replace('_', '/')}.py": source for name, source in modules.items()}
    for name, source in sources.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="utf-8")


def test_import_contract_holds() -> None:
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_allowed_imports_pass(tmp_path: Path) -> None:
    build(
        tmp_path,
        calib_a="import numpy, zarr",
        jobs_a="import dask",
        pipeline_a="import calib.a, jobs.a, pipeline.events",
        pipeline_events="import uproot",
    )
    done = lint_imports(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("calib_a", "import jobs"),
        ("jobs_a", "import calib"),
        ("calib_a", "from pipeline import experiments"),
        ("jobs_a", "def late():\n    import pipeline.experiments\n"),
        ("calib_a", "import distributed"),
        ("calib_a", "import uproot"),
        ("jobs_a", "import awkward"),
        ("pipeline_a", "import uproot"),
        ("pipeline_a", "import pipeline.experiments.ref10"),
        ("pipeline_experiments_ref10_reconstruct_a", "import pipeline.experiments.ref10.simulate"),
        ("pipeline_experiments_ref10_reconstruct_a", "def late():\n    import pipeline.experiments.ref10.simulation\n"),
        ("pipeline_experiments_ref10_experiment", "import pipeline.experiments.ref10.simulate"),
    ],
)
def test_wrong_import_is_found(module: str, source: str, tmp_path: Path) -> None:
    build(tmp_path, **{module: source})
    done = lint_imports(tmp_path)
    assert done.returncode == 1
    assert "BROKEN" in done.stdout


def heavy_after(program: str) -> set[str]:
    """The heavy libraries that a fresh process holds after running the program."""
    tail = "\nimport sys\nprint(chr(10) + ' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program + tail], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(HEAVY) & set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "words", [["--help"], ["run", "--help"], ["conditions", "show", "--help"], ["run"], ["rnu"]], ids=str
)
def test_help_and_wrong_use_read_no_heavy_library(words: list[str]) -> None:
    ask = f"from pipeline.cli import main\ntry:\n    main({words})\nexcept SystemExit:\n    pass"
    assert heavy_after(ask) == set()


def test_heavy_library_is_found() -> None:
    assert heavy_after("import numpy.linalg") == {"numpy"}
