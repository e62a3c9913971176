"""The luminous region from primary vertices: the 3-D likelihood with the resolution of each vertex unfolded.

-2 ln L = sum [r^T (C + B)^-1 r + ln det(C + B)], r = v - mean, C the covariance of the vertex, and B = D + vz a a^T
with a = (dx/dz, dy/dz, 1), D = [[vx, c], [c, vy]]: positive definite for vx, vy, vz > 0 and vx vy > c^2, unlike the
form CMS uses (physics note 1.4, 1.8). Maximised by Fisher scoring.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from calib.accumulators import UnitRows
from calib.calibration import NotConverged

Floats = NDArray[np.float64]

STEPS, HALVINGS, TRIMS = 60, 30, 10
RESTING = 1e-6
"""a fit rests when half the product of gradient and step is smaller"""
TRIM = 25.0
"""vertices with a larger chi2 (3 degrees of freedom: 1.5e-5 of a Gaussian) are left out and the rest fitted again"""

X, Y, Z, VX, VY, C, DX, DY, VZ = range(9)


def best_of_all(rows: UnitRows, most: int) -> NDArray[np.intp]:
    """Which rows of a state are the `most` of smallest rank, whatever their units; all, where there are no more."""
    if len(rows.keys) <= most:
        return np.arange(len(rows.keys))
    return np.sort(np.argsort(rows.columns[rows.rank], kind="stable")[:most])


@dataclass(frozen=True, eq=False)
class Vertices:
    """`position` float64[n, 3] [cm] and `covariance` float64[n, 3, 3] [cm^2] of vertices, in order of their keys."""

    position: Floats
    covariance: Floats

    @classmethod
    def of(cls, rows: UnitRows, most: int) -> Self:
        """The vertices kept in a state; at most so many, those of smallest rank."""
        best = best_of_all(rows, most)
        column = {name: values[best].astype(np.float64) for name, values in rows.columns.items()}
        covariance = np.zeros((len(column["x"]), 3, 3))
        for i, axis in enumerate("xyz"):
            covariance[:, i, i] = column[f"{axis}_error"] ** 2
        covariance[:, 0, 1] = covariance[:, 1, 0] = column["xy_covariance"]
        return cls(np.stack([column[axis] for axis in "xyz"], axis=1), covariance)

    def __len__(self) -> int:
        return len(self.position)

    def __getitem__(self, which: NDArray[np.bool_]) -> Vertices:
        return Vertices(self.position[which], self.covariance[which])


@dataclass(frozen=True, eq=False)
class Region:
    """The fitted region: `values` and `covariance` of (x, y, z, vx, vy, c, dx/dz, dy/dz, vz) [cm, cm^2, rad], and
    which vertices were `kept` bool[n].
    """

    values: Floats
    covariance: Floats
    kept: NDArray[np.bool_]

    @property
    def used(self) -> int:
        """How many vertices were not left out."""
        return int(self.kept.sum())


@dataclass(frozen=True, eq=False)
class Influence:
    """By how much each vertex has moved the values of a fit, to first order: float64[n, p] in their units, 0 together.

    `keys` int64[n, 3] of the vertices (unit, event, vertex), sorted. The sum of their squares is the covariance.
    """

    keys: NDArray[np.int64]
    values: Floats


def fit_region(vertices: Vertices) -> Region:
    """Fit, leave out what is far off, and fit again until that changes nothing. Raises NotConverged.

    Where few vertices pull the correlation of x and y to its limit, c is 0.
    """
    try:
        return _fit(vertices, np.arange(9))
    except NotConverged:
        return _fit(vertices, np.delete(np.arange(9), C))


def _fit(vertices: Vertices, free: NDArray[np.intp]) -> Region:
    kept = np.ones(len(vertices), np.bool_)
    values = _start(vertices)
    for _ in range(TRIMS):
        values, covariance = _climb(vertices[kept], values, free)
        # What is out stays out, or a vertex at the limit could come and go for ever.
        near = kept & (_chi2(vertices, values) < TRIM)
        if np.array_equal(near, kept):
            return Region(values, covariance, kept)
        kept = near
    raise NotConverged(f"the luminous region did not settle in {TRIMS} rounds of leaving out vertices")


def _start(vertices: Vertices) -> Floats:
    """Medians, and spreads with the median resolution taken off."""
    middle = np.median(vertices.position, axis=0)
    spread = (1.4826 * np.median(np.abs(vertices.position - middle), axis=0)) ** 2
    known = np.median(np.einsum("nii->ni", vertices.covariance), axis=0)
    width = np.maximum(spread - known, 0.1 * spread)
    width = np.where(width > 0, width, 1e-8)
    return np.array([*middle, width[0], width[1], 0.0, 0.0, 0.0, width[2]])


def _climb(vertices: Vertices, values: Floats, free: NDArray[np.intp]) -> tuple[Floats, Floats]:
    """Values and covariance at the maximum over the free parameters, from a start. Raises NotConverged."""
    now = _twice_negative_log(vertices, values)
    covariance = np.zeros((9, 9))
    for _ in range(STEPS):
        gradient, information = _slope(vertices, values)
        inner = information[np.ix_(free, free)]
        scale = 1 / np.sqrt(np.diag(inner))
        try:
            inverse = np.linalg.inv(inner * scale[:, None] * scale) * scale[:, None] * scale
        except np.linalg.LinAlgError:
            raise NotConverged("the vertices do not determine the luminous region") from None
        covariance[np.ix_(free, free)] = inverse
        step = covariance @ gradient
        if gradient @ step < 2 * RESTING:
            return values, covariance
        for _ in range(HALVINGS):
            then = _twice_negative_log(vertices, values + step)
            if then <= now:
                break
            step = step / 2
        else:
            break
        values, now = values + step, then
    raise NotConverged("the likelihood of the luminous region has no maximum that was found; a width may be zero")


def _region(values: Floats) -> tuple[Floats, Floats]:
    """B [3, 3] and the direction a [3]."""
    along = np.array([values[DX], values[DY], 1.0])
    region = values[VZ] * np.outer(along, along)
    region[:2, :2] += np.array([[values[VX], values[C]], [values[C], values[VY]]])
    return region, along


def _twice_negative_log(vertices: Vertices, values: Floats) -> float:
    if min(values[VX], values[VY], values[VZ]) <= 0 or values[VX] * values[VY] <= values[C] ** 2:
        return np.inf
    total = vertices.covariance + _region(values)[0]
    return float(np.sum(_chi2(vertices, values) + np.log(np.linalg.det(total))))


def _chi2(vertices: Vertices, values: Floats) -> Floats:
    off = vertices.position - values[:3]
    total = vertices.covariance + _region(values)[0]
    chi2: Floats = np.einsum("ni,ni->n", off, np.linalg.solve(total, off[:, :, None])[:, :, 0])
    return chi2


def _slope(vertices: Vertices, values: Floats) -> tuple[Floats, Floats]:
    """Gradient [9] of ln L and Fisher information [9, 9]."""
    weight, pulled, change = _pulls(vertices, values)
    turned = np.einsum("nij,ajk->naik", weight, change)
    gradient = np.empty(9)
    gradient[:3] = pulled.sum(axis=0)
    gradient[3:] = 0.5 * (np.einsum("ni,aij,nj->a", pulled, change, pulled) - np.einsum("naii->a", turned))
    information = np.zeros((9, 9))
    information[:3, :3] = weight.sum(axis=0)
    information[3:, 3:] = 0.5 * np.einsum("naij,nbji->ab", turned, turned)
    return gradient, information


def _pulls(vertices: Vertices, values: Floats) -> tuple[Floats, Floats, Floats]:
    """(C + B)^-1 [n, 3, 3], that times r [n, 3], and the derivatives of B [6, 3, 3] for vx, vy, c, dx/dz, dy/dz, vz."""
    region, along = _region(values)
    weight = np.asarray(np.linalg.inv(vertices.covariance + region), np.float64)
    pulled = np.einsum("nij,nj->ni", weight, vertices.position - values[:3])
    change = np.zeros((6, 3, 3))
    change[0, 0, 0] = change[1, 1, 1] = change[2, 0, 1] = change[2, 1, 0] = 1
    change[3, 0] = change[4, 1] = values[VZ] * along
    change[3:5] += np.swapaxes(change[3:5], 1, 2).copy()
    change[5] = np.outer(along, along)
    return weight, pulled, change


def influence_of(rows: UnitRows, most: int, region: Region) -> Influence:
    """That of the vertices a region was fitted to, `Vertices.of(rows, most)`, on its nine values."""
    vertices, keys = Vertices.of(rows, most), rows.keys[best_of_all(rows, most)]
    weight, pulled, change = _pulls(vertices[region.kept], region.values)
    score = np.empty((len(pulled), 9))
    score[:, :3] = pulled
    score[:, 3:] = np.einsum("ni,aij,nj->na", pulled, change, pulled) - np.einsum("nij,aji->na", weight, change)
    score[:, 3:] /= 2
    return Influence(keys[region.kept], np.einsum("ab,nb->na", region.covariance, score))
