"""No worker waits for ever for memory to become free."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from distributed import Client, get_worker
from distributed.core import Status

from jobs.cluster import open_cluster
from jobs.cluster_settings import ClusterSettings
from jobs.relief import MemoryRelief, Relief, relief

MEGABYTE = 1_000_000
FULL = 870 * MEGABYTE
"""between 80 %, where workers of 1 GB pause, and 95 %, where their nanny kills them"""


@pytest.mark.parametrize(
    ("paused", "executing", "stands_s", "what"),
    [
        (False, 0, 100.0, Relief.NONE),
        (True, 1, 100.0, Relief.NONE),  # it may still free what it holds
        (True, 0, 0.0, Relief.TRIM),
        (True, 0, 29.0, Relief.TRIM),
        (True, 0, 30.0, Relief.RESTART),
    ],
)
def test_what_helps(paused: bool, executing: int, stands_s: float, what: Relief) -> None:
    assert relief(paused, executing, stands_s, 30.0) is what


@pytest.fixture
def client() -> Iterator[Client]:
    """One worker of 1 GB that is looked after."""
    with open_cluster(ClusterSettings(workers=1, memory="1 GB", tls=False, dashboard_port=0)) as client:
        client.wait_for_workers(1, timeout=60)
        client.register_plugin(MemoryRelief(every_s=0.2, patience_s=2.0))
        yield client


def fill(free: bool) -> int:
    """Take memory to the brim, and free it, or not. The C library keeps what is free below something that is not."""
    blocks: list[Any] = []
    while psutil.Process().memory_info().rss < FULL:
        blocks.append(b"x" * (8 * MEGABYTE))
    worker: Any = get_worker()
    worker.kept = [b"y" * 1000 for _ in range(10_000)] if free else blocks
    while worker.status is not Status.paused:
        time.sleep(0.01)
    return psutil.Process().pid


def pid(after: int) -> int:
    return psutil.Process().pid


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="the C library is not glibc")
def test_what_the_c_library_keeps_is_given_back(client: Client) -> None:
    filled = client.submit(fill, True)
    assert client.submit(pid, filled, pure=False).result(timeout=60) == filled.result(timeout=60)


def test_a_worker_whose_memory_stays_full_is_started_anew(client: Client) -> None:
    filled = client.submit(fill, False).result(timeout=60)
    assert client.submit(pid, filled).result(timeout=120) != filled
