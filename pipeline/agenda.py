"""Which runs must be looked at: what changed, what waits for it, and whose time has come. Pure: the clock is given."""

from __future__ import annotations

import heapq
from collections.abc import Iterable


class Agenda:
    """Runs to be looked at, the first run first.

    A run is looked at when it is marked, when a run that it watches has changed, and when the time has come for which
    it waits. Nothing else costs anything, however many runs wait.
    """

    def __init__(self) -> None:
        self._marked: set[int] = set()
        self._heap: list[int] = []
        self._wakes: dict[int, float] = {}
        self._alarms: list[tuple[float, int]] = []
        self._watching: dict[int, set[int]] = {}

    def mark(self, run: int) -> None:
        """Something happened to a run."""
        if run not in self._marked:
            self._marked.add(run)
            heapq.heappush(self._heap, run)

    def changed(self, run: int) -> None:
        """A run is not as it was: those that watch it are marked, and watch it no more."""
        for watching in self._watching.pop(run, ()):
            self.mark(watching)

    def wait(self, run: int, wake_at: float | None, watched: Iterable[int] = ()) -> None:
        """A run waits: for a time (None: for none), and for other runs to change."""
        self._wakes.pop(run, None)
        if wake_at is not None:
            self._wakes[run] = wake_at
            heapq.heappush(self._alarms, (wake_at, run))
        for other in watched:
            self._watching.setdefault(other, set()).add(run)

    def pop(self, now: float) -> int | None:
        """The first run to be looked at; None when there is none."""
        while (due := self.next_at()) is not None and due <= now:
            _, run = heapq.heappop(self._alarms)
            del self._wakes[run]
            self.mark(run)
        if not self._heap:
            return None
        run = heapq.heappop(self._heap)
        self._marked.remove(run)
        return run

    def next_at(self) -> float | None:
        """When the next time comes for which a run waits; None when none waits for a time."""
        while self._alarms and self._wakes.get(self._alarms[0][1]) != self._alarms[0][0]:
            heapq.heappop(self._alarms)
        return self._alarms[0][0] if self._alarms else None
