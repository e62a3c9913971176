"""Imports done before the first task, so that no run waits for them."""

from __future__ import annotations

import importlib
from typing import Any

from distributed import WorkerPlugin

MODULES = ("awkward", "uproot", "zarr", "pipeline.processing", "pipeline.events", "calib.payload")
"""what every step needs and takes long to import"""


def warm_up() -> None:
    """Import it all in this process."""
    for module in MODULES:
        importlib.import_module(module)


class WarmWorkers(WorkerPlugin):
    """Has every worker, also one that joins later, import what it will need as it starts."""

    name = "tier0-warm"

    def setup(self, worker: Any) -> None:
        """Called by Dask when a worker starts."""
        warm_up()
