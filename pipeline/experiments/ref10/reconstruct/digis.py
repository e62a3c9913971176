"""The digis of RAW that are sound, in order; the others are counted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import awkward as ak
import numpy as np
from numpy.typing import NDArray

from pipeline.experiments.collisions import Collection
from pipeline.experiments.ref10.constants import PIXEL_SATURATION, STRIP_LARGEST
from pipeline.experiments.ref10.geometry import Geometry
from pipeline.experiments.ref10.reconstruct.channel_keys import COLUMN_SHIFT, ROW_MASK, channel_keys, module_keys
from pipeline.experiments.ref10.reconstruct.flags import EventFlag
from pipeline.model import Columns

Mask = NDArray[np.bool_]

DIGIS = ("digi_module", "digi_chan", "digi_adc")
NZS = ("nzs_module", "nzs_adc")


@dataclass(frozen=True, eq=False)
class Tally:
    """What was wrong with each of n events."""

    flags: NDArray[np.uint8]
    """`EventFlag`"""
    bad_digis: NDArray[np.uint32]
    """digis left out"""
    bad_nzs: NDArray[np.uint32]
    """blocks without zero suppression left out"""

    @classmethod
    def of(cls, events: int) -> Tally:
        """Nothing wrong with any of them."""
        return cls(np.zeros(events, np.uint8), np.zeros(events, np.uint32), np.zeros(events, np.uint32))

    def note(self, flag: EventFlag, events: NDArray[np.integer] | Mask) -> None:
        """Flag these events."""
        self.flags[events] |= np.uint8(flag)

    def count_digis(self, events: NDArray[np.integer]) -> None:
        """Count a bad digi for each of these events, as often as they occur."""
        if len(events):
            self.bad_digis[:] += np.bincount(events, minlength=len(self.flags)).astype(np.uint32)
            self.note(EventFlag.BAD_DIGIS, events)

    def count_nzs(self, events: NDArray[np.integer]) -> None:
        """Count a bad block for each of these events, as often as they occur."""
        if len(events):
            self.bad_nzs[:] += np.bincount(events, minlength=len(self.flags)).astype(np.uint32)
            self.note(EventFlag.BAD_NZS, events)


def lengths(column: Any) -> NDArray[np.int64]:
    """How many values a jagged column has in each event, int64[n]."""
    return np.asarray(ak.num(column), np.int64)


def flat(column: Any, keep: Mask) -> NDArray[Any]:
    """The values of a jagged column in the events of the mask, in line."""
    return np.asarray(ak.flatten(column if keep.all() else column[keep]))


def channels_read(events: Columns) -> NDArray[np.int64]:
    """How many channels were read out in each event, with zero suppression or without."""
    return lengths(events["digi_module"]) + lengths(events["nzs_adc"])


def sound_digis(events: Columns, geometry: Geometry, keep: Mask, tally: Tally) -> Collection:
    """The digis of the events kept: `row` of the module in the geometry, `channel`, `adc`; sorted, no channel twice.

    Left out and counted: those of a module, channel or count that cannot be, all of an event whose columns do not fit
    together, and a channel of an event that was there before (the first one counts).
    """
    digis = _read(events, keep, tally)
    event, channel, adc = digis.event, digis.flat["digi_chan"], digis.flat["digi_adc"]
    row = geometry.index(digis.flat["digi_module"])
    sound = _possible(geometry, row, channel, adc)
    found = Collection(digis.counts, {"row": row.astype(np.int32), "channel": channel, "adc": adc})
    if not sound.all():
        tally.count_digis(event[~sound])
        found, event = found.where(sound), event[sound]
    return _in_order(found, event, geometry, tally)


def _read(events: Columns, keep: Mask, tally: Tally) -> Collection:
    counts = [lengths(events[name]) for name in DIGIS]
    fits = (counts[0] == counts[1]) & (counts[0] == counts[2])
    longest = np.maximum(np.maximum(counts[0], counts[1]), counts[2])
    torn = np.flatnonzero(keep & ~fits)
    tally.count_digis(np.repeat(torn, longest[torn]))
    keep = keep & fits
    return Collection(np.where(keep, counts[0], 0), {name: flat(events[name], keep) for name in DIGIS})


def _possible(geometry: Geometry, row: NDArray[np.int64], channel: NDArray[Any], adc: NDArray[Any]) -> Mask:
    """Which digis can be. A pixel that is read out has at least one count; row -1 reads the last module, and fails."""
    possible: Mask = row >= 0
    possible &= (channel & ROW_MASK) < geometry.rows.astype(np.uint32)[row]
    possible &= (channel >> COLUMN_SHIFT) < geometry.columns.astype(np.uint32)[row]
    pixel = geometry.pixel[row]
    possible &= (adc <= np.where(pixel, PIXEL_SATURATION, STRIP_LARGEST)) & ((adc > 0) | ~pixel)
    return possible


def _in_order(digis: Collection, event: NDArray[np.intp], geometry: Geometry, tally: Tally) -> Collection:
    keys = channel_keys(module_keys(event, digis.flat["row"], geometry), digis.flat["channel"])
    step = np.diff(keys)
    if (step > 0).all():
        return digis
    tally.note(EventFlag.UNSORTED, event[1:][step < 0])
    order = np.argsort(keys, kind="stable")
    digis = Collection(digis.counts, {name: values[order] for name, values in digis.flat.items()})
    again = np.append(False, np.diff(keys[order]) == 0)
    tally.count_digis(event[again])
    return digis.where(~again)
