"""Ctrl-C while batch jobs work: told as on this host, and no job is left behind."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.pipeline.commands import STOPPED, driver, words_of
from tests.slurm.loopback import Slurm
from tests.slurm.test_chain import on_nodes


def test_the_jobs_are_cancelled_and_it_is_told(slurm: Slurm, tmp_path: Path) -> None:
    with driver(words_of(tmp_path, cluster=on_nodes(tmp_path / "scratch"))) as process:
        assert process.stdout is not None and process.stdout.readline().startswith("Dask dashboard")
        assert slurm.jobs()
        os.killpg(process.pid, signal.SIGINT)
        said = process.communicate(timeout=60)[0]
    assert (process.returncode, said) == (130, STOPPED)
    slurm.wait_until(lambda: not slurm.jobs(), "without jobs")
