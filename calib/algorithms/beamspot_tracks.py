"""The line of the beam from the impact parameters of tracks, for many groups of tracks at once.

d0 = x sin(phi) - y cos(phi) for a track from (x, y), so d0 = g.a with g = (sin, -cos, z sin, -z cos) and
a = (x, y, dx/dz, dy/dz): a linear fit, iterated as the cut on residuals shrinks (physics note 1.2; CMS NOTE-2007/021).
The scatter about the line is fitted with it, and the cut goes in units of the scatter; so a track far off does not
matter, whatever the resolution is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from calib.accumulators import UnitRows

Floats = NDArray[np.float64]
Index = NDArray[np.intp]

PASSES = 200
RESTING = 1e-6
"""a fit rests when its squared step, in units of its errors, is smaller, and so the relative change of its scatter"""
REACH = 4.685
"""Tukey's biweight: a track further off than so many sigma has no weight (95 % efficient for a Gaussian)"""
SCATTER_REACH, SCATTER_MEAN = 3.0, 0.632_406_8
"""the same for the fit of the scatter, and the mean squared pull of a Gaussian with these weights"""
LEAST_SCATTER, LEAST_UNKNOWN = 1e-4, 20e-4
"""cm; the scatter beside known errors, and where none is known, is not less: few tracks may seem to agree by chance"""
SLOPE_PRIOR = 1e-3
"""rad: no beam is more tilted. Keeps the fit defined where tracks share one z or have none."""
VERTEX_GAP = 0.1
"""cm: tracks of an event that are nearer in z share a vertex, hence its displacement from the beam"""
SLAB = 20_000
"""tracks fitted at a time: more do not fit the cache"""

_ROW, _COLUMN = np.triu_indices(4)


@dataclass(frozen=True, eq=False)
class Tracks:
    """Tracks in the order of their keys: unit, event int64[n]; d0, z0, d0_error [cm], phi [rad], inverse_pt [1/GeV]
    float64[n]. z0 and d0_error are NaN where not known.
    """

    unit: NDArray[np.int64]
    event: NDArray[np.int64]
    d0: Floats
    phi: Floats
    z0: Floats
    d0_error: Floats
    inverse_pt: Floats

    @classmethod
    def of(cls, rows: UnitRows) -> Self:
        """The tracks kept in a state."""
        names = (field.name for field in fields(cls) if field.name not in ("unit", "event"))
        columns = {name: rows.columns[name].astype(np.float64) for name in names}
        return cls(rows.keys[:, 0], rows.keys[:, 1], **columns)

    @classmethod
    def through(cls, vertices: UnitRows, rows: Index) -> Self:
        """Two for each of these vertices of a state, along y and along x through it: their d0 is x, and -y.

        Their scatter about the line of the beam, beside the errors of the vertices, is the width of the beam.
        """
        x, y, z, x_error, y_error = (
            vertices.columns[name][rows].astype(np.float64) for name in ("x", "y", "z", "x_error", "y_error")
        )
        unit, event, z = (np.repeat(values, 2) for values in (vertices.keys[rows, 0], vertices.keys[rows, 1], z))
        d0, error = (np.stack(pair, axis=1).ravel() for pair in ((x, -y), (x_error, y_error)))
        return cls(unit, event, d0, np.tile([np.pi / 2, 0.0], len(x)), z, error, np.zeros(len(d0)))

    def __len__(self) -> int:
        return len(self.d0)

    def __getitem__(self, which: slice | Index) -> Tracks:
        return Tracks(*(getattr(self, field.name)[which] for field in fields(self)))


@dataclass(frozen=True, eq=False)
class Lines:
    """The fitted line of each of m groups.

    `line` float64[m, 4] is x, y at `z` (mean z of the tracks; NaN without) [cm] and the slopes [rad], `covariance`
    float64[m, 4, 4]; NaN where the fit is `settled` bool[m] False. `scatter` float64[m, 2] is a [cm] and b [cm GeV] of
    the spread sqrt(a^2 + (b / pT)^2) about the line, beside the d0 errors where they are known (then b = 0).
    `errors_known` bool[m]: whether they are known of all tracks. `used` int64[m] tracks had weight, of `vertices`
    int64[m]; `z_error`, `z_spread` float64[m] [cm].
    """

    line: Floats
    covariance: Floats
    settled: NDArray[np.bool_]
    scatter: Floats
    errors_known: NDArray[np.bool_]
    used: NDArray[np.int64]
    vertices: NDArray[np.int64]
    z: Floats
    z_error: Floats
    z_spread: Floats


def fit_lines(tracks: Tracks, starts: Index) -> Lines:
    """Fit every group, `tracks[starts[i]:starts[i + 1]]`, on its own. No group may be empty."""
    parts = [_fit_slab(tracks[begin:end], local) for begin, end, local in _slabs(starts, len(tracks))]
    return Lines(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Lines)))


