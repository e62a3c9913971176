"""Kill any process at any moment: the next start goes on, repeats no committed work, and ends with the same content."""

import contextlib
import os
import random
import re
import signal
import socket
import time
from pathlib import Path

import pytest

from jobs.ledger import SecondDriver
from pipeline.tier0 import Tier0
from tests.pipeline.drivers import KILLED, Driver
from tests.pipeline.probes import CANARY, CLOSURE, DRIVER, PASSES, WORKER, KillAfter, KillAt
from tests.pipeline.tiny import settings, write_file
from tests.pipeline.traces import done_again, fed, results, starts_and_commits, stray, work

ROOT = Path(__file__).resolve().parents[2]
KILLS = [5, pytest.param(40, marks=[pytest.mark.verify, pytest.mark.timeout(1200)])]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kills")
    return [write_file(folder / "a.root", 7, lumis=5), write_file(folder / "b.root", 8, lumis=3, mean=1.6)]


@pytest.fixture(scope="module")
def undisturbed(joined, files, tmp_path_factory):
    plain = settings(tmp_path_factory.mktemp("undisturbed"), cluster=joined)
    assert Driver(plain, files).end() == 0
    begun, committed = starts_and_commits(plain)
    assert begun == committed
    return results(plain)


def check(plain, undisturbed):
    """All is as if nothing had happened, and what was committed was not done again."""
    assert results(plain) == undisturbed
    assert done_again(plain) == 0
    begun, committed = starts_and_commits(plain)
    assert begun >= committed


def test_every_kill_point_of_the_code_is_tried_here():
    calls = r'\b_?probe\("([^"]+)"\)'
    sources = [path for package in ("calib", "jobs", "pipeline") for path in (ROOT / package).rglob("*.py")]
    found = {point for source in sources for point in re.findall(calls, source.read_text())}
    assert found == {*DRIVER, *WORKER, *CANARY, *PASSES, *CLOSURE}


# The second time: in the middle of express, and for the second run.
@pytest.mark.parametrize("hit", [1, pytest.param(2, marks=pytest.mark.verify)])
def test_driver_killed_at_every_point_in_turn(house, files, undisturbed, tmp_path, hit):
    plain, probe = house(), KillAt(tmp_path / "kills", DRIVER, hit)
    strays = [stray(plain, run, name) for run in (7, 8) for name in ("a.root", "b.partial")]
    lives = 1
    while (end := Driver(plain, files, probe).end()) == KILLED:
        lives += 1
    assert end == 0
    assert probe.killed() == set(DRIVER)
    assert lives == 1 + len(DRIVER)
    assert not any(path.exists() for path in strays)
    check(plain, undisturbed)


@pytest.mark.parametrize("point", WORKER)
def test_worker_killed_at_every_point(house, files, undisturbed, tmp_path, point):
    plain, probe = house(), KillAt(tmp_path / "kills", (point,))
    assert Driver(plain, files, probe).end() == 0
    assert probe.killed() == {point}
    check(plain, undisturbed)


def test_driver_killed_about_closure(house, files, joined, tmp_path):
    """Of one run: that of another could be at work at the moment of the kill, and is then begun again."""
    one, calm = files[:1], settings(tmp_path / "calm", cluster=joined)
    assert Driver(calm, one).end() == 0
    plain, probe = house(), KillAt(tmp_path / "kills", CLOSURE)
    assert [Driver(plain, one, probe).end() for _ in range(3)] == [KILLED, KILLED, 0]
    assert probe.killed() == set(CLOSURE)
    check(plain, results(calm))
    assert work(plain)["closure"] == work(calm)["closure"] == 1


TRIED = {"experiment": {"name": "tests.pipeline.judging:Judged"}, "canary": {"units": 2}}
FED = {"handshake": {"feeds_express": ["offset"]}}


@pytest.fixture(scope="module")
def untroubled(joined, files, tmp_path_factory):
    """What comes of a run with a canary that is content, and whose payload goes on to express."""
    plain = settings(tmp_path_factory.mktemp("untroubled"), cluster=joined, **TRIED, **FED)
    assert Driver(plain, files[:1]).end() == 0
    assert work(plain)["canary"] > 0
    return results(plain), fed(plain)


@pytest.mark.parametrize(
    ("first", "point"),
    [
        ("canary", "ledger-committed"),
        *(
            pytest.param(*case, marks=pytest.mark.verify)
            for case in (
                ("", "canary"),
                ("canary", "submit"),
                ("canary", "ledger-commit"),
                ("", "canary-verdict"),
                ("", "canary-known"),
                ("canary-known", "publish"),
                ("canary-known", "settle"),
                ("", "feed"),
                ("feed", "released"),
            )
        ),
    ],
)
def test_driver_killed_about_a_canary_and_about_feeding_express(house, files, untroubled, tmp_path, first, point):
    plain = house(**TRIED, **FED)
    probe = KillAfter(tmp_path / "kills", first, point) if first else KillAt(tmp_path / "kills", (point,))
    assert Driver(plain, files[:1], probe).end() == KILLED
    assert probe.killed() == {point}
    assert Driver(plain, files[:1], probe).end() == 0
    expected, on_to_express = untroubled
    check(plain, expected)
    assert fed(plain) == on_to_express


@pytest.fixture
def chains(house, files, undisturbed):
    """Drivers on one area until it is done, then on the next."""
    number = 0

    def slow():
        nonlocal number
        number += 1
        return house(f"area-{number}", experiment={"settings": {"pause_s": 0.02}})

    return slow


def test_second_driver_is_refused_while_the_first_works_and_others_may_look(chains, files, undisturbed):
    plain = chains()
    driver = Driver(plain, files)
    while not work(plain):
        time.sleep(0.05)
    with Tier0(plain) as tier0:
        with pytest.raises(SecondDriver, match=rf"pid {driver.pid} on host {re.escape(socket.gethostname())}"):
            tier0.run(*files, progress=False)
        assert "run 7, processing version 1: " in tier0.why(7)
        assert tier0.status().exit_code in (0, 4)
    assert driver.end() == 0
    check(plain, undisturbed)


@pytest.mark.parametrize("kills", KILLS)
def test_drivers_killed_at_random(chains, files, undisturbed, kills):
    moments = random.Random(kills)
    plain, killed = chains(), 0
    while killed < kills:
        driver = Driver(plain, files)
        time.sleep(moments.uniform(0.0, 1.0))
        driver.kill()
        if driver.end() == KILLED:
            killed += 1
        else:
            check(plain, undisturbed)
            plain = chains()
    assert Driver(plain, files).end() == 0
    check(plain, undisturbed)


@pytest.mark.verify
@pytest.mark.parametrize("kills", KILLS)
def test_workers_killed_at_random(chains, crew, files, undisturbed, kills):
    moments = random.Random(kills)
    plain, killed = chains(), 0
    driver = Driver(plain, files)
    while killed < kills:
        time.sleep(moments.uniform(0.0, 0.5))
        crew.wait_for_workers(2, timeout=60)
        victim = moments.choice(sorted(crew.run(os.getpid, on_error="ignore").values()))
        if driver.lives():
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
                killed += 1
        else:
            assert driver.end() == 0
            check(plain, undisturbed)
            plain = chains()
            driver = Driver(plain, files)
    assert driver.end() == 0
    check(plain, undisturbed)
