"""The sums that an alignment is made from, by pairs of structures that a record lies on: exact and mergeable.

Fixed-point integers, in um and urad, pooled over a run. Records are kept apart by their chi2, in classes between the
cuts: which cut is right shows in all of them together, when they are solved.

    matrix      d^2 for each pair of structures on one record: G^T P G
    metric      d^2 for each pair of structures that share a measurement: G^T G, in which moves are compared
    structures  by structure: `right` d, G^T P r about no displacement; `deformed` d x deformations, G^T times what
                these do; `records`
    fit         by class: `chi2`, `ndf`, `records`, `measurements` on structures, `field`, products of deformations;
                beyond the classes of the cuts records that no cut lets pass, and those that have no meaning

d are the numbers free for any structure. About no displacement, sums of tracks fitted under different ones add up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from calib.accumulators import UnitSums, to_fixed
from calib.algorithms.alignment_geometry import DEFORMATIONS, deformed
from calib.algorithms.alignment_records import Eliminated, Records, eliminated, records
from calib.algorithms.alignment_structures import Structures
from calib.calibration import Columns, packed_units
from calib.channel_sums import ChannelSums
from calib.iov import LUMI_BITS
from calib.state import State

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

RESOLUTION = 2.0**-40
"""of sums in 1/um^2 and 1/um: 1e-12, and room for 8 million"""
MIDDLE = 2.0**-30
"""of sums without the weights of a fit, which are larger"""
COARSE = 2.0**-20
"""of chi2, and of the products of deformations"""
THREE_SIGMA = 0.0026998
"""the share of a Gaussian beyond"""
MOST_VALUES = 2_000_000
"""of rows that wait to be added up: 16 MB"""

Found = tuple[Ints, Ints]
"""places of rows [...] and the rows [..., width]"""


@dataclass(eq=False)
class _Heap:
    """Rows that wait to be added up by key."""

    total: UnitSums
    waiting: list[Found] = field(default_factory=list)
    size: int = 0

    def add(self, keys: Ints, rows: Ints) -> None:
        said = rows.any(axis=-1)
        self.waiting.append((keys[said], rows[said]))
        self.size += int(said.sum()) * rows.shape[-1]
        if self.size > MOST_VALUES:
            self.fold()

    def fold(self) -> UnitSums:
        if self.waiting:
            keys, rows = (np.concatenate(parts) for parts in zip(*self.waiting, strict=True))
            self.total = self.total.merge(UnitSums.of_rows(keys, rows))
        self.waiting, self.size = [], 0
        return self.total


@dataclass(frozen=True, eq=False)
class _Alike:
    """n records of one size on s structures each."""

    given: Records
    on: Ints
    """the structures, rising, [n, s]"""
    number: Ints
    """that of each measurement, on each level, -1: none, [n, m, levels]"""

    def where(self, rows: Ints | Mask) -> _Alike:
        return _Alike(self.given.where(rows), self.on[rows], self.number[rows])

    def slopes(self, free: Mask, numbers: Ints) -> Floats:
        """[n, m, s, d] of the numbers that are free, [n, s, d]."""
        here = (self.number[..., None, :] == self.on[:, None, :, None]).astype(np.float64)
        found: Floats = np.matmul(here, self.given.slopes[..., numbers]) * free[:, None]
        return found

    def shared(self, one: Ints, other: Ints) -> Mask:
        """Whether the structures of pairs share a measurement, [n, pairs]."""
        on = (self.number[..., None, :] == self.on[:, None, :, None]).any(axis=3)
        found: Mask = np.asarray((on[:, :, one] & on[:, :, other]).any(axis=1))
        return found

    def shapes(self) -> Floats:
        """What the deformations do to the residuals of measurements on any structure, [n, m, deformations]."""
        moved = deformed(self.given.directions, self.given.points)
        there = np.asarray((self.number >= 0).any(axis=2))
        return np.where(there[..., None], moved, 0.0)


@dataclass(frozen=True, eq=False)
class Summing:
    """How sums are made of records."""

    structures: Structures
    cuts: tuple[float, ...]
    """on chi2, in units of what a Gaussian's 3 sigma leaves beyond, rising"""

    @property
    def widths(self) -> Mapping[str, Mapping[str, int]]:
        """The columns of each part, in the order of their rows."""
        d, fields = len(self.structures.numbers), len(DEFORMATIONS)
        return {
            "matrix": {"matrix": d * d},
            "metric": {"metric": d * d},
            "structures": {"right": d, "deformed": d * fields, "records": 1},
            "fit": {"chi2": 1, "ndf": 1, "records": 1, "measurements": 1, "field": fields**2},
        }

    def empty(self) -> State:
        """Of no event."""
        return State({name: ChannelSums.empty(of) for name, of in self.widths.items()})

    def of(self, columns: Columns, values: Floats) -> State:
        """The sums of events that were fitted under displacements `values` [structures, 6] in um and urad.

        Raises ValueError for columns that do not go together, or name structures that there are not.
        """
        units = packed_units(columns)
        run = units >> LUMI_BITS << LUMI_BITS
        heaps = {name: _Heap(UnitSums.empty((sum(of.values()),))) for name, of in self.widths.items()}
        for block in records(columns, len(self.structures.levels)):
            for alike in self._alike(block):
                for name, (keys, rows) in self._added(alike, run, values):
                    heaps[name].add(keys, rows)
        fingerprint = self.structures.fingerprint(values)
        return State({name: self._part(name, heap.fold(), units, fingerprint) for name, heap in heaps.items()})

    def _part(self, name: str, total: UnitSums, units: Ints, fingerprint: int) -> ChannelSums:
        widths = self.widths[name]
        ends = np.cumsum(list(widths.values()))[:-1]
        columns = dict(zip(widths, np.split(total.values, ends, axis=1), strict=True))
        return ChannelSums.of(units, fingerprint, total.keys, columns)

    def _alike(self, given: Records) -> Iterator[_Alike]:
        """Records by how many structures they lie on; those on none have nothing to say."""
        number = self.structures.numbered(given.labels)
        ordered = np.sort(number.reshape(len(number), -1), axis=1)
        new = (np.diff(ordered, axis=1, prepend=-1) > 0) & (ordered >= 0)
        size = new.sum(axis=1)
        for s in np.unique(size[size > 0]).tolist():
            rows = np.flatnonzero(size == s)
            on = ordered[rows][new[rows]].reshape(len(rows), s)
            yield _Alike(given.where(rows), on, number[rows])

    def _added(self, alike: _Alike, run: Ints, values: Floats) -> Iterator[tuple[str, Found]]:
        """Keys and rows by part."""
        numbers = self.structures.numbers
        free: Mask = self.structures.is_free[alike.on][..., numbers]
        own = np.where(free, values[alike.on][..., numbers], 0.0)
        slopes = alike.slopes(free, numbers)
        flat = slopes.reshape(*slopes.shape[:2], -1)
        found = eliminated(alike.given, flat, own.reshape(len(own), -1))
        of_class = self._classes(found, alike.given)
        used: Mask = np.asarray(of_class < len(self.cuts))
        shapes = alike.shapes()
        yield "fit", (run[alike.given.event][:, None] + of_class[:, None], self._fit(found, alike, used, shapes))
        if not used.any():
            return
        alike, flat, found, shapes = alike.where(used), flat[used], found.where(used), shapes[used]
        (n, s), every = alike.on.shape, len(self.structures)
        first = run[alike.given.event][:, None] + of_class[used][:, None] * every**2
        one, other = np.triu_indices(s)
        pair = (first + alike.on[:, one] * every + alike.on[:, other]).T
        yield "matrix", (pair, to_fixed(_blocks(found.matrix, s, one, other), RESOLUTION))
        turned = flat.swapaxes(1, 2)
        shared = alike.shared(one, other).T
        yield "metric", (pair[shared], to_fixed(_blocks(np.matmul(turned, flat), s, one, other)[shared], MIDDLE))
        right = to_fixed(found.right.reshape(n, s, -1), RESOLUTION)
        imitated = to_fixed(np.matmul(turned, shapes).reshape(n, s, -1), MIDDLE)
        yield "structures", (first + alike.on, np.concatenate([right, imitated, np.ones((n, s, 1), np.int64)], axis=2))

    def _classes(self, found: Eliminated, given: Records) -> Ints:
        """The class of each record by its chi2."""
        _, m, k = given.derivatives.shape
        limits = np.array(self.cuts) * most_chi2(m - k)
        return np.where(found.sound, np.searchsorted(limits, found.chi2), len(self.cuts) + 1)

    def _fit(self, found: Eliminated, alike: _Alike, used: Mask, shapes: Floats) -> Ints:
        _, m, k = alike.given.derivatives.shape
        chi2 = to_fixed(np.where(used, found.chi2, 0.0), COARSE)
        shapes = np.where(used[:, None, None], shapes, 0.0)
        products = to_fixed(np.matmul(shapes.swapaxes(1, 2), shapes), COARSE).reshape(len(chi2), -1)
        on_any = (alike.number >= 0).any(axis=2).sum(axis=1)
        return np.column_stack([chi2, used * (m - k), np.ones_like(chi2), used * on_any, products])[:, None]


def _blocks(matrix: Floats, s: int, one: Ints, other: Ints) -> Floats:
    """The blocks of pairs of structures out of matrices [n, s d, s d], as [pairs, n, d^2]."""
    n, d = len(matrix), matrix.shape[1] // s
    blocks: Floats = matrix.reshape(n, s, d, s, d)[:, one, :, other].reshape(len(one), n, d * d)
    return blocks


@lru_cache
def most_chi2(ndf: int) -> float:
    """The chi2 that good records pass with the probability of 3 sigma; those without a degree of freedom pass none.

    >>> round(most_chi2(1), 3)
    9.0
    """
    from scipy.stats import chi2

    return float(chi2.isf(THREE_SIGMA, ndf)) if ndf > 0 else -1.0
