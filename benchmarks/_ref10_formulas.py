"""What wrong conditions are expected to do to tracks: formulas, no simulation and no reconstruction.

They stand on fits of upright tracks by linear algebra (pipeline/experiments/ref10/upright.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from pipeline.experiments.ref10.upright import PIXELS, UM, fit, fit_with

__all__ = [
    "CURVATURE_GEV",
    "PIXELS",
    "UM",
    "beyond",
    "fit",
    "momentum_error",
    "random_curvature",
    "shifted_d0",
    "width_of_mixture",
]

Floats = NDArray[np.float64]

CURVATURE_GEV = 0.00299792458


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
