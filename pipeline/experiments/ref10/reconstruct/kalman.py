"""Tracks as they are followed: a helix and what is known of it, hit by hit.

Transverse: phi, curvature and d0 of Karimaki's circle (physics note, 9.4.5), which at radius r has the azimuth
`phi - asin(a)`, a = (curvature (r^2 + d0^2) / 2 + d0) / ((1 + curvature d0) r). Longitudinal: a line, z0 and cot_theta,
over the transverse way. Each is a Kalman filter of one measurement at a time; material adds to what is not known, as a
turn about where it is crossed. Azimuths are compared at the radius of the hit, so no plane has to be met; a strip's hit
is first moved along the strip to where the track's z is. The fit of a track is not made here (`refit`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pipeline.experiments.ref10.reconstruct.layer_hits import LayerHits, Shell
from pipeline.experiments.ref10.reconstruct.scattering import HIGHLAND_GEV
from pipeline.experiments.ref10.reconstruct.search import Search

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

GRAZING = 0.05
"""cosine of incidence on a cylinder below which a track is taken to turn back"""
SMALL = 1e-3
"""rad; below it the arc is longer than its chord by a sixth of the square, to the last bit but one"""

VARIANCES = (1.0, 1e-2, 1.0)
"""of phi, curvature and d0 before the first hit: that is, nothing is known"""
ALONG_Z = (1e4, 1e2)
"""the same of z0 and cot_theta"""
UPPER = {size: np.triu_indices(size) for size in (len(ALONG_Z), len(VARIANCES))}
"""of symmetric matrices by their size: rows and columns of an upper triangle, row by row"""


@dataclass(frozen=True, eq=False)
class Helices:
    """Helices of n tracks. Symmetric covariances are upper triangles, row by row."""

    circle: Floats
    """[3, n]: phi [rad], curvature [1/cm], d0 [cm]"""
    circle_cov: Floats
    """[6, n]"""
    line: Floats
    """[2, n]: z0 [cm], cot_theta"""
    line_cov: Floats
    """[3, n]"""

    def of(self, which: Ints) -> Self:
        """Those of the tracks at these places."""
        parts = (self.circle, self.circle_cov, self.line, self.line_cov)
        return type(self)(*(part.take(which, axis=1) for part in parts))

    def sine(self, r: Floats | float) -> Floats:
        """Sine of the angle between track and radius at radius r; beyond 1 where the track does not come."""
        _, rho, d = self.circle
        found: Floats = (0.5 * rho * (r * r + d * d) + d) / ((1 + rho * d) * r)
        return found

    def reaches(self, r: float) -> Mask:
        """Whether they come to radius r before they turn back."""
        return _comes(self.sine(r))

    def azimuth(self, r: float) -> Floats:
        """Azimuth at radius r, not brought into a turn; of tracks that turn back before it, where they do."""
        found: Floats = self.circle[0] - np.arcsin(_bounded(self.sine(r)))
        return found

    def variance(self, r: float) -> Floats:
        """Of the azimuth at radius r."""
        return _spread(self.circle_cov, self._gradient(r, _bounded(self.sine(r))))[1]

    def passing(self, inner: float, outer: float) -> tuple[Floats, Floats, Mask]:
        """Azimuths at two radii [2, n], the variance of the outer one, and which tracks come to the inner one: as
        `azimuth`, `variance` and `reaches`."""
        sine = self.sine(np.array([[inner], [outer]]))
        bounded = _bounded(sine)
        variance = _spread(self.circle_cov, self._gradient(outer, bounded[1]))[1]
        return self.circle[0] - np.arcsin(bounded), variance, _comes(sine[0])

    def _gradient(self, r: Floats | float, sine: Floats) -> tuple[Floats, Floats]:
        """Of the azimuth at radius r, by curvature and by d0; by phi it is 1."""
        _, rho, d = self.circle
        norm = (1 + rho * d) ** 2
        steep = -1 / (norm * r * np.sqrt(np.maximum(1 - sine * sine, GRAZING**2)))
        square = 0.5 * (r * r + d * d)
        return (square - d * d) * steep, (norm - rho * d - rho * rho * square) * steep

    def way(self, r: Floats | float) -> Floats:
        """Transverse way from the point nearest to the axis to radius r [cm]."""
        _, rho, d = self.circle
        chord = np.sqrt(np.maximum(r * r - d * d, 0.0) / (1 + rho * d))
        half = _bounded(0.5 * rho * chord)
        small = np.abs(half) < SMALL
        found: Floats = chord * np.where(small, 1 + half * half / 6, np.arcsin(half) / np.where(small, 1.0, half))
        return found

    def height(self, way: Floats) -> tuple[Floats, Floats]:
        """z after a transverse way, and its variance."""
        zz, zc, cc = self.line_cov
        return self.line[0] + self.line[1] * way, zz + way * (2 * zc + way * cc)

    def scattered(self, shell: Shell, r: Floats, way: Floats, search: Search) -> Self:
        """Behind the material of a layer, met at radius r after a transverse way."""
        circle_cov, line_cov = self.circle_cov.copy(), self.line_cov.copy()
        self._turned(shell.material, r, way, search).add_to(circle_cov, line_cov)
        return type(self)(self.circle, circle_cov, self.line, line_cov)

    def _turned(self, material: Floats | float, r: Floats, way: Floats, search: Search) -> _Turned:
        """By material at radius r: Highland's width, as physics note 5.4, with beta = 1.

        The turn is about the point at r: it changes phi and d0 such that the azimuth there stays. `way` is that to r.
        """
        rho, cot = self.circle[1], self.line[1]
        sine = _bounded(self.sine(r))
        cosine = np.sqrt(np.maximum(1 - sine * sine, GRAZING**2))
        across = 1 + cot * cot
        met = material * np.sqrt(across) / cosine
        turn = (HIGHLAND_GEV / search.stiffness * rho) ** 2 * met * (1 + 0.038 * np.log(met)) ** 2
        by_d0 = r * cosine / (1 + rho * self.circle[2])
        by_phi = -by_d0 * self._gradient(r, sine)[1]
        return _Turned(turn * by_phi**2, turn * (by_phi * by_d0), turn * by_d0**2, turn * across, way)

    def updated(self, found: Measured) -> Self:
        """With measurements taken in."""
        circle, circle_cov = _taken(self.circle, self.circle_cov, found.turn, (found.by_curvature, found.by_d0))
        line, line_cov = self.line, self.line_cov
        if found.height is not None:
            line, line_cov = _taken(line, line_cov, found.height, (found.way,))
        return type(self)(circle, circle_cov, line, line_cov)

    def with_some(self, which: Ints, others: Helices) -> Self:
        """With `others` in these places."""
        parts = [part.copy() for part in (self.circle, self.circle_cov, self.line, self.line_cov)]
        for values, more in zip(parts, (others.circle, others.circle_cov, others.line, others.line_cov), strict=True):
            values[:, which] = more
        return type(self)(*parts)


@dataclass(frozen=True, eq=False)
class _Turned:
    """What material adds to covariances."""

    phi: Floats
    both: Floats
    d0: Floats
    slope: Floats
    way: Floats
    """from the axis to the material [cm]"""

    def of_layer(self, layer: int) -> _Turned:
        """One of several, that were worked out together."""
        return _Turned(self.phi[layer], self.both[layer], self.d0[layer], self.slope[layer], self.way[layer])

    def add_to(self, circle_cov: Floats, line_cov: Floats) -> None:
        circle_cov[0] += self.phi
        circle_cov[2] += self.both
        circle_cov[5] += self.d0
        line_cov[0] += self.slope * (self.way * self.way)
        line_cov[1] -= self.slope * self.way
        line_cov[2] += self.slope


@dataclass(frozen=True, eq=False)
class Residual:
    """Measured less predicted, and the variance of that, of hit and track together."""

    value: Floats
    variance: Floats

    def of(self, which: Ints) -> Residual:
        """Those at these places."""
        return Residual(self.value[which], self.variance[which])

    @property
    def chi2(self) -> Floats:
        """Square of the pull."""
        found: Floats = self.value**2 / self.variance
        return found


@dataclass(frozen=True, eq=False)
class Measured:
    """Hits against helices, one for each."""

    r: Floats
    """radius of the hit [cm]"""
    way: Floats
    turn: Residual
    """in azimuth"""
    by_curvature: Floats
    by_d0: Floats
    height: Residual | None
    """along z; strips measure none"""
    beyond: Floats
    """pull along z: of pixels the residual's, of strips that of what lies beyond their end"""

    def of(self, which: Ints) -> Measured:
        """Those at these places."""
        height = None if self.height is None else self.height.of(which)
        by = self.by_curvature[which], self.by_d0[which]
        return Measured(self.r[which], self.way[which], self.turn.of(which), *by, height, self.beyond[which])

    def chi2(self) -> Floats:
        """Of all that is measured."""
        return self.turn.chi2 if self.height is None else self.turn.chi2 + self.height.chi2


