"""What a calibration is: accumulate over columns, merge, cut into intervals, finalize."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from calib.boundaries import Interval
from calib.form import Leeway
from calib.gates import Decision, Gate, judge, nowhere
from calib.iov import LUMI_BITS
from calib.payload import Payload
from calib.pulls import Apart, apart
from calib.state import State

Columns = Mapping[str, Any]
"""Column name to a NumPy array (one value an event) or an awkward array (jagged). Always holds the integer columns
`run`, `lumi` and `event`."""


class NotEnoughData(Exception):
    """The data cannot carry a payload. A result, not a failure: the message says what there was and what is needed."""


class NotConverged(Exception):
    """The fit found no answer it can stand for. Nothing is published.

    `payload` is what it has all the same, where it has anything: people can have that published under their names.
    """

    def __init__(self, message: str, payload: Payload | None = None) -> None:
        super().__init__(message)
        self.payload = payload


class Granularity(StrEnum):
    """What one payload is made from."""

    LUMI = "lumi"
    """units of one run, merged until there is enough and split where the constants move; ends with the run."""
    RUN = "run"
    """all units of a run."""
    SPAN = "span"
    """as lumi, but an interval may go on into following runs."""


class Outcome(StrEnum):
    """How the finalization of one interval ended."""

    MADE = "made"
    NOT_ENOUGH_DATA = "not enough data"
    NOT_CONVERGED = "not converged"


def at_finalize(default: Any) -> Any:
    """A dataclass field of a calibration that only its finalization looks at.

    Changing it repeats intervals and finalize from kept states and reads no event.
    """
    return dataclasses.field(default=default, metadata={"at": "finalize"})


@dataclass(frozen=True)
class Conclusion:
    """What came of one interval: a payload, or why there is none that can be stood for."""

    interval: Interval
    outcome: Outcome
    payload: Payload | None = None
    message: str = ""
    moved: float | None = None
    """of a calibration that iterates, how far the payload is from the one the events were processed under"""


@dataclass(frozen=True, kw_only=True)
class Calibration(ABC):
    """A calibration: frozen settings and pure functions; it knows no file, no database and no Dask.

    Laws (inherit `calib.testing.CalibrationLaws` to test them): accumulate of a union of events is the merge of the
    accumulates, bit for bit; merge is associative and commutative with `empty()` as identity; so the way a run is
    cut never changes the payload.
    """

    kind: ClassVar[str]
    """the kind of payload it makes"""
    version: ClassVar[int]
    """raised by hand when the same input would give another result"""
    reads: ClassVar[tuple[str, ...]]
    """columns it needs beside run, lumi, event"""
    reads_if_there: ClassVar[tuple[str, ...]] = ()
    """columns it makes use of where a file has them"""
    uses: ClassVar[tuple[str, ...]] = ()
    """kinds of conditions that accumulate looks at"""
    after: ClassVar[tuple[str, ...]] = ()
    """calibrations of the same run whose fresh result it wants first: where it is another payload than express had, its
    state is made once more under that. What a detector does not have, or does not calibrate, goes before nothing"""
    looks_at_previous: ClassVar[bool] = False
    """whether finalize looks at the payload of the preceding interval; then runs are finalized in order"""
    leeway: ClassVar[Leeway] = Leeway()
    """what its payloads may have that the one an experiment starts from does not show; uploads are held to it"""
    errors_shared: ClassVar[tuple[str, ...]] = ()
    """arrays whose elements have errors in common: that all of them move together may be chance"""
    closes_on: ClassVar[Fraction] = Fraction(1)
    """share of the events after prompt that closure looks at: less than all where sums cost much"""
    may_stray: ClassVar[float] = 0.0
    """share of the elements of an array that may be further off than errors say, for their tails are longer"""
    tolerated: ClassVar[Mapping[str, float]] = {}
    """array to a move that never matters, in its unit, however well it is known: closure takes it off each"""

    granularity: Granularity = at_finalize(Granularity.RUN)

    @abstractmethod
    def accumulate(self, columns: Columns, conditions: Mapping[str, Payload]) -> State:
        """The state of these events. Raises KeyError for a column that is missing."""

    @abstractmethod
    def empty(self) -> State:
        """The state of no event: the identity of merge."""

    @abstractmethod
    def finalize(self, state: State, previous: Payload | None) -> Payload:
        """The payload of one interval's state. Raises NotEnoughData or NotConverged."""

    def merge(self, left: State, right: State) -> State:
        """Both states together."""
        return left.merge(right)

    def intervals(self, state: State, flush: bool) -> list[Interval]:
        """Cut the units of a state into intervals, in order. Without `flush` the last may stay open for more data."""
        if self.granularity is Granularity.SPAN:
            return self.cut(state, flush)
        runs = whole_runs(state.units(), flush)
        if self.granularity is Granularity.RUN:
            return runs
        return [part for run in runs for part in self.cut(state.select(np.array(run.units, np.int64)), run.closed)]

    def cut(self, state: State, flush: bool) -> list[Interval]:
        """Merge and split units for granularities `lumi` (the state is that of one run) and `span`.

        Must be stable: what is closed without `flush` stays so whatever follows, and a state that begins where an open
        interval began is cut at the same places. Calibrations that follow a trend say how.
        """
        raise NotImplementedError(f"{self.kind} has no rule for granularity {self.granularity}; use 'run'")

    def corrected(self, columns: Columns, conditions: Mapping[str, Payload]) -> Columns:
        """The columns of events, for closure: with what its payload in force says taken off where that can be done.

        Then a payload that is wrong shows even where the calibration makes the same mistake again: a sign that it has
        the wrong way round doubles what is left. As they are where the payload acts on what is measured anyway.
        """
        return columns

    def left_by(self, in_force: Payload) -> Payload:
        """What is found in corrected columns where the payload in force is right: that payload, or what stands for
        nothing where `corrected` takes it off."""
        return in_force

    def apart(self, found: Payload, expected: Payload) -> dict[str, Apart]:
        """How far two of its payloads are apart, by array, in units of their errors."""
        return apart(found, expected)

    def accumulate_settings(self) -> dict[str, Any]:
        """What the state depends on: kind, version and the settings that accumulate looks at."""
        return {"kind": self.kind, "version": self.version, **self._settings(finalize=False)}

    def finalize_settings(self) -> dict[str, Any]:
        """What the payload depends on beside the state: the settings of the finalization."""
        return {"kind": self.kind, "version": self.version, **self._settings(finalize=True)}

    def _settings(self, *, finalize: bool) -> dict[str, Any]:
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if (field.metadata.get("at") == "finalize") is finalize
        }


