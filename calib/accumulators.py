"""Mergeable parts of a calibration's state.

Every part is exactly associative and commutative with an identity: integers, fixed-point integers, or rows kept by
key. So the same data give the same state to the last bit, however they were cut and in whatever order parts met.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

Int = NDArray[np.int64]
Array = NDArray[Any]


WIDE = 1000
"""from so many numbers a unit on, a call for each unit is quicker than reduceat, which adds slowly along rows"""


class StatesDiffer(ValueError):
    """Two states cannot be merged: they were made with different settings."""


class CountedTwice(ValueError):
    """The same unit, event or row entered a state twice."""


class SumOverflow(OverflowError):
    """A sum left the range of its integers."""


class Part(Protocol):
    """What a state is made of."""

    form: ClassVar[str]

    def merge(self, other: Self) -> Self:
        """Both together."""

    def select(self, units: Int) -> Self:
        """What belongs to these packed units alone."""

    def units(self) -> Int:
        """The packed units it holds, sorted."""

    def to_arrays(self) -> dict[str, Array]:
        """Its content as named arrays."""

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> Self:
        """The part of such arrays."""


def add_exactly(left: Int, right: Int) -> Int:
    """The sum of two arrays of int64; raises SumOverflow instead of wrapping round."""
    total: Int = left + right
    if np.any(((left ^ total) & (right ^ total)) < 0):
        raise SumOverflow("a sum passed 2^63; choose a coarser resolution or sum fewer units")
    return total


def to_fixed(values: ArrayLike, resolution: float) -> Int:
    """Floating-point values as multiples of `resolution`; raises SumOverflow for what does not fit or is not finite."""
    scaled = np.rint(np.asarray(values, dtype=np.float64) / resolution)
    # 2^52 leaves room to add 2 000 of the largest before int64 is full; beyond that add_exactly speaks up.
    if not np.all(np.abs(scaled) < 2.0**52):
        raise SumOverflow(f"a value does not fit fixed point with resolution {resolution} (or is not finite)")
    return scaled.astype(np.int64)


def _rows_of(sorted_units: Int, units: Int) -> slice | Int:
    """Where rows of these units lie: a view if they lie together, so that cutting a state into many is cheap."""
    if not len(units):
        return slice(0, 0)
    first = bisect_left(sorted_units, units.min())
    last = bisect_right(sorted_units, units.max(), lo=first)
    inside = np.isin(sorted_units[first:last], units)
    return slice(first, last) if inside.all() else first + np.flatnonzero(inside)


def _rising(keys: Int) -> bool:
    """Whether keys, compared column by column, never fall."""
    before, after = keys[:-1].T, keys[1:].T
    rising = after[2] >= before[2]
    for column in (1, 0):
        rising = (after[column] > before[column]) | (after[column] == before[column]) & rising
    return bool(rising.all())


@dataclass(frozen=True, eq=False)
class UnitSums:
    """Integer sums by unit: `units` int64[n] packed and sorted, `values` int64[n, ...]."""

    keys: Int
    values: Int
    form: ClassVar[str] = "unit_sums"

    @classmethod
    def empty(cls, shape: tuple[int, ...] = ()) -> UnitSums:
        """No unit yet; `shape` is that of one unit's sums."""
        return cls(np.zeros(0, np.int64), np.zeros((0, *shape), np.int64))

    @classmethod
    def of_rows(cls, units: ArrayLike, values: ArrayLike) -> UnitSums:
        """Add up integer rows `values[i]` (shape n, ...) of unit `units[i]` (packed)."""
        rows = np.asarray(values)
        keys, where = np.unique(np.asarray(units, np.int64), return_inverse=True)
        total = np.zeros((len(keys), *rows.shape[1:]), np.int64)
        if len(keys) == 1:
            total[0] = rows.sum(axis=0, dtype=np.int64)
        elif len(keys):
            if np.any(where[1:] < where[:-1]):
                order = np.argsort(where, kind="stable")
                where, rows = where[order], rows[order]
            starts = np.searchsorted(where, np.arange(len(keys)))
            if rows.size > WIDE * len(keys):
                for unit, part in enumerate(np.split(rows, starts[1:])):
                    total[unit] = part.sum(axis=0, dtype=np.int64)
            else:
                np.add.reduceat(rows, starts, axis=0, dtype=np.int64, out=total)
        return cls(keys, total)

    def merge(self, other: UnitSums) -> UnitSums:
        if self.values.shape[1:] != other.values.shape[1:]:
            raise StatesDiffer(f"sums of shape {self.values.shape[1:]} and {other.values.shape[1:]} do not merge")
        keys = np.union1d(self.keys, other.keys)
        total = np.zeros((len(keys), *self.values.shape[1:]), np.int64)
        total[np.searchsorted(keys, self.keys)] = self.values
        at = np.searchsorted(keys, other.keys)
        total[at] = add_exactly(total[at], other.values)
        return UnitSums(keys, total)

    def select(self, units: Int) -> UnitSums:
        keep = _rows_of(self.keys, units)
        return UnitSums(self.keys[keep], self.values[keep])

    def units(self) -> Int:
        return self.keys

    def total(self) -> Int:
        """The sum over all units."""
        return np.asarray(self.values.sum(axis=0, dtype=np.int64))

    def to_arrays(self) -> dict[str, Array]:
        return {"keys": self.keys, "values": self.values}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> UnitSums:
        return cls(arrays["keys"], arrays["values"])


