"""The digis of RAW that are sound, in order; the others are counted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calib.jagged import counts_of, flat_of
from pipeline.experiments.collisions import Collection
from pipeline.experiments.ref10.constants import PIXEL_SATURATION, STRIP_LARGEST
from pipeline.experiments.ref10.geometry import Geometry
from pipeline.experiments.ref10.reconstruct.channel_keys import COLUMN_SHIFT, ROW_MASK, channel_keys, module_keys
from pipeline.experiments.ref10.reconstruct.channels import module_rows
from pipeline.experiments.ref10.reconstruct.flags import EventFlag
from pipeline.model import Columns

Mask = NDArray[np.bool_]

DIGIS = ("digi_module", "digi_chan", "digi_adc")
NZS = ("nzs_module", "nzs_adc")
READS = (*DIGIS, *NZS)
"""columns of RAW that are needed"""


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


@dataclass(frozen=True, eq=False)
class Raw:
    """The columns of RAW, flat: `counts[name]` int64[n] values of each event, `flat[name]` those of all in line."""

    counts: Mapping[str, NDArray[np.int64]]
    flat: Mapping[str, NDArray[Any]]

    @classmethod
    def of(cls, events: Columns) -> Raw:
        """Of jagged columns. Raises KeyError for one that is missing."""
        return cls(
            {name: counts_of(events[name]) for name in READS},
            {name: flat_of(events[name]) for name in READS},
        )

    def __len__(self) -> int:
        return len(self.counts[READS[0]])

    @property
    def channels(self) -> NDArray[np.int64]:
        """How many channels were read out in each event, with zero suppression or without."""
        return self.counts["digi_module"] + self.counts["nzs_adc"]

    def values(self, name: str, keep: Mask) -> NDArray[Any]:
        """Those of a column in the events of the mask."""
        return self.flat[name] if keep.all() else self.flat[name][np.repeat(keep, self.counts[name])]

    def parts(self, channels: int) -> Iterator[Raw]:
        """The events in turn, so many at a time that they have about `channels` channels, and one at least."""
        read = self.channels
        group = (np.cumsum(read) - read) // channels
        bounds = [0, *(np.flatnonzero(np.diff(group)) + 1).tolist(), len(self)]
        starts = {name: np.append(0, np.cumsum(counts)) for name, counts in self.counts.items()}
        for start, stop in pairwise(bounds):
            yield Raw(
                {name: counts[start:stop] for name, counts in self.counts.items()},
                {name: values[starts[name][start] : starts[name][stop]] for name, values in self.flat.items()},
            )


def sound_digis(raw: Raw, geometry: Geometry, keep: Mask, tally: Tally) -> Collection:
    """The digis of the events kept: `row` of the module in the geometry, `channel`, `adc`; sorted, no channel twice.

    Left out and counted: those of a module, channel or count that cannot be, all of an event whose columns do not fit
    together, and a channel of an event that was there before (the first one counts).
    """
    digis = _read(raw, keep, tally)
    event, channel, adc = digis.event, digis.flat["digi_chan"], digis.flat["digi_adc"]
    row = module_rows(geometry, digis.flat["digi_module"])
    sound = _possible(geometry, row, channel, adc)
    found = Collection(digis.counts, {"row": row, "channel": channel, "adc": adc})
    if not sound.all():
        tally.count_digis(event[~sound])
        found, event = found.where(sound), event[sound]
    return _in_order(found, event, geometry, tally)


def _read(raw: Raw, keep: Mask, tally: Tally) -> Collection:
    counts = [raw.counts[name] for name in DIGIS]
    fits = (counts[0] == counts[1]) & (counts[0] == counts[2])
    longest = np.maximum(np.maximum(counts[0], counts[1]), counts[2])
    torn = np.flatnonzero(keep & ~fits)
    tally.count_digis(np.repeat(torn, longest[torn]))
    keep = keep & fits
    return Collection(np.where(keep, counts[0], 0), {name: raw.values(name, keep) for name in DIGIS})


def _possible(geometry: Geometry, row: NDArray[np.int32], channel: NDArray[Any], adc: NDArray[Any]) -> Mask:
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
