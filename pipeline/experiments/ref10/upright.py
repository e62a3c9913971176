"""What fits of upright tracks are expected to do, by linear algebra alone: no simulation, no reconstruction.

Physics note, 9.1 and 5.4: across the beam a stiff track is y(r) = d0 + phi r + curvature r^2 / 2, measured on ten
layers with 10 um (pixels) and 25 um (strips); beam pipe and layers scatter it (Highland). What generalized least
squares make of a shift of hits is a matrix of numbers, `gain`; of errors, a covariance. At eta = 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from pipeline.experiments.ref10.layers import LAYERS, PIPE_RADIUS, PIPE_X0

Floats = NDArray[np.float64]

UM = 1e-4
"""cm"""
PIXEL, STRIP = 10 * UM, 25 * UM
RADII = np.array([layer.radius for layer in LAYERS])
PIXELS = np.array([layer.pixel for layer in LAYERS])


@dataclass(frozen=True, eq=False)
class Fit:
    """Of tracks of one momentum: rows d0, phi, curvature."""

    gain: Floats
    """[3, 10]: by how much a parameter moves with the hit of a layer"""
    covariance: Floats
    """[3, 3]"""

    @property
    def d0(self) -> float:
        """Its error [cm]."""
        return float(np.sqrt(self.covariance[0, 0]))

    @property
    def curvature(self) -> float:
        """Its error [1/cm]."""
        return float(np.sqrt(self.covariance[2, 2]))

    def random(self, row: int, shift: Floats) -> float:
        """What independent shifts of the layers' sensors, rms [10] in cm, add to the spread of a parameter."""
        return float(np.sqrt(np.sum((self.gain[row] * shift) ** 2)))


@cache
def fit(pt: float) -> Fit:
    """At a transverse momentum [GeV]."""
    return fit_with(pt, np.where(PIXELS, PIXEL, STRIP))


def fit_with(pt: float, errors: Floats) -> Fit:
    """With other errors of the hits, [10] in cm."""
    radii = np.append(PIPE_RADIUS, RADII)
    material = np.append(PIPE_X0, [layer.x0 for layer in LAYERS])
    angle = 0.0136 / pt * np.sqrt(material) * (1 + 0.038 * np.log(material))
    lever = np.maximum(RADII[:, None] - radii, 0.0) * angle
    spread = lever @ lever.T + np.diag(errors**2)
    design = np.stack([np.ones(len(RADII)), RADII, RADII**2 / 2], axis=1)
    weighed = np.linalg.solve(spread, design)
    covariance = np.linalg.inv(design.T @ weighed)
    return Fit(covariance @ weighed.T, covariance)
