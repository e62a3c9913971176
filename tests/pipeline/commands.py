"""`tier0 run` as a command of its own, that Ctrl-C can be pressed for."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.toml_text import toml_text
from tests.pipeline.tiny import settings, write_file

ROOT = Path(__file__).resolve().parents[2]
MAIN = "from pipeline.cli import main; main()"
STOPPED = "stopped; the same command goes on from here\n"


def words_of(folder: Path, **sections: Any) -> list[str]:
    """Settings of a small Tier-0 and files of thirty runs, for `tier0 run`."""
    toml = folder / "tiny.toml"
    toml.write_text(toml_text(settings(folder / "area", **sections)))
    return [str(toml), *(str(write_file(folder / f"{run}.root", run)) for run in range(1, 31))]


@contextmanager
def driver(words: list[str]) -> Iterator[subprocess.Popen[str]]:
    """`tier0 run` in a session of its own, all of whose processes get the signal, as those of a terminal do."""
    command = [sys.executable, "-c", MAIN, "run", *words, "--quiet"]
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, cwd=ROOT, start_new_session=True, text=True, **pipe) as process:
        try:
            yield process
        finally:
            process.kill()
