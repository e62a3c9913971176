"""Workers that start: none is told of a Ctrl-C, and none is forgotten by who waits no longer."""

from __future__ import annotations

import asyncio
import signal
import time
from typing import Any

import pytest

from jobs.cluster import ClusterSettings, open_cluster
from jobs.starting import start_workers


def blocked() -> bool:
    return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, set())


def test_a_worker_is_not_told_of_ctrl_c_and_the_driver_is() -> None:
    with open_cluster(ClusterSettings(workers=1, memory="1 GB", tls=False, dashboard_port=0)) as client:
        (worker,) = client.run(blocked).values()
        client.restart()
        (next_one,) = client.run(blocked).values()
    assert worker and next_one and not blocked()


class SlowCluster:
    """As much of Dask's cluster as a start asks for."""

    def __init__(self) -> None:
        self.worker_spec: dict[int, Any] = {}
        self.started: list[int] = []
        self.starting: Any = None

    def new_worker_spec(self) -> dict[int, Any]:
        return {len(self.worker_spec): {}}

    def _correct_state(self) -> Any:
        async def start() -> None:
            await asyncio.sleep(0.2)
            self.started = list(self.worker_spec)

        self.starting = asyncio.ensure_future(start())
        return self.starting

    def sync(self, function: Any, *given: Any) -> None:
        """Dask's own when Ctrl-C comes: what it waits for is cancelled."""

        async def interrupted() -> None:
            waiting = asyncio.ensure_future(function(*given))
            await asyncio.sleep(0.05)
            waiting.cancel()
            await asyncio.wait([self.starting])

        began = time.monotonic()
        asyncio.run(interrupted())
        assert time.monotonic() - began > 0.1
        raise KeyboardInterrupt


def test_an_interrupted_start_goes_on() -> None:
    cluster = SlowCluster()
    with pytest.raises(KeyboardInterrupt):
        start_workers(cluster, 2)
    assert cluster.started == [0, 1]
