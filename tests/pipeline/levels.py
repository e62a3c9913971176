"""The tiny experiment with calibrations that go after each other, and one that iterates.

    first -> second -> third, first -> other          turned (iterates) -> last

What each measures is wrong by what those before it have not been corrected for.
"""

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import awkward as ak
import numpy as np

from calib.calibration import Granularity, at_finalize
from calib.iteration import Iterated
from calib.payload import Payload
from pipeline.experiments.interface import Processed, Restart
from pipeline.model import Step
from tests.pipeline.tiny import Offset, Tiny
from tests.pipeline.triggered import Triggered

KINDS = ("first", "second", "other", "third", "turned", "last")


def mean(kind, value, hits=0):
    """A payload of these kinds."""
    return Payload(kind, {"mean": np.float64(value), "hits": np.int64(hits)}, {"mean": "cm"})


@dataclass(frozen=True, kw_only=True)
class Level(Offset):
    """The mean of what is measured for a kind."""

    def accumulate(self, columns, conditions):
        return super().accumulate({**columns, "hit": columns[f"for_{self.kind}"]}, conditions)

    def finalize(self, state, previous):
        made = super().finalize(state, previous)
        return mean(self.kind, float(made["mean"]), int(made["hits"]))


class First(Level):
    """Of what only RAW has."""

    kind: ClassVar[str] = "first"
    reads: ClassVar[tuple[str, ...]] = ("for_first",)


class Second(Level):
    kind: ClassVar[str] = "second"
    reads: ClassVar[tuple[str, ...]] = ("for_second",)
    after: ClassVar[tuple[str, ...]] = ("first",)


class Other(Level):
    kind: ClassVar[str] = "other"
    reads: ClassVar[tuple[str, ...]] = ("for_second",)
    after: ClassVar[tuple[str, ...]] = ("first",)

    def accumulate(self, columns, conditions):
        return super().accumulate({**columns, "for_other": columns["for_second"]}, conditions)


class Third(Level):
    kind: ClassVar[str] = "third"
    reads: ClassVar[tuple[str, ...]] = ("for_third",)
    after: ClassVar[tuple[str, ...]] = ("second",)


class Last(Level):
    kind: ClassVar[str] = "last"
    reads: ClassVar[tuple[str, ...]] = ("for_last",)
    after: ClassVar[tuple[str, ...]] = ("turned",)


@dataclass(frozen=True, kw_only=True)
class Turned(Level, Iterated):
    """Takes but a part of what is left at each step."""

    kind: ClassVar[str] = "turned"
    reads: ClassVar[tuple[str, ...]] = ("for_turned",)

    part: float = at_finalize(0.75)
    small: float = at_finalize(0.1)
    waits_for: str = at_finalize("")
    """a file that somebody else must write first"""
    granularity: Granularity = at_finalize(Granularity.RUN)

    def finalize(self, state, previous):
        until = time.monotonic() + 60.0
        while self.waits_for and not Path(self.waits_for).exists():
            if time.monotonic() > until:
                raise RuntimeError("nobody has written it")
            time.sleep(0.02)
        left = super().finalize(state, None)
        return mean("turned", float(previous["mean"]) + self.part * float(left["mean"]), int(left["hits"]))

    def moved(self, payload, previous):
        return abs(float(payload["mean"]) - float(previous["mean"])) / self.small


class Levels(Tiny):
    """What acts does so behind the tier. From where it started goes to files `log`.RAW and `log`.HITS."""

    name = "levels"
    tiers: ClassVar[tuple[str, ...]] = ("HITS", "MOVED")
    default_tiers: ClassVar[tuple[str, ...]] = ("MOVED",)

    def __init__(self, settings=None, log: Path | None = None) -> None:
        super().__init__(settings)
        self.log = log

    def process(self, step, events, conditions):
        self.note("RAW")
        hits = events["hit"][events["hit"] < self.settings.cut]
        none = ak.to_numpy(ak.num(hits)) == 0
        made = self.moved(step, hits[~none], conditions, {"no hit": none})
        return Processed(made.tiers, {**made.measured, "for_first": hits[~none]}, made.filtered)

    def moved(self, step, hits, conditions, filtered):
        first, second, turned = (float(conditions[kind]["mean"]) for kind in ("first", "second", "turned"))
        measured = {
            "hit": hits - first,
            "for_second": hits - first + 1.0,
            "for_third": hits - first - second + 3.0,
            "for_turned": hits - turned,
            "for_last": hits - turned + 2.0,
        }
        return Processed({"HITS": {"hit": hits}, "MOVED": {"hit": hits - first}}, measured, filtered)

    def restarts(self, step):
        return (Restart("HITS", ("first", "second", "turned"), partial(self.again, step), ("first",)),)

    def again(self, step, stored, conditions):
        self.note("HITS")
        return self.moved(step, stored["hit"], conditions, {})

    def calibrations(self):
        return (First(), Second(), Other(), Third(), Turned(), Last())

    def needs(self, step):
        return KINDS

    def initial_conditions(self):
        return {kind: mean(kind, 0.0) for kind in self.needs(Step.PROMPT)}

    def note(self, words: str) -> None:
        if self.log is not None:
            with Path(f"{self.log}.{words}").open("a") as log:
                log.write(f"{words}\n")


class Sorted(Levels):
    """With triggers; not all that is calibrated is used in prompt."""

    triggers = Triggered.triggers

    def needs(self, step):
        return KINDS if step is Step.EXPRESS else ("first", "second", "turned")
