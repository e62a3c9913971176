"""`make` sets up its environment once, and again only where something changed: whatever it calls is written down."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# In place of Python, in the environment too: it does nothing but say what it was called for.
PYTHON = """#!/bin/sh
echo "$*" >> "$CALLS"
if [ "$2" = venv ]; then mkdir -p .venv/bin && cp "$0" .venv/bin/python; fi
"""
TESTS = "-m pytest -q -n 2 --no-loadscope-reorder"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with all that `make test` looks at, as it comes from a checkout."""
    found = tmp_path / "checkout"
    found.mkdir()
    for name in ("Makefile", "requirements.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, found)
    python = tmp_path / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    return found


def calls(folder: Path) -> list[str]:
    """What Python is called for by `make test`."""
    told = folder.parent / "calls"
    told.write_text("")
    # Without what a `make test` that runs these tests hands on to the makes below it.
    inherited = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    command = ["make", "test", f"PYTHON={folder.parent / 'python'}"]
    subprocess.run(command, cwd=folder, env=inherited | {"CALLS": str(told)}, check=True, capture_output=True)
    return told.read_text().splitlines()


def sets_up(told: list[str]) -> bool:
    """Whether pip was asked to install both the lock and this project, and the tests ran behind that."""
    installed = [line for line in told if line.startswith("-m pip install")]
    return len(installed) == 2 and "-r requirements.txt" in installed[0] and told[-1] == TESTS


def cpu_s() -> float:
    """CPU time of all processes that this one has started and seen end, s."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_a_second_call_sets_nothing_up_and_takes_less_than_a_second(folder: Path) -> None:
    assert sets_up(calls(folder))
    before = cpu_s()
    assert calls(folder) == [TESTS]
    assert cpu_s() - before < 1  # of CPU, so that a busy machine is not blamed on it


@pytest.mark.parametrize("name", ["requirements.txt", "pyproject.toml"])
def test_what_is_wanted_changed(folder: Path, name: str) -> None:
    assert sets_up(calls(folder))
    later = (folder / ".venv" / ".set-up").stat().st_mtime + 10
    os.utime(folder / name, (later, later))
    assert sets_up(calls(folder))


def test_a_folder_that_moved_is_set_up_anew(folder: Path) -> None:
    assert sets_up(calls(folder))
    assert sets_up(calls(folder.rename(folder.with_name("moved"))))
