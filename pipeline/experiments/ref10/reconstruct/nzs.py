"""Strip modules read out without zero suppression: common mode, and the strips above threshold.

The common mode of a chip in an event is the median of counts above pedestal over its unmasked strips. A strip with
signal would pull it up, by 0.01 noise each: strips above the median by more than three times the noise of the chip
are left out, and the median taken again, three times. (The median's error is 1.2533 noise/sqrt(128).)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.experiments.collisions import Collection
from pipeline.experiments.ref10.constants import STRIP_LARGEST
from pipeline.experiments.ref10.geometry import Geometry
from pipeline.experiments.ref10.layers import CHIP, CHIPS, STRIPS
from pipeline.experiments.ref10.reconstruct.channels import StripChannels, module_rows
from pipeline.experiments.ref10.reconstruct.digis import NZS, Mask, Raw, Tally

Float32 = NDArray[np.float32]

ROUNDS = 3
SIGNAL = np.float32(3.0)
"""above the median by so many times the noise of its chip, a strip has signal"""


def sound_blocks(raw: Raw, geometry: Geometry, keep: Mask, tally: Tally) -> Collection:
    """The blocks of the events kept: `row` of the module in the geometry, `adc` [blocks, 768].

    Left out and counted: those of unknown or of pixel modules, with counts above 10 bits, or of a module that was there
    before in the event; and all of an event whose counts are not 768 for each module.
    """
    modules, values = (raw.counts[name] for name in NZS)
    torn = np.flatnonzero(keep & (values != modules * STRIPS))
    tally.count_nzs(np.repeat(torn, np.maximum(modules, -(-values // STRIPS))[torn]))
    keep = keep & (values == modules * STRIPS)
    module, adc = (raw.values(name, keep) for name in NZS)
    blocks = Collection(np.where(keep, modules, 0), {"adc": adc.reshape(-1, STRIPS)})
    row = module_rows(geometry, module)
    blocks = blocks.adding(row=row)
    sound = (row >= 0) & ~geometry.pixel[row] & (blocks.flat["adc"].max(axis=1, initial=0) <= STRIP_LARGEST)
    sound &= _first_of_its_kind(blocks.event, row, len(geometry))
    if not sound.all():
        tally.count_nzs(blocks.event[~sound])
        blocks = blocks.where(sound)
    return blocks


def _first_of_its_kind(event: NDArray[np.intp], row: NDArray[np.int32], modules: int) -> Mask:
    first = np.zeros(len(row), bool)
    first[np.unique(event * (modules + 1) + row, return_index=True)[1]] = True
    return first


def common_mode(above: Float32, unmasked: Mask, noise: Float32) -> Float32:
    """The common mode [ADC] of chips, float32[n].

    `above` [n, 128] counts above pedestal, `unmasked` [n, 128] which strips count, `noise` [n] of each chip. A chip
    that is masked altogether has 0.
    """
    ordered = np.sort(np.where(unmasked, above, np.float32(np.inf)), axis=1)
    counted = unmasked.sum(axis=1)
    found = _middle(ordered, counted)
    for _ in range(ROUNDS):
        counted = (ordered <= (found + SIGNAL * noise)[:, None]).sum(axis=1)
        found = _middle(ordered, counted)
    return found


def _middle(ordered: Float32, counted: NDArray[np.integer]) -> Float32:
    """The median of the first `counted` of each row; 0 of none."""
    low, high = (np.maximum(place, 0)[:, None] for place in ((counted - 1) // 2, counted // 2))
    middle = np.take_along_axis(ordered, low, axis=1)[:, 0] + np.take_along_axis(ordered, high, axis=1)[:, 0]
    return np.where(counted > 0, middle * np.float32(0.5), np.float32(0))


def suppressed(blocks: Collection, geometry: Geometry, channels: StripChannels, threshold: float) -> Collection:
    """The strips of blocks above threshold times their noise: `row`, `channel`, `above` and `raw`.

    `above` float32 are counts above pedestal and common mode, `raw` float32 those above pedestal alone.
    """
    place = geometry.strip_block[blocks.flat["row"]]
    raw = blocks.flat["adc"] - channels.mean.reshape(-1, STRIPS)[place]
    chips = (len(place) * CHIPS, CHIP)
    mode = common_mode(
        raw.reshape(chips),
        ~channels.masked.reshape(-1, STRIPS)[place].reshape(chips),
        channels.chip_noise.reshape(-1, CHIPS)[place].reshape(-1),
    )
    above = raw - np.repeat(mode.reshape(-1, CHIPS), CHIP, axis=1)
    block, strip = np.nonzero(above > np.float32(threshold) * channels.noise.reshape(-1, STRIPS)[place])
    starts = np.append(0, np.cumsum(blocks.counts))
    counts = np.diff(np.searchsorted(block, starts))
    return Collection(
        counts.astype(np.int64),
        {
            "row": blocks.flat["row"][block],
            "channel": strip.astype(np.uint32),
            "above": above[block, strip],
            "raw": raw[block, strip],
        },
    )