def _slabs(starts: Index, tracks: int) -> Iterator[tuple[int, int, Index]]:
    """Whole groups of together about SLAB tracks: begin, end, and the starts counted from begin."""
    ends = np.append(starts[1:], tracks)
    first = 0
    while first < len(starts):
        begin = int(starts[first])
        last = max(first + 1, int(np.searchsorted(ends, begin + SLAB, side="right")))
        yield begin, int(ends[last - 1]), starts[first:last] - begin
        first = last


class _Groups:
    """Sums over groups that lie one after the other."""

    def __init__(self, starts: Index, size: int) -> None:
        self._starts = starts
        self.counts = np.diff(starts, append=size)

    def sum(self, values: NDArray[Any]) -> NDArray[Any]:
        """[..., n] to [..., m]. Each sum depends on its own group alone, to the last bit."""
        return np.add.reduceat(values, self._starts, axis=-1)

    def spread(self, values: NDArray[Any]) -> NDArray[Any]:
        """[..., m] to [..., n]: every member gets the value of its group."""
        return np.repeat(values, self.counts, axis=-1)


def _fit_slab(tracks: Tracks, starts: Index) -> Lines:
    groups = _Groups(starts, len(tracks))
    seen = np.isfinite(tracks.z0)
    with_z = groups.sum(seen.astype(np.int64))
    z = groups.sum(np.where(seen, tracks.z0, 0.0)) / np.maximum(with_z, 1)
    lever = np.where(seen, tracks.z0 - groups.spread(z), 0.0)
    points = _Points.of(tracks, lever, groups)
    line, variances, settled = _iterate(points)
    covariance, vertices = _covariance(points, line, variances, _vertices(tracks), np.where(with_z > 0, 4, 2))
    settled &= np.isfinite(covariance).all(axis=(1, 2))
    z_spread = np.sqrt(groups.sum(lever**2) / np.maximum(with_z, 1))
    return Lines(
        line=np.where(settled, line, np.nan).T,
        covariance=np.where(settled[:, None, None], covariance, np.nan),
        settled=settled,
        scatter=np.sqrt(variances).T,
        errors_known=groups.sum(np.isnan(tracks.d0_error)) == 0,
        used=groups.sum((points.inside(line, variances)[0] < 1).astype(np.int64)),
        vertices=vertices,
        z=np.where(with_z > 0, z, np.nan),
        z_error=z_spread / np.sqrt(np.maximum(vertices, 1)),
        z_spread=z_spread,
    )


@dataclass(frozen=True, eq=False)
class _Points:
    """What the fit is made to: n points in m groups. `products` [10, n] are of the rows of `design` [4, n]."""

    groups: _Groups
    d0: Floats
    design: Floats
    products: Floats
    known: Floats
    """variance of d0 that is known"""
    least: Floats
    """[m] the variance of the scatter is not less"""
    softness: Floats
    """1/pT^2 where d0 has no known error, else 0"""

    @classmethod
    def of(cls, tracks: Tracks, lever: Floats, groups: _Groups) -> Self:
        sine, cosine = np.sin(tracks.phi), np.cos(tracks.phi)
        design = np.stack([sine, -cosine, lever * sine, -lever * cosine])
        without = np.isnan(tracks.d0_error)
        softness = np.where(without, tracks.inverse_pt, 0.0) ** 2
        known = np.where(without, 0.0, tracks.d0_error) ** 2
        least = np.where(groups.sum(without) > 0, LEAST_UNKNOWN, LEAST_SCATTER) ** 2
        return cls(groups, tracks.d0, design, design[_ROW] * design[_COLUMN], known, least, softness)

    def residual(self, line: Floats) -> Floats:
        """d0 about the lines [4, m]."""
        along = self.groups.spread(line)
        off: Floats = self.d0 - np.einsum("pn,pn->n", self.design, along)
        return off

    def variance(self, variances: Floats) -> Floats:
        """Of the scatter with a^2, b^2 [2, m] of each group, and of what is known."""
        a, b = self.groups.spread(variances)
        total: Floats = a + b * self.softness + self.known
        return total

    def inside(self, line: Floats, variances: Floats) -> tuple[Floats, Floats, Floats]:
        """Squared distance from the line in units of the cut, at most 1; residual; variance."""
        residual, variance = self.residual(line), self.variance(variances)
        return np.minimum(residual**2 / (variance * REACH**2), 1.0), residual, variance


