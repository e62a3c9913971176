"""Sums over the hits of tracks, and over the tracks of a vertex, that have the same bits whatever others are beside."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def summed(values: Floats) -> Floats:
    """Over axis 0, one after the other. NumPy's own sum would add in pairs when a single track is left beside it."""
    found: Floats = values[0].copy()
    for more in values[1:]:
        found += more
    return found


def gathered(of: Ints, values: NDArray[np.float64 | np.bool_], number: int) -> Floats:
    """The sums of values [n] of each of `number` groups, `of` telling the group of a value; in the order given."""
    # Of no values, NumPy counts in integers.
    found: Floats = np.bincount(of, weights=values, minlength=number).astype(np.float64)
    return found
