"""Experiments for closure: the toy collider with a fault in its calibration; the tiny one whose offset has an error.

Tiny takes its offset off in prompt, so what closure finds is what is left of it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from calib.boundaries import Interval
from calib.calibration import Granularity, NotConverged, at_finalize
from calib.payload import Payload
from pipeline.experiments.interface import Processed
from pipeline.experiments.toy_collider import ToyCollider
from pipeline.model import Step
from tests.calib.faulty import DoubledBeamSpot, FlippedBeamSpot
from tests.pipeline.tiny import Offset
from tests.pipeline.triggered import Triggered


class FlippedToy(ToyCollider):
    """The beam spot has the wrong sign."""

    def calibrations(self):
        return (FlippedBeamSpot(),)


class DoubledToy(ToyCollider):
    """The beam spot is there twice."""

    def calibrations(self):
        return (DoubledBeamSpot(),)


@dataclass(frozen=True, kw_only=True)
class Sure(Offset):
    """An offset that knows its error, over so many lumisections each, or all of a run."""

    times: float = at_finalize(1.0)
    """what is made of it times this: 1 is right"""
    together: int = at_finalize(0)
    lost: bool = at_finalize(False)
    """whether it finds no answer where the mean is about nought, as it should be after prompt"""
    granularity: Granularity = at_finalize(Granularity.LUMI)

    def cut(self, state, flush):
        units = state.units().tolist()
        step = self.together or max(len(units), 1)
        parts = [tuple(units[i : i + step]) for i in range(0, len(units), step)]
        return [Interval(part, closed=flush or len(part) == step) for part in parts]

    def finalize(self, state, previous):
        made = super().finalize(state, previous)
        if self.lost and abs(float(made["mean"])) < 0.5:
            raise NotConverged("nothing is there")
        arrays = {**made.arrays, "mean": self.times * made["mean"]}
        arrays["mean_error"] = np.float64(0.1 / np.sqrt(float(made["hits"])))
        return Payload(made.kind, arrays, {"mean": "cm", "mean_error": "cm"})

    def left_by(self, in_force):
        return Payload(in_force.kind, {**in_force.arrays, "mean": np.float64(0.0)}, in_force.units)


class Closing(Triggered):
    """Reads `tiny` files with or without trigger bits."""

    name = "closing"
    applies: ClassVar[float] = 1.0
    """how often prompt takes the offset off"""

    def process(self, step, events, conditions):
        made = super().process(step, events, conditions)
        if step is Step.EXPRESS or self.applies == 1.0:
            return made
        more = (self.applies - 1.0) * float(conditions["offset"]["mean"])
        return Processed(made.tiers, {"hit": made.measured["hit"] - more}, made.filtered)

    def calibrations(self):
        return (Sure(),)

    def quality_tests(self):
        return ()


class AppliesTwice(Closing):
    """Takes the offset off two times."""

    applies = 2.0


class AppliesWrongly(Closing):
    """Adds the offset."""

    applies = -1.0


@dataclass(frozen=True, kw_only=True)
class Stumbling(Sure):
    """Finds the same, but its code stumbles in closure for as long as a file is there."""

    kind: ClassVar[str] = "stumbling"
    over: str = at_finalize("")

    def finalize(self, state, previous):
        made = super().finalize(state, previous)
        if abs(float(made["mean"])) < 0.5 and Path(self.over).exists():
            raise RuntimeError("an index is out of bounds")
        return Payload(self.kind, dict(made.arrays), made.units)


class OneStumbles(Closing):
    """A second calibration of the same."""

    def calibrations(self):
        return (Sure(), Stumbling())

    def initial_conditions(self):
        given = super().initial_conditions()
        offset = given["offset"]
        return {**given, "stumbling": Payload("stumbling", dict(offset.arrays), offset.units)}


class Silent(Closing):
    """Does not measure in prompt what its calibration reads."""

    def process(self, step, events, conditions):
        made = super().process(step, events, conditions)
        return made if step is Step.EXPRESS else Processed(made.tiers, {}, made.filtered)