def within_half_turn(angle: Floats) -> Floats:
    """The angle nearest to 0, by whole turns [rad]."""
    found: Floats = angle - 2 * np.pi * np.rint(angle / (2 * np.pi))
    return found


def measured(tracks: Helices, hits: LayerHits, place: Ints, shell: Shell, search: Search) -> Measured:
    """The hits at `place`, all of the layer with this shell, one for each track."""
    r, phi = hits.r[place], hits.phi[place]
    way = tracks.way(r)
    z, variance = tracks.height(way)
    off = hits.z[place] - z
    error = hits.u_error[place] ** 2 + search.placed**2
    if shell.lean:
        lean_x, lean_y = hits.lean_x[place], hits.lean_y[place]
        x, y = hits.x[place] - off * lean_x, hits.y[place] - off * lean_y
        r, phi = np.hypot(x, y), np.arctan2(y, x)
        error = error + (lean_x**2 + lean_y**2) * variance
    error = error / r**2
    sine = _bounded(tracks.sine(r))
    gradient = tracks._gradient(r, sine)
    turn = within_half_turn(phi - tracks.circle[0] + np.arcsin(sine))
    residual = Residual(turn, _spread(tracks.circle_cov, gradient)[1] + error)
    if shell.reach:
        beyond = np.maximum(np.abs(off) - shell.reach, 0.0) / np.sqrt(variance)
        return Measured(r, way, residual, *gradient, None, beyond)
    height = Residual(off, variance + hits.v_error[place] ** 2 + search.placed**2)
    return Measured(r, way, residual, *gradient, height, np.sqrt(height.chi2))


