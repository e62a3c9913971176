"""Calibrations that are measured on what they act on themselves: pass after pass, until nothing moves any more."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import ClassVar

from calib.calibration import (
    Calibration,
    Conclusion,
    Granularity,
    Outcome,
    at_finalize,
    conclude_interval,
)
from calib.payload import Payload
from calib.state import State

SMALLER = 0.95
"""what two passes must at least make of a step: less progress than that is none"""
FAR = 1e300
"""a step without bound, as a number that JSON has"""


class Ending(StrEnum):
    """Why an iteration makes no further pass."""

    CONVERGED = "converged"
    STALLED = "stalled"
    """the steps do not get smaller"""
    OUT_OF_ITERATIONS = "out of iterations"


@dataclass(frozen=True, kw_only=True)
class Iterated(Calibration):
    """A calibration that iterates, such as an alignment: its payload changes what the next pass measures.

    As `previous`, finalize gets the payload that the events of the pass were processed under: what was in force in the
    first pass, its own of the pass before in those that follow. The payload it gives is a whole one, not what must be
    added. Granularity `span` is not for it: a run would be processed anew whenever the next one has come.
    """

    looks_at_previous: ClassVar[bool] = True

    iterations: int = at_finalize(10)
    """the passes it may make, the first among them"""

    @abstractmethod
    def moved(self, payload: Payload, previous: Payload | None) -> float:
        """The largest step between two payloads, in units of what is small: up to 1 the iteration is converged."""

    def __post_init__(self) -> None:
        if self.granularity is Granularity.SPAN:
            raise ValueError(f"{self.kind} iterates over the events of a run, so its granularity cannot be 'span'")
        if self.iterations < 1:
            raise ValueError(f"{self.kind} needs at least one iteration, not {self.iterations}")


def ended(steps: Sequence[float], most: int) -> Ending | None:
    """How an iteration has ended whose passes moved so far, in units of what is small; None while it goes on.

    It stalls where neither of two passes takes a step that is smaller, by 5 % at least, than the one before them.

    >>> [str(ended(steps, 10)) for steps in ([40.0, 3.0], [40.0, 3.0, 0.2], [4.0, 5.0, 4.0], [4.0, 5.0, 3.5])]
    ['None', 'converged', 'stalled', 'None']
    >>> str(ended([40.0, 30.0], 2))
    'out of iterations'
    """
    sizes = [step if math.isfinite(step) else FAR for step in steps]
    if sizes and sizes[-1] <= 1.0:
        return Ending.CONVERGED
    if len(sizes) >= 3 and min(sizes[-2:]) > SMALLER * sizes[-3]:
        return Ending.STALLED
    return Ending.OUT_OF_ITERATIONS if len(sizes) >= most else None


def conclude_pass(
    calibration: Iterated, state: State, under: Callable[[int], Payload | None], flush: bool
) -> list[Conclusion]:
    """Finalize every closed interval of one pass, in order, and say how far each moved.

    `under` gives the payload that the events of a packed unit were processed under. An interval over units with
    several of these has moved without bound: the next pass has them under one.
    """
    conclusions = []
    for interval in calibration.intervals(state, flush):
        if not interval.closed:
            continue
        payloads = [under(unit) for unit in interval.used or interval.units]
        one = len({payload.id if payload else None for payload in payloads}) == 1
        found = conclude_interval(calibration, state, interval, payloads[0])
        if found.outcome is Outcome.MADE and found.payload is not None:
            moved = float(calibration.moved(found.payload, payloads[0])) if one else FAR
            found = replace(found, moved=moved if math.isfinite(moved) else FAR)
        conclusions.append(found)
    return conclusions
