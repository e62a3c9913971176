"""Cut the units of a run where the conditions change. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

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

    def payloads(self, units: RunUnits) -> tuple[str | None, dict[int, str | None]]:
        """What holds at the first unit, and by the place of the unit where another payload begins, that payload."""
        axis = units.times if self.clock is Clock.TIME and units.times is not None else units.packed
        begins = np.fromiter(self.changes, np.int64, len(self.changes))
        # The first unit that sees a change; of several changes before one unit the last is seen.
        places = np.searchsorted(axis, begins)
        seen = dict(zip(places.tolist(), self.changes.values(), strict=True))
        held = first = seen.pop(0, self.first)
        moved = {}
        for place, payload in seen.items():
            # Two entries may hold the same payload; only another payload is a change.
            if payload != held and place < len(axis):
                held = moved[place] = payload
        return first, moved


class Part(NamedTuple):
    """Consecutive units, `[since, until)`, with the same payload ids."""

    since: RunLumi
    until: RunLumi
    ids: dict[str, str]


def constant_parts(units: RunUnits, steps: Sequence[Steps]) -> Iterator[Part]:
    """The fewest parts of constant payload ids, in order, from the first unit to behind the last; ids by kind."""
    held: dict[str, str | None] = {}
    moved: dict[int, dict[str, str | None]] = {0: {}}
    for step in sorted(steps):
        held[step.kind], changes = step.payloads(units)
        for place, payload in changes.items():
            moved.setdefault(place, {})[step.kind] = payload
    begins = sorted(moved)
    moments = [RunLumi.unpack(unit) for unit in (*units.packed[begins].tolist(), int(units.packed[-1]) + 1)]
    for begin, since, until in zip(begins, moments, moments[1:], strict=False):
        held |= moved[begin]
        yield Part(since, until, _present(held))


def _present(held: dict[str, str | None]) -> dict[str, str]:
    # To copy a dictionary whole takes a fifth of the time, and most often all kinds are there.
    present: dict[Any, Any] = held.copy()
    if None in present.values():
        present = {kind: payload for kind, payload in held.items() if payload is not None}
    return present
