"""Ctrl-C in the middle of `tier0 run`: told in a line, quiet, and the lease is given back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from pipeline.toml_text import toml_text
from tests.pipeline.tiny import settings, write_file

ROOT = Path(__file__).resolve().parents[2]


def test_ctrl_c_is_told_in_a_line(tmp_path: Path) -> None:
    toml = tmp_path / "tiny.toml"
    toml.write_text(toml_text(settings(tmp_path / "area")))
    files = [str(write_file(tmp_path / f"{run}.root", run)) for run in range(1, 31)]
    command = [sys.executable, "-c", "from pipeline.cli import main; main()", "run", str(toml), *files, "--quiet"]
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    # In a session of its own, all of whose processes get the signal, as those of a terminal do.
    with subprocess.Popen(command, cwd=ROOT, start_new_session=True, **pipe) as driver:
        try:
            assert driver.stdout.readline().startswith("Dask dashboard")
            os.killpg(driver.pid, signal.SIGINT)
            said = driver.communicate(timeout=60)[0]
        finally:
            driver.kill()
    assert driver.returncode == 130
    assert said == "stopped; the same command goes on from here\n"
