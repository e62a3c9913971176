"""The README is run: every block of it is executed, or says in a comment before it why not.

Before the fence of a block may stand one HTML comment:

    <!-- run -->              a bash or console block: run it (python blocks always are)
    <!-- save: NAME -->       write the block to the file NAME, for the blocks after it
    <!-- not run: REASON -->  leave it, for this reason

All run in one empty folder, in their order; python blocks share their names, as the cells of a notebook do. In a
console block lines after `$ ` are commands, the others what they print (`...` stands for anything).
"""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")

BLOCK = re.compile(
    r"(?:^<!-- *(?P<mark>.*?) *-->\n)?^(?P<fence>`{3,}|~{3,})(?P<language>[^\n`]*)\n(?P<text>.*?)^(?P=fence) *$",
    re.MULTILINE | re.DOTALL,
)
SHELL = ("bash", "console", "sh")


class Stale(AssertionError):
    """The README says what is not so."""


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, text, first line of text, and the comment before it."""

    language: str
    text: str
    line: int
    mark: str

    @property
    def fate(self) -> str:
        """One of `python`, `bash`, `console`, `save`, `excused`; `` if the block neither runs nor says why not."""
        if self.mark.startswith("not run:"):
            return "excused" if self.mark.removeprefix("not run:").strip() else ""
        if self.mark.startswith("save:"):
            return "save"
        if self.language == "python":
            return "python"
        if self.language in SHELL and self.mark == "run":
            return "console" if self.language == "console" else "bash"
        return ""


def blocks(markdown: str) -> list[Block]:
    """All fenced blocks in order. A fence that begins none, being indented or never closed, is an error."""
    found = []
    for match in BLOCK.finditer(markdown):
        line = markdown.count("\n", 0, match.start("text")) + 1
        found.append(Block(match["language"].strip(), match["text"], line, match["mark"] or ""))
    if stray := re.search(r"^.*(```|~~~).*$", BLOCK.sub("", markdown), re.MULTILINE):
        raise Stale(f"a fence that begins no block: {stray[0]!r}")
    return found


def shell(script: str, folder: Path) -> str:
    """What the script prints, run by bash with this environment's commands first."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = ["bash", "-euo", "pipefail", "-c", script]
    done = subprocess.run(
        command, cwd=folder, env=os.environ | {"PATH": path}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise Stale(f"{script!r} ends with {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def console(text: str, folder: Path) -> None:
    """Run the commands of a console block one by one and compare what each prints with what the block shows."""
    checker = doctest.OutputChecker()
    loose = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, shown = part.partition("\n")
        printed = shell(command, folder)
        if shown.strip() and not checker.check_output(shown, printed, loose):
            raise Stale(f"{command!r} prints\n{printed}and not\n{shown}")


def run(markdown: str, folder: Path) -> None:
    """Run every block of a text in its order, in the folder, which must be the current one."""
    names: dict[str, Any] = {"__name__": "__main__"}
    kinds: dict[str, Callable[[Block], object]] = {
        # Empty lines before it make a traceback name the line of the README.
        "python": lambda block: exec(compile("\n" * (block.line - 1) + block.text, "README.md", "exec"), names),
        "bash": lambda block: shell(block.text, folder),
        "console": lambda block: console(block.text, folder),
        "save": lambda block: (folder / block.mark.removeprefix("save:").strip()).write_text(block.text),
        "excused": lambda block: None,
    }
    for block in blocks(markdown):
        if not block.fate:
            raise Stale(f"README line {block.line}: this block is not run and no comment before it says why")
        kinds[block.fate](block)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_readme_is_true(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(README, folder)
    # What a newcomer sees first is a table in which all is good.
    assert capsys.readouterr().out.count("│ 12 of 12 │") == 2


def test_a_worker_that_imports_a_python_block_from_a_file_runs_nothing_of_it(folder: Path) -> None:
    scripts = [block for block in blocks(README) if block.fate == "python"]
    assert scripts
    for block in scripts:
        # The name under which a spawned process imports the file it was started from.
        exec(compile(block.text, "README.md", "exec"), {"__name__": "__mp_main__"})
    assert not list(folder.iterdir())


def test_blocks_run_in_order_and_share_names(folder: Path) -> None:
    run(
        "<!-- save: a.toml -->\n```toml\nx = 1\n```\n\n"
        "```python\nfrom pathlib import Path\nx = Path('a.toml').read_text()\n```\ntext\n"
        "```python\nPath('b').write_text(x * 2)\n```\n"
        "<!-- run -->\n```console\n$ cat b\nx = 1\nx = ...\n$ true\n```\n"
        "<!-- run -->\n```bash\nmv b c\n```\n"
        "<!-- not run: wants a cluster -->\n```bash\nfalse\n```\n",
        folder,
    )
    assert (folder / "c").read_text() == "x = 1\nx = 1\n"


@pytest.mark.parametrize(
    "markdown",
    [
        "```bash\ntrue\n```\n",
        "```\ntext\n```\n",
        "```toml\nx = 1\n```\n",
        "<!-- not run: -->\n```python\n1\n```\n",
        "<!-- run -->\n```toml\nx = 1\n```\n",
        "<!-- not run: far above -->\n\ntext\n```bash\ntrue\n```\n",
    ],
)
def test_block_without_fate_is_found(markdown: str, folder: Path) -> None:
    with pytest.raises(Stale, match="no comment before it says why"):
        run(markdown, folder)


@pytest.mark.parametrize("markdown", ["  ```python\n  1 / 0\n  ```\n", "```python\n1 / 0\n", "> ```\n> x\n> ```\n"])
def test_hidden_block_is_found(markdown: str, folder: Path) -> None:
    with pytest.raises(Stale, match="begins no block"):
        run(markdown, folder)


def test_failing_python_names_its_line(folder: Path) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        run("# Title\n\n```python\nx = 0\n1 / x\n```\n", folder)
    assert caught.traceback[-1].lineno == 4  # counted from zero


@pytest.mark.parametrize(
    ("markdown", "message"),
    [
        ("<!-- run -->\n```bash\nfalse\ntrue\n```\n", "ends with 1"),
        ("<!-- run -->\n```console\n$ echo a\nb\n```\n", "and not"),
    ],
)
def test_failing_shell_is_found(markdown: str, message: str, folder: Path) -> None:
    with pytest.raises(Stale, match=message):
        run(markdown, folder)
