"""How often channels of REF10 are hit, and who among them is dead or hot; never written.

Channels that are masked are looked at too, in RAW: else what was masked once would be silent for ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import awkward as ak
import numpy as np
from numpy.typing import NDArray

from calib.algorithms.occupancy_status import OccupancyStatus
from calib.algorithms.pedestal import KIND as PEDESTAL
from calib.jagged import jagged_of
from calib.payload import Payload
from calib.state import State
from pipeline.experiments.collisions import Collection
from pipeline.experiments.ref10 import geometry as geometries
from pipeline.experiments.ref10.constants import PIXEL_STATUS, ROC_COLUMNS, ROCS, STRIP_STATUS, roc_of
from pipeline.experiments.ref10.geometry import Geometry
from pipeline.experiments.ref10.layers import CHIP, CHIPS, ROC, STRIPS, Z_MODULES
from pipeline.experiments.ref10.reconstruct.channel_keys import COLUMN_SHIFT, ROW_MASK
from pipeline.experiments.ref10.reconstruct.channels import module_rows, pixel_chips, strip_channels
from pipeline.experiments.ref10.reconstruct.thresholds import DEFAULT

Ints = NDArray[np.int64]
Hits = tuple[Ints, NDArray[np.integer]]
"""of each event how many, and the channels that were hit in line"""

HARMLESS = 3e-4
"""1/event; a strip that is hit less often is not called hot. Good ones are hit in 1e-4 of the events, in layer 5"""
WIDEST = 15
"""strips; a track at 75 degrees leaves so many. What turns back in a layer leaves dozens, and would make chips noisy"""
FEW_HITS = 5.0
"""of a typical chip of pixels, from which a run is judged: 10 000 events of two vertices; for single chips in the outer
layers it takes several such runs"""
DEAD_CHIP_BELOW = 0.5
"""of its kin's hits: a chip of pixels that was silent for more than half of the run is dead for the whole of it"""


class StripStatus(OccupancyStatus):
    """Of strips, by chip; chips of a layer at the same place along the beam are kin."""

    kind: ClassVar[str] = STRIP_STATUS
    reads: ClassVar[tuple[str, ...]] = ("strip_hit",)
    after: ClassVar[tuple[str, ...]] = (PEDESTAL,)


class PixelStatus(OccupancyStatus):
    """Of the readout chips of pixels, in the shape that `constants.pixel_status` has."""

    kind: ClassVar[str] = PIXEL_STATUS
    reads: ClassVar[tuple[str, ...]] = ("roc_hit",)

    def finalize(self, state: State, previous: Payload | None) -> Payload:
        """As of any channels; those that are not there are good."""
        found = super().finalize(state, previous)
        shaped = {name: found[name].reshape(-1, ROCS) for name in ("status", "silent", "counts")}
        return Payload(self.kind, {**found.arrays, **shaped}, found.units)


@dataclass(frozen=True, eq=False)
class _Placed:
    """Clusters, and of each its event, the `row` of its module in the geometry and whether that is of pixels."""

    clusters: Collection
    event: NDArray[np.intp]
    row: NDArray[np.int32]
    pixel: NDArray[np.bool_]


def status_columns(clusters: Collection, masked: Collection, conditions: Mapping[str, Payload]) -> dict[str, Any]:
    """What calibrations of the status read, jagged uint32; `masked` are the digis of masked channels.

    `strip_hit`: numbers of the strips of clusters (up to WIDEST), and of masked strips that would seed one by
    themselves. `roc_hit`: 36 x pixel module + chip, where clusters have their middle, and of masked chips that send
    anything.
    """
    geometry = geometries.geometry_of(conditions[geometries.KIND])
    row = module_rows(geometry, clusters.flat["module"])
    placed = _Placed(clusters, clusters.event, row, geometry.pixel[row])
    return {
        "strip_hit": _jagged(_members(placed, geometry, conditions), _seeding(masked, geometry, conditions)),
        "roc_hit": _jagged(_middles(placed, geometry), _read_out(masked, geometry, conditions)),
    }


def status_calibrations(geometry: Geometry) -> tuple[StripStatus, PixelStatus]:
    """Those of the strips and of the pixel chips of a geometry."""
    strips, pixels = geometry.strip_rows, np.flatnonzero(geometry.pixel)
    chips = np.tile(np.arange(ROCS), (len(pixels), 1))
    there = chips // ROC_COLUMNS * ROC[0] < geometry.rows[pixels][:, None]
    return (
        StripStatus(
            channels=len(strips) * STRIPS,
            group=CHIP,
            kin=_kin(geometry, strips, np.zeros((len(strips), CHIPS), np.int64)),
            min_occupancy=HARMLESS,
        ),
        PixelStatus(
            channels=len(pixels) * ROCS,
            kin=_kin(geometry, pixels, np.where(there, chips, -1)),
            min_hits=FEW_HITS,
            dead_below=DEAD_CHIP_BELOW,
        ),
    )


