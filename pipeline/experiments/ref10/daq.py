"""The data acquisition of REF10, played: RAW files a stream and lumisection, and what it records of them.

run000101/physics/run000101_lumi0003.root     every event
run000101/express/run000101_lumi0003.root     copies of some, for express
run000101/lumi0003.json                       end of lumisection: what was written of it, and its status
run000101/run.json                            end of run: what it consisted of
online_pedestal.npz                           the tables that zero suppression works with
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import uproot
from numpy.typing import NDArray

from calib.iov import RunLumi
from calib.payload import Payload
from jobs.reduction import FileRecord
from pipeline.experiments.ref10.running import RunClass, Running
from pipeline.experiments.simulated import Probe
from pipeline.model import Columns, Stream
from pipeline.whole import checksum_of, whole, write_whole

TREE = "Events"
TABLES = "online_pedestal.npz"
LUMI_SECONDS = 23.31
"""2^18 orbits of 88.9 us"""

MINIMUM_BIAS, DIMUON, NZS = 1, 2, 4
"""trigger bits"""
TRIGGERS = {"minimum_bias": MINIMUM_BIAS, "dimuon": DIMUON, "nzs": NZS}
"""name to bit; events without zero suppression (`nzs`) are of minimum bias too"""


class Format(StrEnum):
    """How RAW is written."""

    TTREE = "ttree"
    RNTUPLE = "rntuple"


def fired(events: Columns) -> dict[str, NDArray[np.bool_]]:
    """Which events fired each trigger, by their bits `trig`."""
    trig = np.asarray(events["trig"])
    return {name: trig & np.uint32(bit) != 0 for name, bit in TRIGGERS.items()}


def express_events(raw: Columns, share: int) -> NDArray[np.bool_]:
    """Which events are copied to the express stream: dimuons, NZS, and every `share`-th of the others by number."""
    picked: NDArray[np.bool_] = (np.asarray(raw["trig"]) & (DIMUON | NZS) != 0) | (
        np.asarray(raw["event"]) % share == 0
    )
    return picked


def stream_of(path: Path) -> Stream:
    """The stream of a RAW file, by the folder it lies in."""
    return Stream.EXPRESS if path.parent.name == Stream.EXPRESS else Stream.PHYSICS


def folder_of(folder: Path, run: int) -> Path:
    """Where the files of a run go."""
    return folder / f"run{run:06d}"


def raw_path(folder: Path, stream: Stream, at: RunLumi) -> Path:
    """Where the RAW of a lumisection goes."""
    return folder_of(folder, at.run) / stream.value / f"run{at.run:06d}_lumi{at.lumi:04d}.root"


def write_raw(path: Path, columns: Columns, form: Format, probe: Probe) -> FileRecord:
    """Write RAW columns as one file, whole; one basket or cluster, as the lumisection is what is read at a time."""
    branches = _branches(columns)
    types = {name: _type(values) for name, values in branches.items()}
    with whole(path, probe) as partial:
        with uproot.recreate(partial, compression=uproot.ZSTD(1)) as file:
            made = file.mktree(TREE, types) if form is Format.TTREE else file.mkrntuple(TREE, types)
            if len(branches["event"]):
                made.extend(branches)
        size, checksum = partial.stat().st_size, checksum_of(partial)
    return FileRecord(str(path), size, checksum)


def _branches(columns: Columns) -> dict[str, Any]:
    return {
        name: values if isinstance(values, np.ndarray) else ak.to_packed(values) for name, values in columns.items()
    }


def _type(values: Any) -> Any:
    return values.dtype if isinstance(values, np.ndarray) else str(ak.type(values).content)


def end_of_lumi(at: RunLumi, files: Mapping[Stream, tuple[FileRecord, int]], running: Running) -> dict[str, Any]:
    """The record that closes a lumisection: its status bits, the field [tesla] as it is measured, and by stream the
    file that was written of it, its events and checksum."""
    streams = {
        stream.value: {
            "file": Path(record.path).name,
            "events": events,
            "bytes": record.size,
            "sha256": record.checksum,
        }
        for stream, (record, events) in files.items()
    }
    head = {"run": at.run, "lumi": at.lumi, "seconds": LUMI_SECONDS}
    return {**head, "status": running.status, "field_tesla": round(running.field_tesla, 1), "streams": streams}


def end_of_run(run: int, run_class: RunClass, lumis: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The record that closes a run: its class, fill (none if not of collisions), least and largest field [tesla], and
    what was written of it by stream."""
    total = {
        stream.value: {
            "files": len(lumis),
            "events": sum(lumi["streams"][stream.value]["events"] for lumi in lumis),
            "bytes": sum(lumi["streams"][stream.value]["bytes"] for lumi in lumis),
        }
        for stream in Stream
    }
    numbers = [lumi["lumi"] for lumi in lumis]
    seconds = sum(lumi["seconds"] for lumi in lumis)
    fields = [lumi["field_tesla"] for lumi in lumis]
    fill = 1000 + run // 10 if run_class is RunClass.COLLISIONS else None
    head = {"run": run, "class": run_class.value, "fill": fill, "field_tesla": [min(fields), max(fields)]}
    return {**head, "lumis": [min(numbers), max(numbers)], "seconds": round(seconds, 2), "streams": total}


def write_record(path: Path, record: Mapping[str, Any], probe: Probe) -> FileRecord:
    """Write a record whole, as JSON."""
    size, checksum = write_whole(path, json.dumps(record, indent=1).encode(), probe)
    return FileRecord(str(path), size, checksum)


def write_tables(path: Path, online: Payload, probe: Probe) -> None:
    """The pedestals that zero suppression works with, as `tier0 conditions upload pedestal` reads them."""
    with whole(path, probe) as partial, partial.open("wb") as file:
        arrays: dict[str, Any] = {**online.arrays, "units": np.array(json.dumps(dict(online.units)))}
        np.savez_compressed(file, **arrays)


def lumi_record(folder: Path, at: RunLumi) -> Path:
    """Where the record of a lumisection goes."""
    return folder_of(folder, at.run) / f"lumi{at.lumi:04d}.json"


def run_record(folder: Path, run: int) -> Path:
    """Where the record of a run goes."""
    return folder_of(folder, run) / "run.json"
