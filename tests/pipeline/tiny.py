"""A tiny experiment: one jagged column, a calibration that is an exact mean, and files made in milliseconds.

Everything real but the physics, so that whole chains can be run, cut, killed and repeated by the hundred.
"""

import time
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import ClassVar

import awkward as ak
import numpy as np
import uproot

from calib.accumulators import UnitSums
from calib.boundaries import Interval
from calib.calibration import Calibration, Granularity, NotConverged, NotEnoughData, at_finalize, packed_units
from calib.iov import RunLumi
from calib.payload import Payload
from calib.state import State
from pipeline.columns import flat_by_unit
from pipeline.experiments.interface import (
    Experiment,
    ExperimentSettings,
    MissingBranch,
    Processed,
    QualityHistogram,
    QualityTest,
    Wanted,
)
from pipeline.model import Keys, Step


@dataclass(frozen=True, kw_only=True)
class Offset(Calibration):
    """The mean of all hits of a run, in whole thousandths so that it is exact."""

    kind: ClassVar[str] = "offset"
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ("hit",)

    scale: int = 1000
    min_hits: int = at_finalize(10)
    diverges: bool = at_finalize(False)
    breaks: bool = at_finalize(False)
    hangs_s: float = at_finalize(0.0)
    granularity: Granularity = at_finalize(Granularity.RUN)
    veto: int = at_finalize(0)
    """a lumisection that is said to be off, at granularity lumi"""

    def cut(self, state, flush):
        units = tuple(state.units().tolist())
        return [Interval(units, flush, tuple(unit for unit in units if RunLumi.unpack(unit).lumi == self.veto))]

    def accumulate(self, columns, conditions):
        units, hits = flat_by_unit(columns, "hit")
        counted = np.rint(np.asarray(hits, np.float64) * self.scale).astype(np.int64)
        events = packed_units(columns)
        sums = UnitSums.of_rows(units, np.stack([np.ones_like(counted), counted], axis=1))
        seen = UnitSums.of_rows(events, np.zeros((len(events), 2), np.int64))
        return State({"hits": sums.merge(seen)})

    def empty(self):
        return State({"hits": UnitSums.empty((2,))})

    def finalize(self, state, previous):
        number, total = state["hits"].total().tolist()
        time.sleep(self.hangs_s)
        if self.breaks:
            raise RuntimeError("the calibration has a fault")
        if number < self.min_hits:
            raise NotEnoughData(f"{number} hits of {self.min_hits}")
        mean = Fraction(total, number * self.scale)
        made = Payload("offset", {"mean": np.float64(float(mean)), "hits": np.int64(number)}, {"mean": "cm"})
        if self.diverges:
            raise NotConverged("it was told to diverge", made)
        return made


class TinySettings(ExperimentSettings):
    """What may be set."""

    cut: float = 100.0
    initial: bool = True
    pause_s: float = 0.0


class Tiny(Experiment):
    """Reads `tiny` files: run, lumi, event, hit[]."""

    name = "tiny"
    tree = "Events"
    unit_name = "spill"
    versions: ClassVar[dict[Step, int]] = {Step.EXPRESS: 1, Step.PROMPT: 1}
    settings_model = TinySettings

    def identify(self, source, start, stop):
        read = source.arrays(self.tree, ("run", "lumi", "event"), start, stop)
        return Keys(*(np.asarray(read[name], np.int64) for name in ("run", "lumi", "event")))

    def wanted(self, step, branches):
        if "hit" not in branches:
            raise MissingBranch("no column hit")
        return Wanted(("hit",), {} if "extra" in branches else {"extra": "the file has no column extra"})

    def process(self, step, events, conditions):
        if self.settings.pause_s:
            time.sleep(self.settings.pause_s)
        hits = events["hit"][events["hit"] < self.settings.cut]
        none = ak.to_numpy(ak.num(hits)) == 0
        kept = hits[~none]
        if step is Step.PROMPT:
            kept = kept - float(conditions["offset"]["mean"])
        return Processed({step.value.upper(): {"hit": kept}}, {"hit": kept}, {"no hit": none})

    def calibrations(self):
        return (Offset(),)

    def needs(self, step):
        return ("offset",) if step is Step.PROMPT else ()

    def initial_conditions(self):
        start = Payload("offset", {"mean": np.float64(0.0), "hits": np.int64(0)}, {"mean": "cm"})
        return {"offset": start} if self.settings.initial else {}

    def histograms(self, step):
        return (QualityHistogram("hit", "hit", tuple(np.linspace(-10, 10, 41)), "cm", "hits"),)

    def quality_tests(self):
        return (QualityTest("hit mean", "hit", low=-1.0, high=1.0, entries=5),)


def write_file(path: Path, number: int, lumis: int = 4, events: int = 5, mean: float = 1.5, hits=True, **more) -> Path:
    """A file of run `number`, `events` in each lumisection; every seventh event without a hit; `more` columns."""
    rng = np.random.default_rng(number)
    n = lumis * events
    counts = np.where(np.arange(n) % 7 == 3, 0, rng.integers(1, 5, n))
    columns = {
        "run": np.full(n, number, np.uint32),
        "lumi": np.repeat(np.arange(1, lumis + 1), events).astype(np.uint32),
        "event": np.arange(1, n + 1, dtype=np.uint64),
    }
    if hits:
        columns["hit"] = ak.unflatten(mean + 0.1 * rng.standard_normal(counts.sum()), counts)
    columns |= more
    path.parent.mkdir(parents=True, exist_ok=True)
    with uproot.recreate(path) as file:
        file.mktree("Events", {name: _type(values) for name, values in columns.items()})
        if n:
            file["Events"].extend(columns)
    return path


def write_units(path: Path, run: int, units, events: int = 5, first_event: int = 1) -> Path:
    """A file of one run with just these lumisections, `events` in each."""
    n = len(units) * events
    numbers = np.arange(first_event, first_event + n, dtype=np.uint64)
    lumi = np.repeat(np.asarray(units), events).astype(np.uint32)
    return write_file(path, run, len(units), events, lumi=lumi, event=numbers)


def _type(values):
    return values.dtype if isinstance(values, np.ndarray) else ak.type(values).content


def settings(area: Path, **sections) -> dict:
    """Settings of a small Tier-0 over the tiny experiment; sections are merged in."""
    found = {
        "experiment": {"name": "tests.pipeline.tiny:Tiny"},
        "storage": {"area": str(area)},
        "cluster": {"kind": "local", "workers": 2, "dashboard_port": 0},
        "splitting": {"events": 5, "block_events": 3, "fan_in": 2},
    }
    for name, section in sections.items():
        found[name] = found.get(name, {}) | section if isinstance(section, dict) else section
    return found