def _iterate(points: _Points) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Lines [4, m], variances [2, m], and which of them came to rest.

    A group that rests is left alone, so that its result does not depend on how long the others take.
    """
    groups = points.groups
    line, normal = _solve(points, np.ones_like(points.d0))
    mean = groups.sum(points.residual(line) ** 2) / groups.counts
    variances = np.stack([np.maximum(mean, points.least), np.zeros_like(mean)])
    typical = np.stack([np.ones_like(mean), groups.sum(points.softness) / groups.counts])
    settled = np.zeros(len(mean), np.bool_)
    for _ in range(PASSES):
        before, variances = variances, np.where(settled, variances, _scatter(points, line, variances))
        inside, _, variance = points.inside(line, variances)
        moved, normal = _solve(points, (1 - inside) ** 2 / variance)
        step = np.einsum("im,mii->m", (moved - line) ** 2, normal)
        line = np.where(settled, line, moved)
        # Relative to the variance of a typical track.
        drift = np.sum(np.abs(variances - before) * typical, axis=0) / np.sum(variances * typical, axis=0)
        settled |= (step < RESTING) & (drift < np.sqrt(RESTING))
        if settled.all():
            break
    return line, variances, settled


def _solve(points: _Points, weights: Floats) -> tuple[Floats, Floats]:
    """The lines [4, m] of least squares with these weights, and the normal matrices [m, 4, 4]."""
    normal = _matrices(points.groups.sum(points.products * weights)) + _prior()
    moment = points.groups.sum(points.design * (weights * points.d0))
    return np.linalg.solve(normal, moment.T[:, :, None])[:, :, 0].T, normal


def _prior() -> Floats:
    return np.diag([0.0, 0.0, SLOPE_PRIOR**-2, SLOPE_PRIOR**-2])


def _matrices(upper: Floats) -> Floats:
    """Symmetric matrices [m, 4, 4] of their upper triangles [10, m]."""
    full = np.empty((upper.shape[1], 4, 4))
    full[:, _ROW, _COLUMN] = full[:, _COLUMN, _ROW] = upper.T
    return full


def _scatter(points: _Points, line: Floats, before: Floats) -> Floats:
    """One step of the fit of the variances (a^2, b^2) [2, m] in a^2 + b^2 softness + known to squared residuals.

    The expectation of a squared residual is linear in them, so this is weighted least squares, with less weight for
    what lies further off, which scales the expectation. A smooth weight: with a sharp cut the fit may run in a circle.
    """
    squared, variance = points.residual(line) ** 2, points.variance(before)
    weight = ((1 - np.minimum(squared / (variance * SCATTER_REACH**2), 1.0)) / variance) ** 2
    soft = weight * points.softness
    target = squared / SCATTER_MEAN - points.known
    one, s, ss, t, st = points.groups.sum(
        np.stack([weight, soft, soft * points.softness, weight * target, soft * target])
    )
    determinant = one * ss - s**2
    # Without a spread in pT, or with known errors, there is one variance only.
    both = determinant > 1e-6 * one * ss
    b = np.where(both, np.maximum(one * st - s * t, 0.0) / np.where(both, determinant, 1.0), 0.0)
    a = (t - s * b) / one
    # Where a is at its limit, b is what is left.
    rest = np.maximum(st - s * points.least, 0.0) / np.where(ss > 0, ss, 1.0)
    return np.stack([np.maximum(a, points.least), np.where(both & (a < points.least), rest, b)])


def _vertices(tracks: Tracks) -> tuple[Index, Index]:
    """An order of the tracks, event by event, in which those of a vertex are together; and where each starts."""
    new_event = np.diff(tracks.unit, prepend=-1) != 0
    new_event |= np.diff(tracks.event, prepend=-1) != 0
    z = np.nan_to_num(tracks.z0)
    order = np.lexsort((z, np.cumsum(new_event)))
    return order, np.flatnonzero(new_event | (np.diff(z[order], prepend=np.inf) > VERTEX_GAP))


def _covariance(
    points: _Points, line: Floats, variances: Floats, vertices: tuple[Index, Index], parameters: Index
) -> tuple[Floats, NDArray[np.int64]]:
    """Covariances [m, 4, 4], NaN where there are no more vertices than parameters, and the vertices [m] with weight.

    The sandwich of Huber, the scores of the tracks of a vertex added first: these share their displacement, and the
    scatter need not be Gaussian (White, Econometrica 48 (1980) 817; Liang and Zeger, Biometrika 73 (1986) 13).
    """
    groups, (order, first) = points.groups, vertices
    inside, residual, variance = points.inside(line, variances)
    steepness = groups.sum((1 - inside) * (1 - 5 * inside)) / groups.counts
    bread = _matrices(groups.sum(points.products / variance) * steepness) + _prior()
    score = points.design * ((1 - inside) ** 2 * residual / variance)
    of_vertex = np.add.reduceat(score[:, order], first, axis=1)
    starts = np.cumsum(groups.counts) - groups.counts
    by_vertex = _Groups(np.searchsorted(first, starts), len(first))
    seen = by_vertex.sum((of_vertex != 0).any(axis=0).astype(np.int64))
    # So many parameters were fitted to so many independent scores.
    few = np.where(seen > parameters, seen / np.maximum(seen - parameters, 1), np.nan)
    meat = _matrices(by_vertex.sum(of_vertex[_ROW] * of_vertex[_COLUMN]) * few) + _prior()
    inverse = np.linalg.inv(bread)
    return inverse @ meat @ inverse, seen
