"""Adaptive fit of vertices: least squares in which a track that lies far off loses its weight, as it were by cooling.

Weight of a track with chi2 c^2 to the vertex: 1 / (1 + exp((c^2 - cut^2) / 2T)). T falls from 256 towards 1 by a factor
of 4 a step: T <- 1 + (T - 1) / 4, as in CMS's AdaptiveVertexFitter with GeometricAnnealing (physics note, 9.4.7).
Tracks are straight lines about a point near the vertex. All vertices take the same number of steps; sums over the
tracks of a vertex go in their order, so its bits do not depend on others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calib import cholesky
from pipeline.experiments.ref10.reconstruct.perigees import Perigees
from pipeline.experiments.ref10.reconstruct.sums import gathered

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

CUT = 3.0
"""sigma at which a track has half its weight"""
TEMPERATURE, RATIO, ANNEALED = 256.0, 0.25, 1.02
FURTHER = 4
"""steps after annealing"""
TERMS = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))
"""of a symmetric matrix"""


def temperatures() -> list[float]:
    """One a step: 256 to 1.016 in eight, and some more of the last."""
    found = [TEMPERATURE]
    while found[-1] > ANNEALED:
        found.append(1 + (found[-1] - 1) * RATIO)
    return found + found[-1:] * FURTHER


@dataclass(frozen=True, eq=False)
class Lines:
    """n tracks as lines; vertices are a point off where the lines were taken."""

    of: Ints
    """the vertex of each, ascending; none without a track"""
    offsets: Floats
    """d0 and z0, [2, n]"""
    rows: Floats
    """how these go with the vertex, [2, 3, n]"""
    precision: Floats
    """inverse covariance of d0 and z0: dd, dz, zz, [3, n]"""

    @classmethod
    def through(cls, perigees: Perigees, of: Ints) -> Lines:
        """Those of tracks."""
        sine, cosine = np.sin(perigees.phi), np.cos(perigees.phi)
        zero, one = np.zeros_like(sine), np.ones_like(sine)
        rows = np.array([[sine, -cosine, zero], [-cosine * perigees.cot_theta, -sine * perigees.cot_theta, one]])
        dd, zz, dz = perigees.d0_variance, perigees.z0_variance, perigees.covariance
        precision = np.array([zz, -dz, dd]) / (dd * zz - dz**2)
        return cls(of, np.array([perigees.d0, perigees.z0]), rows, precision)

    def chi2(self, place: Floats) -> Floats:
        """Of each line to its vertex, from the places [3, vertices]."""
        there = place.take(self.of, axis=1)
        d, z = (offset - _along(rows, there) for offset, rows in zip(self.offsets, self.rows, strict=True))
        dd, dz, zz = self.precision
        found: Floats = dd * d**2 + 2 * dz * d * z + zz * z**2
        return found

    def normal(self) -> Floats:
        """Of each line, what it adds to the matrix (TERMS) and then to the right side of least squares, [9, n]."""
        (d, z), (dd, dz, zz) = self.rows, self.precision
        of_d, of_z = dd * d + dz * z, dz * d + zz * z
        matrix = [of_d[a] * d[b] + of_z[a] * z[b] for a, b in TERMS]
        return np.array(matrix + [of_d[a] * self.offsets[0] + of_z[a] * self.offsets[1] for a in range(3)])

    def repeated(self, times: int, vertices: int) -> Lines:
        """So many times over, each time to vertices of their own."""
        of = np.concatenate([self.of + vertices * turn for turn in range(times)])
        parts = (self.offsets, self.rows, self.precision)
        return Lines(of, *(np.concatenate([part] * times, axis=-1) for part in parts))


def _along(row: Floats, place: Floats) -> Floats:
    found: Floats = row[0] * place[0] + row[1] * place[1] + row[2] * place[2]
    return found


@dataclass(frozen=True, eq=False)
class Prior:
    """What is known of vertices without their tracks."""

    information: Floats
    """inverse covariance, [3, 3]"""
    centre: Floats
    """[3, vertices]"""

    def chi2(self, place: Floats) -> Floats:
        """Of places [3, vertices]."""
        off = place - self.centre
        found = np.zeros(place.shape[1])
        for a, b in TERMS:
            found += (1 if a == b else 2) * self.information[a, b] * off[a] * off[b]
        return found


@dataclass(frozen=True, eq=False)
class Fitted:
    """n vertices fitted."""

    place: Floats
    """[3, n]"""
    covariance: Floats
    """[3, 3, n]"""
    chi2: Floats
    """of tracks, by their weight"""
    weight: Floats
    """of each track"""
    moved: Floats
    """by the last step [cm]"""


def fit(lines: Lines, *priors: Prior) -> tuple[Fitted, ...]:
    """All vertices, once with each of the priors, which fix them where lines do not; they start from all lines alike.

    The fits are made side by side: as each alone, with fewer calls.
    """
    number = priors[0].centre.shape[1]
    both = lines.repeated(len(priors), number)
    equations = _Equations.of(both, priors)
    weight = np.ones(len(both.of))
    place, _ = equations.solved(weight)
    before, lower = place, np.empty(0)
    for temperature in temperatures():
        weight = weights(both.chi2(place), temperature)
        before = place
        place, lower = equations.solved(weight)
    step = place - before
    moved = np.sqrt(step[0] ** 2 + step[1] ** 2 + step[2] ** 2)
    chi2 = gathered(both.of, weight * both.chi2(place), place.shape[1])
    columns = (place, cholesky.inverse(lower), chi2, weight, moved)
    parts = zip(*(np.split(one, len(priors), axis=-1) for one in columns), strict=True)
    return tuple(Fitted(*part) for part in parts)


def weights(chi2: Floats, temperature: float) -> Floats:
    """Of tracks with these chi2 to their vertex."""
    found: Floats = 1 / (1 + np.exp(np.minimum((chi2 - CUT**2) / (2 * temperature), 700.0)))
    return found


@dataclass(frozen=True, eq=False)
class _Equations:
    """Of least squares: unknown are the places of n vertices."""

    terms: Floats
    """`Lines.normal`"""
    group: Ints
    """of each of the terms, in line: the sum it belongs to, 9 n of them"""
    prior: Floats
    """what is added to each of the sums, [9, n]"""

    @classmethod
    def of(cls, lines: Lines, priors: tuple[Prior, ...]) -> _Equations:
        """Vertices of each prior one after the other."""
        known = [
            [np.full(prior.centre.shape[1], prior.information[a, b]) for a, b in TERMS]
            + [_along(row[:, None], prior.centre) for row in prior.information]
            for prior in priors
        ]
        added = np.concatenate(known, axis=1)
        group = lines.of + added.shape[1] * np.arange(len(added))[:, None]
        return cls(lines.normal(), group.ravel(), added)

    def solved(self, weight: Floats) -> tuple[Floats, Floats]:
        """Places [3, n] with these weights of lines, and the factor of the matrix."""
        sums = gathered(self.group, (weight * self.terms).ravel(), self.prior.size)
        total = self.prior + sums.reshape(self.prior.shape)
        matrix = np.zeros((3, 3, total.shape[1]))
        for (a, b), values in zip(TERMS, total, strict=False):
            matrix[b, a] = values
        lower, _ = cholesky.factors(matrix)
        right = total[len(TERMS) :, None]
        return cholesky.solved_back(lower, cholesky.solved(lower, right))[:, 0], lower
