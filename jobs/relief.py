"""Workers that stand still for want of memory get going again.

Dask lets a worker over `memory.pause` start nothing, and waits for its memory to become less. But what tasks have freed
the C library keeps, by `ALLOCATOR` more of it: then the worker is idle for ever, and all wait for it.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import time
from contextlib import suppress
from enum import Enum
from typing import Any

from distributed import WorkerPlugin
from distributed.core import Status
from tornado.ioloop import PeriodicCallback

logger = logging.getLogger(__name__)


class Relief(Enum):
    """What is done for a worker."""

    NONE = "none"
    TRIM = "trim"  # what is free goes back to the system
    RESTART = "restart"


def relief(paused: bool, executing: int, stands_s: float, patience_s: float) -> Relief:
    """What helps a worker that stands still, paused and with nothing to do: at first to trim, in the end a new one."""
    if not paused or executing:
        return Relief.NONE
    return Relief.TRIM if stands_s < patience_s else Relief.RESTART


class MemoryRelief(WorkerPlugin):
    """Looks after the worker it is registered on, every `every_s`; one that `patience_s` did not help is restarted."""

    name = "tier0-memory"

    def __init__(self, every_s: float = 0.5, patience_s: float = 30.0) -> None:
        self.every_s, self.patience_s = every_s, patience_s

    def setup(self, worker: Any) -> None:
        """Called by Dask when a worker starts."""
        self._worker, self._since = worker, time.monotonic()
        self._watch = PeriodicCallback(self._look, 1e3 * self.every_s)
        self._watch.start()

    def teardown(self, worker: Any) -> None:
        """Called by Dask when a worker ends, or is looked after no more."""
        self._watch.stop()

    async def _look(self) -> None:
        worker = self._worker
        paused, executing = worker.status is Status.paused, worker.state.executing_count
        stands_s = time.monotonic() - self._since
        match relief(paused, executing, stands_s, self.patience_s):
            case Relief.NONE:
                self._since = time.monotonic()
            case Relief.TRIM:
                _trim()
            case Relief.RESTART:
                self._watch.stop()
                logger.warning(
                    "worker %s stood still for %.0f s with its memory full, and is started anew: give workers more "
                    "(`cluster.memory`)",
                    worker.address,
                    stands_s,
                )
                await worker.close_gracefully(restart=True, reason=self.name)


def _trim() -> None:
    """Give back what is free: garbage to the C library, and that to the system (glibc alone can be told to)."""
    gc.collect()
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
