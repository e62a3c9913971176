"""Charge gathered by channel: what several tracks, steps and pulses leave in one channel of an event is one number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from calib.jagged import ramps

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

CHANNEL_BITS = 26
"""row | column << 16 of a pixel, and more than the number of a strip"""
NOBODY = -1
"""in the place of a particle: noise"""


@dataclass(frozen=True, eq=False)
class Cells:
    """Channels with charge [electrons], flat, sorted by event, module and channel, each once.

    `event` counts within what is simulated together, `row` is the module's in the geometry, `particle` the one with the
    largest share of the charge, or -1.
    """

    event: Ints
    row: Ints
    channel: Ints
    charge: Floats
    particle: Ints

    def of(self, chosen: Bools) -> Self:
        """Some of them."""
        return type(self)(
            self.event[chosen], self.row[chosen], self.channel[chosen], self.charge[chosen], self.particle[chosen]
        )


def gather(modules: int, event: Ints, place: tuple[Ints, Ints], charge: Floats, particle: Ints) -> Cells:
    """Cells of charges in any order that keeps those of an event in order; `place` is (row, channel).

    `modules`: how many the geometry has.
    """
    row, channel = place
    key = (event * modules + row) << CHANNEL_BITS | channel
    order = np.argsort(key, kind="stable")
    key = key[order]
    first = np.flatnonzero(np.diff(key, prepend=-1))
    total = np.add.reduceat(charge[order], first) if len(first) else charge
    module, channel = key[first] >> CHANNEL_BITS, key[first] & ((1 << CHANNEL_BITS) - 1)
    owner = _largest(order, first, charge, particle)
    return Cells(module // modules, module % modules, channel, total, owner)


def _largest(order: Ints, first: Ints, charge: Floats, particle: Ints) -> Ints:
    """The particle of the largest charge of each group; of equal ones the first."""
    size = np.diff(first, append=len(order))
    owner = particle[order[first]]
    shared = np.flatnonzero(size > 1)
    place = np.repeat(shared, size[shared])
    within = ramps(size[shared])
    member = order[first[place] + within]
    # Of those sorted by group and falling charge (the sort is stable) the first of each group.
    best = np.lexsort((-charge[member], place))
    owner[shared] = particle[member[best[np.cumsum(size[shared]) - size[shared]]]]
    return owner
