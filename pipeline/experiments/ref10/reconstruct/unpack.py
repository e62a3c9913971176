"""RAW counts to hits: pedestals and common mode out, gains in, masked channels dropped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calib.payload import Payload
from pipeline.experiments.collisions import Collection
from pipeline.experiments.ref10.constants import (
    PIXEL_ELECTRONS,
    PIXEL_SATURATION,
    STRIP_SATURATION,
    roc_of,
)
from pipeline.experiments.ref10.geometry import KIND as GEOMETRY
from pipeline.experiments.ref10.geometry import Geometry, geometry_of
from pipeline.experiments.ref10.layers import CHIP, STRIPS
from pipeline.experiments.ref10.reconstruct.channel_keys import (
    COLUMN_SHIFT,
    ROW_MASK,
    channel_keys,
    check_room,
    module_keys,
)
from pipeline.experiments.ref10.reconstruct.channels import (
    PIXEL_KINDS,
    STRIP_KINDS,
    StripChannels,
    pixel_chips,
    strip_channels,
)
from pipeline.experiments.ref10.reconstruct.digis import (
    Mask,
    Raw,
    Tally,
    sound_digis,
)
from pipeline.experiments.ref10.reconstruct.flags import EventFlag
from pipeline.experiments.ref10.reconstruct.nzs import sound_blocks, suppressed
from pipeline.experiments.ref10.reconstruct.thresholds import DEFAULT, Thresholds
from pipeline.model import Columns

USES = tuple(dict.fromkeys((*STRIP_KINDS, *PIXEL_KINDS)))

SATURATION_MARGIN = 8
"""counts below saturation from which a strip counts as saturated: the common mode (2 counts wide) is taken out after"""


@dataclass(frozen=True, eq=False)
class Hits:
    """What the channels of n events saw, in the order of event, module, column and row.

    Both have `row` int32 of the module in the geometry, `channel` uint32 as in RAW, `charge` float32 [e] and
    `saturated` bool; strips also `noise` float32 [e].
    """

    pixels: Collection
    strips: Collection
    masked: Collection
    """digis of masked pixels and then strips of each event: `row`, `channel` and `adc` of RAW; not of those read out
    without zero suppression"""
    tally: Tally


def unpack(events: Columns | Raw, conditions: Mapping[str, Payload], thresholds: Thresholds = DEFAULT) -> Hits:
    """The hits of RAW events: pixels that were read out, and strips above `thresholds.channel`; none masked.

    What is weaker neither starts nor joins a cluster. Events with too many digis have no hits, and like all that is
    wrong in the data this is flagged in `tally`. Raises ValueError for conditions that do not fit the geometry.
    """
    geometry = geometry_of(conditions[GEOMETRY])
    check_room(geometry)
    raw = events if isinstance(events, Raw) else Raw.of(events)
    tally = Tally.of(len(raw))
    keep = raw.channels <= thresholds.digis
    tally.note(EventFlag.TOO_MANY_DIGIS, ~keep)
    digis = sound_digis(raw, geometry, keep, tally)
    blocks = sound_blocks(raw, geometry, keep, tally)
    if len(blocks.flat["row"]):
        digis = _without(digis, blocks, geometry, tally)
    pixel = geometry.pixel[digis.flat["row"]]
    channels = strip_channels(conditions)
    strips, masked_strips = _strips(digis.where(~pixel), geometry, channels, thresholds)
    if len(blocks.flat["row"]):
        full = suppressed(blocks, geometry, channels, thresholds.channel)
        strips = _merged(strips, _calibrated(full, geometry, channels), geometry)
    pixels, masked_pixels = _pixels(digis.where(pixel), conditions)
    return Hits(pixels, strips, _both(masked_pixels, masked_strips), tally)


def _without(digis: Collection, blocks: Collection, geometry: Geometry, tally: Tally) -> Collection:
    """The digis but for those of modules that were read out in full: what both say would count twice."""
    read = np.sort(module_keys(blocks.event, blocks.flat["row"], geometry))
    own = module_keys(digis.event, digis.flat["row"], geometry)
    twice: Mask = read[np.minimum(np.searchsorted(read, own), len(read) - 1)] == own
    if not twice.any():
        return digis
    tally.count_digis(digis.event[twice])
    return digis.where(~twice)


def _pixels(digis: Collection, conditions: Mapping[str, Payload]) -> tuple[Collection, Collection]:
    """The hits, and the digis of masked chips."""
    chips = pixel_chips(conditions)
    row, channel, adc = (digis.flat[name] for name in ("row", "channel", "adc"))
    hits = Collection(
        digis.counts,
        {
            "row": row,
            "channel": channel,
            "charge": adc * np.float32(PIXEL_ELECTRONS),
            "saturated": adc >= PIXEL_SATURATION,
        },
    )
    suspect = np.flatnonzero(chips.touched[row])
    if not len(suspect):
        return hits, digis.at(suspect)
    chip = roc_of(channel[suspect] & ROW_MASK, channel[suspect] >> COLUMN_SHIFT)
    good = np.ones(len(row), bool)
    good[suspect] = ~chips.masked[chips.place[row[suspect]], chip]
    return hits.where(good), digis.at(np.flatnonzero(~good))


def _strips(
    digis: Collection, geometry: Geometry, channels: StripChannels, thresholds: Thresholds
) -> tuple[Collection, Collection]:
    """The hits, and the digis of masked strips. Of digis the common mode is out already: the readout needs that for its
    own thresholds."""
    channel = geometry.strip_block[digis.flat["row"]] * STRIPS + digis.flat["channel"]
    above = digis.flat["adc"] - channels.mean[channel]
    noise = channels.noise[channel]
    strong = above > np.float32(thresholds.channel) * noise
    hits = _calibrated(digis.adding(above=above, raw=above).where(strong), geometry, channels)
    return hits, digis.at(np.flatnonzero(noise == np.inf))


def _calibrated(strips: Collection, geometry: Geometry, channels: StripChannels) -> Collection:
    channel = geometry.strip_block[strips.flat["row"]] * STRIPS + strips.flat["channel"]
    electrons = channels.electrons[channel // CHIP]
    return Collection(
        strips.counts,
        {
            "row": strips.flat["row"],
            "channel": strips.flat["channel"],
            "charge": strips.flat["above"] * electrons,
            "noise": channels.noise[channel] * electrons,
            "saturated": strips.flat["raw"] >= STRIP_SATURATION - SATURATION_MARGIN,
        },
    )


def _both(one: Collection, other: Collection) -> Collection:
    """The entries of one and then of the other, event by event."""
    order = np.argsort(np.concatenate([one.event, other.event]), kind="stable")
    both = {name: np.concatenate([one.flat[name], other.flat[name]])[order] for name in one.flat}
    return Collection(one.counts + other.counts, both)


def _merged(one: Collection, other: Collection, geometry: Geometry) -> Collection:
    """The hits of both in their order."""
    keys: list[NDArray[np.int64]] = []
    for hits in (one, other):
        keys.append(channel_keys(module_keys(hits.event, hits.flat["row"], geometry), hits.flat["channel"]))
    order = np.argsort(np.concatenate(keys), kind="stable")
    both = {name: np.concatenate([one.flat[name], other.flat[name]])[order] for name in one.flat}
    return Collection(one.counts + other.counts, both)
