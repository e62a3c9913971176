"""One driver at a time, and none that was given up for dead commits anything."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from dataclasses import replace

import psutil
import pytest
from sqlalchemy import Engine, select

from jobs.lease import (
    Holder,
    SecondDriver,
    StaleEpoch,
    check_epoch,
    drop_lease,
    kept_alive,
    lives,
    renew_lease,
    take_lease,
)
from jobs.tables import leases

ME = Holder("here", 10, 1.0)
OTHER = Holder("here", 11, 2.0)
REMOTE = Holder("there", 10, 1.0)


def take(engine: Engine, holder: Holder, now: float = 0.0, *, alive: bool = True) -> int:
    with engine.begin() as connection:
        return take_lease(connection, holder, now=now, patience_s=60, alive=lambda _: alive)


def test_every_start_raises_the_epoch(engine: Engine) -> None:
    assert take(engine, ME) == 1
    assert take(engine, ME) == 2


def test_living_driver_on_this_host_is_named(engine: Engine) -> None:
    take(engine, ME)
    with pytest.raises(SecondDriver, match="pid 10 on host here"):
        take(engine, OTHER, now=1e6)
    assert take(engine, OTHER, alive=False) == 2


def test_driver_elsewhere_is_followed_when_it_has_been_silent(engine: Engine) -> None:
    take(engine, ME, now=100)
    with pytest.raises(SecondDriver, match="host here"):
        take(engine, REMOTE, now=159, alive=False)
    assert take(engine, REMOTE, now=161) == 2


def test_renewing_keeps_the_lease(engine: Engine) -> None:
    epoch = take(engine, ME, now=100)
    with engine.begin() as connection:
        renew_lease(connection, epoch, 150)
    with pytest.raises(SecondDriver):
        take(engine, REMOTE, now=190)


def test_dropped_lease_is_free_but_its_epoch_is_not_used_again(engine: Engine) -> None:
    epoch = take(engine, ME)
    with engine.begin() as connection:
        drop_lease(connection, epoch)
    assert take(engine, OTHER) == 2
    with engine.begin() as connection:
        drop_lease(connection, epoch)
    with pytest.raises(SecondDriver):
        take(engine, ME)


def test_old_epoch_is_refused(engine: Engine) -> None:
    old = take(engine, ME)
    new = take(engine, ME)
    with engine.begin() as connection:
        check_epoch(connection, new)
        with pytest.raises(StaleEpoch, match="another driver"):
            check_epoch(connection, old)
        with pytest.raises(StaleEpoch):
            renew_lease(connection, old, 0)


def test_no_lease_is_no_epoch(engine: Engine) -> None:
    with engine.begin() as connection, pytest.raises(StaleEpoch):
        check_epoch(connection, 1)


def test_two_starts_at_once_give_one_driver(engine: Engine) -> None:
    outcomes: list[object] = []

    def start(holder: Holder) -> None:
        try:
            outcomes.append(take(engine, holder))
        except SecondDriver as refusal:
            outcomes.append(refusal)

    threads = [threading.Thread(target=start, args=(replace(ME, pid=pid),)) for pid in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(isinstance(outcome, SecondDriver) for outcome in outcomes) == [False, True, True, True]


def test_a_process_lives_until_it_has_ended() -> None:
    assert lives(Holder.here())
    assert Holder.here().pid == os.getpid()
    assert not lives(replace(Holder.here(), born=1.0))
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    holder = Holder("here", child.pid, psutil.Process(child.pid).create_time())
    assert lives(holder)
    child.kill()
    child.wait()
    child.stdin.close()  # type: ignore[union-attr]
    assert not lives(holder)


def test_lease_is_kept_alive_while_its_driver_is_busy_and_let_go_when_it_is_taken_over(engine: Engine) -> None:
    with engine.begin() as connection:
        epoch = take_lease(connection, now=0.0)

    def renewed_at() -> float:
        with engine.begin() as connection:
            return float(connection.execute(select(leases.c.renewed_at)).scalar_one())

    with kept_alive(engine.begin, epoch, every_s=0.01):
        until = time.monotonic() + 10
        while renewed_at() == 0.0:
            assert time.monotonic() < until
        with engine.begin() as connection:
            take_lease(connection, now=1.0)
        time.sleep(0.1)
        assert renewed_at() == 1.0
