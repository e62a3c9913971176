"""Tracks where they come nearest to another point than the origin, with the errors that matter there.

From the helix about the origin, over ways s of some millimetres, in which it leaves its tangent by rho s^2 / 2. The
errors of direction count: over 1 mm from the axis 2 mrad are 2 um, and as d0 and phi go together, the variance of d0
changes by several per cent.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from pipeline.experiments.collisions import Collection
from pipeline.experiments.ref10.reconstruct.helix import PARAMETERS

Floats = NDArray[np.float64]
Rows = dict[str, Floats]


@dataclass(frozen=True, eq=False)
class Perigees:
    """n tracks about one point (x, y) for each."""

    d0: Floats
    """distance from the point, signed as that from the origin [cm]"""
    phi: Floats
    """direction there [rad], not brought into a range"""
    z0: Floats
    """[cm]"""
    cot_theta: Floats
    d0_variance: Floats
    z0_variance: Floats
    covariance: Floats
    """of d0 and z0"""

    def taken(self, order: NDArray[np.integer]) -> Perigees:
        """Some of them, in an order."""
        return Perigees(*(getattr(self, part.name)[order] for part in fields(self)))


def about(tracks: Collection, x: Floats, y: Floats) -> Perigees:
    """Tracks (columns of `tracks`) about points, one for each [cm]."""
    sine, cosine = np.sin(tracks["phi"]), np.cos(tracks["phi"])
    along, across = x * cosine + y * sine, x * sine - y * cosine
    rho, cot = tracks["curvature"], tracks["cot_theta"]
    d0 = {"d0": np.ones_like(rho), "phi": -along, "curvature": 0.5 * along**2}
    z0 = {"z0": np.ones_like(rho), "cot_theta": along, "phi": -cot * across}
    return Perigees(
        d0=tracks["d0"] - across + 0.5 * rho * along**2,
        phi=tracks["phi"] - rho * along,
        z0=tracks["z0"] + cot * along,
        cot_theta=cot,
        d0_variance=propagated(tracks, d0, d0),
        z0_variance=propagated(tracks, z0, z0),
        covariance=propagated(tracks, d0, z0),
    )


def propagated(tracks: Collection, one: Rows, other: Rows) -> Floats:
    """Covariance of two functions of the parameters, from their derivatives [n] by parameter."""
    found = np.zeros(len(tracks.flat["phi"]))
    for a, left in one.items():
        for b, right in other.items():
            found += left * right * tracks[covariance_column(a, b)]
    return found


def covariance_column(one: str, other: str) -> str:
    """The column of the covariance of two parameters, in whatever order they are named."""
    first, second = sorted((one, other), key=PARAMETERS.index)
    return f"cov_{first}_{second}"
