"""How long something would take with two cores to itself, measured on a machine that others work on too."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import psutil

CORES = 2
STEP_S = 2.0
"""long beside the time that a thread stands in line for at once: it is told only at its end"""


def alone(passed: float, ran: float, waited: float) -> float:
    """What of a step would have passed on two free cores, s.

    `passed` is the wall time of the step; for `ran` and `waited` its threads, added up, had a core and stood in line
    for one. What they ran is spread over as many cores as they asked for at once, two at most; while none of them
    asked for a core, time passes as it does.
    """
    asked = (ran + waited) / passed
    return ran / min(max(asked, 1), CORES) + max(0, passed - ran - waited)


@dataclass
class TwoCores:
    """Within the block, this process and all below it are looked at every STEP_S; `seconds` is what `alone` gives.

    Where the system does not tell how long threads stood in line, none is taken off: then it is the wall time.
    """

    but: frozenset[int] = frozenset()
    """processes that are left out, by pid"""
    seconds: float = 0.0
    _ended: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> TwoCores:
        self._seen, self._at = _threads(self.but), time.monotonic()
        self._watch = threading.Thread(target=self._steps, daemon=True)
        self._watch.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        self._watch.join()

    def _steps(self) -> None:
        while not self._ended.wait(STEP_S):
            self._step()
        self._step()

    def _step(self) -> None:
        seen, at = _threads(self.but), time.monotonic()
        ran, waited = (
            sum(now[place] - self._seen.get(thread, (0.0, 0.0))[place] for thread, now in seen.items())
            for place in (0, 1)
        )
        self.seconds += alone(at - self._at, ran, waited)
        self._seen, self._at = seen, at


def _threads(but: frozenset[int]) -> dict[str, tuple[float, float]]:
    """For each thread of this process and of all below it: for how long it ran, and stood in line, s."""
    own = psutil.Process()
    found = {}
    for pid in {process.pid for process in (own, *own.children(recursive=True))} - but:
        for thread in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            try:
                ran, waited, _ = map(int, thread.read_text().split())
            except (OSError, ValueError):
                continue  # it has ended
            found[str(thread)] = (ran / 1e9, waited / 1e9)
    return found
