"""ruff: rules and format, on everything in the repository."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def ruff(*arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ruff", *arguments]
    return subprocess.run(command, cwd=ROOT, input=stdin, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("arguments", ["check --output-format=concise", "format --check"])
def test_style(arguments: str) -> None:
    done = ruff(*arguments.split())
    assert done.returncode == 0, f"`make format` mends most of it\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize(
    ("source", "rule"),
    [
        ("import os\n", "F401"),
        ("def f(x: int) -> None:\n    '''Give up.'''\n    assert x\n", "S101"),
        ("try:\n    pass\nexcept Exception:\n    pass\n", "BLE001"),
        ("print('x')\n", "T201"),
        ("def f() -> None:\n    pass\n", "D103"),
        ("x = 1  # noqa\n", "PGH004"),
        (f"# {'x' * 120}\n", "E501"),
    ],
)
def test_bad_style_is_found(source: str, rule: str) -> None:
    done = ruff("check", "--output-format=concise", "--stdin-filename=calib/sample.py", "-", stdin=source)
    assert done.returncode == 1
    assert rule in done.stdout


def test_bad_format_is_found() -> None:
    done = ruff("format", "--check", "--stdin-filename=calib/sample.py", "-", stdin="x = { 1:2 }\n")
    assert done.returncode == 1
