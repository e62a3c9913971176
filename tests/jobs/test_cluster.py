"""Clusters that are opened have everything in force; clusters that are joined are told what they lack."""

from __future__ import annotations

import logging
import os
import platform
import signal
import time
from collections.abc import Iterator
from typing import Any

import dask
import psutil
import pytest
from distributed import Client

from jobs.cluster import ClusterRefused, ClusterSettings, Kind, describe, ends_may_be_slow, open_cluster
from jobs.cluster_settings import ALLOCATOR, ONE_THREAD
from jobs.inspection import numerical_class, scheduler_facts, verify, worker_facts

# What Dask's default leaves behind in the process that starts workers.
LEFT_BEHIND = {"MALLOC_TRIM_THRESHOLD_": "65536", "OMP_NUM_THREADS": "2"}


@pytest.fixture(scope="module")
def local_settings(tmp_path_factory: pytest.TempPathFactory) -> ClusterSettings:
    scratch = tmp_path_factory.mktemp("scratch")
    return ClusterSettings(workers=2, memory="1 GB", spill="3 GB", dashboard_port=0, scratch=str(scratch))


@pytest.fixture(scope="module")
def local(local_settings: ClusterSettings) -> Iterator[Client]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in LEFT_BEHIND.items():
            patch.setenv(name, value)
        before = dict(os.environ)
        with open_cluster(local_settings) as client:
            yield client
        assert {name: os.environ.get(name) for name in (*ALLOCATOR, *ONE_THREAD)} == {
            name: before.get(name) for name in (*ALLOCATOR, *ONE_THREAD)
        }


def facts_of_workers(client: Client) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = client.run(worker_facts)
    return list(found.values())


def test_local_cluster_is_as_it_should_be(local: Client, local_settings: ClusterSettings) -> None:
    assert verify(local, local_settings) == []


def test_variables_stand_before_a_worker_starts(local: Client) -> None:
    """Also where another cluster of the same process left its own behind."""
    workers = facts_of_workers(local)
    assert len(workers) == 2
    for facts in workers:
        assert facts["environment"] == facts["environment"] | ALLOCATOR | ONE_THREAD
        assert facts["page faults"] < 100


def test_workers_have_the_memory_and_the_thread_they_were_given(local: Client, local_settings: ClusterSettings) -> None:
    for facts in facts_of_workers(local):
        assert facts["threads"] == 1
        assert facts["memory limit"] == 1_000_000_000
        assert facts["spill"] == 3_000_000_000
    folders = local.run(lambda dask_worker: dask_worker.local_directory)
    assert all(folder.startswith(str(local_settings.scratch)) for folder in folders.values())


def test_nothing_listens_beyond_loopback(local: Client) -> None:
    facts = local.run_on_scheduler(scheduler_facts)
    assert facts["address"].startswith("tls://127.0.0.1:")
    assert facts["dashboard"] == "127.0.0.1"
    assert local.dashboard_link.startswith("http://127.0.0.1:")
    for worker in local.scheduler_info()["workers"].values():
        assert worker["host"] == "127.0.0.1"


def test_stranger_without_the_certificate_is_kept_out(local: Client) -> None:
    address = local.scheduler_info()["address"].replace("tls://", "tcp://")
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        pytest.raises(ClusterRefused, match="no scheduler answers"),
        open_cluster(ClusterSettings(kind=Kind.ADDRESS, address=address)),
    ):
        pass


def test_worker_that_died_comes_back_with_the_same_environment(local: Client, local_settings: ClusterSettings) -> None:
    before = local.run(os.getpid)
    victim, pid = next(iter(before.items()))
    os.kill(pid, 9)
    until = time.monotonic() + 30
    while victim in (now := local.scheduler_info()["workers"]) or len(now) < 2:
        assert time.monotonic() < until
        time.sleep(0.05)
    assert verify(local, local_settings) == []


def test_other_dask_code_keeps_its_scheduler(local: Client) -> None:
    try:
        current = Client.current()
    except ValueError:
        return
    assert current is not local


@pytest.mark.skipif(platform.machine() != "x86_64", reason="levels are of x86-64")
def test_level_is_in_force_without_tls_too() -> None:
    settings = ClusterSettings(workers=1, memory="1 GB", dashboard_port=0, cpu_baseline="x86-64-v2", tls=False)
    with open_cluster(settings) as client:
        assert client.scheduler_info()["address"].startswith("tcp://127.0.0.1:")
        assert numerical_class(client)["level"] == "x86-64-v2"
        assert verify(client, settings) == []
    assert "NPY_DISABLE_CPU_FEATURES" not in os.environ


def test_local_cluster_is_described() -> None:
    text = describe(ClusterSettings(workers=3, memory="2 GB", spill="5 GB", scratch="/scratch"))
    assert text.startswith("3 worker processes of one thread on this host, each with 2 GB, and at most 5 GB spilled")
    assert "MALLOC_TRIM_THRESHOLD_=268435456" in text.splitlines()
    assert describe(ClusterSettings(kind=Kind.ADDRESS, address="tcp://a:1")) == "join the scheduler at tcp://a:1"


def test_nobody_at_the_address() -> None:
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        pytest.raises(ClusterRefused, match=r"no scheduler answers at tcp://127.0.0.1:9 .*start it"),
        open_cluster(ClusterSettings(kind=Kind.ADDRESS, address="tcp://127.0.0.1:9")),
    ):
        pass


def test_address_of_an_unknown_kind() -> None:
    with (
        pytest.raises(ClusterRefused, match="no scheduler answers"),
        open_cluster(ClusterSettings(kind=Kind.ADDRESS, address="carrier-pigeon://somewhere")),
    ):
        pass


@pytest.fixture
def nannies(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What the nannies say; Dask's loggers hand nothing on."""
    logger = logging.getLogger("distributed.nanny")
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


SLOW = "Worker process still alive after 4.0 seconds, killing"


def test_of_slow_ends_nothing_is_said_and_all_else_is(nannies: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("distributed.nanny")
    with pytest.raises(ZeroDivisionError), ends_may_be_slow():
        logger.warning(SLOW)
        logger.warning("another word")
        raise ZeroDivisionError
    assert set(nannies.messages) == {"another word"}
    logger.warning(SLOW)
    assert SLOW in nannies.messages


@pytest.mark.verify
def test_a_worker_that_does_not_end_is_killed_without_a_word(nannies: pytest.LogCaptureFixture) -> None:
    with open_cluster(ClusterSettings(workers=1, memory="1 GB", tls=False, dashboard_port=0)) as client:
        (pid,) = client.run(os.getpid).values()
        os.kill(pid, signal.SIGSTOP)
    assert not psutil.pid_exists(pid)
    assert SLOW not in nannies.messages
