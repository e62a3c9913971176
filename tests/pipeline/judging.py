"""The tiny experiment with a figure of merit: prompt's hits should lie about nought."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from calib.boundaries import Interval
from calib.calibration import Granularity, at_finalize
from calib.payload import Payload
from pipeline.experiments.interface import Measure, Merit
from tests.pipeline.tiny import Offset, Tiny


@dataclass(frozen=True, kw_only=True)
class Skewed(Offset):
    """An offset that may be told to come out wrong for one run."""

    wrong_by: float = at_finalize(0.0)
    in_run: int = at_finalize(0)

    def finalize(self, state, previous):
        made = super().finalize(state, previous)
        run = int(state.units()[0] >> 32)
        shift = self.wrong_by if run == self.in_run else 0.0
        return Payload("offset", {**made.arrays, "mean": np.float64(float(made["mean"]) + shift)}, made.units)


@dataclass(frozen=True, kw_only=True)
class Later(Skewed):
    """The next version: on the same states it makes an offset half a centimetre larger."""

    version: ClassVar[int] = 2

    def finalize(self, state, previous):
        made = super().finalize(state, previous)
        return Payload("offset", {**made.arrays, "mean": np.float64(float(made["mean"]) + 0.5)}, made.units)


@dataclass(frozen=True, kw_only=True)
class Gathered(Offset):
    """An offset over so many lumisections, whatever runs they are of."""

    enough: int = at_finalize(6)
    granularity: Granularity = at_finalize(Granularity.SPAN)

    def cut(self, state, flush):
        units = state.units().tolist()
        parts = [tuple(units[i : i + self.enough]) for i in range(0, len(units), self.enough)]
        return [Interval(part, closed=flush or len(part) == self.enough) for part in parts]


class Gathering(Tiny):
    """Tiny, whose intervals close when they hold enough."""

    name = "gathering"

    def calibrations(self):
        return (Gathered(),)


class Judged(Tiny):
    """Tiny, whose offset may come out wrong, and is seen to."""

    name = "judged"

    def calibrations(self):
        return (Skewed(),)

    def merits(self):
        return (Merit("hits about nought", "hit", Measure.OFFSET, 0.05, entries=10),)
