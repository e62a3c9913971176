"""The rule by which CMS collapses lumisections into intervals, as coded: to compare with.

What `AlcaBeamSpotManager::createWeightedPayloads` of CMSSW does at bfe9b473 (physics note 1.6), defects included (12):
x and y close on a fall only, for the sign of a move is kept where it is compared with the floor; two steps of one sign
that together reach the floor close one lumisection early; a spike is vetoed where it begins, not where it ends; and
only neighbours are compared, so a slow drift goes on until the interval is full. `calib.boundaries.running_mean` is
without these.

It is not stable as `calib.boundaries` is: an interval begun afresh may end elsewhere, as one or two lumisections alone
stay apart. So a calibration can cut by it only a run at a time and when the run is over, not along a span.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from calib.boundaries import Interval, Trend, run_of

Mask = NDArray[np.bool_]


class Rule(StrEnum):
    """How lumisections become intervals."""

    RUNNING_MEAN = "running_mean"
    """`calib.boundaries.running_mean`"""
    CMS = "cms"
    """`collapse`, to compare with"""


CMS_LEAST_MOVE = 25e-4
"""cm; a smaller move in x or y never counts"""
MOST_BLOCKS = 60
"""an interval of so many lumisections is full"""
SPIKE = 0.33, 3.0
"""a move is half a spike if what follows goes back, the ratio of their sizes between these"""


@dataclass(frozen=True, slots=True)
class Move:
    """When a move of one coordinate from a lumisection to the next closes an interval.

    It is more than `significance` errors of the difference and no less than the floor of the first of the two.
    """

    significance: float
    falls_only: bool = False
    """a move to larger values does not count by itself"""
    two_steps: bool = False
    """two moves of one sign in a row that together reach the floor count, whatever their errors"""
    spike_veto: bool = False
    """one that is taken back at once does not count"""
    last_counts: bool = True
    """whether the move into the last lumisection counts"""


_PLACE = Move(3.5, falls_only=True, two_steps=True, spike_veto=True)
_SHAPE = Move(5.0, spike_veto=True, last_counts=False)

CMS_MOVES: Mapping[str, Move] = {
    "x": _PLACE,
    "y": _PLACE,
    "z": Move(3.5),
    "sigma_z": Move(5.0),
    "dxdz": _SHAPE,
    "dydz": _SHAPE,
    "width_x": _SHAPE,
    "width_y": _SHAPE,
}
"""by coordinate; the floors that go with them: x, y half of width_x, at least 25 um; z half of sigma_z; else 0"""


def collapse(trend: Trend, moves: Sequence[Move], most: int = MOST_BLOCKS) -> list[Interval]:
    """Cut the lumisections of one run where a coordinate moves; `moves` are one a column of the trend.

    A lumisection where a coordinate was not measured is left out: listed as vetoed in the interval it lies in. One or
    two that are left are an interval each. Raises ValueError for lumisections of several runs.
    """
    if len({run_of(block[0]) for block in trend.blocks}) > 1:
        raise ValueError("lumisections of several runs; collapse them run by run")
    good: Mask = np.all(np.isfinite(trend.values) & (trend.errors > 0), axis=1)
    kept = np.flatnonzero(good)
    begins = _begins(_shifts(trend, kept, moves), len(kept), most)
    # What was left out goes with what comes before it; at the beginning, with the first.
    edges = [0, *(int(kept[begin]) for begin in begins[1:]), len(good)] if len(kept) else [0, len(good)]
    return [_interval(trend, good, first, end) for first, end in pairwise(edges) if first < end]


def _begins(shifts: Mask, blocks: int, most: int) -> list[int]:
    """Where intervals begin, of the lumisections kept."""
    if blocks <= 2:
        return list(range(blocks))
    begins = [0]
    for i, shift in enumerate(shifts.tolist()):
        is_last, is_full = i == blocks - 2, i + 1 - begins[-1] == most
        if shift or (is_full and not is_last):
            begins.append(i + 1)
    return begins


def _shifts(trend: Trend, kept: NDArray[np.intp], moves: Sequence[Move]) -> Mask:
    """Whether anything moves from one lumisection kept to the next: bool[kept - 1]."""
    values, errors, floors = trend.values[kept], trend.errors[kept], trend.floors[kept]
    delta, error = values[:-1] - values[1:], np.hypot(errors[:-1], errors[1:])
    found = np.zeros(len(delta), np.bool_)
    for column, move in enumerate(moves):
        found |= _counts(move, delta[:, column], error[:, column], floors[:-1, column])
    return found


def _counts(move: Move, delta: NDArray[np.float64], error: NDArray[np.float64], floor: NDArray[np.float64]) -> Mask:
    size = delta if move.falls_only else np.abs(delta)
    shift: Mask = (np.abs(delta) > move.significance * error) & (size >= floor)
    now, then = delta[:-1], delta[1:]
    reached = (now * then > 0) & (np.abs(now + then) >= floor[:-1])
    back = (now * then < 0) & (np.abs(now) > SPIKE[0] * np.abs(then)) & (np.abs(now) < SPIKE[1] * np.abs(then))
    before_last = shift[:-1].copy()
    if move.two_steps:
        shift[:-1] |= ~before_last & reached
    if move.spike_veto:
        shift[:-1] &= ~(before_last & back)
    if len(shift) and not move.last_counts:
        shift[-1] = False
    return shift


def _interval(trend: Trend, good: Mask, first: int, end: int) -> Interval:
    blocks = range(first, end)
    units = tuple(unit for i in blocks for unit in trend.blocks[i])
    return Interval(units, closed=True, vetoed=tuple(unit for i in blocks if not good[i] for unit in trend.blocks[i]))
