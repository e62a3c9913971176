"""Sums by channel, pooled over units of a run: a mergeable part for detectors of many channels.

A map *unit -> sums* grows with the units, and a million channels leave no room for that. So the sums of a run are kept
in a bounded number of pools (`calib.pools`); the part remembers which units went in, and can be cut between pools but
not inside one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from calib.accumulators import StatesDiffer, add_exactly
from calib.iov import LUMI_BITS, RunLumi
from calib.pools import Pools

Int = NDArray[np.int64]
Array = NDArray[Any]

MARK = "column "
ROW = (1 << LUMI_BITS) - 1
FIRST_ROWS = 8
WIDTHS = (np.int8, np.int16, np.int32, np.int64)


class PartOfAPool(ValueError):
    """Some units were asked of sums that are pooled over more of them."""


def narrowest(values: Array) -> Array:
    """The same integers in the smallest signed type that holds them all.

    The type follows from the values alone, so it is the same however they came about.

    >>> [narrowest(np.array([0, top])).dtype.name for top in (127, 128, -32769)]
    ['int8', 'int16', 'int32']
    """
    # Most are as narrow as can be, which their first rows tell.
    if any(values.dtype == holding(*_range(some)) for some in (values[:0], values[:FIRST_ROWS])):
        return values
    return values.astype(holding(*_range(values)), copy=False)


def holding(low: int, high: int) -> type[Any]:
    """The smallest signed type for integers from `low` to `high`.

    >>> holding(0, 128).__name__
    'int16'
    """
    for width in WIDTHS:
        if np.iinfo(width).min <= low and high <= np.iinfo(width).max:
            return width
    return np.int64


@dataclass(frozen=True, eq=False)
class ChannelSums:
    """Integer sums by pool and channel. Rows are blocks of consecutive channels; only those that were seen are there.

    `pools`: the units that went in, and which of them are summed together. `made_with` int64[runs]: for each run among
    them, in order, the fingerprint of what its sums were made with. `keys` int64[n]: `pool << 32 | row` of each row,
    sorted, pools by their place among all. `columns`: name to signed integers [n, width], in the smallest type that
    holds them; widths may differ.
    """

    pools: Pools
    made_with: Int
    keys: Int
    columns: Mapping[str, Array]
    form: ClassVar[str] = "channel_sums"

    @classmethod
    def of(cls, pools: Pools, fingerprint: int, keys: Int, columns: Mapping[str, Array]) -> ChannelSums:
        """Sums of events that are in these pools, one row a key; keys are unique and sorted."""
        made_with = np.full(len(pools.runs), fingerprint, np.int64)
        return cls(pools, made_with, keys, {name: narrowest(columns[name]) for name in sorted(columns)})

    @classmethod
    def empty(cls, widths: Mapping[str, int], most: int) -> ChannelSums:
        """No unit yet; the width of every column, and how many pools of a run there may be."""
        none = np.zeros(0, np.int64)
        columns = {name: np.zeros((0, width), np.int8) for name, width in sorted(widths.items())}
        return cls(Pools(none, none, most), none, none, columns)

    def merge(self, other: ChannelSums) -> ChannelSums:
        """Both together. Raises StatesDiffer for other columns, or a run that was not made with the same."""
        if _widths(self) != _widths(other):
            raise StatesDiffer(f"sums by channel of columns {_widths(self)} and {_widths(other)} do not merge")
        pools = self.pools.merge(other.pools)
        made_with = self._made_with_both(other, pools.runs)
        rows = _joined(self._in(pools), other._in(pools))
        return ChannelSums(pools, made_with, rows.keys, rows.columns)

    def select(self, units: Int) -> ChannelSums:
        """What belongs to these packed units. Raises PartOfAPool unless of every pool they hold all units or none."""
        wanted = np.isin(self.pools.seen, units)
        if wanted.all():
            return self
        place = self.pools.place(self.pools.seen)
        inside, every = (np.bincount(place, weights, len(self.pools)) for weights in (wanted, None))
        cut = np.flatnonzero((inside > 0) & (inside < every))
        if len(cut):
            first = RunLumi.unpack(self.pools.seen[(place == cut[0]) & ~wanted][0])
            raise PartOfAPool(
                f"run {first.run}: {inside[cut[0]]:.0f} of {every[cut[0]]:.0f} units whose sums are kept together were "
                f"asked for, without {first}; ask for all of them, or accumulate again"
            )
        chosen = inside > 0
        rows = chosen[self.keys >> LUMI_BITS]
        keys = (np.cumsum(chosen) - 1)[self.keys[rows] >> LUMI_BITS] << LUMI_BITS | self.keys[rows] & ROW
        columns = {name: narrowest(values[rows]) for name, values in self.columns.items()}
        pools = self.pools.select(units)
        return ChannelSums(pools, self.made_with[np.isin(self.runs(), pools.runs)], keys, columns)

    def together(self, units: Int) -> Int:
        """Those of these packed units that went in, and all whose sums are kept with theirs; sorted."""
        return self.pools.together(units)

    def units(self) -> Int:
        """The packed units that went in, sorted."""
        return self.pools.seen

    def runs(self) -> Int:
        """Their runs, sorted."""
        return self.pools.runs

    def row(self) -> Int:
        """Which row of its pool each row is."""
        found: Int = self.keys & ROW
        return found

    def total(self, name: str, rows: int) -> Array:
        """One column over all pools for rows 0 to `rows` - 1: [rows, width] in the smallest type, 0 where not seen."""
        every = _Rows(np.arange(rows), {name: np.zeros((rows, self.columns[name].shape[1]), np.int8)})
        begins = np.searchsorted(self.keys, np.arange(len(self.pools) + 1) << LUMI_BITS)
        for first, last in pairwise(begins.tolist()):
            part = _Rows(self.row()[first:last], {name: narrowest(self.columns[name][first:last])})
            every = _joined(every, part)
        return every.columns[name]

    def to_arrays(self) -> dict[str, Array]:
        """Its content as named arrays."""
        columns = {f"{MARK}{name}": values for name, values in self.columns.items()}
        return {**self.pools.to_arrays(), "made_with": self.made_with, "keys": self.keys, **columns}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> ChannelSums:
        """The part of such arrays, also as they were when each run was one pool, and keys had its number."""
        columns = {name.removeprefix(MARK): values for name, values in arrays.items() if name.startswith(MARK)}
        pools, keys = Pools.from_arrays(arrays), arrays["keys"]
        if "sizes" not in arrays:
            keys = np.searchsorted(pools.runs, keys >> LUMI_BITS) << LUMI_BITS | keys & ROW
        return cls(pools, arrays["made_with"], keys, dict(sorted(columns.items())))

    def _in(self, pools: Pools) -> _Rows:
        """The rows in these pools, which are as large as its own or larger."""
        own = self.pools
        if np.array_equal(pools.firsts, own.firsts):
            return _Rows(self.keys, self.columns)
        there = np.searchsorted(pools.firsts, pools.first_of(own.firsts))
        nth = np.arange(len(own)) - np.searchsorted(there, there)
        keys = there[self.keys >> LUMI_BITS] << LUMI_BITS | self.keys & ROW
        if not nth.any():
            return _Rows(keys, self.columns)
        of_row = nth[self.keys >> LUMI_BITS]
        parts = (
            _Rows(keys[mine], {name: narrowest(values[mine]) for name, values in self.columns.items()})
            for mine in (of_row == which for which in range(int(nth.max()) + 1))
        )
        return reduce(_joined, parts)

    def _made_with_both(self, other: ChannelSums, runs: Int) -> Int:
        made_with = np.zeros(len(runs), np.int64)
        made_with[np.searchsorted(runs, self.runs())] = self.made_with
        both = np.isin(other.runs(), self.runs())
        at = np.searchsorted(runs, other.runs())
        wrong = np.flatnonzero(both & (made_with[at] != other.made_with))
        if len(wrong):
            raise StatesDiffer(
                f"run {runs[at[wrong[0]]]}: sums were made with different conditions and do not merge; "
                "those that sums by run are made with must hold for the whole run"
            )
        made_with[at] = other.made_with
        return made_with


def places(cells: Int, most: int) -> tuple[Int, Int]:
    """The different ones of cells 0 to `most` - 1, sorted, and which of them each is; without sorting.

    >>> [found.tolist() for found in places(np.array([4, 1, 4]), 6)]
    [[1, 4], [1, 0, 1]]
    """
    there = np.zeros(most, np.bool_)
    there[cells] = True
    found = np.flatnonzero(there)
    place = np.empty(most, np.int64)  # only where there are cells is it ever touched
    place[found] = np.arange(len(found))
    return found, place[cells]


@dataclass(frozen=True, eq=False)
class _Rows:
    """Keys [n], unique and sorted, and the columns that go with them, each in its smallest type."""

    keys: Int
    columns: Mapping[str, Array]


def _joined(one: _Rows, other: _Rows) -> _Rows:
    if not len(one.keys) or not len(other.keys):
        return one if len(one.keys) else other
    first, last = (one, other) if one.keys[0] < other.keys[0] else (other, one)
    if first.keys[-1] < last.keys[0]:
        columns = {name: np.concatenate([values, last.columns[name]]) for name, values in first.columns.items()}
        return _Rows(np.concatenate([first.keys, last.keys]), columns)
    if np.array_equal(one.keys, other.keys):
        return _Rows(one.keys, {name: _add(values, other.columns[name]) for name, values in one.columns.items()})
    keys = np.union1d(one.keys, other.keys)
    at = np.searchsorted(keys, one.keys), np.searchsorted(keys, other.keys)
    size = len(keys)
    return _Rows(keys, {n: _add_rows(size, at, (values, other.columns[n])) for n, values in one.columns.items()})


def _widths(sums: ChannelSums) -> dict[str, int]:
    return {name: int(values.shape[1]) for name, values in sums.columns.items()}


def _range(values: Array) -> tuple[int, int]:
    return (int(values.min()), int(values.max())) if values.size else (0, 0)


def _wide_enough(left: Array, right: Array) -> type[Any]:
    """A type for the sums of two arrays; where none is wide enough int64, and add_exactly must watch."""
    (low, high), (other_low, other_high) = _range(left), _range(right)
    return holding(min(low, other_low, low + other_low), max(high, other_high, high + other_high))


def _add(left: Array, right: Array) -> Array:
    wide = _wide_enough(left, right)
    if wide is np.int64:
        return narrowest(add_exactly(left.astype(np.int64, copy=False), right.astype(np.int64, copy=False)))
    return narrowest(np.add(left, right, dtype=wide))


def _add_rows(rows: int, at: tuple[Int, Int], parts: tuple[Array, Array]) -> Array:
    wide = _wide_enough(*parts)
    total = np.zeros((rows, parts[0].shape[1]), wide)
    total[at[0]] = parts[0]
    if wide is np.int64:
        total[at[1]] = add_exactly(total[at[1]], parts[1].astype(np.int64, copy=False))
    else:
        total[at[1]] += parts[1]
    return narrowest(total)
