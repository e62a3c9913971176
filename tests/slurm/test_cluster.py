"""Workers on a batch cluster have the same in force as those at home, and go when the cluster is closed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from distributed import Client

from jobs.cluster import ClusterRefused, ClusterSettings, Kind, open_cluster
from jobs.cluster_settings import ALLOCATOR, ONE_THREAD
from jobs.inspection import numerical_class, scheduler_facts, verify, worker_facts
from jobs.numerics import differences, level_environment
from jobs.numerics import numerical_class as class_here
from tests.slurm.loopback import NODES, Slurm


def loopback(folder: Path, **more: Any) -> ClusterSettings:
    """Two jobs of one worker, one for each node."""
    settings: dict[str, Any] = {
        "workers": 2,
        "memory": "500 MB",
        "spill": "1 GB",
        "walltime": "00:10:00",
        "interface": "lo",
        "dashboard_port": 0,
        "shared_directory": str(folder),
        "scratch": str(folder / "scratch"),
    }
    return ClusterSettings(kind=Kind.SLURM, **(settings | more))


def wait_for(true: Callable[[], bool], timeout: float = 30.0) -> None:
    until = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < until
        time.sleep(0.1)


def node_of_task(number: int) -> tuple[str, int]:
    """Where a task ran, and in how many threads after BLAS had all reason to start some."""
    before = psutil.Process().num_threads()
    a = np.full((700, 700), float(number))
    (a @ a).sum()
    return os.environ["SLURMD_NODENAME"], psutil.Process().num_threads() - before


def limits(dask_worker: Any) -> tuple[int, int]:
    """Memory that Dask lets a worker use, and that its job was given."""
    return dask_worker.memory_manager.memory_limit, int(os.environ["SLURM_MEM_PER_NODE"]) * 2**20


def test_two_nodes_from_start_to_end(slurm: Slurm, tmp_path: Path) -> None:
    settings = loopback(tmp_path)
    with open_cluster(settings) as client:
        client.wait_for_workers(2, timeout=60)
        assert verify(client, settings) == []
        assert_in_force(client, tmp_path)
        assert differences(numerical_class(client), class_here()) == ()

        workers = list(client.scheduler_info()["workers"])
        ran = client.gather(
            [client.submit(node_of_task, i, workers=[w], pure=False) for i in range(3) for w in workers]
        )
        assert {node for node, _ in ran} == set(NODES)
        assert {threads for _, threads in ran} == {0}
        assert set(slurm.jobs().values()) == set(NODES)

        client.cluster.scale(jobs=1)
        wait_for(lambda: len(client.scheduler_info()["workers"]) == 1)
        slurm.wait_until(lambda: len(slurm.jobs()) == 1, "down to one job")
        assert client.submit(sum, [1, 2]).result() == 3
    slurm.wait_until(lambda: not slurm.jobs(), "empty")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".tier0-tls-")] == []
    assert len(list((tmp_path / "logs").glob("tier0-worker-*.err"))) == 2


def assert_in_force(client: Client, folder: Path) -> None:
    scheduler = client.run_on_scheduler(scheduler_facts)
    assert scheduler["address"].startswith("tls://")
    assert scheduler["allowed failures"] == 0
    assert scheduler["dashboard"] == "127.0.0.1"
    for facts in client.run(worker_facts).values():
        assert facts["address"].startswith("tls://")
        assert facts["environment"] == facts["environment"] | ALLOCATOR | ONE_THREAD
        assert facts["page faults"] < 100
        assert facts["threads"] == 1
        assert facts["spill"] == 1_000_000_000
    for limit, given in client.run(limits).values():
        assert limit == pytest.approx(500_000_000, rel=0.01)
        assert limit < 0.81 * given
    for key in folder.glob(".tier0-tls-*/*"):
        assert key.stat().st_mode & 0o077 == 0
        assert key.parent.stat().st_mode & 0o077 == 0


def test_level_is_in_force_on_every_node(slurm: Slurm, tmp_path: Path) -> None:
    try:
        level_environment("x86-64-v2")
    except ValueError as error:
        pytest.skip(str(error))
    settings = loopback(tmp_path, cpu_baseline="x86-64-v2", workers=4, workers_per_job=2)
    with open_cluster(settings) as client:
        client.wait_for_workers(4, timeout=60)
        assert verify(client, settings) == []
        assert numerical_class(client)["level"] == "x86-64-v2"
        assert set(slurm.jobs().values()) == set(NODES)
    slurm.wait_until(lambda: not slurm.jobs(), "empty")


def test_node_of_another_class_is_turned_away(slurm: Slurm, tmp_path: Path) -> None:
    if class_here()["level"] == "x86-64-v2":
        pytest.skip("this host has nothing to switch off")
    other = f'[ "$SLURMD_NODENAME" = {NODES[1]} ] && export NPY_DISABLE_CPU_FEATURES="X86_V3 X86_V4 AVX2 FMA3"'
    settings = loopback(tmp_path, prologue=(other,))
    with open_cluster(settings) as client:
        verify(client, settings)
        slurm.wait_until(lambda: list(slurm.jobs().values()) == [NODES[0]], "rid of the other node")
        (turned_away,) = verify(client, settings)
        assert "was turned away" in turned_away.where
        assert "level x86-64-v2 instead of" in turned_away.found
        assert "set cpu_baseline" in turned_away.remedy
        assert [node for node, _ in client.gather(client.map(node_of_task, range(4)))] == [NODES[0]] * 4
    slurm.wait_until(lambda: not slurm.jobs(), "empty")


def test_job_that_is_not_taken_is_said_at_once(slurm: Slurm, tmp_path: Path) -> None:
    settings = loopback(tmp_path, queue="nowhere")
    word = r"(?s)invalid partition specified: nowhere.*#SBATCH -p nowhere"
    with pytest.raises(ClusterRefused, match=word), open_cluster(settings):
        pass
    assert slurm.jobs() == {}


def test_failure_inside_cancels_the_jobs(slurm: Slurm, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="on purpose"), open_cluster(loopback(tmp_path)):
        slurm.wait_until(lambda: len(slurm.jobs()) == 2, "running")
        raise RuntimeError("on purpose")
    slurm.wait_until(lambda: not slurm.jobs(), "empty")
