"""How often channels of REF10 are hit, and who among them is dead or hot; never written.

Channels that are masked are looked at too, in RAW: else what was masked once would be silent for ever.
"""

from __future__ import annotations

from collections.abc import Mapping
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
from pipeline.experiments.ref10.reconstruct.digis import DIGIS, Raw
from pipeline.experiments.ref10.reconstruct.thresholds import DEFAULT
from pipeline.model import Columns

Ints = NDArray[np.int64]
Hits = tuple[NDArray[np.integer], Ints]
"""events, rising, and channels that were hit in them"""

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


def status_columns(events: Columns, clusters: Collection, conditions: Mapping[str, Payload]) -> dict[str, Any]:
    """What calibrations of the status read, jagged uint32.

    `strip_hit`: numbers of the strips of clusters (up to WIDEST), and of masked strips that would seed one by
    themselves. `roc_hit`: 36 x pixel module + chip, where clusters have their middle, and of masked chips that send
    anything.
    """
    geometry = geometries.geometry_of(conditions[geometries.KIND])
    row = module_rows(geometry, clusters.flat["module"])
    digis = _digis(Raw.of(events), geometry)
    strips = _members(clusters, row, geometry, conditions), _seeding(digis, geometry, conditions)
    chips = _middles(clusters, row, geometry), _read_out(digis, conditions)
    return {"strip_hit": _jagged(strips, len(clusters.counts)), "roc_hit": _jagged(chips, len(clusters.counts))}


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


def _digis(raw: Raw, geometry: Geometry) -> Collection:
    """Digis of the channels there are, of events that are clustered; `row` of the module in the geometry."""
    counts = [raw.counts[name] for name in DIGIS]
    keep = (counts[0] == counts[1]) & (counts[0] == counts[2]) & (raw.channels <= DEFAULT.digis)
    module, channel, adc = (raw.values(name, keep) for name in DIGIS)
    row = module_rows(geometry, module)
    found = Collection(np.where(keep, counts[0], 0), {"row": row, "channel": channel, "adc": adc})
    there = (row >= 0) & ((channel & ROW_MASK) < geometry.rows[row])
    there &= (channel >> COLUMN_SHIFT) < geometry.columns[row]
    return found if there.all() else found.where(there)


def _members(
    clusters: Collection, row: NDArray[np.int32], geometry: Geometry, conditions: Mapping[str, Payload]
) -> Hits:
    """The strips of clusters that are not too wide, but for masked ones that they reach over."""
    strips = np.flatnonzero(~geometry.pixel[row] & (clusters.flat["size_u"] <= WIDEST))
    size = clusters.flat["size_u"][strips].astype(np.int64)
    first = geometry.strip_block[row[strips]] * STRIPS + clusters.flat["first_row"][strips]
    channel = np.repeat(first - np.cumsum(size) + size, size) + np.arange(size.sum())
    event = np.repeat(clusters.event[strips], size)
    good = ~strip_channels(conditions).masked[channel]
    return event[good], channel[good]


def _seeding(digis: Collection, geometry: Geometry, conditions: Mapping[str, Payload]) -> Hits:
    """Masked strips that are high enough to seed a cluster."""
    strips = np.flatnonzero(~geometry.pixel[digis.flat["row"]])
    channel = geometry.strip_block[digis.flat["row"][strips]] * STRIPS + digis.flat["channel"][strips]
    masked = strip_channels(conditions).masked[channel]
    strips, channel = strips[masked], channel[masked]
    mean, noise = (conditions[PEDESTAL][name][channel] for name in ("mean", "noise"))
    # Of a channel without a sound pedestal nothing can be said.
    high = digis.flat["adc"][strips] - mean > DEFAULT.seed * np.where(noise > 0, noise, np.inf)
    return digis.event[strips[high]], channel[high]


def _middles(clusters: Collection, row: NDArray[np.int32], geometry: Geometry) -> Hits:
    """The readout chips of pixels that clusters have their middle in."""
    pixels = np.flatnonzero(geometry.pixel[row])
    middle = [np.rint(clusters.flat[name][pixels]).astype(np.int64) for name in ("row", "column")]
    place = (np.cumsum(geometry.pixel) - 1)[row[pixels]]
    return clusters.event[pixels], place * ROCS + roc_of(*middle)


def _read_out(digis: Collection, conditions: Mapping[str, Payload]) -> Hits:
    """Masked readout chips of pixels that send anything, each once an event."""
    chips = pixel_chips(conditions)
    suspect = np.flatnonzero(chips.touched[digis.flat["row"]])
    place, pixel = chips.place[digis.flat["row"][suspect]], digis.flat["channel"][suspect]
    channel = place * ROCS + roc_of(pixel & ROW_MASK, pixel >> COLUMN_SHIFT)
    masked = chips.masked.reshape(-1)[channel]
    event, channel = np.divmod(
        np.unique(digis.event[suspect[masked]] * chips.masked.size + channel[masked]), chips.masked.size
    )
    return event, channel


def _jagged(parts: tuple[Hits, Hits], events: int) -> ak.Array:
    """The hits of both parts, event by event."""
    event, channel = (np.concatenate([one, other]) for one, other in zip(*parts, strict=True))
    if len(parts[1][0]):
        order = np.argsort(event, kind="stable")
        event, channel = event[order], channel[order]
    return jagged_of(channel.astype(np.uint32), np.bincount(event, minlength=events))
