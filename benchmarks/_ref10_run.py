"""One run of REF10 through the chain, and the conditions that it began with and that were found, in a store beside."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from benchmarks._ref10_played import RUN, Conditions
from calib.iov import RunLumi
from calib.payload import Payload, PayloadStore
from pipeline.experiments.ref10 import daq
from pipeline.experiments.ref10.experiment import Ref10
from pipeline.experiments.ref10.geometry import GEOMETRIES, geometry_of
from pipeline.experiments.ref10.simulate.scenario import Scenario, online
from pipeline.experiments.simulated import Order
from pipeline.tier0 import Tier0

STORE, FOUND = "conditions", "found.json"


@dataclass(frozen=True)
class Plan:
    """A run, and how it is worked through."""

    seed: int
    scenario: Scenario
    geometry: str = "full"
    lumis: int = 20
    events: int = 2700
    """of a lumisection, of which two in five go to express"""
    workers: int = 2

    @property
    def order(self) -> Order:
        return Order(self.seed, self.lumis, self.events, scenario=self.scenario.to_json())

    @property
    def experiment(self) -> Ref10:
        return Ref10({"geometry": self.geometry})

    def settings(self, folder: Path) -> dict[str, Any]:
        """Of the chain."""
        return {
            "experiment": {"name": "ref10", "settings": {"geometry": self.geometry}},
            "storage": {"area": str(folder / "area")},
            "cluster": {"kind": "local", "workers": self.workers},
            "splitting": {"events": 500},
            # What does not come to a result is told below, as figures that are missed.
            "handshake": {"failed": "fallback"},
        }

    def before(self) -> dict[str, Payload]:
        """What is known before the first run: the detector as designed, and the tables of the DAQ."""
        tables = online(self.scenario, geometry_of(GEOMETRIES[self.geometry]()), self.seed)
        return {**self.experiment.initial_conditions(), tables.kind: tables}


@dataclass(frozen=True)
class Stored:
    """A belief: conditions of a store instead of those that are true."""

    folder: Path
    ids: tuple[tuple[str, str], ...]

    def __call__(self, real: Conditions) -> Conditions:
        return {**real, **_read(self.folder, self.ids)}


@lru_cache(maxsize=4)
def _read(folder: Path, ids: tuple[tuple[str, str], ...]) -> Mapping[str, Payload]:
    store = PayloadStore(folder)
    return {kind: store.get(one) for kind, one in ids}


@dataclass(frozen=True)
class Derived:
    """What came of a run: beliefs at one of its lumisections, and what was told."""

    before: Stored
    after: Stored
    express: int
    """events that it was found from"""
    told: str


def derived(plan: Plan, folder: Path, lumi: int) -> Derived:
    """Simulate a run, work it through, and store what was known before and is found; what is done stays done."""
    path = folder / FOUND
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(_worked(plan, folder, RunLumi(RUN, lumi))))
    kept = json.loads(path.read_text())
    beliefs = (Stored(folder / STORE, tuple(map(tuple, kept[name]))) for name in ("before", "after"))
    return Derived(*beliefs, kept["express"], kept["told"])


def _worked(plan: Plan, folder: Path, at: RunLumi) -> dict[str, Any]:
    store, before, data = PayloadStore(folder / STORE), plan.before(), folder / "data"
    with Tier0(plan.settings(folder), plan.experiment) as tier0:
        files = tier0.simulate(data, [RUN], plan.order)
        tier0.conditions.upload("pedestal", data / daq.TABLES, "0", "the tables that the DAQ works with")
        summary = tier0.run(*files)
        told = summary.text()
        if summary.unfinished:
            raise SystemExit(f"{told}\n{tier0.why(RUN)}")
        found = dict(before)
        for kind in {calibration.kind for calibration in plan.experiment.calibrations()}:
            [payload] = [one.payload for one in tier0.conditions.intervals(kind) if one.iov.contains(at)]
            found[kind] = payload
    return {
        "before": sorted((kind, store.put(payload)) for kind, payload in before.items()),
        "after": sorted((kind, store.put(payload)) for kind, payload in found.items()),
        "express": summary[RUN].express.out,
        "told": told,
    }
