"""A beam that drifts, modules that are displaced and pedestals that move, on the mini detector: put in and found."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from calib.iov import RunLumi
from pipeline.experiments.ref10 import alignment, constants, daq
from pipeline.experiments.ref10.demonstrated import BEAM, PEDESTAL, Seen, Truth, seen
from pipeline.experiments.ref10.demonstration_picture import picture
from pipeline.experiments.ref10.tiers import AOD
from pipeline.experiments.ref10.upright import UM
from pipeline.experiments.simulated import Comparison, Demonstration, Found, Order, Upload
from pipeline.tables import as_text

RUNS = (101, 102, 103)
ALIGNED = RUNS[1]
"""the run from which on the conditions know where the modules are"""
LUMIS = 5
STEP = RunLumi(RUNS[2], 3)

# Every event is read out in part without zero suppression, so that a minute of it carries pedestals; in a real run
# 2 in 100 are, and it lasts for hours. For the beam, too, there are more tracks. The Lorentz angle is as designed:
# it moves d0 by 10 um, ladder by ladder in turn, which is another thing than what is looked for here.
SCENARIO: Mapping[str, Any] = {
    "first_run": RUNS[0],
    "beam": {"drift_um": 20.0, "step_um": 80.0, "step": {"since": str(STEP)}},
    "physics": {"nzs": 1.0, "tracks": 20.0},
    "tangents": constants.DESIGN_TANGENTS,
    "faults": {"shifted": {"since": str(RUNS[1])}, "pedestal_drift": 0.5},
}

NEVER = {"min_records": 10**9}
"""settings of an alignment that is not to be made"""

MOST_PULL = 5.0
"""further off than so many errors is not as it was put in"""
FORMULA = 0.15
"""share of what a misalignment does to which it is worked out: as in benchmarks/ref10_damage.py"""


@dataclass(frozen=True)
class Row:
    """One number of the table; `within` is how well what was put in is known."""

    run: str
    what: str
    unit: str
    put_in: float
    found: float
    error: float
    within: float = 0.0

    @property
    def pull(self) -> float:
        """How far off, in errors."""
        return (self.found - self.put_in) / float(np.hypot(self.error, self.within))

    @property
    def off(self) -> bool:
        """Whether it is not what was put in."""
        return not abs(self.pull) <= MOST_PULL

    def cells(self) -> list[str]:
        """As the table has them, with two digits of the error."""
        digits = max(0, 1 - int(np.floor(np.log10(self.error)))) if self.error > 0 else 2
        known = f" ± {self.within:.{digits}f}" if self.within else ""
        numbers = [f"{self.put_in:.{digits}f}{known}", f"{self.found:.{digits}f}", f"{self.error:.{digits}f}"]
        return [self.run, self.what, self.unit, *numbers, f"{self.pull:+.1f}"]


@dataclass(frozen=True)
class Ref10Demonstration(Demonstration):
    """Three runs. Express measures pedestals and the beam, prompt uses them; where modules are is told from outside."""

    title: ClassVar[str] = (
        "Three runs of REF10 (its mini detector). The beam drifts by 20 um a lumisection and jumps by 80 um at "
        f"{STEP}; pedestals drift by 0.5 ADC (rms) a run, those of one chip in twenty jump by one sigma with run "
        f"{RUNS[1]}; modules are displaced by some 50 um, which the conditions know from run {ALIGNED} on"
    )
    settings: ClassVar[Mapping[str, Any]] = {
        "experiment": {"name": "ref10", "settings": {"geometry": "mini"}},
        "splitting": {"events": 500},
        # Pedestals drift by more than is usual, and where the modules are is not looked for: experts find it.
        "calibration": {PEDESTAL: {"min_entries": 50, "steady": 0.0, "steady_noise": 0.0}, alignment.KIND: NEVER},
        # What is found is to be seen of each run, also where it is what it was.
        "gates": {PEDESTAL: []},
    }
    runs: ClassVar[tuple[int, ...]] = RUNS
    order: ClassVar[Order] = Order(seed=1, lumis=LUMIS, events=240, scenario=json.dumps(SCENARIO))
    kinds: ClassVar[tuple[str, ...]] = (PEDESTAL, BEAM)
    tier: ClassVar[str] = AOD

    def uploads(self, data: Path) -> tuple[Upload, ...]:
        """The tables of the DAQ; and later the alignment, as its experts would find it."""
        aligned = _truth(data).file(alignment.KIND, RunLumi(ALIGNED, 1))
        return (
            Upload(PEDESTAL, data / daq.TABLES, "the tables that the DAQ works with"),
            Upload(alignment.KIND, aligned, "where the modules really are", since=str(ALIGNED)),
        )

    def compared(self, data: Path, found: Found) -> Comparison:
        """The beam, d0 against phi and pedestals, with errors and pulls."""
        both = seen(found, RUNS, _truth(data))
        rows = [*_of_beam(both), *_of_alignment(both), *_of_pedestals(both)]
        heads = ["run", "what", "unit", "put in", "found", "error", "pull"]
        table = as_text(heads, [row.cells() for row in rows], "put in, and found")
        wrong = [f"run {row.run}, {row.what}: {row.pull:+.1f} errors off" for row in rows if row.off]
        return Comparison("\n".join([table, *_pulls(both)]), tuple(wrong), partial(picture, both, ALIGNED, FORMULA))


def _truth(data: Path) -> Truth:
    return Truth(data, LUMIS)


def _of_beam(both: Seen) -> Iterator[Row]:
    """Where the beam is, by interval; where the alignment is not known, with what that makes of it."""
    for one in both.beam:
        blind = one.run < ALIGNED
        moved = both.tracks[one.run].beam_moved if blind else (0.0, 0.0)
        lumis = f"{one.run}:{one.first}" + (f"-{one.last}" if one.last > one.first else "")
        for axis, of, more in zip("xy", (one.x, one.y), moved, strict=True):
            put_in, found, error = of
            what = f"beam {axis}" + (f", with {more / UM:+.0f} of the misalignment" if blind else "")
            yield Row(lumis, what, "um", put_in + more / UM, found, error, FORMULA * abs(more / UM))


def _of_alignment(both: Seen) -> Iterator[Row]:
    """How far d0 goes with phi: as the misalignment makes it, and, where that is known, not at all."""
    for run, tracks in both.tracks.items():
        by_formula, found, error = tracks.amplitude
        blind = run < ALIGNED
        what = "d0 against phi, rms, " + ("designed geometry" if blind else "alignment uploaded")
        yield Row(str(run), what, "um", by_formula if blind else 0.0, found, error, FORMULA * by_formula * blind)


def _of_pedestals(both: Seen) -> Iterator[Row]:
    for run, pedestals in both.pedestals.items():
        if run > RUNS[0]:
            yield Row(str(run), "pedestals, drift (rms)", "ADC", *pedestals.drift)
        yield Row(str(run), "pedestals, jump of chips", "ADC", *pedestals.jump)


def _pulls(both: Seen) -> Iterator[str]:
    for run, pedestals in both.pedestals.items():
        pulls = pedestals.pulls
        yield f"run {run}, pulls of {len(pulls)} pedestals: mean {pulls.mean():+.3f}, width {pulls.std():.3f}"
