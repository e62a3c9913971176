"""The straight line of z against the transverse way: where the longitudinal fit of a track begins."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.experiments.ref10.reconstruct.sums import summed

Floats = NDArray[np.float64]

LEAST_SPREAD = 1e-6
"""cm^2: ways that vary by less do not tell a slope"""


def line(way: Floats, z: Floats, weight: Floats) -> tuple[Floats, Floats]:
    """z at way 0 [cm] and slope dz/ds through points [points, n]; points of weight 0 do not count.

    The slope is 0 where the points do not tell one.
    """
    total = summed(weight)
    share = weight / np.where(total > 0, total, 1.0)
    mean_way, mean_z = summed(share * way), summed(share * z)
    from_way = way - mean_way
    spread = summed(share * from_way**2)
    told = spread > LEAST_SPREAD
    slope = np.where(told, summed(share * from_way * (z - mean_z)) / np.where(told, spread, 1.0), 0.0)
    return mean_z - slope * mean_way, slope
