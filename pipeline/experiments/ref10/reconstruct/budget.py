"""How much may be combined in an event: counted before it is done, so that no event takes memory from the others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pipeline.experiments.ref10.reconstruct.flags import EventFlag

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Budget:
    """The most combinations of an event, and which events wanted more."""

    most: int
    flags: NDArray[np.uint8]
    """of each event: UNCOMBINED or nothing"""

    @classmethod
    def of(cls, events: int, most: int) -> Budget:
        """For so many events, none of them flagged."""
        return cls(most, np.zeros(events, np.uint8))

    def allowed(self, event: Ints, number: Ints) -> Ints:
        """Of combinations that are to be tried, so many for each entry: none in events that want too many together.

        These are flagged, and get none from then on.
        """
        wanted = np.bincount(event, weights=number, minlength=len(self.flags))
        self.flags[wanted > self.most] |= np.uint8(EventFlag.UNCOMBINED)
        return np.where(self.flags[event] == 0, number, 0)


def event_slices(event: Ints, number: Ints, at_once: int) -> Iterator[slice]:
    """Entries (in the order of events) in turn, whole events, until they have `at_once` combinations."""
    before = np.cumsum(number) - number
    return _cut(before[np.searchsorted(event, event)], at_once)


def entry_slices(number: Ints, at_once: int) -> Iterator[slice]:
    """Entries in turn, until they have `at_once` combinations."""
    return _cut(np.cumsum(number) - number, at_once)


def _cut(before: Ints, at_once: int) -> Iterator[slice]:
    """What has less than a multiple of `at_once` before it goes with what has no less than the last multiple."""
    if len(before):
        inner = (np.flatnonzero(np.diff(before // at_once)) + 1).tolist()
        for start, stop in pairwise([0, *inner, len(before)]):
            yield slice(start, stop)
