"""How an iteration goes, and how it ends."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from calib.accumulators import UnitSums
from calib.boundaries import Interval
from calib.calibration import Granularity, NotConverged, NotEnoughData, Outcome, packed_units
from calib.iov import RunLumi
from calib.iteration import FAR, Ending, Iterated, conclude_pass, ended
from calib.payload import Payload
from calib.state import State

UNITS = [RunLumi(7, lumi).packed for lumi in (1, 2, 3)]


def at(value):
    return Payload("place", {"value": np.float64(value)})


@dataclass(frozen=True, kw_only=True)
class Place(Iterated):
    """Where things are, from where they are said to be and how far they are from it: whole steps, one a unit."""

    kind: ClassVar[str] = "place"
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ("off",)

    def accumulate(self, columns, conditions):
        return State({"off": UnitSums.of_rows(packed_units(columns), np.asarray(columns["off"])[:, None])})

    def empty(self):
        return State({"off": UnitSums.empty((1,))})

    def cut(self, state, flush):
        return [Interval((unit,), True) for unit in state.units().tolist()]

    def finalize(self, state, previous):
        off = int(state["off"].total()[0])
        if off == 99:
            raise NotEnoughData("nothing to see")
        made = at(off + (float(previous["value"]) if previous else 0.0))
        if off == 77:
            raise NotConverged("it went round", made)
        return made

    def moved(self, payload, previous):
        return abs(float(payload["value"]) - float(previous["value"])) if previous else np.nan


def state(place, *off):
    run, lumi = np.full(len(off), 7), np.arange(1, len(off) + 1)
    return place.accumulate({"run": run, "lumi": lumi, "event": lumi, "off": np.array(off, np.int64)}, {})


def test_each_interval_starts_from_what_its_events_were_processed_under():
    place, under = Place(granularity=Granularity.LUMI), dict(zip(UNITS, [at(5.0), at(-2.0), None], strict=True))
    found = conclude_pass(place, state(place, 3, 0, 4), under.get, True)
    assert [float(one.payload["value"]) for one in found] == [8.0, -2.0, 4.0]
    assert [one.moved for one in found] == [3.0, 0.0, FAR]


def test_what_was_processed_under_several_payloads_has_moved_without_bound():
    place, under = Place(), dict(zip(UNITS, [at(5.0), at(5.0), at(5.5)], strict=True))
    [found] = conclude_pass(place, state(place, 0, 0, 0), under.get, True)
    assert (float(found.payload["value"]), found.moved) == (5.0, FAR)
    [found] = conclude_pass(place, state(place, 0, 0), under.get, True)
    assert found.moved == 0.0


def test_no_data_and_no_convergence_are_told_as_ever():
    place = Place(granularity=Granularity.LUMI)
    lack, failed = conclude_pass(place, state(place, 99, 77), lambda unit: at(1.0), True)
    assert (lack.outcome, lack.payload, lack.moved) == (Outcome.NOT_ENOUGH_DATA, None, None)
    assert (failed.outcome, float(failed.payload["value"]), failed.moved) == (Outcome.NOT_CONVERGED, 78.0, None)
    assert conclude_pass(Place(), state(place, 1), lambda unit: None, False) == []


@pytest.mark.parametrize(
    ("steps", "most", "ending"),
    [
        ([], 3, None),
        ([50.0], 3, None),
        ([1.0], 3, Ending.CONVERGED),
        ([50.0, 2.0, 0.3], 3, Ending.CONVERGED),
        ([50.0, 2.0, 1.1], 3, Ending.OUT_OF_ITERATIONS),
        ([50.0], 1, Ending.OUT_OF_ITERATIONS),
        ([9.0, 9.0, 9.0], 9, Ending.STALLED),
        # By less than one could see in a table.
        ([9.0, 8.9, 8.8], 9, Ending.STALLED),
        ([9.0, 8.0, 9.0], 9, None),
        ([9.0, 12.0, 8.0], 9, None),
        ([90.0, 9.0, 10.0, 11.0], 9, Ending.STALLED),
        ([float("nan"), 5.0], 9, None),
        ([5.0, float("nan"), float("inf")], 9, Ending.STALLED),
        ([FAR, FAR, FAR], 9, Ending.STALLED),
    ],
)
def test_how_it_ends(steps, most, ending):
    assert ended(steps, most) is ending


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="granularity cannot be 'span'"):
        Place(granularity=Granularity.SPAN)
    with pytest.raises(ValueError, match="at least one iteration, not 0"):
        Place(iterations=0)
