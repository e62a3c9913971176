"""Kill any process at any moment: the next start goes on, repeats no committed work, and ends with the same content."""

import multiprocessing
import os
import random
import re
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest

from pipeline.tier0 import Tier0
from tests.pipeline.probes import DRIVER, WORKER, KillAt
from tests.pipeline.tiny import write_file
from tests.pipeline.traces import done_again, results, starts_and_commits

ROOT = Path(__file__).resolve().parents[2]

# A driver is a process of its own; the server from which they are forked has imported what they need, once.
DRIVERS = multiprocessing.get_context("forkserver")
DRIVERS.set_forkserver_preload(["pipeline.tier0", "distributed", "awkward", "uproot", "zarr"])


def drive(plain, files, probe):
    """One life of a driver."""
    with Tier0(plain, **({"probe": probe} if probe else {})) as tier0:
        code = tier0.run(*files, progress=False).exit_code
    os._exit(code)


def start(plain, files, probe=None):
    driver = DRIVERS.Process(target=drive, args=(plain, files, probe))
    driver.start()
    return driver


def finish(driver, timeout=120.0):
    """How a driver ended: exit code, or minus the signal."""
    driver.join(timeout)
    if driver.is_alive():
        driver.kill()
        raise TimeoutError("the driver does not come to an end")
    return driver.exitcode


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kills")
    return [write_file(folder / "a.root", 7, lumis=5), write_file(folder / "b.root", 8, lumis=3, mean=1.6)]


@pytest.fixture(scope="module")
def undisturbed(crew, files, tmp_path_factory):
    from tests.pipeline.tiny import settings

    address = crew.scheduler.address
    plain = settings(tmp_path_factory.mktemp("undisturbed"), cluster={"kind": "address", "address": address, "workers": None, "tls": False})
    assert finish(start(plain, files)) == 0
    return results(plain)


def check(plain, undisturbed):
    """All is as if nothing had happened, and what was committed was not done again."""
    assert results(plain) == undisturbed
    assert done_again(plain) == 0
    begun, committed = starts_and_commits(plain)
    assert begun >= committed


def test_every_kill_point_of_the_code_is_tried_here():
    found = set()
    for package in ("calib", "jobs", "pipeline"):
        for source in (ROOT / package).rglob("*.py"):
            found |= set(re.findall(r'\bprobe\("([^"]+)"\)', source.read_text()))
    assert found == {*DRIVER, *WORKER}


@pytest.mark.parametrize("hit", [1, 2, pytest.param(3, marks=pytest.mark.verify), pytest.param(4, marks=pytest.mark.verify)])
def test_driver_killed_at_every_point_in_turn(house, files, undisturbed, tmp_path, hit):
    plain, probe = house(), KillAt(tmp_path / "kills", DRIVER, hit)
    ends = [-signal.SIGKILL]
    while ends[-1] == -signal.SIGKILL:
        ends.append(finish(start(plain, files, probe)))
    assert ends[-1] == 0
    assert len(ends) - 2 == len(probe.killed())
    assert probe.killed() == (set(DRIVER) if hit <= 2 else probe.killed())
    check(plain, undisturbed)


@pytest.mark.parametrize("point", WORKER)
def test_worker_killed_at_every_point(house, files, undisturbed, tmp_path, point):
    plain, probe = house(), KillAt(tmp_path / "kills", (point,))
    assert finish(start(plain, files, probe)) == 0
    assert probe.killed() == {point}
    check(plain, undisturbed)
