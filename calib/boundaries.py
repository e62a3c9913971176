"""Where an interval of validity must end. Pure functions over units in order.

All of them are stable: what they close without `flush` stays the same whatever data follow, and starting afresh at
the first unit of an open interval cuts what follows at the same places. The rule CMS has, which is not, is in
`calib.collapsing` for comparison.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calib.drifts import Stretch, moves_at
from calib.iov import LUMI_BITS

Int = NDArray[np.int64]
Floats = NDArray[np.float64]
Block = tuple[int, ...]
"""packed units, consecutive and sorted, that are looked at together"""


@dataclass(frozen=True, slots=True)
class Interval:
    """Consecutive units that share one payload.

    `units` are packed and sorted; `closed` is False for the last one while more data may still join it.
    `vetoed` are units whose own value was off and was left out; `unconfirmed` marks a move seen in the last block of
    the data, or of its run, only.
    """

    units: tuple[int, ...]
    closed: bool
    vetoed: tuple[int, ...] = ()
    unconfirmed: bool = False

    @property
    def used(self) -> tuple[int, ...]:
        """The units the payload is made from: all but the vetoed."""
        vetoed = set(self.vetoed)
        return tuple(unit for unit in self.units if unit not in vetoed)


def merge_until_enough(units: Int, entries: Int, enough: int, flush: bool) -> tuple[list[Block], Block]:
    """Blocks of consecutive units (packed, sorted) with at least `enough` entries each, and the units still undecided.

    What is left over at the end of a run joins the block before, if that ends in the same run; else it goes on into
    the next run. With `flush` nothing stays undecided: a left-over that can join no block of its run is a block of its
    own, the only one with too few entries.

    >>> merge_until_enough(np.array([1, 2, 3, 4, 5]), np.array([6, 5, 9, 7, 4]), 10, flush=True)
    ([(1, 2), (3, 4, 5)], ())
    """
    blocks: list[list[int]] = []
    rest: list[int] = []
    count = 0
    for unit, found in zip(units.tolist(), entries.tolist(), strict=True):
        if rest and run_of(rest[-1]) != run_of(unit) and _same_run(blocks, rest):
            blocks[-1] += rest
            rest, count = [], 0
        rest.append(unit)
        count += found
        if count >= enough:
            blocks.append(rest)
            rest, count = [], 0
    if flush and rest:
        if _same_run(blocks, rest):
            blocks[-1] += rest
        else:
            blocks.append(rest)
        rest = []
    elif not flush and _same_run(blocks, units.tolist()):
        # A left-over of its run may still join it.
        rest = blocks.pop() + rest
    return [tuple(block) for block in blocks], tuple(rest)


def _same_run(blocks: Sequence[Sequence[int]], rest: Sequence[int]) -> bool:
    return bool(blocks and rest) and run_of(blocks[-1][-1]) == run_of(rest[-1])


def run_of(unit: int) -> int:
    """The run of a packed unit."""
    return unit >> LUMI_BITS


@dataclass(frozen=True, eq=False)
class Trend:
    """What was measured along consecutive blocks: a row a block, a column a coordinate.

    `values`, `errors`, `floors` float64[n, k]; a block that moved less than its floor never counts. A value that is NaN
    was not measured there and has no say.
    """

    blocks: Sequence[Block]
    values: Floats
    errors: Floats
    floors: Floats


def running_mean(
    trend: Trend, significance: float, flush: bool, rest: Block = (), drifts: bool = True
) -> list[Interval]:
    """Cut a trend where it moves off the inverse-variance mean of the open interval. `rest` are undecided units.

    A block is off if a coordinate is more than its floor, and more than `significance` errors, from the mean. The error
    is that of their difference, sqrt(1/w + 1/W) with the weights w of the block and W of the mean. Two blocks in a row
    off on the same side close the interval at the first of them; if they differ from one another as much, each opens
    an interval of its own. One alone is vetoed: left out of the mean and listed. At a run boundary there is no veto: a
    block that is off closes the interval at once, and one that was off at the end of its run gets an interval of its
    own. So does one at the end of the data (`flush`); both are `unconfirmed` unless data that
    follow agree. Coordinates are followed on their own: any one closes.

    What blocks of large errors tell only together closes an interval too, unless `drifts` is False: where the line
    through those of one run that are in the mean has a slope of more than `significance` errors, it ends where they,
    on that line or by a step that fits better, leave the mean by more than the floor (`calib.drifts.moves_at`). What
    follows from there is then looked at afresh. Of runs of 100 blocks at rest with errors of 14 um and a floor of 10 it
    cuts 0.1 % a coordinate.
    """
    walk = _Walk(trend, significance)
    i = 1
    while i < len(trend.blocks):
        walk.step(i)
        i = (walk.turn_back() or i) + 1 if drifts else i + 1
    return walk.finish(flush, rest)


class _Walk:
    """The open interval on its way along a trend: its first block, its mean, and a block that waits for the next."""

    def __init__(self, trend: Trend, significance: float) -> None:
        self._trend = trend
        self._significance = significance
        usable = np.isfinite(trend.values) & (trend.errors > 0) & np.isfinite(trend.errors)
        self._weights = np.where(usable, 1 / np.where(usable, trend.errors, 1.0) ** 2, 0.0)
        self._values = np.where(usable, trend.values, 0.0)
        self._closed: list[Interval] = []
        self._first = 0
        self._weight = self._moment = np.zeros(trend.values.shape[1])
        self._stretch = Stretch(trend.values.shape[1])
        """the blocks of the last run that are in the mean"""
        self._vetoed: Block = ()
        self._unconfirmed = False
        self._pending: int | None = None
        if trend.blocks:
            self._open(0)

    def step(self, i: int) -> None:
        """Take in block i."""
        if run_of(self._trend.blocks[i - 1][-1]) != run_of(self._trend.blocks[i][-1]):
            self._cross(i)
        elif self._pending is not None and np.any(self._sides(i) * self._sides(self._pending) > 0):
            self._reopen(self._pending)
            if self._sides(i).any():
                self._reopen(i)
            else:
                self._include(i)
        else:
            if self._pending is not None:
                self._vetoed += self._trend.blocks[self._pending]
            off = bool(self._sides(i).any())
            self._pending = i if off else None
            if not off:
                self._include(i)

    def turn_back(self) -> int | None:
        """The block that the interval has to close at, if the blocks in it move; it is then closed and reopened."""
        if self._pending is not None:
            return None
        found = [self._moves_at(column) for column in self._stretch.tilted(self._significance)]
        at = min((block for block in found if block is not None), default=None)
        if at is not None:
            # Whether one that follows is vetoed is found again.
            self._vetoed = tuple(unit for unit in self._vetoed if unit < self._trend.blocks[at][0])
            self._reopen(at)
        return at

    def _moves_at(self, column: int) -> int | None:
        blocks = np.array(self._stretch.blocks)
        blocks = blocks[self._weights[blocks, column] > 0]
        values, weights = self._values[blocks, column], self._weights[blocks, column]
        at = moves_at(blocks - blocks[0], values, weights, self._trend.floors[blocks, column], self._significance)
        return None if at is None else int(blocks[at])

    def _cross(self, i: int) -> None:
        if self._pending is not None:
            self._reopen(self._pending, unconfirmed=True)
        self._stretch = Stretch(self._values.shape[1])
        if self._sides(i).any():
            self._reopen(i)
        else:
            self._include(i)

    def finish(self, flush: bool, rest: Block) -> list[Interval]:
        """All intervals, the last one open unless flushed."""
        if not self._trend.blocks:
            return [Interval(rest, closed=flush)] if rest else []
        if flush and self._pending is not None:
            self._reopen(self._pending, unconfirmed=True)
        return [*self._closed, self._interval(len(self._trend.blocks), flush, rest)]

    def _sides(self, i: int) -> Int:
        """For every coordinate whether block i lies off the mean: -1 below, 1 above, 0 not."""
        both = (self._weights[i] > 0) & (self._weight > 0)
        of_block, of_mean = np.where(both, self._weights[i], 1.0), np.where(both, self._weight, 1.0)
        move = self._values[i] - self._moment / of_mean
        # The block is not in the mean, so their errors are independent.
        error = np.sqrt(1 / of_block + 1 / of_mean)
        off = both & (np.abs(move) > self._significance * error) & (np.abs(move) > self._trend.floors[i])
        return np.where(off, np.sign(move), 0).astype(np.int64)

    def _include(self, i: int) -> None:
        self._weight = self._weight + self._weights[i]
        self._moment = self._moment + self._weights[i] * self._values[i]
        self._stretch.add(i, self._values[i], self._weights[i])
        self._unconfirmed = self._unconfirmed and i == self._first

    def _open(self, i: int, unconfirmed: bool = False) -> None:
        self._first, self._unconfirmed = i, unconfirmed
        self._weight = self._moment = np.zeros(self._values.shape[1])
        self._stretch = Stretch(self._values.shape[1])
        self._vetoed, self._pending = (), None
        self._include(i)

    def _reopen(self, i: int, unconfirmed: bool = False) -> None:
        """Close the interval before block i and open one with it."""
        self._closed.append(self._interval(i, closed=True))
        self._open(i, unconfirmed)

    def _interval(self, until: int, closed: bool, rest: Block = ()) -> Interval:
        units = tuple(unit for block in self._trend.blocks[self._first : until] for unit in block)
        return Interval(units + rest, closed, self._vetoed, self._unconfirmed)
