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
    Nor of what the end cuts off: a heartbeat, which Dask tells with a traceback, and tasks.
    """

    name = "tier0-warm"

    def setup(self, worker: Any) -> None:
        """Called by Dask when a worker starts."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, lambda *_: logging.getLogger("distributed").setLevel(logging.CRITICAL))
            # It is blocked from the start; one that has come meanwhile is heard now.
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        logging.getLogger("distributed.worker").addFilter(_is_no_heartbeat_cut_off)
        logging.getLogger("distributed.worker.state_machine").addFilter(_is_no_task_cut_off)
        warm_up()


def _is_no_heartbeat_cut_off(record: logging.LogRecord) -> bool:
    """False for a heartbeat whose connection was closed: a worker that has lost its scheduler ends, which is told."""
    if record.exc_info is None or not record.getMessage().startswith("Failed to communicate with scheduler during"):
        return True
    return not isinstance(record.exc_info[1], CommClosedError)


def _is_no_task_cut_off(record: logging.LogRecord) -> bool:
    """False for a task that was cancelled: by Dask's own word only the end of its worker does that."""
    said = record.getMessage()
    return not (said.startswith("Async instruction for ") and said.endswith(" ended with CancelledError"))
