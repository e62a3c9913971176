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
        d, z = self.offsets - np.stack([_along(rows, place[:, self.of]) for rows in self.rows])
        dd, dz, zz = self.precision
        found: Floats = dd * d**2 + 2 * dz * d * z + zz * z**2
        return found

    def normal(self) -> tuple[list[Floats], list[Floats]]:
        """Of each line, what it adds to the matrix (TERMS) and the right side of least squares."""
        (d, z), (dd, dz, zz) = self.rows, self.precision
        of_d, of_z = dd * d + dz * z, dz * d + zz * z
        matrix = [of_d[a] * d[b] + of_z[a] * z[b] for a, b in TERMS]
        return matrix, [of_d[a] * self.offsets[0] + of_z[a] * self.offsets[1] for a in range(3)]


def _along(row: Floats, place: Floats) -> Floats:
    found: Floats = row[0] * place[0] + row[1] * place[1] + row[2] * place[2]
    return found


@dataclass(frozen=True, eq=False)
class Prior:
    """What is known of vertices without their tracks."""

    information: Floats
    """inverse covariance, [3, 3, vertices], or [3, 3, 1] for all alike"""
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


def fit(lines: Lines, prior: Prior) -> Fitted:
    """All vertices, each with a prior that fixes it where its lines do not; it starts from all lines alike."""
    terms = lines.normal()
    weight = np.ones(len(lines.of))
    place, covariance = _least_squares(lines, terms, weight, prior)
    before = place
    for temperature in temperatures():
        weight = weights(lines.chi2(place), temperature)
        before = place
        place, covariance = _least_squares(lines, terms, weight, prior)
    chi2 = lines.chi2(place)
    step = place - before
    moved = np.sqrt(step[0] ** 2 + step[1] ** 2 + step[2] ** 2)
    return Fitted(place, covariance, gathered(lines.of, weight * chi2, place.shape[1]), weight, moved)


def weights(chi2: Floats, temperature: float) -> Floats:
    """Of tracks with these chi2 to their vertex."""
    found: Floats = 1 / (1 + np.exp(np.minimum((chi2 - CUT**2) / (2 * temperature), 700.0)))
    return found


def _least_squares(
    lines: Lines, terms: tuple[list[Floats], list[Floats]], weight: Floats, prior: Prior
) -> tuple[Floats, Floats]:
    """Places [3, vertices] and their covariance."""
    number = prior.centre.shape[1]
    matrix = np.zeros((3, 3, number))
    for (a, b), values in zip(TERMS, terms[0], strict=True):
        matrix[b, a] = prior.information[a, b] + gathered(lines.of, weight * values, number)
    right = np.empty((3, 1, number))
    for a, values in enumerate(terms[1]):
        of_prior = _along(prior.information[a][:, None], prior.centre)
        right[a, 0] = of_prior + gathered(lines.of, weight * values, number)
    lower, _ = cholesky.factors(matrix)
    place = cholesky.solved_back(lower, cholesky.solved(lower, right))[:, 0]
    return place, cholesky.inverse(lower)
