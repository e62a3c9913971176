"""What fits of upright tracks are expected to do, by linear algebra alone: no simulation, no reconstruction.

Physics note, 9.1 and 5.4: across the beam a stiff track is y(r) = d0 + phi r + curvature r^2 / 2, measured on ten
layers with 10 um (pixels) and 25 um (strips); beam pipe and layers scatter it (Highland). What generalized least
squares make of a shift of hits is a matrix of numbers, `gain`; of errors, a covariance. At eta = 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from pipeline.experiments.ref10.layers import LAYERS, PIPE_RADIUS, PIPE_X0

Floats = NDArray[np.float64]

UM = 1e-4
CURVATURE_GEV = 0.00299792458
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


def random_curvature(pt: float, shift: Floats, errors: Sequence[Floats], draws: int = 60) -> float:
    """What `Fit.random` says of the curvature [1/cm] where errors of hits differ: those of a layer are drawn from here.

    The hits that are known best then decide, so that fewer shifts average out.
    """
    rng = np.random.default_rng(0)
    drawn = np.stack([rng.choice(layer, draws) for layer in errors], axis=1)
    return float(np.sqrt(np.mean([fit_with(pt, one).random(2, shift) ** 2 for one in drawn])))


def momentum_error(pt: float, tesla: float) -> float:
    """Relative error of pT."""
    return fit(pt).curvature * pt / (CURVATURE_GEV * tesla)


def shifted_d0(pt: float, phi: Floats, shift: Floats) -> Floats:
    """By how much d0 moves [cm] of tracks at azimuth `phi` whose pixel hits are displaced by `shift` [2, n] (x, y)."""
    across = shift[0] * np.sin(phi) - shift[1] * np.cos(phi)
    found: Floats = fit(pt).gain[0, PIXELS].sum() * across
    return found


def width_of_mixture(centres: Floats, sigma: float) -> float:
    """Half of what holds 68.27 % of Gaussians of one width about these centres."""
    at = np.linspace(centres.min() - 5 * sigma, centres.max() + 5 * sigma, 4001)
    below = ndtr((at[:, None] - centres) / sigma).mean(axis=1)
    low, high = np.interp([0.15865, 0.84135], below, at)
    return float((high - low) / 2)


def beyond(centres: Floats, sigma: float, limit: float) -> float:
    """The share of Gaussians of one width about these centres that is further than `limit` from 0."""
    return float(np.mean(ndtr((-limit - centres) / sigma) + ndtr((centres - limit) / sigma)))
