"""What calibrations cost beside REF10's express reconstruction, of which they are to take a quarter at the most."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from calib.calibration import Calibration
from calib.payload import Payload
from pipeline.experiments.collisions import Collection
from pipeline.experiments.ref10 import daq, measured
from pipeline.experiments.ref10.experiment import Ref10
from pipeline.experiments.ref10.geometry import GEOMETRIES, geometry_of
from pipeline.experiments.ref10.measured_alignment import alignment_columns
from pipeline.experiments.ref10.measured_charge import charge_columns
from pipeline.experiments.ref10.measured_status import status_columns
from pipeline.experiments.ref10.quality import Ref10Settings
from pipeline.experiments.ref10.reconstruct.objects import Objects, objects
from pipeline.experiments.ref10.reconstruct.stages import reconstruct
from pipeline.experiments.ref10.simulate.events import simulate
from pipeline.experiments.ref10.simulate.scenario import Physics, Scenario, truth

RUN, LUMI = 7, 1
SCENARIO = Scenario(physics=Physics(pile_up=1.0))
"""two vertices an event on average"""
MOST = 0.25
"""of express reconstruction"""

Columns = Mapping[str, Any]


@dataclass(frozen=True)
class Seen:
    """Some events and what reconstruction makes of them."""

    events: Columns
    clusters: Collection
    masked: Collection
    found: Objects
    conditions: Mapping[str, Payload]
    settings: Ref10Settings


MAKERS: Mapping[str, Callable[[Seen], dict[str, Any]]] = {
    "pedestal": lambda seen: measured.pedestal_columns(seen.events, seen.conditions),
    "status": lambda seen: status_columns(seen.clusters, seen.masked, seen.conditions),
    "gain, Lorentz angle": lambda seen: charge_columns(seen.clusters, seen.found, seen.conditions),
    "alignment": lambda seen: alignment_columns(seen.clusters, seen.found, seen.conditions),
    "beam spot": lambda seen: measured.of_tracks(seen.found, seen.settings, seen.conditions),
}
"""columns of calibrations; those of the beam spot are also what quality looks at"""


@dataclass(frozen=True)
class Share:
    """Milliseconds of one core an event."""

    what: str
    columns: float
    accumulate: Mapping[str, float]
    """by kind"""

    @property
    def total(self) -> float:
        return self.columns + sum(self.accumulate.values())


@dataclass(frozen=True)
class Shares:
    """Of events of so many vertices, ms an event."""

    events: int
    reconstruction: float
    of: tuple[Share, ...]

    @property
    def whole(self) -> float:
        """All calibrations over reconstruction."""
        return sum(share.total for share in self.of) / self.reconstruction


def shares(geometry: str, events: int, rounds: int) -> Shares:
    """What reconstruction costs, and each calibration that has its columns."""
    settings = Ref10Settings(geometry=geometry)
    plan = geometry_of(GEOMETRIES[geometry]())
    raw = dict(simulate(SCENARIO, plan, 1, RUN, LUMI, np.arange(events)).raw)
    conditions = truth(SCENARIO, plan, 1, RUN, LUMI)
    fired = daq.fired(raw)["dimuon"]
    unpacked = reconstruct(raw, conditions)
    clusters = unpacked.clusters
    seen = Seen(raw, clusters, unpacked.masked, objects(clusters, fired, conditions), conditions, settings)
    spent = best(rounds, lambda: reconstruct(raw, conditions)) + best(
        rounds, lambda: objects(clusters, fired, conditions)
    )
    calibrations = {c.kind: c for c in Ref10(settings).calibrations()}
    of = []
    for what, make in MAKERS.items():
        columns = {name: raw[name] for name in ("run", "lumi", "event")} | make(seen)
        mine = [c for c in calibrations.values() if set(c.reads) <= columns.keys()]
        accumulate = {c.kind: best(rounds, _accumulate(c, columns, conditions)) / events for c in mine}
        of.append(Share(what, best(rounds, lambda make=make: make(seen)) / events, accumulate))
    return Shares(events, spent / events, tuple(of))


def _accumulate(calibration: Calibration, columns: Columns, conditions: Mapping[str, Payload]) -> Callable[[], object]:
    return lambda: calibration.accumulate(columns, conditions)


def best(rounds: int, work: Callable[[], object]) -> float:
    """Least CPU time of some rounds, ms."""
    found = float("inf")
    for _ in range(rounds):
        begun = time.process_time()
        work()
        found = min(found, time.process_time() - begun)
    return 1e3 * found


def table(found: Shares) -> str:
    """ms an event, and shares of reconstruction."""
    lines = [
        f"REF10, {found.events} events of two vertices, a chunk: reconstruction {found.reconstruction:.3f} ms an event"
    ]
    lines.append(f"{'':22}{'columns':>10}{'accumulate':>12}{'share':>9}")
    for share in found.of:
        sums = sum(share.accumulate.values())
        kinds = ", ".join(share.accumulate) or "no calibration reads them yet"
        part = f"{100 * share.total / found.reconstruction:8.1f}%"
        lines.append(f"{share.what:22}{share.columns:10.4f}{sums:12.4f}{part}   {kinds}")
    lines.append(f"{'all':22}{'':22}{100 * found.whole:8.1f}%   at most {100 * MOST:g} % are allowed")
    return "\n".join(lines)
