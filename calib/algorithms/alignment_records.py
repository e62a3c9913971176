"""What tracks say about displacements once their own parameters are eliminated (physics note, 5.4).

A record is what was fitted together, a track or two of one decay: m residuals r (measured less expected) of covariance
V, k parameters of its own with derivatives A, and for each measurement the structures it lies on with the slopes G in
their displacements. With W = V^-1 and P = W - W A (A^T W A)^-1 A^T W a record adds G^T P G to the matrix of the
displacements, G^T P r to the right-hand side and r^T P r to chi2: the Schur complement of its own parameters.
Scattering is in V, and so treated as broken lines would.

Here with V = L L^T: L^-1 without what A spans of it is a root of P.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from calib import cholesky
from calib.algorithms.alignment_geometry import NUMBERS
from calib.calibration import Columns
from calib.jagged import counts_of, flat_of

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

MEASUREMENTS, PARAMETERS = "alignment_measurements", "alignment_parameters"
RESIDUALS, DERIVATIVES, COVARIANCE = "alignment_residuals", "alignment_derivatives", "alignment_covariance"
LABELS, SLOPES = "alignment_labels", "alignment_slopes"
DIRECTIONS, POINTS = "alignment_directions", "alignment_points"
COLUMNS = (
    MEASUREMENTS,
    PARAMETERS,
    RESIDUALS,
    DERIVATIVES,
    COVARIANCE,
    LABELS,
    SLOPES,
    DIRECTIONS,
    POINTS,
)

BLOCK = 512
"""records worked on at a time, some 20 kB for each: they stay near"""
LARGEST = 1e12
"""um, um^2 and so on: beyond are no records"""
MOST_SLOPE, FURTHEST = 1e3, 2e3
"""um a um or urad, and cm, likewise: sums of these have room for so much"""
MOST = 2.0**11
"""1/um^2 and 1/um, of what a record adds: of one of the best sensors, 0.1 um, it would be 100"""
UM = 1e-4
"""cm, and rad / 100: displacements are counted in um and urad"""
UNITS = np.array([1.0, 1.0, 1.0, 1e-2, 1e-2, 1e-2])
"""what the slopes in um of residual a cm, and a rad, are to be multiplied by: um a um, and um a urad"""


@dataclass(frozen=True, eq=False)
class Records:
    """n records of one size. In um."""

    event: Ints
    """of which each is, a place in the columns"""
    residuals: Floats
    """[n, m]"""
    derivatives: Floats
    """[n, m, k]"""
    covariance: Floats
    """lower triangle row by row, [n, m (m + 1) / 2]"""
    labels: Ints
    """of the structure on each level, -1: of none, [n, m, levels]"""
    slopes: Floats
    """[n, m, levels, 6]"""
    directions: Floats
    """[n, m, 3]"""
    points: Floats
    """in cm, [n, m, 3]"""

    def where(self, rows: Ints | Mask) -> Records:
        """Some of them."""
        return Records(**{part.name: getattr(self, part.name)[rows] for part in fields(self)})


def records(columns: Columns, levels: int) -> Iterator[Records]:
    """The records of events, sorted by size, in blocks. Raises ValueError where columns do not go together."""
    counts = flat_of(columns[MEASUREMENTS]).astype(np.int64)
    own = flat_of(columns[PARAMETERS]).astype(np.int64)
    of_event = counts_of(columns[MEASUREMENTS])
    event = np.repeat(np.arange(len(of_event)), of_event)
    if len(counts) and (counts.min() < 1 or own.min() < 1):
        raise ValueError(f"`{MEASUREMENTS}` and `{PARAMETERS}` are at least 1 for each record")
    sizes = {
        RESIDUALS: counts,
        DERIVATIVES: counts * own,
        COVARIANCE: counts * (counts + 1) // 2,
        LABELS: counts * levels,
        SLOPES: counts * levels * len(NUMBERS),
        DIRECTIONS: counts * 3,
        POINTS: counts * 3,
    }
    found = {}
    for name, size in sizes.items():
        _check(columns, name, np.bincount(event, size, minlength=len(of_event)).astype(np.int64))
        found[name] = (flat_of(columns[name]), np.cumsum(size) - size)
    for size in np.unique(counts << 32 | own).tolist():
        rows = np.flatnonzero(counts << 32 | own == size)
        for first in range(0, len(rows), BLOCK):
            yield _gathered(found, rows[first : first + BLOCK], event, (size >> 32, size & 0xFFFFFFFF, levels))


def _check(columns: Columns, name: str, expected: Ints) -> None:
    given = counts_of(columns[name])
    wrong = np.flatnonzero(given != expected)
    if len(wrong):
        event = np.asarray(columns["event"])[wrong[0]]
        raise ValueError(
            f"event {event} has {given[wrong[0]]} values in `{name}`; by `{MEASUREMENTS}` and `{PARAMETERS}` of its "
            f"records there are {expected[wrong[0]]}"
        )


def _gathered(
    found: dict[str, tuple[NDArray[np.float64], Ints]], rows: Ints, event: Ints, size: tuple[int, int, int]
) -> Records:
    m, k, levels = size

    def take(name: str, *shape: int) -> Floats:
        values, begin = found[name]
        place = begin[rows, None] + np.arange(int(np.prod(shape)))
        gathered: Floats = values[place].reshape(len(rows), *shape)
        return gathered

    parts = (
        take(RESIDUALS, m) / UM,
        take(DERIVATIVES, m, k) / UM,
        take(COVARIANCE, m * (m + 1) // 2) / UM**2,
        take(SLOPES, m, levels, len(NUMBERS)) * UNITS,
        take(DIRECTIONS, m, 3),
        take(POINTS, m, 3),
    )
    # A record that is no numbers, or numbers of no tracker, is put to 0: without a covariance it has no meaning.
    most = (LARGEST, LARGEST, LARGEST, MOST_SLOPE, MOST_SLOPE, FURTHEST)
    within = [
        (np.abs(part) < limit).reshape(len(rows), -1).all(axis=1) for part, limit in zip(parts, most, strict=True)
    ]
    sound = np.logical_and.reduce(within)
    for part in parts:
        part[~sound] = 0.0
    residuals, derivatives, covariance, slopes, directions, points = parts
    labels = take(LABELS, m, levels).astype(np.int64)
    return Records(event[rows], residuals, derivatives, covariance, labels, slopes, directions, points)


@dataclass(frozen=True, eq=False)
class Eliminated:
    """What n records of one size, which lie on s structures each, add."""

    matrix: Floats
    """[n, s d, s d], by structure and number"""
    right: Floats
    """[n, s d]"""
    chi2: Floats
    """[n]"""
    sound: Mask
    """[n]: V is positive definite, A of full rank, and what is added not beyond MOST; else the rest has no meaning"""

    def where(self, rows: Mask) -> Eliminated:
        """Some of them."""
        return Eliminated(**{part.name: getattr(self, part.name)[rows] for part in fields(self)})


def eliminated(given: Records, slopes: Floats, values: Floats) -> Eliminated:
    """Of records by their slopes [n, m, s d] in the displacements of the structures.

    `values` [n, s d] of these, in um and urad, is what tracks were fitted under; the right-hand side is about none.
    """
    root, sound = _root(given)
    moved = np.matmul(root, slopes)
    residual = np.matmul(root, given.residuals[..., None])
    chi2 = np.matmul(residual.swapaxes(1, 2), residual)[:, 0, 0]
    residual += np.matmul(moved, values[..., None])
    turned = moved.swapaxes(1, 2)
    matrix, vector = np.matmul(turned, moved), np.matmul(turned, residual)[..., 0]
    small = (np.abs(vector) < MOST).all(axis=1) & (np.abs(matrix) < MOST).all(axis=(1, 2))
    return Eliminated(matrix, vector, chi2, sound & small & (chi2 < LARGEST))


def _root(given: Records) -> tuple[Floats, Mask]:
    """A root of P, [n, m, m]: P = root^T root. And whether V is positive definite and A of full rank."""
    _, m, k = given.derivatives.shape
    lower, sound = cholesky.factors(_square(given.covariance, m))
    right = np.empty((m, k + m, len(given.event)))
    right[:, :k], right[:, k:] = given.derivatives.transpose(1, 2, 0), np.eye(m)[..., None]
    white = cholesky.solved(lower, right)
    own, rest = white[:, :k], white[:, k:]
    normal, full = cholesky.factors(_products(own))
    across = cholesky.solved(normal, np.ascontiguousarray(own.swapaxes(0, 1)))
    for along in across[:, :, None]:
        rest -= along * _summed(along * rest)
    return np.ascontiguousarray(rest.transpose(2, 0, 1)), sound & full


def _square(triangle: Floats, m: int) -> Floats:
    """The matrices [m, m, n] of lower triangles [n, m (m + 1) / 2]; above the diagonal 0."""
    found = np.zeros((m, m, len(triangle)))
    found[np.tril_indices(m)] = triangle.T
    return found


def _products(own: Floats) -> Floats:
    k = own.shape[1]
    found = np.zeros((k, k, own.shape[2]))
    for a in range(k):
        found[a, : a + 1] = _summed(own[:, a, None] * own[:, : a + 1])
    return found


def _summed(values: Floats) -> Floats:
    """Over axis 0, one after the other, so that a record has the same bits alone."""
    found: Floats = values[0].copy()
    for more in values[1:]:
        found += more
    return found
