"""REF10 at work: what `tier0 simulate` writes. Data go where a DAQ would put them, the truth to a folder of its own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from calib.iov import RunLumi
from calib.payload import PayloadStore
from jobs.reduction import FileRecord
from pipeline.columns import take
from pipeline.events import read_header, write_tier
from pipeline.experiments.ref10 import daq
from pipeline.experiments.ref10.geometry import GEOMETRIES, Geometry, geometry_of
from pipeline.experiments.ref10.simulate.events import simulate
from pipeline.experiments.ref10.simulate.scenario import Scenario, online, truth
from pipeline.experiments.ref10.simulate.tables import demand_chips
from pipeline.experiments.simulated import Order, OtherData, Probe, Simulation, Written
from pipeline.model import Columns, Stream
from pipeline.whole import write_whole

VERSION = 2
"""raised by hand when the same order would give other data"""

TRUTH = "truth"
EXPRESS_SHARE = 4
"""of the events that are not picked for what they are, every so manieth goes to express"""


@dataclass(frozen=True)
class Ref10Simulation(Simulation):
    """The detector of a geometry under a scenario. Raises ValueError for a format or scenario it does not know."""

    order: Order
    geometry_name: str

    def __post_init__(self) -> None:
        if self.order.form not in ("", *daq.Format):
            raise ValueError(f"RAW is written as {' or '.join(daq.Format)}, not as {self.order.form!r}")
        scenario = Scenario.from_json(self.order.scenario or "{}")
        demand_chips(scenario.faults, self.geometry)

    @property
    def form(self) -> daq.Format:
        """How RAW is written."""
        return daq.Format(self.order.form or daq.Format.TTREE)

    @cached_property
    def scenario(self) -> Scenario:
        """What happens."""
        return Scenario.from_json(self.order.scenario or "{}")

    @property
    def geometry(self) -> Geometry:
        """The detector as drawn."""
        return geometry_of(GEOMETRIES[self.geometry_name]())

    def __getstate__(self) -> dict[str, Any]:
        return {"order": self.order, "geometry_name": self.geometry_name}

    def depends_on(self) -> Mapping[str, Any]:
        """Seed, numbers of events, scenario, geometry and format."""
        order = self.order
        return {
            "version": VERSION,
            "seed": order.seed,
            "lumis": order.lumis,
            "events": order.events,
            "form": self.form,
            "scenario": self.scenario.to_json(),
            "geometry": self.geometry_name,
        }

    def begin(self, folder: Path, probe: Probe) -> None:
        """The tables of the DAQ, and, with the truth, the scenario."""
        self._claim(folder, probe)
        path = folder / daq.TABLES
        if not path.exists():
            daq.write_tables(path, online(self.scenario, self.geometry, self.order.seed), probe)
        write_whole(folder / TRUTH / "scenario.json", self.scenario.to_json().encode(), probe)

    def _claim(self, folder: Path, probe: Probe) -> None:
        """Mark a folder as this detector's; only runs and lumisections may be added to what is there."""
        ours = json.dumps({name: value for name, value in self.depends_on().items() if name != "lumis"}, indent=1)
        path = folder / TRUTH / "order.json"
        if path.exists() and path.read_text() != ours:
            raise OtherData(
                f"{folder} holds data of another seed, scenario, geometry, format or number of events: "
                "give another folder, or the same order as before"
            )
        write_whole(path, ours.encode(), probe)

    def write(self, at: RunLumi, folder: Path, probe: Probe) -> Written:
        """Both streams of a lumisection, its truth, and its record."""
        numbers = np.arange((at.lumi - 1) * self.order.events, at.lumi * self.order.events) + 1
        made = simulate(self.scenario, self.geometry, self.order.seed, at.run, at.lumi, numbers)
        picked = daq.express_events(made.raw, EXPRESS_SHARE)
        parts: dict[Stream, Columns] = {Stream.PHYSICS: made.raw, Stream.EXPRESS: take(made.raw, picked)}
        files = {
            stream: (daq.write_raw(daq.raw_path(folder, stream, at), part, self.form, probe), len(part["event"]))
            for stream, part in parts.items()
        }
        others = [self._write_truth(at, folder, made.truth, probe)]
        record = daq.end_of_lumi(at, files, self.scenario.running(at))
        # Last: who sees the record may rely on the files.
        others.append(daq.write_record(daq.lumi_record(folder, at), record, probe))
        return Written(tuple(record for record, _ in files.values()), tuple(others), record)

    def end_run(self, run: int, folder: Path, records: Sequence[Mapping[str, Any]], probe: Probe) -> None:
        """The record of the run."""
        record = daq.end_of_run(run, self.scenario.running(RunLumi(run)).run_class, records)
        daq.write_record(daq.run_record(folder, run), record, probe)

    def _write_truth(self, at: RunLumi, folder: Path, columns: Columns, probe: Probe) -> FileRecord:
        """The events as they were made, with the true conditions by id in the header; those go to a store beside."""
        payloads = truth(self.scenario, self.geometry, self.order.seed, at.run, at.lumi)
        store = PayloadStore(folder / TRUTH / "conditions")
        header = {"run": at.run, "lumi": at.lumi, "conditions": {kind: store.put(p) for kind, p in payloads.items()}}
        path = _truth_path(folder, at)
        size, checksum, _ = write_tier(path, _separate(columns), header, probe)
        return FileRecord(str(path), size, checksum)


def truth_of(folder: Path, run: int, lumi: int) -> dict[str, str]:
    """Kind to id of the true conditions of a lumisection, in the store `truth/conditions`."""
    found: dict[str, str] = read_header(_truth_path(folder, RunLumi(run, lumi)))["conditions"]
    return found


def _truth_path(folder: Path, at: RunLumi) -> Path:
    return daq.folder_of(folder / TRUTH, at.run) / f"lumi{at.lumi:04d}.root"


def _separate(columns: Columns) -> Columns:
    """Names under which columns of different lengths do not share a counter."""
    return {name.replace("digi_particle", "DigiLink_particle"): values for name, values in columns.items()}
