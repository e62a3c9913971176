"""What may be the matter with channels that are hit seldom, and how many of their hits come at once."""

from __future__ import annotations

from enum import IntFlag
from typing import Any

import numpy as np
from numpy.typing import NDArray

HALF_OF_CHI2 = 0.4549
"""the median of chi2 of one degree of freedom"""


class Status(IntFlag):
    """What is the matter with a channel; bits that may come together."""

    GOOD = 0
    DEAD = 1
    """not hit for so long that chance will not do"""
    HOT = 2
    """hit more often than the others of its group, beyond chance"""
    DEAD_GROUP = 4
    """its group is hit next to never where its kin are"""
    NOISY_GROUP = 8
    """its group is hit several times as often as its kin"""


def hits_at_once(total: NDArray[Any], expected: NDArray[np.float64]) -> float:
    """Variance over mean of what groups are hit by, at least 1; by the median, so that what is dead has no say."""
    counting = expected > 0
    squares = (total[counting] - expected[counting]) ** 2 / expected[counting]
    return max(1.0, lower_median(squares) / HALF_OF_CHI2)


def lower_median(values: NDArray[Any]) -> float:
    """0 of nothing."""
    middle = (max(len(values), 1) - 1) // 2
    return float(np.partition(values, middle)[middle]) if len(values) else 0.0
