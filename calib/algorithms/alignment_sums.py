"""The sums that an alignment is made from, by pairs of structures that a record lies on: exact and mergeable.

Fixed-point integers, in um and urad, by pools of units. Records are kept apart by their chi2, in classes between the
cuts: which cut is right shows in all of them together, when they are solved.

    matrix      d^2 for each pair of structures on one record: G^T P G
    metric      d^2 for each pair of structures that share a measurement: G^T G, in which moves are compared
    structures  by structure: `right` d, G^T P r about no displacement; `deformed` d x deformations, G^T times what
                these do; `records`
    fit         by class: `chi2`, `ndf`, `records`, `measurements` on structures, `field`, products of deformations;
                beyond the classes of the cuts records that no cut lets pass, and those that have no meaning

d are the numbers free for any structure. About no displacement, sums of tracks fitted under different ones add up.
All are sums of outer products, of slopes with P G, P r, slopes, and what deformations do (`alignment_products`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from calib.accumulators import UnitSums, to_fixed
from calib.algorithms.alignment_geometry import DEFORMATIONS, deformed
from calib.algorithms.alignment_products import MOST_BITS, Products, squared, whole
from calib.algorithms.alignment_records import Eliminated, Records, eliminated, records
from calib.algorithms.alignment_structures import Structures
from calib.calibration import Columns, packed_units
from calib.channel_sums import ChannelSums, places
from calib.iov import LUMI_BITS
from calib.jagged import ramps
from calib.pools import Pools
from calib.state import State

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

SLOPE = 2.0**-16
"""what slopes are counted in: a move of 1 mm is off by 15 nm"""
WEIGHT = 2.0**-29
"""and P G in 1/um^2, P r in 1/um. Where tracks tell nothing, P G nearly cancels over the structures of a record; what
rounding leaves of it in 100 000 records is 2e-6 1/um^2, of a move known to 700 um"""
FIELD = 2.0**-10
"""and what deformations do, of size 1 some centimetres out"""
RESOLUTION = SLOPE * WEIGHT
"""of the sums made of them: of the matrix, with room for 260 000 1/um^2"""
OF_METRIC, OF_DEFORMED, OF_FIELD = SLOPE**2, SLOPE * FIELD, FIELD**2
COARSE = 2.0**-20
"""of chi2"""
MOST = 2.0**MOST_BITS
"""of products in these: what goes with P is 128 1/um^2, and of one of the best sensors, 0.1 um, would be 100"""
THREE_SIGMA = 0.0026998
"""the share of a Gaussian beyond"""


@dataclass(frozen=True, eq=False)
class _Told:
    """What n records say, with room for m measurements each; what they say of displacements only where it counts."""

    chi2: Floats
    of_class: Ints
    """by chi2; beyond those of the cuts nothing else is said, [n]"""
    pulls: Ints
    """P (r about no displacement), in WEIGHT, [n m]"""
    shapes: Ints
    """what deformations do to measurements on any structure, in FIELD, [n m, deformations]"""
    slopes: Ints
    """in SLOPE, [e, d]"""
    entries: Ints
    """those of records that count, of e"""
    each: Ints
    """entries of each room, [n m]"""
    on: Ints
    """which of u structures an entry is on, [e]"""
    first: Ints
    """the first of u of each record, [n]"""
    place: Ints
    """which of those that are free each is, rising by record, [u]"""
    weighed: Floats
    """P G, [u m, d]"""


class _Sums:
    """Of one chunk."""

    def __init__(self, structures: Structures, cuts: tuple[float, ...], pools: int) -> None:
        self.structures, self.cuts, self.free = structures, cuts, int(structures.any_free.sum())
        d, cells = len(structures.numbers), pools * len(cuts) * self.free
        self.matrix, self.metric = (Products(cells * self.free, (d, d)) for _ in range(2))
        self.by_structure = Products(cells, (d, 1 + len(DEFORMATIONS)))
        self.records = Products(cells, (1, 1))
        self.fit = np.zeros((pools * (len(cuts) + 2), 4 + len(DEFORMATIONS) ** 2), np.int64)

    def add(self, given: Records, values: Floats, pool: Ints) -> None:
        """Records of pools [n], 0 and on, fitted under values [structures, 6]."""
        told = _told(given, self.structures, values, self.cuts)
        used = told.of_class < len(self.cuts)
        self._fitted(given, told, pool, used)
        if used.any():
            self._products(given, told, (pool * len(self.cuts) + told.of_class) * self.free, used)

    def _fitted(self, given: Records, told: _Told, pool: Ints, used: Mask) -> None:
        on_any = (told.each.reshape(len(used), -1) > 0).sum(axis=1)
        counted = [to_fixed(told.chi2 * used, COARSE), given.ndf * used, np.ones_like(pool), on_any * used]
        rows = np.stack(counted, axis=1)
        classes, m = len(self.cuts) + 2, given.residuals.shape[1]
        keys, which, counts = np.unique(pool * classes + told.of_class, return_inverse=True, return_counts=True)
        # The most have what the others leave of all: those that are not used have no shapes.
        most, left = int(counts.argmax()), squared(told.shapes)
        for place, key in enumerate(keys.tolist()):
            self.fit[key, :4] += rows[which == place].sum(axis=0)
            if place != most and key % classes < len(self.cuts):
                shapes = squared(
                    told.shapes.reshape(len(pool), m, -1)[which == place].reshape(-1, told.shapes.shape[1])
                )
                self.fit[key, 4:] += shapes.reshape(-1)
                left -= shapes
        if keys[most] % classes < len(self.cuts):
            self.fit[keys[most], 4:] += left.reshape(-1)

    def _products(self, given: Records, told: _Told, cell: Ints, used: Mask) -> None:
        m, chosen = given.residuals.shape[1], told.entries
        record, on = given.entry_record[chosen], told.on[chosen]
        # Of each entry, with the structures of its record up to its own; and with those that it shares its place with.
        first = told.first[record]
        pairs, shared = on - first + 1, ramps(told.each)[chosen] + 1
        one = np.repeat(first, pairs) + ramps(pairs)
        room = np.repeat(given.measurement[chosen] % m, pairs)
        partner = np.repeat(chosen + 1 - shared, shared) + ramps(shared)
        begin = cell[record] * self.free + told.place[on]
        slopes = told.slopes[chosen]
        matrix = np.repeat(begin, pairs) + told.place[one] * self.free
        self.matrix.add(matrix, whole(told.weighed.take(one * m + room, axis=0), WEIGHT), pairs, slopes)
        metric = np.repeat(begin, shared) + told.place[told.on[partner]] * self.free
        self.metric.add(metric, told.slopes[partner], shared, slopes)
        counts = np.repeat(used, m)
        right = np.concatenate([told.pulls[:, None], told.shapes], axis=1)[counts]
        self.by_structure.add(cell[record] + told.place[on], slopes, told.each[counts], right)
        owner = np.repeat(np.arange(len(used)), np.diff(told.first, append=len(told.place)))
        counted = np.flatnonzero(used[owner])
        ones = np.ones((len(counted), 1), np.int64)
        self.records.add(cell[owner[counted]] + told.place[counted], ones, ones[:, 0], ones)

    def rows(self) -> dict[str, UnitSums]:
        """Of each part, by pool, class and structures in one number: those of pairs, of structures, of classes."""
        width, seen = len(self.structures.numbers), np.flatnonzero(self.fit[:, 2])
        by_structure, records = self.by_structure.fold().values, self.records.fold()
        imitated = by_structure[..., 1:].reshape(len(by_structure), width * len(DEFORMATIONS))
        pairs = {
            name: UnitSums(total.keys, total.values.reshape(-1, width**2))
            for name, total in (("matrix", self.matrix.fold()), ("metric", self.metric.fold()))
        }
        of_structures = np.concatenate([by_structure[..., 0], imitated, records.values[..., 0]], axis=1)
        return pairs | {"structures": UnitSums(records.keys, of_structures), "fit": UnitSums(seen, self.fit[seen])}


def _told(given: Records, structures: Structures, values: Floats, cuts: tuple[float, ...]) -> _Told:
    numbers, (n, m) = structures.numbers, given.residuals.shape
    slopes = whole(given.slopes[:, numbers], SLOPE) * structures.is_free[given.number][:, numbers]
    real = slopes.astype(np.float64) * SLOPE
    each = np.bincount(given.measurement, minlength=n * m)
    moves = (real * values[given.number][:, numbers]).sum(axis=1)
    moved = np.asarray(np.bincount(given.measurement, moves, n * m), np.float64)
    found = eliminated(given, moved.reshape(n, m))
    ordinal = np.cumsum(structures.any_free) - 1
    size = int(ordinal[-1]) + 1
    keys, on = places(given.entry_record * size + ordinal[given.number], n * size)
    first = np.searchsorted(keys, np.arange(n) * size)
    weighed = _weighed(found, given.measurement, real, on, len(keys))
    shapes = np.where(each[:, None] > 0, deformed(given.directions, given.points).reshape(n * m, -1), 0.0)
    begins = np.searchsorted(given.measurement, np.arange(n) * m)
    factors = ((real, SLOPE, begins), (shapes, FIELD, np.arange(n) * m))
    of_weights = ((weighed.reshape(len(keys), -1), WEIGHT, first), (found.pulls, WEIGHT, np.arange(n)))
    of_class = _classes(found.chi2, given.ndf, cuts)
    of_class[~found.sound | (of_class < len(cuts)) & ~_small(factors, of_weights)] = len(cuts) + 1
    used = of_class < len(cuts)
    if not used.all():
        found.pulls[~used], shapes[np.repeat(~used, m)] = 0.0, 0.0
    return _Told(
        found.chi2,
        of_class,
        whole(found.pulls, WEIGHT).reshape(-1),
        whole(shapes, FIELD),
        slopes,
        np.flatnonzero(used[given.entry_record]),
        each,
        on,
        first,
        keys % size,
        weighed,
    )


_Parts = tuple[tuple[Floats, float, Ints], ...]
"""rows, what they are counted in, and where those of each record begin"""


def _small(factors: _Parts, weights: _Parts) -> Mask:
    """Of which records no product of a factor with another or with a weight is beyond MOST."""

    def most(parts: _Parts, of: Callable[[Floats, Ints], Floats]) -> Floats:
        return np.maximum(*(of(rows, begins) / step for rows, step, begins in parts))

    def of_all(rows: Floats, begins: Ints) -> Floats:
        return np.full(1, max(rows.max(), -rows.min()))

    def of_each(rows: Floats, begins: Ints) -> Floats:
        found: Floats = np.maximum.reduceat(np.maximum(rows.max(axis=1), -rows.min(axis=1)), begins)
        return found

    (*_, (_, _, begins)) = weights
    for of in (of_all, of_each):  # rows are short: all of them at once is soon said, and nearly always enough
        factor = np.maximum(most(factors, of), 1.0)
        small: Mask = factor * np.maximum(factor, most(weights, of)) < MOST
        if small.all():
            break
    return np.broadcast_to(small, len(begins))


def _weighed(found: Eliminated, measurement: Ints, slopes: Floats, on: Ints, structures: int) -> Floats:
    """P G by structure, [u m, d]: each adds up its entries in their order."""
    from scipy.sparse import csc_array

    m = found.pulls.shape[1]
    weights = found.weights.reshape(-1, m).take(measurement, axis=0)
    index = on.astype(np.int32)[:, None] * np.int32(m) + np.arange(m, dtype=np.int32)
    ends = np.arange(len(on) + 1, dtype=np.int32) * np.int32(m)
    spread = csc_array((weights.reshape(-1), index.reshape(-1), ends), shape=(structures * m, len(on)))
    product: Floats = spread @ slopes
    return product


def _classes(chi2: Floats, ndf: Ints, cuts: tuple[float, ...]) -> Ints:
    """The class of each record."""
    sizes, which = np.unique(ndf, return_inverse=True)
    limits = np.array([most_chi2(size) for size in sizes.tolist()])[which, None] * np.array(cuts)
    found: Ints = (limits < chi2[:, None]).sum(axis=1)
    return found


@dataclass(frozen=True, eq=False)
class Summing:
    """How sums are made of records."""

    structures: Structures
    cuts: tuple[float, ...]
    """on chi2, in units of what a Gaussian's 3 sigma leaves beyond, rising"""
    most: int
    """pools of a run"""

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
        return State({name: ChannelSums.empty(of, self.most) for name, of in self.widths.items()})

    def of(self, columns: Columns, values: Floats) -> State:
        """The sums of events that were fitted under displacements `values` [structures, 6] in um and urad.

        Raises ValueError for columns that do not go together, or name structures that there are not.
        """
        units = packed_units(columns)
        pools = Pools.of(units, self.most)
        pool = pools.place(units)
        sums = _Sums(self.structures, self.cuts, len(pools))
        for block in records(columns, self.structures):
            sums.add(block, values, pool[block.event])
        fingerprint = self.structures.fingerprint(values)
        found = sums.rows()
        return State({name: self._part(name, rows, pools, fingerprint) for name, rows in found.items()})

    def _part(self, name: str, rows: UnitSums, pools: Pools, fingerprint: int) -> ChannelSums:
        widths = self.widths[name]
        ends = np.cumsum(list(widths.values()))[:-1]
        columns = dict(zip(widths, np.split(rows.values, ends, axis=1), strict=True))
        return ChannelSums.of(pools, fingerprint, self._keys(name, rows.keys), columns)

    def _keys(self, name: str, cells: Ints) -> Ints:
        """Pool, class and structures, these among all."""
        classes, every = len(self.cuts), len(self.structures)
        if name == "fit":
            pool, of_class = np.divmod(cells, classes + 2)
            return (pool << LUMI_BITS) + of_class
        free = np.flatnonzero(self.structures.any_free)
        place, cells = cells % len(free), cells // len(free)
        last = free[place]
        if name in ("matrix", "metric"):
            last = free[cells % len(free)] * every + last
            cells = cells // len(free)
        pool, of_class = np.divmod(cells, classes)
        keys: Ints = (pool << LUMI_BITS) + of_class * every**2 + last
        return keys


@lru_cache
def most_chi2(ndf: int) -> float:
    """The chi2 that good records pass with the probability of 3 sigma; those without a degree of freedom pass none.

    >>> round(most_chi2(1), 3)
    9.0
    """
    from scipy.stats import chi2

    return float(chi2.isf(THREE_SIGMA, ndf)) if ndf > 0 else -1.0
