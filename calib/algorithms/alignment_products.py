"""Sums of outer products by cell, exact whatever their order: the factors are whole numbers of steps.

Rounding factors instead of products leaves nothing to be rounded, neither product nor sum, and 6 + 6 numbers to go
through in place of 36. A product has at most MOST_BITS, so that 2 000 of the largest add up before int64 is full.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from calib.accumulators import SumOverflow, UnitSums
from calib.channel_sums import places

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MOST_BITS = 52
MOST_VALUES = 2_000_000
"""of factors that wait to be multiplied: 16 MB"""
SPARSE = 64
"""cells that there could be, for each that is named, from which these are sorted rather than ticked off"""
EXACT = 2.0**53
"""up to here float64 has every whole number"""
ROOM = 2.0**62
"""of sums in int64, and as much again"""


def whole(values: Floats, step: float) -> Ints:
    """Values in steps. Only of those that are known to be finite, and not beyond int64."""
    steps = values * (1 / step)
    return np.rint(steps, out=steps).astype(np.int64)


@dataclass(eq=False)
class Products:
    """Sums over rows of `left` x `right`, [left width, right width], by cell of the row."""

    cells: int
    """how many there could be"""
    widths: tuple[int, int]
    total: UnitSums = field(init=False)
    waiting: list[tuple[Ints, ...]] = field(default_factory=list)
    size: int = 0

    def __post_init__(self) -> None:
        self.total = UnitSums.empty(self.widths)

    def add(self, cell: Ints, left: Ints, each: Ints, right: Ints) -> None:
        """Rows of `left` [n, left width], of cells [n]; `each` [m] of them in line go with one of `right` [m, right
        width]."""
        self.waiting.append((cell, left, each, right))
        self.size += left.size + right.size
        if self.size > MOST_VALUES:
            self.fold()

    def fold(self) -> UnitSums:
        """All so far, [cells seen, left width, right width]."""
        if self.waiting:
            cell, left, each, right = (np.concatenate(parts) for parts in zip(*self.waiting, strict=True))
            more = self._summed(cell, left, each, right)
            self.total = self.total.merge(more) if len(self.total.keys) else more
        self.waiting, self.size = [], 0
        return self.total

    def _summed(self, cell: Ints, left: Ints, each: Ints, right: Ints) -> UnitSums:
        from scipy.sparse import csc_array

        if self.cells < SPARSE * len(cell):
            keys, place = places(cell, self.cells)
        else:
            keys, place = np.unique(cell, return_inverse=True)
        width = self.widths[0]
        # A row of `right` is a column of a sparse matrix; in it are the rows of `left` that go with it.
        index = np.empty((len(place), width), np.int32)
        for number in range(width):
            index[:, number] = place * width + number
        ends = np.concatenate([[0], np.cumsum(each) * width]).astype(np.int32)
        shape = (len(keys) * width, len(right))
        spread = csc_array((left.reshape(-1), index.reshape(-1), ends), shape=shape)
        # Hardly ever: only where all of them together could be too large is each cell looked at.
        if largest(left) * largest(right) * len(place) >= ROOM:
            _have_room(abs(spread).astype(np.float64) @ np.abs(right))
        return UnitSums(keys, (spread @ right).reshape(len(keys), *self.widths))


def _have_room(sums: Floats) -> None:
    """Raises SumOverflow unless sums, of sizes and rounded, fit into int64 whatever their rounding was."""
    if sums.max(initial=0) >= ROOM:
        raise SumOverflow(
            "the products of some structure in one chunk pass 2^62: measurements with errors far below a micron? Give "
            "errors that sensors have, or fewer events a chunk"
        )


def largest(values: Ints) -> float:
    """The largest size of any."""
    return float(max(values.max(initial=0), -values.min(initial=0)))


def squared(values: Ints) -> Ints:
    """`values`^T `values` of [n, width], exact; fast while sums keep below EXACT."""
    if largest(values) ** 2 * len(values) < EXACT:
        real = values.astype(np.float64)
        return (real.T @ real).astype(np.int64)
    return values.T @ values
