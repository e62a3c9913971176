"""Cut the units of a run where the conditions change. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from calib.iov import Clock, RunLumi


class RunUnits(NamedTuple):
    """Packed units of one run in order and, where given, when each begins (ns since 1970)."""

    packed: NDArray[np.int64]
    times: NDArray[np.int64] | None

    @classmethod
    def of(cls, units: Sequence[int] | NDArray[np.int64], times: Sequence[int] | NDArray[np.int64] | None) -> RunUnits:
        """Raises ValueError for units of several runs or out of order, and for times that do not fit."""
        packed = np.asarray(units, np.int64)
        if len(packed) and RunLumi.unpack(packed[0]).run != RunLumi.unpack(packed[-1]).run:
            raise ValueError("units of several runs; resolve them run by run")
        if np.any(packed[1:] <= packed[:-1]):
            raise ValueError("units must be sorted, each once")
        if times is None:
            return cls(packed, None)
        begins = np.asarray(times, np.int64)
        if begins.shape != packed.shape:
            raise ValueError(f"give one time a unit, not {begins.size} for {packed.size} units")
        if np.any(begins[1:] < begins[:-1]):
            raise ValueError("the times of units must not go back")
        return cls(packed, begins)

    @property
    def first_time(self) -> int | None:
        """When the first unit begins."""
        return None if self.times is None else int(self.times[0])

    @property
    def bounds(self) -> dict[bool, tuple[int, int]]:
        """Begin of the first and of the last unit: in units (False) and, where known, in time (True)."""
        bounds = {False: (int(self.packed[0]), int(self.packed[-1]))}
        if self.times is not None:
            bounds[True] = int(self.times[0]), int(self.times[-1])
        return bounds


class Steps(NamedTuple):
    """What a tag holds over a run: `first` at its first unit, then `changes` by where they begin, in order."""

    kind: str
    clock: Clock
    first: str | None
    changes: Mapping[int, str | None]

    def holding(self, units: RunUnits) -> NDArray[np.intp]:
        """For every unit which of `payloads` holds."""
        axis = units.times if self.clock is Clock.TIME and units.times is not None else units.packed
        begins = np.fromiter(self.changes, np.int64, len(self.changes))
        return np.searchsorted(begins, axis, side="right")

    @property
    def payloads(self) -> list[str | None]:
        """`first` and what follows it."""
        return [self.first, *self.changes.values()]


class Part(NamedTuple):
    """Consecutive units, `[since, until)`, with the same payload ids."""

    since: RunLumi
    until: RunLumi
    ids: dict[str, str]


def constant_parts(units: RunUnits, steps: Sequence[Steps]) -> Iterator[Part]:
    """The fewest parts of constant payload ids, in order, from the first unit to behind the last."""
    moved = np.zeros(len(units.packed), bool)
    moved[0] = True
    held = []
    for step in steps:
        index, payloads = step.holding(units), step.payloads
        # Two entries may hold the same payload; only another payload is a change.
        number = {payload: n for n, payload in enumerate(payloads)}
        content = np.array([number[payload] for payload in payloads])[index]
        moved[1:] |= content[1:] != content[:-1]
        held.append((step.kind, payloads, index))
    begins = np.flatnonzero(moved)
    moments = [RunLumi.unpack(unit) for unit in (*units.packed[begins], units.packed[-1] + 1)]
    for begin, since, until in zip(begins, moments, moments[1:], strict=False):
        found = ((kind, payloads[index[begin]]) for kind, payloads, index in held)
        yield Part(since, until, {kind: payload for kind, payload in found if payload is not None})
