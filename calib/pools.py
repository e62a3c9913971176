"""Which units of a run are summed together, so that what is kept of a run is bounded and can be masked in parts.

A map *unit -> sums* of many channels grows with the units, sums of a whole run cannot be told apart again. So the sums
of a run are kept in pools of 2^n consecutive units, from a multiple of 2^n on, with the smallest n that leaves no more
than `most` of them: of a short run the units themselves. n goes by the units that were seen and only ever grows, so
that states are the same whatever the way they were merged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from calib.iov import LUMI_BITS

Int = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Pools:
    """The pools of some units.

    `seen` int64[u]: the packed units, sorted. `sizes` int64[runs]: for each run among them, in order, log2 of the units
    of a pool; LUMI_BITS: the run is one. `most`: pools of a run; 0: each run is one.
    """

    seen: Int
    sizes: Int
    most: int
    ARRAYS: ClassVar[tuple[str, ...]] = ("seen", "sizes", "most")

    @classmethod
    def of(cls, units: Int, most: int) -> Pools:
        """Of the packed units of some events, in any order."""
        seen = np.unique(units)
        return cls(seen, np.zeros(len(_runs(seen)), np.int64), most)._few_enough()

    @cached_property
    def runs(self) -> Int:
        """The runs, sorted."""
        return _runs(self.seen)

    @cached_property
    def firsts(self) -> Int:
        """The pools, sorted, by where they begin: as a packed unit, which need not be among those seen."""
        return np.unique(self.first_of(self.seen))

    def __len__(self) -> int:
        return len(self.firsts)

    def to_arrays(self) -> dict[str, NDArray[np.int64]]:
        """Its content as named arrays."""
        return {"seen": self.seen, "sizes": self.sizes, "most": np.array(self.most)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.int64]]) -> Pools:
        """Those of such arrays, perhaps among others; also as they were when each run was one pool."""
        if "sizes" not in arrays:
            return cls.of(arrays["seen"], 0)
        return cls(arrays["seen"], arrays["sizes"], int(arrays["most"]))

    def first_of(self, units: Int) -> Int:
        """Where the pool of each of these units (packed, of the runs seen) begins."""
        size = self.sizes[np.searchsorted(self.runs, units >> LUMI_BITS)]
        return units >> size << size

    def place(self, units: Int) -> Int:
        """Which pool each of these units (packed, of those seen) goes to."""
        if len(self) == 1:
            return np.zeros(len(units), np.int64)
        return np.searchsorted(self.firsts, self.first_of(units))

    def merge(self, other: Pools) -> Pools:
        """Those of both. Where one may have fewer than the other, the fewer."""
        seen = np.union1d(self.seen, other.seen)
        runs = _runs(seen)
        sizes = np.zeros(len(runs), np.int64)
        for one in (self, other):
            at = np.searchsorted(runs, one.runs)
            sizes[at] = np.maximum(sizes[at], one.sizes)
        return Pools(seen, sizes, min(self.most, other.most))._few_enough()

    def select(self, units: Int) -> Pools:
        """Of those of these units that were seen; pools are as large as they were."""
        seen = self.seen[np.isin(self.seen, units)]
        return Pools(seen, self.sizes[np.isin(self.runs, _runs(seen))], self.most)

    def together(self, units: Int) -> Int:
        """Those of these units (packed) that were seen, and all that share a pool with one of them; sorted."""
        place = self.place(self.seen)
        touched = np.zeros(len(self), np.bool_)
        touched[place[np.isin(self.seen, units)]] = True
        return self.seen[touched[place]]

    def _few_enough(self) -> Pools:
        sizes = np.full_like(self.sizes, LUMI_BITS) if self.most < 1 else self.sizes.copy()
        begins = np.searchsorted(self.seen, self.runs << LUMI_BITS)
        for run, seen in enumerate(np.split(self.seen, begins[1:]) if self.most > 0 else []):
            while len(seen) > self.most and 1 + np.count_nonzero(np.diff(seen >> sizes[run])) > self.most:
                sizes[run] += 1
        return Pools(self.seen, sizes, self.most)


def _runs(units: Int) -> Int:
    return np.unique(units >> LUMI_BITS)
