"""Every fault of a cluster is found, alone; and workers whose results would differ are not worked with."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask
import pytest
from distributed import Client, LocalCluster

from jobs.batch_jobs import CLASS_SETTING
from jobs.cluster import open_cluster
from jobs.cluster_settings import ALLOCATOR, ONE_THREAD, ClusterRefused, ClusterSettings, Kind, dask_config
from jobs.inspection import (
    Mismatch,
    gathered,
    judge_scheduler,
    judge_worker,
    numerical_class,
    one_class,
    page_faults,
    verify,
)
from jobs.numerics import as_text
from jobs.numerics import numerical_class as class_here

SETTINGS = ClusterSettings()
SCHEDULER: dict[str, Any] = {
    "allowed failures": 0,
    "worker ttl": 3600.0,
    "worker saturation": 1.1,
    "idle timeout": None,
    "no-workers timeout": None,
    "address": "tls://10.0.0.1:8786",
    "dashboard": "127.0.0.1",
}
WORKER: dict[str, Any] = {
    "threads": 1,
    "nanny": True,
    "lifetime": None,
    "memory limit": 1_000_000_000,
    "pause": 0.8,
    "spill": 10_000_000_000,
    "address": "tls://10.0.0.1:1234",
    "environment": {**ALLOCATOR, **ONE_THREAD, "HOME": "/"},
    "page faults": 0,
}
CLASS = {"numpy": "2.4.6", "level": "x86-64-v3", "digest": "1"}


@pytest.mark.parametrize("address", ["tls://10.0.0.1:1", "tcp://127.0.0.1:1", "tcp://[::1]:1", "inproc://10.0.0.1/1/1"])
def test_all_is_well(address: str) -> None:
    assert list(judge_scheduler({**SCHEDULER, "address": address}, SETTINGS)) == []
    assert list(judge_worker({**WORKER, "address": address}, SETTINGS)) == []
    assert list(judge_scheduler({**SCHEDULER, "worker ttl": None, "dashboard": None}, SETTINGS)) == []


@pytest.mark.parametrize(
    ("what", "value", "remedy"),
    [
        ("allowed failures", 3, "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES='0'"),
        ("worker ttl", 300.0, "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL='3600s'"),
        ("worker saturation", float("inf"), "WORKER_SATURATION='1.1'"),
        ("idle timeout", 60.0, "IDLE_TIMEOUT='None'"),
        ("no-workers timeout", 60.0, "NO_WORKERS_TIMEOUT='None'"),
        ("address", "tcp://10.0.0.1:8786", "TLS"),
        ("dashboard", "0.0.0.0", "--dashboard-address 127.0.0.1:8787"),
        ("dashboard", "a.host", "--dashboard-address 127.0.0.1:8787"),
    ],
)
def test_each_fault_of_a_scheduler_is_found(what: str, value: object, remedy: str) -> None:
    (fault,) = judge_scheduler({**SCHEDULER, what: value}, SETTINGS)
    assert (fault.what, fault.where, fault.found) == (what, "the scheduler", str(value))
    assert remedy in fault.remedy
    assert str(fault).startswith(f"{what} is {value} on the scheduler, but should be {fault.wanted}: ")


@pytest.mark.parametrize(
    ("what", "fact", "value", "remedy"),
    [
        ("threads", "threads", 2, "--nthreads 1"),
        ("nanny", "nanny", False, "--nanny"),
        ("lifetime", "lifetime", 3600.0, "without --lifetime"),
        ("memory limit", "memory limit", None, "--memory-limit"),
        ("pause", "pause", False, "DASK_DISTRIBUTED__WORKER__MEMORY__PAUSE='0.8'"),
        ("spill", "spill", False, "DASK_DISTRIBUTED__WORKER__MEMORY__MAX_SPILL='10 GB'"),
        ("address", "address", "tcp://10.0.0.1:1234", "TLS"),
        ("page faults", "page faults", 4096, "MALLOC_TRIM_THRESHOLD_="),
        ("allocator", "environment", {**ONE_THREAD, "MALLOC_TRIM_THRESHOLD_": "65536"}, "MALLOC_MMAP_THRESHOLD_="),
        ("threads of BLAS", "environment", ALLOCATOR, "OMP_NUM_THREADS='1'"),
    ],
)
def test_each_fault_of_a_worker_is_found(what: str, fact: str, value: object, remedy: str) -> None:
    ((found, _, _, advice),) = judge_worker({**WORKER, fact: value}, SETTINGS)
    assert found == what
    assert remedy in advice


def test_one_fault_on_many_workers_is_said_once() -> None:
    workers = {f"tcp://10.0.0.1:{port}": {**WORKER, "address": f"tcp://10.0.0.1:{port}"} for port in range(5)}
    workers |= {"tls://b:1": {**WORKER, "threads": 4}}
    open_to_all, many = gathered(workers, SETTINGS)
    assert open_to_all.where == "tcp://10.0.0.1:0, tcp://10.0.0.1:1, tcp://10.0.0.1:2 and 2 more"
    assert open_to_all.found == "open"
    assert (many.what, many.where, many.found) == ("threads", "tls://b:1", "4")


def test_workers_of_one_class_share_it() -> None:
    assert one_class({"a": CLASS, "b": {**CLASS, "python": "3.14"}}, "native") == CLASS
    assert one_class({"a": CLASS}, "x86-64-v3") == CLASS


@pytest.mark.parametrize(
    ("other", "advice"),
    [({**CLASS, "numpy": "2.3.5"}, "one Python environment"), ({**CLASS, "digest": "2"}, "cpu_baseline")],
)
def test_workers_of_two_classes_are_refused(other: dict[str, str], advice: str) -> None:
    with pytest.raises(ClusterRefused, match=f"results would depend on the worker: b has .*{advice}"):
        one_class({"a": CLASS, "b": other}, "native")


def test_worker_at_another_level_is_refused() -> None:
    with pytest.raises(ClusterRefused, match=r"computes at x86-64-v3, not at cpu_baseline 'x86-64-v2'"):
        one_class({"a": CLASS}, "x86-64-v2")


@pytest.mark.skipif(sys.platform != "linux", reason="page faults of a thread are counted on Linux")
def test_page_faults_are_those_of_the_allocator() -> None:
    def faults(trim: str) -> int:
        ask = "from jobs.inspection import page_faults; print(page_faults())"
        variables = {**os.environ, **ALLOCATOR, "MALLOC_TRIM_THRESHOLD_": trim}
        done = subprocess.run([sys.executable, "-c", ask], env=variables, capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert faults(ALLOCATOR["MALLOC_TRIM_THRESHOLD_"]) < 100
    assert faults("65536") > 4000
    assert page_faults() >= 0


@contextmanager
def scheduler_alone() -> Iterator[tuple[Client, ClusterSettings]]:
    with (
        LocalCluster(n_workers=0, dashboard_address="127.0.0.1:0") as cluster,  # type: ignore[no-untyped-call]
        Client(cluster, set_as_default=False) as client,  # type: ignore[no-untyped-call]
    ):
        yield client, ClusterSettings(kind=Kind.ADDRESS, address=cluster.scheduler_address)


@contextmanager
def worker_of(
    settings: ClusterSettings, folder: Path, *options: str, **variables: str
) -> Iterator[subprocess.Popen[str]]:
    """A worker started by hand, as on a cluster that somebody else opened."""
    command = [sys.executable, "-m", "distributed.cli.dask_worker", str(settings.address), "--nthreads", "1"]
    command += ["--no-dashboard", "--memory-limit", "1GB", "--local-directory", str(folder), *options]
    process = subprocess.Popen(
        command, env={**os.environ, **variables}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=30)


def test_no_worker_in_time() -> None:
    with scheduler_alone() as (client, settings), pytest.raises(ClusterRefused, match=r"no worker in 0\.1 s"):
        verify(client, settings, timeout=0.1)


def test_hosts_of_two_classes_are_refused_together(tmp_path: Path) -> None:
    if class_here()["level"] == "x86-64-v2":
        pytest.skip("this host has nothing to switch off")
    with (
        scheduler_alone() as (client, settings),
        worker_of(settings, tmp_path),
        worker_of(settings, tmp_path, NPY_DISABLE_CPU_FEATURES="X86_V3 X86_V4 AVX2 FMA3"),
    ):
        client.wait_for_workers(2, timeout=60)
        with pytest.raises(ClusterRefused, match="set cpu_baseline"):
            verify(client, settings)
        with pytest.raises(ClusterRefused, match="level x86-64-v"):
            numerical_class(client)


def test_worker_without_this_package_is_refused(tmp_path: Path) -> None:
    # A preload with a blank in it is a program to Dask, run before the worker joins.
    hidden = dask.config.serialize({"distributed.worker.preload": ["import sys\nsys.modules['jobs'] = None\n"]})
    with (
        scheduler_alone() as (client, settings),
        worker_of(settings, tmp_path, DASK_INTERNAL_INHERIT_CONFIG=hidden),
        pytest.raises(ClusterRefused, match=r"cannot run this package .*start workers from the Python environment"),
    ):
        verify(client, settings)


def test_checked_worker_stays_away_from_another_class(tmp_path: Path) -> None:
    wanted = {**class_here(), "digest": "another"}
    variables = {"DASK_" + CLASS_SETTING.upper().replace(".", "__").replace("-", "_"): as_text(wanted)}
    options = ["--worker-class", "jobs.admission.CheckedWorker"]
    with scheduler_alone() as (client, settings), worker_of(settings, tmp_path, *options, **variables) as process:
        with pytest.raises(
            ClusterRefused, match=r"turned away:\nnumerical class is digest .* instead of another on worker"
        ):
            verify(client, ClusterSettings(kind=Kind.ADDRESS, address=settings.address, workers=1))
        _, log = process.communicate(timeout=30)
        assert process.returncode != 0
        assert re.search("ClusterRefused: worker .* has digest .*: set cpu_baseline", log)
        assert client.scheduler_info()["workers"] == {}


def test_checked_worker_of_the_class_joins(tmp_path: Path) -> None:
    variables = {"DASK_TIER0__NUMERICAL_CLASS": as_text(class_here())}
    options = ["--worker-class", "jobs.admission.CheckedWorker"]
    with scheduler_alone() as (client, settings), worker_of(settings, tmp_path, *options, **variables):
        client.wait_for_workers(1, timeout=60)
        assert as_text(numerical_class(client)) == as_text(class_here())


def test_mismatch_reads_as_a_sentence() -> None:
    fault = Mismatch("threads", "tcp://a:1", "2", "1", "start it with --nthreads 1")
    assert str(fault) == "threads is 2 on tcp://a:1, but should be 1: start it with --nthreads 1"


def dask_defaults() -> dict[str, Any]:
    """What Dask itself says to all that `dask_config` sets, whatever other clusters of this process have set."""
    defaults = dask.config.merge(*dask.config.defaults)
    return {name: dask.config.get(name, config=defaults) for name in dask_config(SETTINGS)}


def test_default_cluster_is_joined_and_told_what_it_lacks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # Dask's nanny writes its variables into this process: say them here, so that they go away again.
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "65536")
    monkeypatch.delenv("MALLOC_MMAP_THRESHOLD_", raising=False)
    for name in ONE_THREAD:
        monkeypatch.setenv(name, "1")
    with (
        dask.config.set(dask_defaults()),
        LocalCluster(  # type: ignore[no-untyped-call]
            n_workers=1,
            threads_per_worker=2,
            memory_limit="1GB",
            dashboard_address="0.0.0.0:0",
            local_directory=tmp_path,
        ) as cluster,
    ):
        settings = ClusterSettings(kind=Kind.ADDRESS, address=cluster.scheduler_address)
        with open_cluster(settings) as client:
            found = {fault.what: fault for fault in verify(client, settings)}
            assert client.submit(sum, [1, 2]).result() == 3
        assert set(found) == {
            "allowed failures", "worker ttl", "dashboard", "threads", "allocator", "spill", "page faults",
        }  # fmt: skip
        assert cluster.status.name == "running"
    assert found["allowed failures"].found == "3"
    assert "export DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES='0'" in found["allowed failures"].remedy
    assert found["worker ttl"].wanted == "over 1800 s"
    assert "--nthreads 1" in str(found["threads"])
    assert "MALLOC_TRIM_THRESHOLD_='268435456'" in found["allocator"].remedy
    assert found["page faults"].found == "4 thousand"


def test_worker_that_dies_as_it_is_asked_is_no_reason_to_refuse(client: Client) -> None:
    """Time after time one of the two is killed and asked before anybody has noticed."""
    for _ in range(3):
        victim = client.run(os.getpid).popitem()[1]
        os.kill(victim, signal.SIGKILL)
        assert numerical_class(client)["digest"] == class_here()["digest"]
        client.wait_for_workers(2, timeout=60)
