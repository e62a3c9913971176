"""Rooms of a size that can be read: limits on modules, functions, classes, arguments and names."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("calib", "jobs", "pipeline")

MODULE_LINES = 400
BODY_LINES = 40
ARGUMENTS = 6
PUBLIC_METHODS = 12
EMPTY_NAMES = {"util", "utils", "helper", "helpers", "manager", "managers", "base", "common"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def words(name: str) -> set[str]:
    """The words of a snake_case or CamelCase name, in lower case."""
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)}


def body_lines(function: Function) -> int:
    """Lines from the first statement to the last, the docstring left out."""
    body = function.body
    if ast.get_docstring(function, clean=False) is not None:
        body = body[1:]
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def arguments(function: Function, *, is_method: bool) -> int:
    """How many arguments a caller can give; `self` or `cls` is not one."""
    given = function.args
    static = any(isinstance(mark, ast.Name) and mark.id == "staticmethod" for mark in function.decorator_list)
    named = len(given.posonlyargs) + len(given.args) + len(given.kwonlyargs)
    gathered = (given.vararg is not None) + (given.kwarg is not None)
    return named + gathered - (is_method and not static)


def function_faults(function: Function, *, is_method: bool) -> Iterator[str]:
    if (count := body_lines(function)) > BODY_LINES:
        yield f"{function.name} has {count} lines of body, {BODY_LINES} are allowed"
    if (count := arguments(function, is_method=is_method)) > ARGUMENTS:
        yield f"{function.name} takes {count} arguments, {ARGUMENTS} are allowed"


def class_faults(node: ast.ClassDef) -> Iterator[str]:
    if empty := words(node.name) & EMPTY_NAMES:
        yield f"class {node.name}: '{empty.pop()}' says nothing, name what it is"
    methods = {part.name for part in node.body if isinstance(part, Function) and not part.name.startswith("_")}
    if len(methods) > PUBLIC_METHODS:
        yield f"class {node.name} has {len(methods)} public methods, {PUBLIC_METHODS} are allowed"


def faults(path: Path, source: str) -> list[str]:
    """What is out of shape in one module, in the order found."""
    found = []
    for name in (path.stem, path.parent.name):
        if empty := words(name) & EMPTY_NAMES:
            found.append(f"module {path}: '{empty.pop()}' says nothing, name what it holds")
    if (count := len(source.splitlines())) > MODULE_LINES:
        found.append(f"module has {count} lines, {MODULE_LINES} are allowed")
    tree = ast.parse(source)
    methods = {part for node in ast.walk(tree) if isinstance(node, ast.ClassDef) for part in node.body}
    for node in ast.walk(tree):
        if isinstance(node, Function):
            found.extend(function_faults(node, is_method=node in methods))
        elif isinstance(node, ast.ClassDef):
            found.extend(class_faults(node))
    return found


def patches(source: str) -> list[str]:
    """Where a test replaces a part of the program behind its back, instead of handing it in."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imported = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            imported = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            imported = []
        found += [name for name in imported if "mock" in name.split(".")]
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "monkeypatch.setattr":
            found.append(f"line {node.lineno}: monkeypatch.setattr")
    return found


MODULES = sorted(path.relative_to(ROOT) for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
TESTS = sorted(path.relative_to(ROOT) for path in (ROOT / "tests").rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_module_keeps_its_shape(path: Path) -> None:
    assert faults(path, (ROOT / path).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", TESTS, ids=str)
def test_tests_patch_nothing(path: Path) -> None:
    assert patches((ROOT / path).read_text(encoding="utf-8")) == []


def function(body: int = 1, parameters: str = "") -> str:
    return f"def f({parameters}):\n    '''Says\n    much.\n    '''\n" + "    x = 1\n" * body


def methods(names: list[str]) -> str:
    return "class Room:\n" + "".join(f"    def {name}(self): ...\n" for name in names)


SIX = "a, b, /, c, *, d, e, f"

GOOD = {
    "longest module": "x = 1\n" * MODULE_LINES,
    "longest body, docstring not counted": function(BODY_LINES),
    "only a docstring": "def f():\n    '''Nothing.'''\n",
    "six arguments": function(parameters=SIX),
    "six beside self": f"class A:\n    def f(self, {SIX.replace('/, ', '')}): ...\n",
    "six beside cls": "class A:\n    @classmethod\n    def f(cls, a, b, c, d, e, f): ...\n",
    "twelve public methods": methods([f"m{i}" for i in range(PUBLIC_METHODS)] + ["_m", "__len__"]),
    "setter is no second method": methods([f"m{i}" for i in range(PUBLIC_METHODS)] + ["m0"]),
    "a word inside a word": "class Database: ...\nclass CommonalityTest: ...\n",
}

BAD = {
    "module has 401 lines": "x = 1\n" * (MODULE_LINES + 1),
    "f has 41 lines of body": function(BODY_LINES + 1),
    "f takes 7 arguments": function(parameters=SIX + ", g"),
    "f takes 8 arguments": function(parameters="a, b, c, d, e, *f, g, **h"),
    "g takes 7 arguments": "class A:\n    def g(self, a, b, c, d, e, *, f, h): ...\n",
    "s takes 7 arguments": "class A:\n    @staticmethod\n    def s(self, a, b, c, d, e, f): ...\n",
    "inner has 41 lines": "def outer():\n    pass\nasync def inner():\n" + "    x = 1\n" * (BODY_LINES + 1),
    "class Room has 13 public methods": methods([f"m{i}" for i in range(PUBLIC_METHODS + 1)]),
    "class RunManager": "class RunManager: ...\n",
    "class BaseRunner": "class BaseRunner: ...\n",
    "class FitUtils": "class FitUtils: ...\n",
    "class Common": "class Common: ...\n",
    "class IOHelper": "class IOHelper: ...\n",
}


@pytest.mark.parametrize("source", GOOD.values(), ids=GOOD.keys())
def test_good_shape_passes(source: str) -> None:
    assert faults(Path("calib/iov.py"), source) == []


@pytest.mark.parametrize(("fault", "source"), BAD.items(), ids=BAD.keys())
def test_bad_shape_is_found(fault: str, source: str) -> None:
    found = faults(Path("calib/iov.py"), source)
    assert len(found) == 1
    assert found[0].startswith(fault)


@pytest.mark.parametrize("path", ["calib/utils.py", "jobs/io_helpers.py", "pipeline/common/x.py", "calib/base.py"])
def test_bad_module_name_is_found(path: str) -> None:
    assert any("says nothing" in fault for fault in faults(Path(path), ""))


@pytest.mark.parametrize(
    "source",
    [
        "import unittest.mock\n",
        "from unittest import mock\n",
        "from unittest.mock import patch\n",
        "def test(monkeypatch):\n    monkeypatch.setattr('a.b', 1)\n",
    ],
)
def test_patch_is_found(source: str) -> None:
    assert len(patches(source)) == 1


def test_environment_and_folder_are_no_patch() -> None:
    assert patches("def test(monkeypatch, tmp_path):\n    monkeypatch.chdir(tmp_path)\n") == []
