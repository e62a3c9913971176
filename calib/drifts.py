"""Where what drifts, or has moved by less than one block can tell, leaves where it was: from all blocks of a stretch.

For `calib.boundaries.running_mean`, whose test of blocks one by one sees a drift late where their errors are large.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LEAST_BLOCKS = 3
"""of fewer, the test of single blocks knows as much"""


class Stretch:
    """Blocks that lie one after the other, and the straight line through each of their k coordinates.

    The sums of the line are kept, so that a look at a stretch that does not move costs the same however long it is.
    """

    def __init__(self, coordinates: int) -> None:
        self.blocks: list[int] = []
        """their numbers, which are the time that the line is against"""
        self._sums = self._sums_before = np.zeros((5, coordinates))
        self._origin = np.zeros(coordinates)

    def add(self, block: int, values: Floats, weights: Floats) -> None:
        """One more, with weights of 1 over its errors squared, and 0 for what was not measured."""
        time = float(block - self.blocks[0]) if self.blocks else 0.0
        self._origin = np.where(self._sums[0] > 0, self._origin, values)
        off = values - self._origin
        self._sums_before = self._sums
        self._sums = self._sums + weights * np.stack(
            [np.ones_like(off), np.full_like(off, time), time**2 + 0 * off, off, time * off]
        )
        self.blocks.append(block)

    def tilted(self, significance: float) -> NDArray[np.intp]:
        """The coordinates whose line has a slope of more than so many errors, with the last block and without it."""
        if len(self.blocks) < LEAST_BLOCKS:
            return np.zeros(0, np.intp)
        now, then = _slopes(self._sums), _slopes(self._sums_before)
        return np.flatnonzero((np.minimum(np.abs(now), np.abs(then)) > significance) & (now * then > 0))


def _slopes(sums: Floats) -> Floats:
    """In their errors; 0 where there is none."""
    one, t, tt, x, tx = sums
    spread = one * tt - t**2
    there = spread > 0
    return np.where(there, one * tx - t * x, 0.0) / np.sqrt(np.where(there, one * spread, 1.0))


def moves_at(times: Floats, values: Floats, weights: Floats, floors: Floats, significance: float) -> int | None:
    """The first of n blocks, all measured, that is off, where their line has a significant slope. None if none is.

    It is the first whose point on the line is more than its floor off the mean of the line before it: where a block
    without errors would be. Or if one step fits them better than the line, the one after the step, which then has to
    be more than `significance` errors and the floor.
    """
    total, middle = weights.sum(), weights @ times / weights.sum()
    mean, lever = weights @ values / total, times - middle
    line = mean + (weights * lever) @ values / ((weights * lever) @ lever) * lever
    before = np.cumsum(weights)[:-1]
    off = np.abs(line[1:] - np.cumsum(weights * line)[:-1] / before) > floors[1:]
    if not off.any():
        return None
    first = np.cumsum(weights * (values - mean))[:-1] / before
    # The mean of all is 0, so the mean behind a step follows from that before it.
    step = -first * total / (total - before)
    gained = before * (total - before) / total * step**2
    best = int(np.argmax(gained))
    if gained[best] <= (weights * (line - mean)) @ (line - mean):
        return int(np.argmax(off)) + 1
    sure = gained[best] > significance**2 and abs(step[best]) > floors[best + 1]
    return best + 1 if sure else None
