"""What is done before the first task: imports, so that no run waits for them, and leaving Ctrl-C to the driver."""

from __future__ import annotations

import importlib
import logging
import signal
import threading
from typing import Any

from distributed import WorkerPlugin

MODULES = ("awkward", "uproot", "zarr", "pipeline.processing", "pipeline.events", "calib.payload")
"""what every step needs and takes long to import"""


def warm_up() -> None:
    """Import it all in this process."""
    for module in MODULES:
        importlib.import_module(module)


class WarmWorkers(WorkerPlugin):
    """Has every worker, also one that joins later, import what it will need as it starts, and not end by Ctrl-C.

    A terminal sends that to all processes of a command; the driver ends them in order, and nobody wants to hear of it.
    """

    name = "tier0-warm"

    def setup(self, worker: Any) -> None:
        """Called by Dask when a worker starts."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, lambda *_: logging.getLogger("distributed").setLevel(logging.CRITICAL))
        warm_up()
