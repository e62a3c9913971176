"""Sums by channel, pooled over the units of a run: a mergeable part for detectors of many channels.

A map *unit -> sums* grows with the units, and a million channels leave no room for that. So sums are kept by run; the
part remembers which units went in, and can be cut between runs but not inside one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from calib.accumulators import StatesDiffer, add_exactly
from calib.iov import LUMI_BITS, RunLumi

Int = NDArray[np.int64]
Array = NDArray[Any]

MARK = "column "
FIRST_ROWS = 8
WIDTHS = (np.int8, np.int16, np.int32, np.int64)


class PartOfARun(ValueError):
    """Some units of a run were asked of sums that are pooled over it."""


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
    """Integer sums by run and channel. Rows are blocks of consecutive channels; only blocks that were seen have one.

    `seen` int64[u]: the packed units that went in, sorted. `made_with` int64[runs]: for each run among them, in order,
    the fingerprint of what its sums were made with. `keys` int64[n]: `run << 32 | block` of each row, sorted.
    `columns`: name to signed integers [n, width], in the smallest type that holds them; widths may differ.
    """

    seen: Int
    made_with: Int
    keys: Int
    columns: Mapping[str, Array]
    form: ClassVar[str] = "channel_sums"

    @classmethod
    def of(cls, units: Int, fingerprint: int, keys: Int, columns: Mapping[str, Array]) -> ChannelSums:
        """Sums of these events (their packed units, in any order), one row a key; keys are unique and sorted."""
        seen = np.unique(units)
        made_with = np.full(len(np.unique(seen >> LUMI_BITS)), fingerprint, np.int64)
        return cls(seen, made_with, keys, {name: narrowest(columns[name]) for name in sorted(columns)})

    @classmethod
    def empty(cls, widths: Mapping[str, int]) -> ChannelSums:
        """No unit yet; the width of every column."""
        none = np.zeros(0, np.int64)
        columns = {name: np.zeros((0, width), np.int8) for name, width in sorted(widths.items())}
        return cls(none, none, none, columns)

    def merge(self, other: ChannelSums) -> ChannelSums:
        """Both together. Raises StatesDiffer for other columns, or a run that was not made with the same."""
        if _widths(self) != _widths(other):
            raise StatesDiffer(f"sums by channel of columns {_widths(self)} and {_widths(other)} do not merge")
        seen = np.union1d(self.seen, other.seen)
        made_with = self._made_with_both(other, np.unique(seen >> LUMI_BITS))
        if np.array_equal(self.keys, other.keys):
            pooled = {name: _add(values, other.columns[name]) for name, values in self.columns.items()}
            return ChannelSums(seen, made_with, self.keys, pooled)
        keys = np.union1d(self.keys, other.keys)
        at = np.searchsorted(keys, self.keys), np.searchsorted(keys, other.keys)
        rows = len(keys)
        pooled = {name: _add_rows(rows, at, (values, other.columns[name])) for name, values in self.columns.items()}
        return ChannelSums(seen, made_with, keys, pooled)

    def select(self, units: Int) -> ChannelSums:
        """What belongs to these units. Raises PartOfARun unless of every run they hold all units or none."""
        wanted = np.isin(self.seen, units)
        if wanted.all():
            return self
        runs, run = np.unique(self.seen >> LUMI_BITS, return_inverse=True)
        inside = np.bincount(run, wanted, len(runs))
        of_run = np.bincount(run, minlength=len(runs))
        cut = np.flatnonzero((inside > 0) & (inside < of_run))
        if len(cut):
            first = self.seen[(run == cut[0]) & ~wanted][0]
            raise PartOfARun(
                f"run {runs[cut[0]]}: {inside[cut[0]]:.0f} of its {of_run[cut[0]]} units were asked for, without "
                f"{RunLumi.unpack(first)}; these sums are pooled over a run: select whole runs, or accumulate again"
            )
        rows = np.isin(self.keys >> LUMI_BITS, runs[inside > 0])
        columns = {name: narrowest(values[rows]) for name, values in self.columns.items()}
        return ChannelSums(self.seen[wanted], self.made_with[inside > 0], self.keys[rows], columns)

    def units(self) -> Int:
        """The packed units that went in, sorted."""
        return self.seen

    def runs(self) -> Int:
        """Their runs, sorted."""
        return np.unique(self.seen >> LUMI_BITS)

    def dense(self, name: str, blocks: int) -> Array:
        """One column of a single run for blocks 0 to `blocks` - 1: [blocks, width], 0 where a block was not seen."""
        if len(self.runs()) > 1:
            raise ValueError(f"the sums are of runs {self.runs().tolist()}; select one")
        values = self.columns[name]
        found = np.zeros((blocks, values.shape[1]), values.dtype)
        found[self.keys & ((1 << LUMI_BITS) - 1)] = values
        return found

    def to_arrays(self) -> dict[str, Array]:
        """Its content as named arrays."""
        columns = {f"{MARK}{name}": values for name, values in self.columns.items()}
        return {"seen": self.seen, "made_with": self.made_with, "keys": self.keys, **columns}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> ChannelSums:
        """The part of such arrays."""
        columns = {name.removeprefix(MARK): values for name, values in arrays.items() if name.startswith(MARK)}
        return cls(arrays["seen"], arrays["made_with"], arrays["keys"], dict(sorted(columns.items())))

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
