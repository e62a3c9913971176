"""The circle nearest to points in the transverse plane, without iteration: V. Karimaki, NIM A305 (1991) 187.

Where a track's fit begins. Hits are taken as points of their own errors; what scattering does to them is left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.experiments.ref10.reconstruct.sums import summed

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

LEAST_SPREAD = 1e-6
"""cm^4: points whose squared radii vary by less do not tell a direction"""


@dataclass(frozen=True, eq=False)
class Circle:
    """n circles by curvature [1/cm] (> 0 clockwise), direction [rad] and d0 [cm] at the closest approach to the
    origin; where `found` is false the points tell none, and these are 0."""

    curvature: Floats
    phi: Floats
    d0: Floats
    chi2: Floats
    """with the weights as inverse variances"""
    found: Mask


def circle(x: Floats, y: Floats, weight: Floats) -> Circle:
    """Through points [points, n]; points of weight 0 do not count."""
    total = summed(weight)
    share = weight / np.where(total > 0, total, 1.0)
    r2 = x**2 + y**2
    mean_x, mean_y, mean_r2 = summed(share * x), summed(share * y), summed(share * r2)
    from_x, from_y, from_r2 = x - mean_x, y - mean_y, r2 - mean_r2
    xx, xy, yy = summed(share * from_x**2), summed(share * from_x * from_y), summed(share * from_y**2)
    xr, yr, rr = summed(share * from_x * from_r2), summed(share * from_y * from_r2), summed(share * from_r2**2)
    found = rr > LEAST_SPREAD
    spread = np.where(found, rr, 1.0)
    phi = 0.5 * np.arctan2(2 * (rr * xy - xr * yr), rr * (xx - yy) - xr**2 + yr**2)
    phi += np.where(np.cos(phi) * mean_x + np.sin(phi) * mean_y < 0, np.pi, 0.0)
    cosine, sine = np.cos(phi), np.sin(phi)
    bend = (sine * xr - cosine * yr) / spread
    off = sine * mean_x - cosine * mean_y - bend * mean_r2
    # Below zero only for points that are no circle about the origin's side.
    root = np.sqrt(np.maximum(1 - 4 * off * bend, LEAST_SPREAD))
    curvature, d0 = 2 * bend / root, 2 * off / (1 + root)
    scatter = sine**2 * xx - 2 * sine * cosine * xy + cosine**2 * yy - bend**2 * rr
    chi2 = total * (1 + curvature * d0) ** 2 * scatter
    curvature, phi, d0, chi2 = (np.where(found, part, 0.0) for part in (curvature, phi, d0, np.maximum(chi2, 0.0)))
    return Circle(curvature, phi, d0, chi2, found)
