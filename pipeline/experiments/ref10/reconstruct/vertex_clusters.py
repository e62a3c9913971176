"""Which tracks may come from one vertex: along the beam, split at gaps, then where one vertex cannot explain the rest.

Gaps alone (physics note, 9.4.7) join vertices less than some 1.5 mm apart. So a cluster is split in two where that
lowers its chi2 most, if it lowers it by far more than the cut of a single Gaussian would (0.64 for each track), and
each part again. On a line the best split of tracks in two lies between neighbours, so running sums try all of them;
they are of integers, whose differences do not depend on what was summed before.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

UM = 1e-4
WEIGHT_UM = 1000.0
"""error [um] of a track of weight 1: one of 100 um has weight 100"""
LEAST_ERROR_UM = 20.0
"""no track is taken to be better; with it and tracks within 32 cm, sums of 10 000 tracks fit 64 bits"""


@dataclass(frozen=True)
class Separation:
    """When tracks are of two vertices."""

    gap: float = 0.1
    """[cm] between neighbours, at least"""
    sigmas: float = 5.0
    """of the less well measured neighbour, at least"""
    gain: float = 15.0
    """chi2 by which a split must lower that of a cluster, at least,"""
    gain_per_track: float = 1.0
    """and this for each of its tracks more"""


DEFAULT = Separation()


def vertex_clusters(event: Ints, z: Floats, error: Floats, separation: Separation = DEFAULT) -> Ints:
    """The cluster of each track, by numbers that ascend with the event, then along the beam.

    `event` [n] in ascending order, z of tracks at the beam and its error [cm].
    """
    order = np.lexsort((z, event))
    event, z, error = event[order], z[order], error[order]
    begins = np.ones(len(z), np.bool_)
    apart = np.maximum(separation.gap, separation.sigmas * np.maximum(error[1:], error[:-1]))
    begins[1:] = (event[1:] != event[:-1]) | (z[1:] - z[:-1] > apart)
    where = np.arange(len(z))
    while len(where):
        number = np.cumsum(begins[where]) - 1
        cuts, parted = _cuts(number, z[where], error[where], separation)
        begins[where[cuts + 1]] = True
        where = where[parted[number]]
    found = np.empty(len(z), np.int64)
    found[order] = np.cumsum(begins) - 1
    return found


def _cuts(number: Ints, z: Floats, error: Floats, separation: Separation) -> tuple[Ints, Mask]:
    """After which tracks clusters are to be cut, one a cluster, and which clusters these are."""
    size = np.bincount(number)
    starts = np.cumsum(size) - size
    last = starts + size - 1
    gain = _gains(number, z - z[starts][number], error, last)
    # After its last track a cluster cannot be cut.
    gain[last] = -np.inf
    best = np.maximum.reduceat(gain, starts)
    parted = best > separation.gain + separation.gain_per_track * size
    fits = np.flatnonzero(parted[number] & (gain == best[number]))
    _, first = np.unique(number[fits], return_index=True)
    return fits[first], parted


def _gains(number: Ints, z: Floats, error: Floats, last: Ints) -> Floats:
    """By how much chi2 falls when a cluster is cut after each of its tracks; z from its first."""
    weight = np.rint((WEIGHT_UM / np.maximum(error / UM, LEAST_ERROR_UM)) ** 2).astype(np.int64)
    place = np.rint(z / UM).astype(np.int64)
    left, total = [], []
    for term in (weight, weight * place):
        running = np.cumsum(term)
        before = np.append(0, running[last[:-1]])
        left.append(running - before[number])
        total.append((running[last] - before)[number])
    parts = ((left[0], left[1]), (total[0] - left[0], total[1] - left[1]))
    whole = total[1] / np.maximum(total[0], 1)
    # Of each part, its weight times the distance of its mean from that of all, squared.
    gain = np.zeros(len(z))
    for amount, moment in parts:
        gain += amount * (moment / np.maximum(amount, 1) - whole) ** 2
    return np.asarray(gain / WEIGHT_UM**2)
