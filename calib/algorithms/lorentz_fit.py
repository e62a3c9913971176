"""Where clusters are smallest: a hyperbola p0 + k sqrt((x - x0)^2 + w^2) through mean sizes, for many groups at once.

A cluster has about |x - x0| t / pitch channels more than the fewest, x the slope of the track across the channels, x0
the tangent of the Lorentz angle, t the thickness; diffusion and thresholds round the bottom off by w.

Gauss and Newton's steps, damped where they do not lead down (K. Levenberg, Quart. Appl. Math. 2 (1944) 164), every
group on its own but all in one set of arrays.

The variance of sizes is measured in each bin together with its neighbours, which count half, and drawn towards that of
all the group's bins, as ten more clusters would: of few clusters of one size it would come out as nothing. A bin
alone will not do: sizes of a slope are of two numbers, so that their mean tells their variance, and a mean that by
chance is nearer a whole number would seem surer than it is. Errors would then be too small, by 4 % where a sensor has
thirty clusters a bin. Bins are to be narrow against pitch over thickness, the slope by which a cluster grows by a
channel: over that the variance goes up and down once.

A hyperbola is not quite what sizes follow: mean sizes are taken for no better than a two-hundredth of a channel. Where
chi2 exceeds the degrees of freedom by more than three of its standard deviations, the error is raised by the root of
their ratio.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Int = NDArray[np.int64]
Mask = NDArray[np.bool_]

PARAMETERS = ("x0", "p0", "k", "w")
"""in the order of the last axis"""
LAST = np.array([False, False, False, True])
ROUNDS = 60
ARRIVED = 1e-12
"""of chi2, that the next step would gain"""
SETTLED = 1e-4
"""of its error, by which x0 still moves in the last step"""
DRAWN = 10.0
"""clusters of the group's variance that join those of a bin"""
NEIGHBOUR = 0.5
"""what a cluster in the next bin counts of one in the bin, for its variance"""
NARROWEST = 0.01
"""least w"""
INEXACT = 0.005
"""channels, by which a mean size may be off a hyperbola"""
LEAST_VARIANCE = 1e-3
"""of a size"""
RAISED_FROM = 3.0
RAISE, LOWER = 8.0, 0.25
DAMPED = 1e-3
"""to begin with, and what becomes of it after a step that does not lead down, and one that does"""


@dataclass(frozen=True, eq=False)
class Sums:
    """Of n groups in b bins of slope, [n, b]: clusters, and their sums of size, of its square, and of the slope."""

    clusters: Int
    size: Int
    size_squared: Int
    slope: Floats

    def points(self) -> tuple[Floats, Floats, Floats]:
        """Mean slope and size, and the weight of the latter (0 without a cluster), each [n, b]."""
        some = np.maximum(self.clusters, 1)
        slope, size = self.slope / some, self.size / some
        squares = np.maximum(self.size_squared - size * self.size, 0.0)
        bins = np.count_nonzero(self.clusters, axis=1, keepdims=True)
        free = np.maximum(self.clusters.sum(axis=1, keepdims=True) - bins, 1)
        typical = np.maximum(squares.sum(axis=1, keepdims=True) / free, LEAST_VARIANCE)
        counted = _with_neighbours(np.maximum(self.clusters - 1, 0))
        variance = (_with_neighbours(squares) + DRAWN * typical) / (counted + DRAWN)
        return slope, size, self.clusters / (variance + INEXACT**2 * self.clusters)


def _with_neighbours(values: Floats | Int) -> Floats:
    """Of each bin, with what the next ones count, [n, b]."""
    beside = np.pad(values.astype(np.float64), ((0, 0), (1, 1)))
    found: Floats = beside[:, 1:-1] + NEIGHBOUR * (beside[:, :-2] + beside[:, 2:])
    return found


@dataclass(frozen=True, eq=False)
class Fit:
    """Of n groups."""

    parameters: Floats
    """[n, 4]"""
    error: Floats
    """of x0, [n]; infinite where the points do not tell it"""
    chi2: Floats
    ndf: Int
    settled: Mask


