"""The widths of the beam from pairs of tracks of one vertex: a linear fit that needs no model of the resolution.

About the line of the beam d0 = g.u + noise, g = (sin phi, -cos phi), u the place of the vertex in x and y about the
line. The noise of two tracks is independent, so <d1 d2> = g1^T V g2 = vx s1 s2 + vy c1 c2 - c (s1 c2 + c1 s2), linear
in V = <u u^T> (physics note 1.3). Weights decide how well V is known, not what is found.

Sums over the pairs of a vertex come from sums over its tracks: over all (i, j), less those of i = j, by two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc

from calib.accumulators import UnitRows
from calib.algorithms.beamspot_tracks import REACH, Lines, Tracks
from calib.algorithms.beamspot_vertices import VX, VY, C, Influence
from calib.jagged import counts_of, flat_of

Floats = NDArray[np.float64]
Int = NDArray[np.int64]

VERTEX_OF_TRACK = {"vertex": np.int32, "inverse_pt": np.float32}
"""what a state keeps beside its rows of tracks, by the same keys and the same cut"""

BASIS = np.array([[[1, 0], [0, 0]], [[0, 0], [0, 1]], [[0, 1], [1, 0]]], np.float64)
"""V = vx BASIS[0] + vy BASIS[1] + c BASIS[2]"""

SINGULAR = 1e-8
"""with a smaller eigenvalue of the scaled normal matrix the pairs do not determine all three"""


def vertex_numbers(jagged: Any, counts: Int) -> NDArray[np.int32]:
    """The vertices of the tracks of all events in line; below 0 = of none. `counts` tracks have the events.

    Raises ValueError where it is not one whole number a track.
    """
    numbers = flat_of(jagged)
    if len(numbers) and numbers.dtype.kind not in "iu":
        raise ValueError(f"track_vertex is of {numbers.dtype}; it is the index of a vertex in its event, or -1")
    if not np.array_equal(counts_of(jagged), counts):
        raise ValueError("track_vertex has not one entry a track: give it the cuts of the other columns of tracks")
    return numbers.astype(np.int32)


def vertex_of(tracks: UnitRows, numbers: UnitRows) -> Int:
    """The vertex int64[n] of each of these rows of tracks, by their keys; -1 where none is known."""
    both = np.concatenate([tracks.keys, numbers.keys])
    # Stable: of one key, the track comes first.
    order = np.lexsort(both.T[::-1])
    twin = np.all(both[order[1:]] == both[order[:-1]], axis=1)
    found = np.full(len(tracks.keys), -1, np.int64)
    found[order[:-1][twin]] = numbers.columns["vertex"][order[1:][twin] - len(found)]
    return found


@dataclass(frozen=True, eq=False)
class Members:
    """Tracks vertex by vertex: `d0` float64[n] about the line of the beam [cm], `across` float64[n, 2] = (sin phi,
    -cos phi), `variance` float64[n] [cm^2], about that of d0; `keys` int64[m, 3] of the vertices (unit, event, vertex),
    sorted, and where each `starts` int64[m]. Each has at least two.
    """

    d0: Floats
    across: Floats
    variance: Floats
    keys: Int
    starts: Int

    @classmethod
    def of(cls, tracks: Tracks, vertex: Int, lines: Lines) -> Self:
        """The tracks within REACH of the line, the only one of `lines`, that have z0 and share a vertex.

        What a cut so far out takes of a Gaussian's width is below 1e-4.
        """
        sine, cosine = np.sin(tracks.phi), np.cos(tracks.phi)
        lever = tracks.z0 - lines.z[0]
        x, y, dxdz, dydz = lines.line[0]
        d0 = tracks.d0 - sine * (x + dxdz * lever) + cosine * (y + dydz * lever)
        constant, over_pt = lines.scatter[0]
        error = np.where(np.isnan(tracks.d0_error), over_pt * tracks.inverse_pt, tracks.d0_error)
        variance = constant**2 + error**2
        near = np.flatnonzero((vertex >= 0) & (d0**2 < REACH**2 * variance))
        keys = np.stack([tracks.unit, tracks.event, vertex], axis=1)[near]
        order = np.lexsort(keys.T[::-1])
        near, keys = near[order], keys[order]
        first = np.flatnonzero(np.any(np.diff(keys, axis=0, prepend=-1) != 0, axis=1))
        counts = np.diff(first, append=len(keys))
        shared = np.repeat(counts > 1, counts)
        near, first, counts = near[shared], first[counts > 1], counts[counts > 1]
        across = np.stack([sine[near], -cosine[near]], axis=1)
        return cls(d0[near], across, variance[near], keys[first], np.cumsum(counts) - counts)

    @property
    def pairs(self) -> int:
        """How many pairs of tracks share a vertex."""
        counts = np.diff(self.starts, append=len(self.d0))
        return int(np.sum(counts * (counts - 1)) // 2)


@dataclass(frozen=True, eq=False)
class PairWidths:
    """`values` float64[3] = (vx, vy, c) [cm^2] and their `covariance` float64[3, 3], NaN where the pairs do not tell;
    a variance may come out below 0. From so many `pairs`; `influence` of each vertex on the values.
    """

    values: Floats
    covariance: Floats
    pairs: int
    influence: Influence


def fit_pairs(members: Members, min_vertices: int) -> PairWidths:
    """Least squares over the pairs, each with the weight of both its tracks, and of its vertex.

    What one more track tells of the beam ends where the place of the vertex is known better than the beam is wide, so
    a vertex counts 1 / (1 + width^2 / error^2)^2 of what its pairs do: once found with all alike, then with that. Where
    numbers of tracks differ much (geometric, of mean 12) errors are then 10 to 15 % above the least there can be; with
    all alike it would be 35 to 90 %. They are those of Huber's sandwich, by vertices. With fewer than `min_vertices`
    nothing is measured.
    """
    moment, normal, information = _by_vertex(members)
    weight = np.ones(len(moment))
    values = np.full(3, np.nan)
    if len(moment) >= max(min_vertices, 4) and _determined(normal):
        values, _ = _solve(moment, normal, weight)
        weight = (1 + max(float(values[:2].mean()), 0.0) * information) ** -2
    if not _determined(weight[:, None, None] * normal) or not np.isfinite(values).all():
        nothing = Influence(members.keys[:0], np.zeros((0, 3)))
        return PairWidths(np.full(3, np.nan), np.full((3, 3), np.nan), members.pairs, nothing)
    values, inverse = _solve(moment, normal, weight)
    score = weight[:, None] * (moment - np.einsum("nkl,l->nk", normal, values))
    # Three parameters were fitted to so many independent scores.
    few = np.sqrt(len(score) / (len(score) - 3))
    influence = few * np.einsum("kl,nl->nk", inverse, score)
    return PairWidths(values, _square(influence), members.pairs, Influence(members.keys, influence))


def _by_vertex(members: Members) -> tuple[Floats, Floats, Floats]:
    """Of each vertex the moments [m, 3] and normal matrix [m, 3, 3] of its pairs, and 1 / its error^2 [m] [cm^-2]."""
    weight, across, starts = 1 / members.variance, members.across, members.starts
    pulled = weight[:, None] * members.d0[:, None] * across
    own = weight[:, None] * np.einsum("na,kab,nb->nk", across, BASIS, across)
    if not len(starts):
        return np.zeros((0, 3)), np.zeros((0, 3, 3)), np.zeros(0)
    matrix = np.add.reduceat(weight[:, None, None] * across[:, :, None] * across[:, None, :], starts)
    sums = np.add.reduceat(pulled, starts)
    same = np.add.reduceat(own * (weight * members.d0**2)[:, None], starts)
    moment = (np.einsum("na,kab,nb->nk", sums, BASIS, sums) - same) / 2
    turned = np.einsum("kab,nbc->nkac", BASIS, matrix)
    same = np.add.reduceat(own[:, :, None] * own[:, None, :], starts)
    normal = (np.einsum("nkac,nlca->nkl", turned, turned) - same) / 2
    return moment, normal, np.add.reduceat(weight, starts) / 2


def _determined(normal: Floats) -> bool:
    total = normal.sum(axis=0)
    if not np.all(np.diag(total) > 0):
        return False
    scale = np.sqrt(np.diag(total))
    return bool(np.linalg.eigvalsh(total / scale / scale[:, None])[0] > SINGULAR)


def _solve(moment: Floats, normal: Floats, weight: Floats) -> tuple[Floats, Floats]:
    """The three values, and the inverse of the normal matrix."""
    total = np.sum(weight[:, None, None] * normal, axis=0)
    scale = 1 / np.sqrt(np.diag(total))
    inverse = np.linalg.inv(total * scale * scale[:, None]) * scale * scale[:, None]
    return inverse @ np.sum(weight[:, None] * moment, axis=0), inverse


def _square(influence: Floats) -> Floats:
    total: Floats = np.einsum("nk,nl->kl", influence, influence)
    return total


def agreement(pairs: PairWidths, vertices: Floats, influence: Influence) -> float:
    """How probable it is that pairs and vertices differ by more than they do; NaN where one of them has no answer.

    `vertices` float64[9] are the values of a `Region`. Both see the same displacements, so neither the sum nor the
    difference of their covariances is that of the difference: it is taken vertex by vertex, with what each has moved
    both by. A covariance of x and y that the vertices were fitted without is not compared.
    """
    of_vertices = influence.values[:, [VX, VY, C]]
    told = np.any(of_vertices != 0, axis=0)
    if not np.isfinite(pairs.values).all() or not told[:2].all():
        return float("nan")
    keys = np.concatenate([pairs.influence.keys, influence.keys])
    moved = np.concatenate([pairs.influence.values, -of_vertices])
    order = np.lexsort(keys.T[::-1])
    first = np.flatnonzero(np.any(np.diff(keys[order], axis=0, prepend=-1) != 0, axis=1))
    covariance = _square(np.add.reduceat(moved[order], first))[np.ix_(told, told)]
    off = (pairs.values - vertices[[VX, VY, C]])[told]
    return float(chdtrc(len(off), off @ np.linalg.solve(covariance, off)))