def through(hits: LayerHits, triplet: Ints) -> Helices:
    """Circles through three hits [3, n], outwards, and lines through the first and the last; nothing known of them.

    Taking these hits in makes it known, and moves the circles by nothing.
    """
    x, y, z = hits.x[triplet], hits.y[triplet], hits.z[triplet]
    sides = [(x[j] - x[i], y[j] - y[i]) for i, j in ((0, 1), (1, 2), (0, 2))]
    lengths = [np.maximum(np.hypot(*side), 1e-9) for side in sides]
    cross = sides[0][1] * sides[1][0] - sides[0][0] * sides[1][1]
    rho = 2 * cross / (lengths[0] * lengths[1] * lengths[2])
    half = np.arcsin(_bounded(0.5 * rho * lengths[2]))
    direction = np.arctan2(sides[2][1], sides[2][0]) + half
    dx, dy = np.cos(direction), np.sin(direction)
    moment, along = x[0] * dy - y[0] * dx, x[0] * dx + y[0] * dy
    twice = 2 * moment + rho * (x[0] ** 2 + y[0] ** 2)
    d = twice / (1 + np.sqrt(np.maximum(1 + rho * twice, 0.0)))
    phi = direction + np.arctan2(rho * along, 1 + rho * moment)
    n = len(rho)
    unknown = Helices(np.stack([phi, rho, d]), _diagonal(VARIANCES, n), np.zeros((2, n)), _diagonal(ALONG_Z, n))
    way = [unknown.way(hits.r[triplet[i]]) for i in (0, 2)]
    cot = (z[2] - z[0]) / np.maximum(way[1] - way[0], 1e-9)
    return Helices(unknown.circle, unknown.circle_cov, np.stack([z[0] - cot * way[0], cot]), unknown.line_cov)


