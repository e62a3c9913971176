"""What is done before the first task: imports, so that no run waits for them, and leaving Ctrl-C to the driver."""

from __future__ import annotations

import importlib
import logging
import signal
import threading
from typing import Any

from distributed import WorkerPlugin
from distributed.comm.core import CommClosedError

MODULES = ("awkward", "uproot", "zarr", "pipeline.processing", "pipeline.events", "calib.payload")
"""what every step needs and takes long to import"""


def warm_up() -> None:
    """Import it all in this process."""
    for module in MODULES:
        importlib.import_module(module)


class WarmWorkers(WorkerPlugin):
    """Has every worker, also one that joins later, import what it will need as it starts, and not end by Ctrl-C.

    A terminal sends that to all processes of a command; the driver ends them in order, and nobody wants to hear of it.
    Nor of a heartbeat that the end cuts off, which Dask tells with a traceback.
    """

    name = "tier0-warm"

    def setup(self, worker: Any) -> None:
        """Called by Dask when a worker starts."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, lambda *_: logging.getLogger("distributed").setLevel(logging.CRITICAL))
        logging.getLogger("distributed.worker").addFilter(_is_no_heartbeat_cut_off)
        warm_up()


def _is_no_heartbeat_cut_off(record: logging.LogRecord) -> bool:
    """False for a heartbeat whose connection was closed: a worker that has lost its scheduler ends, which is told."""
    if record.exc_info is None or not record.getMessage().startswith("Failed to communicate with scheduler during"):
        return True
    return not isinstance(record.exc_info[1], CommClosedError)
