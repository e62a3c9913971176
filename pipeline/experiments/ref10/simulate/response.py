"""From charge in channels to counts: pixels as they are sent, strips as they are before the DAQ looks at them.

A strip's range is 254 counts above its baseline, which moves with the common mode of the chip.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pipeline.experiments.ref10.constants import (
    PIXEL_ELECTRONS,
    PIXEL_SATURATION,
    PIXEL_THRESHOLD,
    STRIP_ELECTRONS,
    roc_of,
)
from pipeline.experiments.ref10.geometry import Geometry
from pipeline.experiments.ref10.layers import CHIP, STRIPS
from pipeline.experiments.ref10.simulate.cells import Cells
from pipeline.experiments.ref10.simulate.channels import Channels
from pipeline.experiments.ref10.simulate.deposit import COLUMN_BIT
from pipeline.experiments.ref10.simulate.particles import poisson
from pipeline.experiments.ref10.simulate.streams import Purpose, Streams

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

PULSE_LEAST, PULSE_MEAN = 20.0, 20.0
"""ADC: pulses of hot strips begin at 5 sigma of the noise, and fall exponentially from there"""

_SURE = 8.0
"""sigma below threshold at which a pixel need not be looked at"""


@dataclass(frozen=True, eq=False)
class Digis:
    """What is sent, flat, sorted by event, module and channel; `event`, `row` and `particle` as in Cells."""

    event: Ints
    row: Ints
    channel: Ints
    adc: NDArray[np.uint16]
    particle: Ints


@dataclass(frozen=True, eq=False)
class Strips:
    """Some strips and their counts; `key` is event x strips + strip channel, each once."""

    key: Ints
    counts: Floats
    """ADC: of the signal alone, or as far above the pedestal as is said"""
    particle: Ints

    def of(self, chosen: Bools | Ints) -> Self:
        """Some of them."""
        return type(self)(self.key[chosen], self.counts[chosen], self.particle[chosen])


def pixel_digis(geometry: Geometry, cells: Cells, dead_roc: Bools, noise: float, draws: tuple[Streams, Ints]) -> Digis:
    """Pixels over threshold. `dead_roc` [pixel modules, chips]; noise in electrons; `draws`: streams and events."""
    streams, events = draws
    cells = cells.of(geometry.pixel[cells.row] & (cells.charge > PIXEL_THRESHOLD - _SURE * noise))
    counts = np.bincount(cells.event, minlength=len(events))
    charge = cells.charge + noise * streams.normal(Purpose.PIXEL_NOISE, events, counts)
    line, column = cells.channel & ((1 << COLUMN_BIT) - 1), cells.channel >> COLUMN_BIT
    module = (np.cumsum(geometry.pixel) - 1)[cells.row]
    sent = (charge >= PIXEL_THRESHOLD) & ~dead_roc[module, roc_of(line, column)]
    adc = np.minimum(np.rint(charge[sent] / PIXEL_ELECTRONS), PIXEL_SATURATION)
    kept = cells.of(sent)
    return Digis(kept.event, kept.row, kept.channel, adc.astype(np.uint16), kept.particle)


def strip_signal(geometry: Geometry, channels: Channels, cells: Cells) -> Strips:
    """The strips among the cells, sorted, their charge as counts; dead ones have none."""
    cells = cells.of(~geometry.pixel[cells.row])
    strip = geometry.strip_block[cells.row] * STRIPS + cells.channel
    counts = cells.charge / (STRIP_ELECTRONS * channels.gain[strip // CHIP])
    found = Strips(cells.event * len(channels.dead) + strip, counts, cells.particle)
    return found.of(~channels.dead[strip])


def strip_digis(geometry: Geometry, channels: Channels, kept: Strips) -> Digis:
    """Strips that are sent; `counts` are adc less the common mode."""
    event, strip = np.divmod(kept.key, len(channels.dead))
    block, channel = np.divmod(strip, STRIPS)
    return Digis(event, geometry.strip_rows[block], channel, kept.counts.astype(np.uint16), kept.particle)


def pulses(
    channels: Channels, geometry: Geometry, uniform: Floats, draws: tuple[Streams, Ints]
) -> tuple[Ints, Ints, Ints, Floats]:
    """Pulses of hot strips: event, row, strip, electrons. `uniform`, one number an event, says how many it has."""
    event, strip, size = picks(channels.pulse_rate, uniform, Purpose.PULSE, draws)
    block, channel = np.divmod(strip, STRIPS)
    charge = STRIP_ELECTRONS * (PULSE_LEAST - PULSE_MEAN * np.log1p(-size))
    return event, geometry.strip_rows[block], channel, charge


def picks(rate: Floats, uniform: Floats, purpose: Purpose, draws: tuple[Streams, Ints]) -> tuple[Ints, Ints, Floats]:
    """A Poisson number of picks an event from a cumulative table of rates: event, place, and a uniform number each."""
    streams, events = draws
    total = float(rate[-1])
    counts = poisson(uniform, total)
    both = streams.uniform(purpose, events, 2 * counts).reshape(-1, 2)
    place, size = np.ascontiguousarray(both.T)
    return np.repeat(np.arange(len(events)), counts), np.searchsorted(rate, place * total, side="right"), size


def in_order(digis: list[Digis]) -> Digis:
    """Digis of pixels and of strips together, sorted by event; in an event pixel modules come first, as by id."""
    event, row, channel, adc, particle = (
        np.concatenate([getattr(part, name) for part in digis])
        for name in ("event", "row", "channel", "adc", "particle")
    )
    order = np.argsort(event, kind="stable")
    return Digis(event[order], row[order], channel[order], adc[order], particle[order])
