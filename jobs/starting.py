"""Workers that are started so that Ctrl-C meanwhile leaves nothing behind, and nothing to read."""

from __future__ import annotations

import asyncio
import signal
from multiprocessing import resource_tracker
from typing import Any

from distributed import Nanny


class ShelteredNanny(Nanny):
    """A nanny whose worker is not told of a Ctrl-C, which a terminal sends to all processes of a command.

    The driver ends its workers in order. One that still imports would end by itself, with a traceback.
    """

    async def start_unsafe(self) -> Any:
        """Start the worker from a thread that has SIGINT blocked: that is passed on, also to the workers after it."""
        # What starts this for the first time has SIGINT unblocked when it is done.
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        return await super().start_unsafe()  # type: ignore[no-untyped-call]


def start_workers(cluster: Any, number: int = 1) -> None:
    """Have a cluster start some workers, or batch jobs, and wait for them.

    Interrupted it waits no longer, but they go on: so the cluster knows them when it is closed, and ends them. Dask
    would forget those that are on their way, and fail an assertion over them.
    """
    for _ in range(number):
        cluster.worker_spec.update(cluster.new_worker_spec())
    cluster.sync(_start_declared, cluster)


async def _start_declared(cluster: Any) -> None:
    await asyncio.shield(cluster._correct_state())
