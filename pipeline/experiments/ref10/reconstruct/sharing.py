"""Errors along v of pixel clusters where the slope of their track is known: that of a size goes with the slope.

A track of slope s = dv/dw leaves its charge over a width W = s x 285 um, and pixels are 150 um long. Upright ones leave
one pixel, anywhere in it: 41 um; the more oblique, the nearer to its middle were those that still leave a single one.
Two are best where W is near what `positions` takes for it in the mean, s = 0.5: 6 um. (Physics note, 9.4.2, has the
same along u.) An error by size alone is the mean over all slopes, and pulls of z0 then go with the slope.

The table is of 6000 events of minimum bias at pile-up 0.5, in the full detector under true conditions (260 000 clusters
alone in their module, 7 % of them flagged and left out): the squares of residuals in their mean, as a line between
neighbouring slopes. tests/pipeline/experiments/ref10/reconstruct/test_sharing.py holds other events against it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.experiments.ref10.reconstruct.positions import PIXEL_V, SPREAD

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

STEP = 0.1
"""of |dv/dw| in the table; beyond its end, and of no number, its last value counts"""
OVER_PITCH = np.array(
    [
        [0.272, 0.246, 0.207, 0.166, 0.126, 0.086, 0.060, 0.070, 0.100, 0.100, 0.100, 0.100, 0.100],
        [0.216, 0.174, 0.129, 0.091, 0.057, 0.039, 0.061, 0.093, 0.108, 0.108, 0.107, 0.100, 0.096],
        [0.068, 0.068, 0.068, 0.068, 0.068, 0.068, 0.040, 0.040, 0.055, 0.061, 0.066, 0.070, 0.083],
    ]
)
"""error over the pitch, by size 1 to 3 and slope; where a size does not come with a slope (three pixels below 0.6, one
above 0.8) as it is without the slope, or more"""


def narrowed(size: Ints, slope: Floats) -> Floats:
    """By what to multiply the errors of clusters of sizes along v, where tracks have slopes dv/dw: 1 for sizes that are
    not in the table, among them 0, which stands for a cluster that something is wrong with."""
    sizes, slopes = OVER_PITCH.shape
    place = np.fmin(np.abs(slope) / STEP, slopes - 1)
    before = np.minimum(place.astype(np.int64), slopes - 2)
    known = (size > 0) & (size <= sizes)
    row = np.where(known, size - 1, 0)
    low, high = _RELATIVE[row, before], _RELATIVE[row, before + 1]
    found: Floats = np.where(known, low + (place - before) * (high - low), 1.0)
    return found


_RELATIVE = OVER_PITCH / SPREAD[PIXEL_V, : len(OVER_PITCH), None]
