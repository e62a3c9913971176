"""How much may be combined in an event: counted before it is done, so that no event takes memory from the others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pipeline.experiments.ref10.reconstruct.flags import EventFlag
from pipeline.experiments.ref10.reconstruct.search import Search

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Budget:
    """The most that may be tried and kept in an event, and which events wanted more: these get nothing from then on."""

    tried: int
    kept: int
    at_once: int
    flags: NDArray[np.uint8]
    """of each event: UNCOMBINED or nothing"""

    @classmethod
    def of(cls, events: int, search: Search) -> Budget:
        """For so many events, none of them flagged."""
        return cls(search.tried, search.kept, search.at_once, np.zeros(events, np.uint8))

    def to_try(self, event: Ints, number: Ints) -> Ints:
        """Of combinations, so many for each entry, those that may be tried: all of an event, or none."""
        if number.sum() > self.tried:
            self._note(np.bincount(event, weights=number, minlength=len(self.flags)) > self.tried)
        return np.where(self.flags[event] == 0, number, 0) if self.flags.any() else number

    def to_keep(self, event: Ints) -> Ints:
        """The places of the entries that may be kept: all of an event, or none."""
        if len(event) > self.kept:
            self._note(np.bincount(event, minlength=len(self.flags)) > self.kept)
        return np.flatnonzero(self.flags[event] == 0)

    def _note(self, over: NDArray[np.bool_]) -> None:
        self.flags[over] |= np.uint8(EventFlag.UNCOMBINED)

    def events(self, event: Ints, number: Ints) -> Iterator[slice]:
        """Entries (in the order of events) in turn, whole events, until they have `at_once` combinations."""
        before = np.cumsum(number) - number
        return self._cut(before[np.searchsorted(event, event)])

    def entries(self, number: Ints) -> Iterator[slice]:
        """Entries in turn, until they have `at_once` combinations."""
        return self._cut(np.cumsum(number) - number)

    def _cut(self, before: Ints) -> Iterator[slice]:
        """Together go those that have as many multiples of `at_once` before them."""
        if not len(before):
            return
        inner: list[int] = []
        if before[-1] >= self.at_once:
            inner = (np.flatnonzero(np.diff(before // self.at_once)) + 1).tolist()
        for start, stop in pairwise([0, *inner, len(before)]):
            yield slice(start, stop)