def whole_runs(units: NDArray[np.int64], flush: bool) -> list[Interval]:
    """One interval a run, over packed units in any order. Without `flush` the last run stays open.

    >>> [(len(i.units), i.closed) for i in whole_runs(np.array([1 << 32, (1 << 32) + 1, 2 << 32]), flush=False)]
    [(2, True), (1, False)]
    """
    units = np.unique(units)
    cuts = np.flatnonzero(np.diff(units >> LUMI_BITS)) + 1
    runs = [part.tolist() for part in np.split(units, cuts) if len(part)]
    return [Interval(tuple(run), closed=flush or run is not runs[-1]) for run in runs]


def packed_units(columns: Columns) -> NDArray[np.int64]:
    """Run and lumisection of each event as one integer, `run << 32 | lumi`."""
    run, lumi = (np.asarray(columns[name]).astype(np.int64) for name in ("run", "lumi"))
    units: NDArray[np.int64] = run << LUMI_BITS | lumi
    return units


def row_keys(columns: Columns, counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Keys of the entries of a jagged column, `counts` entries an event: packed unit, event, place in the event.

    >>> columns = {"run": np.array([1, 1]), "lumi": np.array([0, 0]), "event": np.array([7, 8])}
    >>> row_keys(columns, np.array([2, 1]))[:, 1:].tolist()
    [[7, 0], [7, 1], [8, 0]]
    """
    keys = np.empty((int(counts.sum()), 3), np.int64)
    keys[:, 0] = np.repeat(packed_units(columns), counts)
    keys[:, 1] = np.repeat(np.asarray(columns["event"]).astype(np.int64), counts)
    keys[:, 2] = np.arange(len(keys)) - np.repeat(np.cumsum(counts) - counts, counts)
    return keys


def conclude(
    calibration: Calibration,
    state: State,
    previous: Payload | None,
    flush: bool,
    gates: Sequence[Gate] = (),
    find: Callable[[str], Payload | None] = nowhere,
) -> list[Conclusion]:
    """Finalize every closed interval of a state, in order.

    Each sees as `previous` the last payload before it that the gates let pass, as it would if every interval were
    finalized and judged by itself. What a vetoed unit left in the state does not enter. `find` gives the payload of an
    id, for gates that hold to one of their own.
    """
    conclusions = []
    for interval in calibration.intervals(state, flush):
        if not interval.closed:
            continue
        found = conclude_interval(calibration, state, interval, previous)
        conclusions.append(found)
        made = found.payload if found.outcome is Outcome.MADE else None
        if made is not None and judge(made, previous, gates, find).decision is Decision.PUBLISH:
            previous = made
    return conclusions


def conclude_interval(
    calibration: Calibration, state: State, interval: Interval, previous: Payload | None
) -> Conclusion:
    """Finalize one interval of a state; what a vetoed unit left in the state does not enter."""
    part = state.select(np.array(interval.used, np.int64))
    try:
        payload = calibration.finalize(part, previous if calibration.looks_at_previous else None)
    except NotEnoughData as lack:
        return Conclusion(interval, Outcome.NOT_ENOUGH_DATA, message=str(lack))
    except NotConverged as failure:
        return Conclusion(interval, Outcome.NOT_CONVERGED, failure.payload, str(failure))
    return Conclusion(interval, Outcome.MADE, payload)