def fit(sums: Sums, start: Floats, free: Mask) -> Fit:
    """Hyperbolas from `start` [n, 4]; parameters that are not `free` bool[n, 4] stay as they are."""
    slope, size, weight = sums.points()
    now = start.astype(np.float64)
    damping = np.full(len(now), DAMPED)
    chi2 = _chi2(now, slope, size, weight)
    moving = np.ones(len(now), np.bool_)
    for _ in range(ROUNDS):
        matrix, gradient = _bounded(now, (slope, size, weight), free)
        scaled = matrix + matrix * np.eye(len(PARAMETERS)) * damping[:, None, None]
        step = np.linalg.solve(scaled, gradient[..., None])[..., 0]
        after = now + step
        after[:, 3] = np.maximum(np.abs(after[:, 3]), NARROWEST)
        tried = _chi2(after, slope, size, weight)
        # A group that has arrived stays, whatever others need.
        moving &= np.einsum("ni,ni->n", step, gradient) > ARRIVED
        down = moving & (tried <= chi2)
        now, chi2 = np.where(down[:, None], after, now), np.where(down, tried, chi2)
        damping = np.clip(np.where(down, damping * LOWER, damping * RAISE), 1e-12, 1e12)
        if not moving.any():
            break
    matrix, gradient = _bounded(now, (slope, size, weight), free)
    covariance = np.linalg.inv(matrix)
    ndf = np.maximum(np.count_nonzero(weight, axis=1) - free.sum(axis=1), 0)
    told = np.isfinite(covariance[:, 0, 0]) & (covariance[:, 0, 0] > 0) & (ndf > 0)
    plain = np.sqrt(np.where(told, covariance[:, 0, 0], 1.0))
    left = np.abs(np.einsum("nij,nj->ni", covariance, gradient)[:, 0])
    bad = chi2 > ndf + RAISED_FROM * np.sqrt(2.0 * ndf)
    raised = np.sqrt(np.where(bad, chi2 / np.maximum(ndf, 1), 1.0))
    return Fit(now, np.where(told, plain * raised, np.inf), chi2, ndf, told & (left < SETTLED * plain))


def _bounded(now: Floats, points: tuple[Floats, Floats, Floats], free: Mask) -> tuple[Floats, Floats]:
    """As `_normal`; a bottom as sharp as it may be, that would be sharper, stays so."""
    matrix, gradient = _normal(now, points, free)
    sharper = (now[:, 3] <= NARROWEST) & (gradient[:, 3] <= 0)
    return _normal(now, points, free & ~(sharper[:, None] & LAST)) if sharper.any() else (matrix, gradient)


def _model(now: Floats, slope: Floats) -> tuple[Floats, Floats, Floats]:
    """Distance from the smallest, its rounded size, and the mean size, each [n, b]."""
    x0, p0, k, w = (now[:, i, None] for i in range(len(PARAMETERS)))
    off = slope - x0
    rounded = np.sqrt(off**2 + w**2)
    return off, rounded, p0 + k * rounded


def _chi2(now: Floats, slope: Floats, size: Floats, weight: Floats) -> Floats:
    found: Floats = np.sum(weight * (size - _model(now, slope)[2]) ** 2, axis=1)
    return found


def _normal(now: Floats, points: tuple[Floats, Floats, Floats], free: Mask) -> tuple[Floats, Floats]:
    """The normal equations [n, 4, 4] and [n, 4]; those of parameters that are held say that these do not move."""
    slope, size, weight = points
    off, rounded, mean = _model(now, slope)
    k, w = now[:, 2, None], now[:, 3, None]
    rows = np.stack([-k * off / rounded, np.ones_like(off), rounded, k * w / rounded], axis=1) * free[..., None]
    matrix = np.einsum("nib,njb,nb->nij", rows, rows, weight)
    gradient = np.einsum("nib,nb->ni", rows, weight * (size - mean))
    held = ~free | (np.einsum("nii->ni", matrix) <= 0)
    return matrix + held[..., None] * np.eye(len(PARAMETERS)), gradient
