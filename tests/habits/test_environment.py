"""What is installed is declared once: pyproject, environment and lock agree; the wheel is whole."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("calib", "jobs", "pipeline")
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT: dict[str, Any] = PYPROJECT["project"]

CONDA_NAMES = {"dask": "dask-core", "matplotlib": "matplotlib-base"}
"""conda-forge's `dask` and `matplotlib` bring far more than the packages of those names here."""

CONDA_ONLY = {"pip"}

NEVER_IMPORTED = {
    "bokeh": "the dashboard of distributed is drawn with it",
    "cryptography": "distributed makes the certificates of a batch cluster with it",
}
"""Dependencies that none of our modules imports, and why they are there."""


def pyproject_ranges(names: Mapping[str, str]) -> dict[str, SpecifierSet]:
    """Every requirement of pyproject.toml, tools included, by its name in `names` (else its own)."""
    listed = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]
    wanted = [Requirement(line) for line in listed + PYPROJECT["build-system"]["requires"]]
    ranges = {names.get(one.name, one.name): one.specifier for one in wanted}
    return ranges | {"python": SpecifierSet(PROJECT["requires-python"])}


def conda_ranges(environment: str) -> dict[str, SpecifierSet]:
    """The packages of an environment.yml with their ranges."""
    split = [line.partition(" ") for line in yaml.safe_load(environment)["dependencies"]]
    return {name: SpecifierSet(versions) for name, _, versions in split if name not in CONDA_ONLY}


def pins(lock: str) -> dict[str, str]:
    """The versions a lock pins. Any line that is not `name==version` is an error: no index, no option, no range."""
    pinned: dict[str, str] = {}
    for line in lock.splitlines():
        if not line or line.startswith("#"):
            continue
        match = re.fullmatch(r"([a-z0-9-]+)==([0-9][0-9a-z.]*)", line)
        if match is None or match[1] in pinned:
            raise ValueError(f"not a pin, or a second one: {line!r}")
        pinned[match[1]] = match[2]
    return pinned


def needed(roots: Iterable[str]) -> set[str]:
    """The names of what the roots need, and all that needs, on Linux and the oldest Python we take."""
    oldest = {"python_version": "3.11", "python_full_version": "3.11.0", "sys_platform": "linux"}
    todo = [Requirement(line) for line in roots]
    seen: set[tuple[str, frozenset[str]]] = set()
    while todo:
        one = todo.pop()
        key = (canonicalize_name(one.name), frozenset(one.extras))
        if key in seen:
            continue
        seen.add(key)
        for further in map(Requirement, importlib.metadata.requires(one.name) or ()):
            extras = ({"extra": extra, **oldest} for extra in {"", *one.extras})
            if further.marker is None or any(map(further.marker.evaluate, extras)):
                todo.append(further)
    return {name for name, _ in seen}


def imported(source: str) -> set[str]:
    """The distributions whose modules a module imports, the standard library and our packages left out."""
    modules: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            modules.add(str(node.module))
    foreign = {name.split(".")[0] for name in modules} - sys.stdlib_module_names - set(PACKAGES)
    return {canonicalize_name(owner) for name in foreign for owner in OWNERS.get(name, [name])}


OWNERS = importlib.metadata.packages_distributions()
"""top-level module to the distributions that have it"""

LOCK = pins((ROOT / "requirements.txt").read_text(encoding="utf-8"))


def test_conda_environment_is_pyproject() -> None:
    conda = conda_ranges((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert conda == pyproject_ranges(CONDA_NAMES)


def test_other_range_or_package_differs() -> None:
    environment = (ROOT / "environment.yml").read_text(encoding="utf-8")
    ours = pyproject_ranges(CONDA_NAMES)
    assert conda_ranges(environment.replace("numpy >=2.1,<3", "numpy >=2.1")) != ours
    assert conda_ranges(environment.replace("  - scipy >=1.14,<2\n", "")) != ours
    assert conda_ranges(environment + "  - pandas >=2\n") != ours


def test_lock_is_within_the_ranges() -> None:
    ranges = pyproject_ranges({})
    del ranges["python"]
    outside = {name: LOCK.get(name) for name, allowed in ranges.items() if LOCK.get(name, "0") not in allowed}
    assert outside == {}


def test_lock_is_complete_and_holds_nothing_else() -> None:
    roots = [
        *PROJECT["dependencies"],
        *PROJECT["optional-dependencies"]["dev"],
        *PYPROJECT["build-system"]["requires"],
    ]
    assert needed(roots) == set(LOCK)


def test_needs_of_needs_are_followed() -> None:
    assert {"distributed", "tornado", "partd", "locket"} <= needed(["distributed"])
    assert "importlib-metadata" in needed(["dask"])


@pytest.mark.parametrize(
    "line",
    [
        "--index-url https://example.org/simple",
        "--find-links wheels",
        "numpy>=2",
        "numpy @ https://example.org/numpy.whl",
        "-e .",
        "numpy==2.1.0\nnumpy==2.2.0",
    ],
)
def test_lock_holds_pins_only(line: str) -> None:
    with pytest.raises(ValueError, match="not a pin"):
        pins(line)


def test_dependencies_are_what_is_imported() -> None:
    # The test classes for users' own parts are run by pytest, which those users have.
    modules = [path for name in PACKAGES for path in (ROOT / name).rglob("*.py") if path.name != "testing.py"]
    sources = [path.read_text(encoding="utf-8") for path in modules]
    used = set().union(*map(imported, sources))
    assert used | set(NEVER_IMPORTED) == {Requirement(line).name for line in PROJECT["dependencies"]}
    assert not used & set(NEVER_IMPORTED)


def test_imports_are_seen_wherever_they_stand() -> None:
    source = "import os, calib.iov\nfrom . import x\nimport nowhere\ndef f():\n    from yaml.nodes import Node\n"
    assert imported(source) == {"nowhere", "pyyaml"}


def test_wheel_is_whole(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in (*PACKAGES, "tests"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    modules = {path.relative_to(source).as_posix() for name in PACKAGES for path in (source / name).rglob("*.py")}
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*build, "-w", tmp_path, source], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("dask_tier0-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (entry_points,) = (archive.read(name).decode() for name in names if name.endswith("entry_points.txt"))
    packed = {name for name in names if ".dist-info/" not in name}
    assert packed == modules | {f"{name}/py.typed" for name in PACKAGES}
    assert any(name.endswith("/LICENSE") for name in names)
    assert "tier0 = pipeline.cli:main" in entry_points