@dataclass(frozen=True, eq=False)
class UnitHistogram:
    """Counts by unit in bins `edges` float64[b + 1]; `sums.values` is int64[n, b + 2] with under- and overflow."""

    edges: Array
    sums: UnitSums
    form: ClassVar[str] = "unit_histogram"

    @classmethod
    def fill(cls, edges: Array, units: ArrayLike, values: ArrayLike) -> UnitHistogram:
        """Count values by unit (packed, one a value). What is not a number counts as overflow."""
        edges = np.asarray(edges, np.float64)
        keys, where = np.unique(np.asarray(units, np.int64), return_inverse=True)
        bins = np.searchsorted(edges, np.asarray(values, np.float64), side="right")
        width = len(edges) + 1
        flat = np.bincount(where * width + bins, minlength=len(keys) * width)
        return cls(edges, UnitSums(keys, flat.reshape(len(keys), width).astype(np.int64)))

    def merge(self, other: UnitHistogram) -> UnitHistogram:
        if not np.array_equal(self.edges, other.edges):
            raise StatesDiffer("histograms with different bins do not merge")
        return UnitHistogram(self.edges, self.sums.merge(other.sums))

    def select(self, units: Int) -> UnitHistogram:
        return UnitHistogram(self.edges, self.sums.select(units))

    def units(self) -> Int:
        return self.sums.units()

    def to_arrays(self) -> dict[str, Array]:
        return {"edges": self.edges, **self.sums.to_arrays()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> UnitHistogram:
        return cls(arrays["edges"], UnitSums.from_arrays(arrays))


@dataclass(frozen=True, eq=False)
class UnitRows:
    """Rows kept by key: `keys` int64[n, 3] = (packed unit, event, row in the event), `columns` of n values each.

    At most `keep` rows a unit survive (0 = all): those smallest in column `rank`, ties broken by key. The first of
    the union is the first of the firsts, so the cut commutes with merging. The same key twice is an error.
    """

    keys: Int
    columns: Mapping[str, Array]
    keep: int = 0
    rank: str = ""
    form: ClassVar[str] = "unit_rows"

    @classmethod
    def of(cls, keys: Int, columns: Mapping[str, Array], keep: int = 0, rank: str = "") -> UnitRows:
        """Sort and cut rows given in any order. Raises CountedTwice for a key that comes twice."""
        columns = {name: np.asarray(columns[name]) for name in sorted(columns)}
        keys = np.ascontiguousarray(keys, np.int64)
        if not _rising(keys):
            order = np.lexsort((keys[:, 2], keys[:, 1], keys[:, 0]))
            keys = keys[order]
            columns = {name: values[order] for name, values in columns.items()}
        same = np.flatnonzero(np.all(keys[1:] == keys[:-1], axis=1))
        if len(same):
            unit, event, row = keys[same[0]].tolist()
            where = f"run {unit >> 32}, lumisection {unit & 0xFFFFFFFF}, event {event}, row {row}"
            raise CountedTwice(f"{where} entered the state twice")
        return cls(keys, columns, keep, rank)._cut()

    @classmethod
    def empty(cls, columns: Mapping[str, Any], keep: int = 0, rank: str = "") -> UnitRows:
        """No row yet, of these columns and their types."""
        none = {name: np.zeros(0, dtype) for name, dtype in sorted(columns.items())}
        return cls(np.zeros((0, 3), np.int64), none, keep, rank)

    def best(self, keep: int) -> UnitRows:
        """With at most `keep` rows a unit: those smallest in rank."""
        return UnitRows(self.keys, self.columns, keep, self.rank)._cut()

    def _cut(self) -> UnitRows:
        if not self.keep or not len(self.keys):
            return self
        # lexsort is stable: rows of equal rank stay in the order of their keys.
        order = np.lexsort((self.columns[self.rank], self.keys[:, 0]))
        unit = self.keys[order, 0]
        place = np.arange(len(unit)) - np.searchsorted(unit, unit)
        kept = np.sort(order[place < self.keep])
        if len(kept) == len(unit):
            return self
        columns = {name: values[kept] for name, values in self.columns.items()}
        return UnitRows(self.keys[kept], columns, self.keep, self.rank)

    def merge(self, other: UnitRows) -> UnitRows:
        if (self.keep, self.rank, set(self.columns)) != (other.keep, other.rank, set(other.columns)):
            raise StatesDiffer("rows kept by different rules, or of different columns, do not merge")
        if not len(other.keys) or not len(self.keys):
            return self if len(self.keys) else other
        columns = {name: np.concatenate([self.columns[name], other.columns[name]]) for name in self.columns}
        return UnitRows.of(np.concatenate([self.keys, other.keys]), columns, self.keep, self.rank)

    def select(self, units: Int) -> UnitRows:
        at = _rows_of(self.keys[:, 0], units)
        columns = {name: values[at] for name, values in self.columns.items()}
        return UnitRows(self.keys[at], columns, self.keep, self.rank)

    def units(self) -> Int:
        return np.unique(self.keys[:, 0])

    def to_arrays(self) -> dict[str, Array]:
        columns = {f"column {name}": values for name, values in self.columns.items()}
        return {"keys": self.keys, "keep": np.array(self.keep), "rank": np.array(self.rank), **columns}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> UnitRows:
        mark = "column "
        columns = {name.removeprefix(mark): values for name, values in arrays.items() if name.startswith(mark)}
        return cls(arrays["keys"], columns, int(arrays["keep"]), str(arrays["rank"]))


PARTS: dict[str, type[UnitSums] | type[UnitHistogram] | type[UnitRows]] = {
    part.form: part for part in (UnitSums, UnitHistogram, UnitRows)
}