def _kin(geometry: Geometry, rows: Ints, inside: Ints) -> tuple[tuple[int, tuple[int, ...]], ...]:
    """What is alike: of the same layer and place along the beam, and of one number `inside` [modules, groups] of its
    module; below 0 it is not there. Ladders of a layer are the same throughout."""
    numbers = (geometry.layer[rows] * Z_MODULES + geometry.z_module[rows])[:, None] * ROCS + inside
    numbers = np.where(inside < 0, -1, numbers)
    kin = []
    for layer in np.unique(geometry.layer[rows]):
        mine = np.flatnonzero(geometry.layer[rows] == layer)
        ladders = len(np.unique(geometry.ladder[rows[mine]]))
        kin.append((ladders, tuple(numbers[mine[: len(mine) // ladders]].reshape(-1).tolist())))
    return tuple(kin)


def _members(of: _Placed, geometry: Geometry, conditions: Mapping[str, Payload]) -> Hits:
    """The strips of clusters that are not too wide, but for masked ones that they reach over."""
    size = of.clusters.flat["size_u"]
    strips = np.flatnonzero(~of.pixel & (size <= WIDEST))
    size = size[strips].astype(np.int32)
    first = geometry.strip_block[of.row[strips]].astype(np.int32) * STRIPS + of.clusters.flat["first_row"][strips]
    ends = np.cumsum(size, dtype=np.int32)
    channel = np.repeat(first - ends + size, size) + np.arange(len(first) and ends[-1], dtype=np.int32)
    event = of.event[strips]
    counts = np.bincount(event, size, len(of.clusters.counts)).astype(np.int64)
    masked = np.flatnonzero(strip_channels(conditions).masked[channel])
    if len(masked):
        channel = np.delete(channel, masked)
        counts -= np.bincount(event[np.searchsorted(ends, masked, "right")], minlength=len(counts))
    return counts, channel


def _seeding(masked: Collection, geometry: Geometry, conditions: Mapping[str, Payload]) -> Collection:
    """The `channel` of masked strips that are high enough to seed a cluster."""
    strips = masked.at(np.flatnonzero(~geometry.pixel[masked.flat["row"]]))
    channel = geometry.strip_block[strips.flat["row"]] * STRIPS + strips.flat["channel"]
    mean, noise = (conditions[PEDESTAL][name][channel] for name in ("mean", "noise"))
    # Of a channel without a sound pedestal nothing can be said.
    high = strips.flat["adc"] - mean > DEFAULT.seed * np.where(noise > 0, noise, np.inf)
    return Collection(strips.counts, {"channel": channel}).where(high)


def _middles(of: _Placed, geometry: Geometry) -> Hits:
    """The readout chips of pixels that clusters have their middle in."""
    pixels = np.flatnonzero(of.pixel)
    middle = [np.rint(of.clusters.flat[name][pixels]).astype(np.int64) for name in ("row", "column")]
    place = (np.cumsum(geometry.pixel) - 1)[of.row[pixels]]
    return np.bincount(of.event[pixels], minlength=len(of.clusters.counts)), place * ROCS + roc_of(*middle)


def _read_out(masked: Collection, geometry: Geometry, conditions: Mapping[str, Payload]) -> Collection:
    """The `channel` of masked readout chips of pixels that send anything, each once an event."""
    chips = pixel_chips(conditions)
    pixels = masked.at(np.flatnonzero(geometry.pixel[masked.flat["row"]]))
    pixel = pixels.flat["channel"]
    channel = chips.place[pixels.flat["row"]] * ROCS + roc_of(pixel & ROW_MASK, pixel >> COLUMN_SHIFT)
    event, channel = np.divmod(np.unique(pixels.event * chips.masked.size + channel), chips.masked.size)
    return Collection(np.bincount(event, minlength=len(masked.counts)), {"channel": channel})


def _jagged(seen: Hits, sent: Collection) -> ak.Array:
    """What clusters tell of, and then what masked channels send, event by event."""
    counts, channel = seen
    if len(sent.flat["channel"]):
        channel = np.insert(channel, np.cumsum(counts)[sent.event], sent.flat["channel"])
    return jagged_of(channel.astype(np.uint32), counts + sent.counts)
