"""What tracks say about displacements once their own parameters are eliminated (physics note, 5.4).

A record is what was fitted together, a track or two of one decay: m residuals r (measured less expected) of covariance
V, k parameters of its own with derivatives A, and for each measurement the structures it lies on with the slopes G in
their displacements. With W = V^-1 and P = W - W A (A^T W A)^-1 A^T W a record adds G^T P G to the matrix of the
displacements, G^T P r to the right-hand side and r^T P r to chi2: the Schur complement of its own parameters.
Scattering is in V, and so treated as broken lines would.

Here with V = L L^T: L^-1 is a root of W. Records stand in rooms of multiples of ROOM measurements, so that products of
matrices are of sizes that do not depend on the records beside them, and each has the same bits alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calib import cholesky
from calib.algorithms.alignment_geometry import NUMBERS
from calib.algorithms.alignment_structures import Structures
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

BLOCK = 1 << 17
"""elements of covariances worked on at a time: they stay near"""
ROOM = 16
LARGEST, LEAST = 1e12, 1e-12
"""um, um^2 and so on: beyond are no records; and um^2, of which more is the variance of any measurement"""
MOST_SLOPE, FURTHEST = 1e3, 2e3
"""um a um or urad, and cm, likewise"""
UM = 1e-4
"""cm, and rad / 100: displacements are counted in um and urad"""
UNITS = np.array([1.0, 1.0, 1.0, 1e-2, 1e-2, 1e-2])
"""what the slopes in um of residual a cm, and a rad, are to be multiplied by: um a um, and um a urad"""


@dataclass(frozen=True, eq=False)
class Records:
    """n records with room for m measurements each, in um; and e, their entries: measurements on structures."""

    event: Ints
    """of which each is, a place in the columns"""
    size: Ints
    """how many measurements each has"""
    residuals: Floats
    """[n, m]"""
    derivatives: Floats
    """[n, m, k]"""
    covariance: Floats
    """lower triangle, [m, m, n]: each step is elementwise along the records"""
    directions: Floats
    """[n, m, 3]"""
    points: Floats
    """in cm, [n, m, 3]"""
    measurement: Ints
    """of each entry, counted through the rooms of all records; rising, [e]"""
    number: Ints
    """the structure, on a measurement the largest first, [e]"""
    slopes: Floats
    """[e, 6]"""
    sound: Mask
    """[n]: numbers, and such as a tracker has; else the rest is 0, but for entries"""

    @property
    def entry_record(self) -> Ints:
        """Whose each entry is, [e]."""
        found: Ints = self.measurement // self.residuals.shape[1]
        return found

    @property
    def ndf(self) -> Ints:
        """[n]"""
        found: Ints = self.size - self.derivatives.shape[2]
        return found


@dataclass(frozen=True, eq=False)
class _Read:
    """Columns without the borders of events: values, and where those of each record begin."""

    values: dict[str, tuple[NDArray[np.float64], Ints]]
    event: Ints
    size: Ints
    number: Ints
    """of structures, [measurements, levels], -1: none"""

    def take(self, name: str, rows: Ints, each: int, scale: float = 1.0) -> Floats:
        """The values of records, [n, room], with `each` a measurement; what is beyond a record's own is 0."""
        values, begin = self.values[name]
        return self._from(values, begin[rows], self.size[rows] * each, int(self.size[rows].max()) * each, scale)

    def triangle(self, rows: Ints) -> Floats:
        """Covariances [m, m, n], lower triangle; above it 0, as where there is only room, but for 1 on the diagonal."""
        values, begin = self.values[COVARIANCE]
        own, m = self.size[rows], int(self.size[rows].max())
        flat = self._from(values, begin[rows], own * (own + 1) // 2, m * (m + 1) // 2, UM**-2)
        found = np.zeros((m, m, len(rows)))
        found[np.tril_indices(m)] = flat.T
        return found

    @staticmethod
    def _from(values: Floats, begin: Ints, own: Ints, room: int, scale: float) -> Floats:
        place = begin[:, None] + np.arange(room)
        found: Floats = values.take(place, mode="clip") * scale if len(values) else np.zeros(place.shape)
        if (own < room).any():
            found[np.arange(room) >= own[:, None]] = 0.0
        return found


def records(columns: Columns, structures: Structures) -> Iterator[Records]:
    """The records of events that lie on structures that are free, in blocks of much the same size.

    Raises ValueError where columns do not go together, and for structures that there are not.
    """
    read = _read(columns, structures)
    first = np.cumsum(read.size) - read.size
    on_any = np.zeros(len(read.size), np.bool_)
    on_any[np.repeat(np.arange(len(read.size)), read.size)[(read.number >= 0).any(axis=1)]] = True
    own = flat_of(columns[PARAMETERS]).astype(np.int64)
    rooms = -(-read.size // ROOM)
    for key in np.unique(rooms[on_any] << 32 | own[on_any]).tolist():
        rows = np.flatnonzero(on_any & (rooms << 32 | own == key))
        most = int(read.size[rows].max())
        for some in np.array_split(rows, -(-len(rows) * most**2 // BLOCK)):
            yield _gathered(read, some, first, key & 0xFFFFFFFF)


def _read(columns: Columns, structures: Structures) -> _Read:
    counts = flat_of(columns[MEASUREMENTS]).astype(np.int64)
    own = flat_of(columns[PARAMETERS]).astype(np.int64)
    of_event = counts_of(columns[MEASUREMENTS])
    event = np.repeat(np.arange(len(of_event)), of_event)
    if len(counts) and (counts.min() < 1 or own.min() < 1):
        raise ValueError(f"`{MEASUREMENTS}` and `{PARAMETERS}` are at least 1 for each record")
    levels = len(structures.levels)
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
    labels, _ = found.pop(LABELS)
    return _Read(found, event, counts, structures.numbered(labels.reshape(-1, levels).astype(np.int64)))


def _check(columns: Columns, name: str, expected: Ints) -> None:
    given = counts_of(columns[name])
    wrong = np.flatnonzero(given != expected)
    if len(wrong):
        event = np.asarray(columns["event"])[wrong[0]]
        raise ValueError(
            f"event {event} has {given[wrong[0]]} values in `{name}`; by `{MEASUREMENTS}` and `{PARAMETERS}` of its "
            f"records there are {expected[wrong[0]]}"
        )


def _gathered(read: _Read, rows: Ints, first: Ints, k: int) -> Records:
    n, size = len(rows), read.size[rows]
    m = int(size.max())
    parts = {
        RESIDUALS: (read.take(RESIDUALS, rows, 1, 1 / UM), LARGEST),
        DERIVATIVES: (read.take(DERIVATIVES, rows, k, 1 / UM), LARGEST),
        DIRECTIONS: (read.take(DIRECTIONS, rows, 3), MOST_SLOPE),
        POINTS: (read.take(POINTS, rows, 3), FURTHEST),
    }
    covariance, diagonal = read.triangle(rows), np.diag_indices(m)
    covariance[diagonal] += np.arange(m)[:, None] >= size
    place = first[rows, None] + np.arange(m)
    number = read.number.take(place, axis=0, mode="clip")
    number[np.arange(m) >= size[:, None]] = -1
    measurement, level = np.nonzero((number >= 0).reshape(n * m, -1))
    slopes = read.values[SLOPES][0].reshape(-1, len(NUMBERS))
    slopes = slopes.take(place.reshape(-1)[measurement] * number.shape[2] + level, axis=0) * UNITS
    # A record that is no numbers, or numbers of no tracker, is put to 0: without a covariance it has no meaning.
    sound = _within(covariance.reshape(-1, n), LARGEST, 0) & (covariance[diagonal] > LEAST).all(axis=0)
    for part, most in parts.values():
        sound &= _within(part, most, 1)
    sound[measurement[~_within(slopes, MOST_SLOPE, 1)] // m] = False
    if not sound.all():
        slopes[~sound[measurement // m]] = 0.0
        covariance[..., ~sound] = np.eye(m)[..., None]
        for part, _ in parts.values():
            part[~sound] = 0.0
    residuals, derivatives, directions, points = (part for part, _ in parts.values())
    return Records(
        read.event[rows],
        size,
        residuals,
        derivatives.reshape(n, m, k),
        covariance,
        directions.reshape(n, m, 3),
        points.reshape(n, m, 3),
        measurement,
        number.reshape(n * m, -1)[measurement, level],
        slopes,
        sound,
    )


def _within(part: Floats, most: float, axis: int) -> Mask:
    """Whether all along an axis are numbers below `most`; of those that are none neither extreme is."""
    if -most < part.min(initial=0.0) and part.max(initial=0.0) < most:  # as nearly always: rows are short
        return np.ones(part.shape[1 - axis], np.bool_)
    found: Mask = (part.max(axis=axis) < most) & (part.min(axis=axis) > -most)
    return found


@dataclass(frozen=True, eq=False)
class Eliminated:
    """What is left of n records once their own parameters are free."""

    weights: Floats
    """P, [n, m, m]"""
    pulls: Floats
    """P (r + what measurements have been moved by), [n, m]"""
    chi2: Floats
    """r^T P r, [n]"""
    sound: Mask
    """[n]: V is positive definite and A of full rank; else the rest has no meaning"""


def eliminated(given: Records, moved: Floats) -> Eliminated:
    """Of records whose measurements have been moved by so much [n, m] in um by what they were fitted under."""
    m = given.derivatives.shape[1]
    room = -(-m // ROOM) * ROOM
    lower, sound = cholesky.factors(given.covariance)
    root = _padded(cholesky.inverse_factor(lower).transpose(2, 0, 1), room, room)
    white = np.matmul(root, _padded(given.derivatives, room))
    normal = np.matmul(white.swapaxes(1, 2), white)
    factor, full = cholesky.factors(np.ascontiguousarray(normal.transpose(1, 2, 0)))
    turn = np.ascontiguousarray(cholesky.inverse_factor(factor).transpose(2, 0, 1))
    # Rows of L^-1 along what A spans, of unit length: what they take away is what tracks follow.
    own = np.matmul(np.matmul(turn, white.swapaxes(1, 2)), root)
    weights = np.matmul(root.swapaxes(1, 2), root) - np.matmul(own.swapaxes(1, 2), own)
    both = _padded(np.stack([given.residuals, given.residuals + moved], axis=2), room)
    pulls = np.matmul(weights, both)
    chi2 = (both[..., 0] * pulls[..., 0]).sum(axis=1)
    weights, pulls = np.ascontiguousarray(weights[:, :m, :m]), np.ascontiguousarray(pulls[:, :m, 1])
    return Eliminated(weights, pulls, chi2, given.sound & sound & full & (chi2 < LARGEST))


def _padded(values: Floats, *shape: int) -> Floats:
    """In larger arrays [n, *shape, ...], with zeros beyond."""
    found = np.zeros((len(values), *shape, *values.shape[1 + len(shape) :]))
    found[tuple(slice(size) for size in values.shape)] = values
    return found
