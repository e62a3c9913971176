"""From flat arrays to the columns of RAW and truth; see events.Simulated for their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import awkward as ak
import numpy as np
from numpy.typing import DTypeLike, NDArray

from calib.iov import RunLumi
from pipeline.experiments.ref10.geometry import Geometry
from pipeline.experiments.ref10.layers import STRIPS
from pipeline.experiments.ref10.simulate.cells import NOBODY
from pipeline.experiments.ref10.simulate.full_readout import FullReadout
from pipeline.experiments.ref10.simulate.helix import Flight, at_axis
from pipeline.experiments.ref10.simulate.particles import Header, Particles, Vertices
from pipeline.experiments.ref10.simulate.response import Digis
from pipeline.experiments.ref10.simulate.stages import Charges, Traces

Ints = NDArray[np.int64]
Columns = dict[str, Any]

Part = tuple[NDArray[Any], Ints | None]
"""flat values of some events, and how many each event has; None: one"""
Parts = dict[str, Part]


def joined(blocks: Sequence[Mapping[str, Part]]) -> Columns:
    """The columns of blocks of events, one after the other: NumPy with one value an event, awkward with several."""
    columns: Columns = {}
    for name in blocks[0]:
        values = np.concatenate([block[name][0] for block in blocks])
        counts = [block[name][1] for block in blocks]
        jagged = [one for one in counts if one is not None]
        columns[name] = ak.unflatten(values, np.concatenate(jagged)) if jagged else values
    return columns


def keys(at: RunLumi, events: Ints) -> Parts:
    """run, lumi and event."""
    return {
        "run": (np.full(len(events), at.run, np.uint32), None),
        "lumi": (np.full(len(events), at.lumi, np.uint32), None),
        "event": (events.astype(np.uint64), None),
    }


def raw_columns(geometry: Geometry, header: Header, digis: Digis, full: FullReadout) -> Parts:
    """What the DAQ writes, beside the keys."""
    events = len(header.trig)
    counts = np.bincount(digis.event, minlength=events)
    modules = np.bincount(full.event, minlength=events)
    return {
        "bx": (header.bx, None),
        "orbit": (header.orbit, None),
        "trig": (header.trig, None),
        "digi_module": (geometry.module[digis.row], counts),
        "digi_chan": (digis.channel.astype(np.uint32), counts),
        "digi_adc": (digis.adc, counts),
        "nzs_module": (geometry.module[geometry.strip_rows[full.block]], modules),
        "nzs_adc": (full.adc.ravel(), modules * STRIPS),
    }


def made_columns(vertices: Vertices, made: Particles, flight: Flight, events: int) -> Parts:
    """Vertices and particles."""
    counts = np.bincount(vertices.event, minlength=events)
    first = np.cumsum(counts) - counts
    axis = at_axis(flight)
    particles: dict[str, tuple[NDArray[Any], DTypeLike]] = {
        "vertex": (made.vertex - first[made.event], np.int32),
        "pdg": (made.pdg, np.int32),
        "charge": (made.charge, np.int8),
        "pt": (made.pt, np.float64),
        "eta": (made.eta, np.float64),
        "phi_vertex": (made.phi, np.float64),
        "phi": (axis["phi"], np.float64),
        "d0": (axis["d0"], np.float64),
        "z0": (axis["z0"], np.float64),
    }
    own = np.bincount(made.event, minlength=events)
    found: Parts = {f"Vertex_{name}": (getattr(vertices, name), counts) for name in "xyz"}
    return found | {f"Particle_{name}": (values.astype(kind), own) for name, (values, kind) in particles.items()}


def seen_columns(geometry: Geometry, traces: Traces, charges: Charges, first: Ints) -> Parts:
    """Crossings; `first`: the place of each event's first particle."""
    crossings = traces.crossings
    counts = np.bincount(traces.event, minlength=len(first))
    found: dict[str, NDArray[Any]] = {
        "particle": (crossings.track - first[traces.event]).astype(np.int32),
        "module": geometry.module[crossings.row],
        "u": crossings.u,
        "v": crossings.v,
        "dudw": crossings.du,
        "dvdw": crossings.dv,
        "path": charges.path,
        "charge": charges.electrons,
    }
    return {f"Crossing_{name}": (values, counts) for name, values in found.items()}


def digi_particle(digis: Digis, first: Ints) -> Part:
    """For each of the digis its particle's place in the event."""
    place = np.where(digis.particle == NOBODY, NOBODY, digis.particle - first[digis.event])
    return place.astype(np.int32), np.bincount(digis.event, minlength=len(first))
