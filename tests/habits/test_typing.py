"""mypy --strict holds on all three packages, with no package of ours let off."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"calib", "jobs", "pipeline"}
CONFIG: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["mypy"]


def mypy(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def let_off(config: dict[str, Any]) -> list[str]:
    """The modules of ours that an override or an exclusion treats more mildly."""
    patterns = [pattern for override in config.get("overrides", []) for pattern in override["module"]]
    return [p for p in patterns if p.split(".")[0] in PACKAGES | {"*"}] + list(config.get("exclude", []))


def test_packages_are_typed_strictly() -> None:
    done = mypy()
    assert done.returncode == 0, done.stdout + done.stderr


def test_nothing_of_ours_is_let_off() -> None:
    assert CONFIG["strict"] is True
    assert set(CONFIG["files"]) == PACKAGES
    assert let_off(CONFIG) == []


def test_mildness_is_found() -> None:
    assert let_off({"overrides": [{"module": ["uproot.*", "jobs.*"]}], "exclude": ["calib"]}) == [
        "jobs.*",
        "calib",
    ]


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("def f(x):\n    return x\n", "no-untyped-def"),
        ("x: list = []\n", "type-arg"),
        ("x: int = 'a'  # type: ignore\n", "ignore-without-code"),
        ("import no_such_library\n", "import-not-found"),
    ],
)
def test_untyped_code_is_found(source: str, code: str, tmp_path: Path) -> None:
    module = tmp_path / "sample.py"
    module.write_text(source, encoding="utf-8")
    done = mypy("--cache-dir", str(tmp_path / "cache"), str(module))
    assert done.returncode == 1
    assert f"[{code}]" in done.stdout
