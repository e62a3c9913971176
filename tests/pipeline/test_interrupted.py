"""Ctrl-C at any moment of `tier0 run`: told in a line, quiet, and the lease is given back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.pipeline.commands import MAIN, ROOT, STOPPED, driver, words_of

# Presses Ctrl-C itself as a library begins to be read.
INTERRUPTED_AT_IMPORT = f"""
import os, signal, sys
pressed = []
def press(event, given):
    if event == "import" and given[0] == "sqlalchemy" and not pressed:
        pressed.append(True)
        os.kill(os.getpid(), signal.SIGINT)
sys.addaudithook(press)
{MAIN}
"""


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """Settings and files for `tier0 run`."""
    return words_of(tmp_path)


def wait_for_worker(pid: int) -> None:
    """Until the first worker is a process, which then takes seconds to import what it needs."""
    while not any("spawn_main" in word for child in psutil.Process(pid).children() for word in child.cmdline()):
        time.sleep(0.01)


def test_while_it_works(words: list[str]) -> None:
    with driver(words) as process:
        assert process.stdout is not None and process.stdout.readline().startswith("Dask dashboard")
        os.killpg(process.pid, signal.SIGINT)
        said = process.communicate(timeout=60)[0]
    assert (process.returncode, said) == (130, STOPPED)


@pytest.mark.parametrize("press", [os.killpg, os.kill], ids=["terminal", "driver-alone"])
@pytest.mark.parametrize("after", [0.0, 0.5])
def test_while_workers_start(words: list[str], press: object, after: float) -> None:
    with driver(words) as process:
        wait_for_worker(process.pid)
        time.sleep(after)
        workers = psutil.Process(process.pid).children()
        press(process.pid, signal.SIGINT)  # type: ignore[operator]
        said = process.communicate(timeout=60)[0]
    assert (process.returncode, said) == (130, STOPPED)
    assert not psutil.wait_procs(workers, timeout=10)[1]


@pytest.mark.parametrize(("command", "told"), [("run", STOPPED), ("settings check", "stopped\n")])
def test_while_libraries_are_read(words: list[str], command: str, told: str) -> None:
    given = words if command == "run" else words[:1]
    asked = [sys.executable, "-c", INTERRUPTED_AT_IMPORT, *command.split(), *given]
    done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", told)
