"""Channels that a status in force and what is counted under it say different things of, where that is no chance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import pdtr, pdtrc

from calib.algorithms.occupancy_flags import Status, hits_at_once
from calib.payload import Payload
from calib.pulls import Apart, of_count, same_shape

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Array = NDArray[Any]

WELL_BELOW = 0.01
"""times what a payload's maker was asked for, so that what it rounded is no contradiction"""
OWN = ("counts", "silent", "events", "group_rate", "group_expected")
"""what a payload was made from"""


@dataclass(frozen=True, kw_only=True)
class Contradictions:
    """By the settings of `OccupancyStatus`, which has their meaning; `there` says which groups exist, [groups].

    Beyond doubt, each with less than `probability` by chance:
    channels called dead whose group, or all others together, are hit as their kin are, nearer to that than to
    `dead_below` of it, and so often that with `dead_below` it would not happen. Hits come several at once, and are
    counted so;
    and, of a payload that says what it was made from, what its own counts contradict: called good, but silent for too
    long, hit beyond chance, or of a group that is dead; called hot where its run clears it; of a group called noisy
    that is not. This is no matter of chance at all.

    Else, where kin have `min_mean` hits or more, with less than `stays_below`, so that a few of many are expected: a
    single channel called dead that is hit as its kin, or, of a payload that does not say what it was made from, called
    hot that is hit less than its kin.
    """

    group: int
    there: Mask
    dead_below: float
    noisy_above: float
    probability: float
    stays_below: float
    min_mean: float
    min_occupancy: float

    def apart(self, found: Payload, in_force: Payload) -> dict[str, Apart]:
        """How many are beyond doubt (`status`), and how many others there are (`channels`), against chance.

        Raises ValueError where the two are not of the same channels.
        """
        same_shape(found, in_force, "status")
        status = in_force["status"].reshape(-1)
        dead = (status & (Status.DEAD | Status.DEAD_GROUP)) != 0
        certain = self.not_dead(found, dead) | self.own(in_force, status)
        single = self._single(found, status, dead, _told(in_force)) & ~certain
        called = int(np.count_nonzero(status))
        return {
            "status": of_count(int(np.count_nonzero(certain)), self.probability * called),
            "channels": of_count(int(np.count_nonzero(single)), self.stays_below * called),
        }

    def not_dead(self, found: Payload, dead: Mask) -> Mask:
        """Channels called dead, of groups that are hit as their kin are; and all others, if together they are."""
        counts, mean = found["counts"].reshape(-1), self._of_kin(found)
        at_once = self._at_once(found)
        of_group = self._as_kin(self._grouped(counts, dead), self._grouped(mean, dead), at_once, self.probability)
        wrong: Mask = dead & np.repeat(of_group, self.group)
        others = dead & ~wrong
        together = self._as_kin(counts[others].sum(), mean[others].sum(), at_once, self.probability)
        return wrong | (others & together)

    def own(self, in_force: Payload, status: Array) -> Mask:
        """What a payload's own counts contradict; nothing of one that has none."""
        if not _told(in_force):
            return np.zeros(len(status), np.bool_)
        counts, silent = (in_force[name].reshape(-1) for name in ("counts", "silent"))
        events = int(in_force["events"])
        mean = np.repeat(in_force["group_rate"].astype(np.float64) * events, self.group)
        least = self.probability * WELL_BELOW
        hot = (pdtrc(counts, mean) < least) & (counts > np.maximum(mean, self.min_occupancy * events))
        lost = silent * (1 - 1e-6) > -np.log(self.probability)
        cleared = (mean >= self.min_mean * 1.001) & (pdtrc(counts, mean) > self.stays_below * 1.001)
        dead_group, noisy_group = (np.repeat(each, self.group) for each in self._groups(in_force, ~lost & ~hot))
        wrong: Mask = (status == 0) & (hot | lost | dead_group)
        wrong |= (status == Status.HOT) & cleared
        wrong |= ((status & Status.NOISY_GROUP) != 0) & ~noisy_group
        return wrong

    def _groups(self, payload: Payload, part: Mask) -> tuple[Mask, Mask]:
        """Which groups are dead, and which may be noisy, by what a payload says of them."""
        rate, kin = (payload[name].astype(np.float64) for name in ("group_rate", "group_expected"))
        at_once = self._at_once(payload)
        total, expected = self._grouped(payload["counts"], part), self._grouped(self._of_kin(payload), part)
        few = pdtr(np.floor(total / at_once), expected / at_once) < self.probability * WELL_BELOW
        return few & (rate < self.dead_below * kin * 0.999), rate > self.noisy_above * kin * 0.999

    def _single(self, found: Payload, status: Array, dead: Mask, told: bool) -> Mask:
        counts, mean = found["counts"].reshape(-1), self._of_kin(found)
        wrong = dead & self._as_kin(counts, mean, 1.0, self.stays_below)
        if not told:
            wrong |= (status != 0) & ~dead & (counts < mean) & (pdtr(counts, 2 * mean) < self.stays_below)
        return wrong & (mean >= self.min_mean)

    def _as_kin(self, hits: Any, expected: Any, at_once: float, chance: float) -> Mask:
        """Whether so many hits are of what lives, where kin have what is expected."""
        beyond = pdtrc(np.maximum(np.ceil(hits / at_once) - 1, 0), self.dead_below * expected / at_once) < chance
        found: Mask = beyond & (expected > 0) & (hits >= (1 + self.dead_below) / 2 * expected) & (hits > 0)
        return found

    def _of_kin(self, payload: Payload) -> Floats:
        """The hits expected of each channel, by its kin."""
        return np.repeat(payload["group_expected"].astype(np.float64) * int(payload["events"]), self.group)

    def _at_once(self, payload: Payload) -> float:
        counted = payload["status"].reshape(-1) == 0
        total, expected = self._grouped(payload["counts"], counted), self._grouped(self._of_kin(payload), counted)
        return hits_at_once(total[self.there], expected[self.there])

    def _grouped(self, values: Array, some: Mask) -> Floats:
        found: Floats = np.where(some, values.reshape(-1), 0).reshape(-1, self.group).sum(axis=1).astype(np.float64)
        return found


def _told(payload: Payload) -> bool:
    """Whether a payload says what it was made from."""
    return all(name in payload.arrays for name in OWN)
