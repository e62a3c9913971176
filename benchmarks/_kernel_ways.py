"""What a kernel of a calibration, or a fit, is timed on and against."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import awkward as ak
import numpy as np
from numpy.typing import NDArray

from calib.calibration import Calibration, Columns
from calib.payload import Payload

Floats = NDArray[np.float64]
Work = Callable[[], Any]


@dataclass(frozen=True)
class Drawn:
    """A calibration with events for it, and other ways to sum them up."""

    calibration: Calibration
    columns: Columns
    conditions: Mapping[str, Payload]
    obvious: Work
    """in plain NumPy"""
    library: Work
    """by boost-histogram, or scipy.sparse"""
    bound: str
    """what the kernel waits for"""

    @property
    def bytes(self) -> int:
        """Of input: what the columns hold, and where events begin in jagged ones."""
        wanted = ("run", "lumi", "event", *self.calibration.reads, *self.calibration.reads_if_there)
        return sum(_bytes(self.columns[name]) for name in wanted if name in self.columns)


def _bytes(column: Any) -> int:
    if not isinstance(column, ak.Array):
        return np.asarray(column).nbytes
    return np.asarray(ak.flatten(column)).nbytes + 8 * (len(column) + 1)


@dataclass(frozen=True)
class Fit:
    """A fit, ours and a library's, of the same data; both give values, ours errors too."""

    what: str
    ours: Callable[[], tuple[Floats, Floats]]
    library: Callable[[], Floats] | None
    told: str
    """which"""