def begun(helices: Helices, hits: LayerHits, hit: Ints, search: Search) -> tuple[Helices, Floats, Floats]:
    """Helices through seeds of pixels with what the first k layers, of hits [k, n] or -1, tell of them and do to them;
    with chi2, and the largest pull along z.

    As one layer after the other would, but that where helices go is worked out once: the circle goes through the hits
    and stays as it is, and what moves the line moves it by little.
    """
    there, place = hit >= 0, np.maximum(hit, 0)
    shells = hits.shells[: len(hit)]
    r = np.where(there, hits.r[place], [[0.5 * (shell.inner + shell.outer)] for shell in shells])
    way = helices.way(r)
    by_curvature, by_d0 = helices._gradient(r, _bounded(helices.sine(r)))
    # Without a hit there is no end of variance: nothing comes of what is not there.
    error = np.where(there, (hits.u_error[place] ** 2 + search.placed**2) / r**2, np.inf)
    upwards = np.where(there, hits.v_error[place] ** 2 + search.placed**2, np.inf)
    turned = helices._turned(np.array([[shell.material] for shell in shells]), r, way, search)
    z = hits.z[place]
    circle_cov, line, line_cov = helices.circle_cov, helices.line, helices.line_cov
    chi2, beyond = np.zeros(len(line[0])), np.zeros(len(line[0]))
    for layer in range(len(hit)):
        gradient = by_curvature[layer], by_d0[layer]
        straight = Residual(np.zeros_like(chi2), _spread(circle_cov, gradient)[1] + error[layer])
        _, circle_cov = _taken(helices.circle, circle_cov, straight, gradient)
        off = z[layer] - (line[0] + line[1] * way[layer])
        height = Residual(off, _spread(line_cov, (way[layer],))[1] + upwards[layer])
        line, line_cov = _taken(line, line_cov, height, (way[layer],))
        chi2 += height.chi2
        np.maximum(beyond, height.chi2, out=beyond)
        turned.of_layer(layer).add_to(circle_cov, line_cov)
    return Helices(helices.circle, circle_cov, line, line_cov), chi2, np.sqrt(beyond)


def _diagonal(variances: tuple[float, ...], n: int) -> Floats:
    upper = np.diag(variances)[UPPER[len(variances)]]
    return np.repeat(upper[:, None], n, axis=1)


def _spread(cov: Floats, gradient: tuple[Floats, ...]) -> tuple[tuple[Floats, ...], Floats]:
    """Covariance times (1, *gradient), and the variance along it."""
    if len(gradient) == 1:
        (g,), (aa, ab, bb) = gradient, cov
        product: tuple[Floats, ...] = (aa + ab * g, ab + bb * g)
        return product, product[0] + g * product[1]
    (g, h), (aa, ab, ac, bb, bc, cc) = gradient, cov
    product = (aa + ab * g + ac * h, ab + bb * g + bc * h, ac + bc * g + cc * h)
    return product, product[0] + g * product[1] + h * product[2]


def _taken(values: Floats, cov: Floats, residual: Residual, gradient: tuple[Floats, ...]) -> tuple[Floats, Floats]:
    """Parameters [m, n] and covariance with a measurement of gradient (1, *gradient) taken in."""
    product = np.array(_spread(cov, gradient)[0])
    share = product / residual.variance
    one, other = UPPER[len(product)]
    return values + share * residual.value, cov - share[one] * product[other]


def _bounded(sine: Floats) -> Floats:
    found: Floats = np.minimum(np.maximum(sine, -1.0), 1.0)
    return found


def _comes(sine: Floats) -> Mask:
    """Whether tracks come to where they have this sine, and do not turn back before."""
    found: Mask = np.abs(sine) < 1 - 0.5 * GRAZING**2
    return found
