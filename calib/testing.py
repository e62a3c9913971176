"""The laws of a calibration as a test class. A user's own inherits it:

    class TestMine(CalibrationLaws):
        @pytest.fixture
        def calibration(self):
            return MyCalibration(threshold=3)

        @pytest.fixture
        def columns(self):
            return {"run": ..., "lumi": ..., "event": ..., "Hit_adc": ...}

Some hundred events are enough: of two runs and several units, enough for a payload, among them one with nothing in it.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from calib.boundaries import Interval
from calib.calibration import Calibration, Columns, Granularity, NotEnoughData, Outcome, conclude, packed_units
from calib.payload import Payload
from calib.state import State, pack_states, unpack_state

Index = NDArray[np.intp]

MOST_SINGLES = 60
"""a law that takes events one by one takes so many at once and the rest in a piece"""

# The fixtures are the same for every example, and a law is inherited by many classes.
_law = settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
)
_seeds = st.integers(0, 2**32 - 1)


def take(columns: Columns, which: NDArray[Any]) -> dict[str, Any]:
    """The events that a mask or an index picks."""
    return {name: values[which] for name, values in columns.items()}


def any_cut(seed: int, events: int, most: int = 8) -> list[Index]:
    """Events 0 to n - 1 in up to `most` pieces, some perhaps empty, each in any order."""
    rng = np.random.default_rng(seed)
    piece = rng.integers(0, rng.integers(1, most + 1), events)
    order = rng.permutation(events)
    return [order[piece[order] == number] for number in range(int(piece.max(initial=0)) + 1)]


def _hold(truth: bool, otherwise: str) -> None:
    # No assert statement: pytest does not rewrite it in an installed package, so it would say nothing.
    if not truth:
        raise AssertionError(otherwise)


class StateLaws:
    """How states are made and merged."""

    @pytest.fixture
    def calibration(self) -> Calibration:
        """What is tested."""
        raise NotImplementedError("give a fixture `calibration`")

    @pytest.fixture
    def columns(self) -> Columns:
        """The events to test it with."""
        raise NotImplementedError("give a fixture `columns`")

    @pytest.fixture
    def conditions(self) -> Mapping[str, Payload]:
        """What accumulate looks at beside the events."""
        return {}

    @pytest.fixture
    def whole(self, calibration: Calibration, columns: Columns, conditions: Mapping[str, Payload]) -> State:
        """The state of all events at once."""
        return calibration.accumulate(columns, conditions)

    @_law
    @given(seed=_seeds)
    def test_any_cut_gives_the_same_state(
        self,
        calibration: Calibration,
        columns: Columns,
        conditions: Mapping[str, Payload],
        whole: State,
        seed: int,
    ) -> None:
        parts = any_cut(seed, len(columns["event"]))
        joined = calibration.empty()
        for part in parts:
            joined = calibration.merge(joined, calibration.accumulate(take(columns, part), conditions))
        sizes = [len(part) for part in parts]
        _hold(joined.same(whole), f"{calibration.kind}: events in {sizes} give another state than all at once")

    def test_event_by_event_gives_the_same_state(
        self, calibration: Calibration, columns: Columns, conditions: Mapping[str, Payload], whole: State
    ) -> None:
        every = np.arange(len(columns["event"]))
        joined = calibration.accumulate(take(columns, every[MOST_SINGLES:]), conditions)
        for one in every[:MOST_SINGLES]:
            joined = calibration.merge(joined, calibration.accumulate(take(columns, every[one : one + 1]), conditions))
        _hold(joined.same(whole), f"{calibration.kind}: events one by one give another state than all at once")

    @_law
    @given(seed=_seeds)
    def test_merge_is_associative_and_commutative(
        self, calibration: Calibration, columns: Columns, conditions: Mapping[str, Payload], seed: int
    ) -> None:
        parts = [*any_cut(seed, len(columns["event"]), most=3), np.arange(0), np.arange(0)][:3]
        a, b, c = (calibration.accumulate(take(columns, part), conditions) for part in parts)
        merge = calibration.merge
        _hold(merge(a, b).same(merge(b, a)), f"{calibration.kind}: a + b is not b + a")
        left, right = merge(merge(a, b), c), merge(a, merge(b, c))
        _hold(left.same(right), f"{calibration.kind}: (a + b) + c is not a + (b + c)")

    def test_empty_is_the_identity(
        self, calibration: Calibration, columns: Columns, conditions: Mapping[str, Payload], whole: State
    ) -> None:
        empty = calibration.empty()
        joined = calibration.merge(empty, whole), calibration.merge(whole, empty)
        _hold(
            all(state.same(whole) for state in joined), f"{calibration.kind}: merging the empty state changes a state"
        )
        nothing = calibration.accumulate(take(columns, np.arange(0)), conditions)
        _hold(nothing.same(empty), f"{calibration.kind}: the state of no events is not empty()")

    def test_units_do_not_mix(
        self, calibration: Calibration, columns: Columns, conditions: Mapping[str, Payload], whole: State
    ) -> None:
        units = packed_units(columns)
        _hold(np.array_equal(whole.units(), np.unique(units)), f"{calibration.kind}: a unit left nothing in the state")
        for unit in np.unique(units):
            alone = calibration.accumulate(take(columns, units == unit), conditions)
            same = alone.same(whole.select(np.array([unit])))
            _hold(same, f"{calibration.kind}: unit {unit} alone has another state than selected from all")

    def test_state_survives_storage_and_travel(self, calibration: Calibration, whole: State, tmp_path: Path) -> None:
        path = tmp_path / "states.npz"
        path.write_bytes(pack_states({"other": calibration.empty(), "mine": whole}))
        stored = unpack_state(str(path), "mine")
        _hold(stored is not None and stored.same(whole), f"{calibration.kind}: the state read back is another")
        _hold(pickle.loads(pickle.dumps(whole)).same(whole), f"{calibration.kind}: the state pickled is another")
        _hold(pickle.loads(pickle.dumps(calibration)) == calibration, f"{calibration.kind}: pickled, it is another")

    def test_events_are_left_as_they_were(
        self, calibration: Calibration, columns: Columns, conditions: Mapping[str, Payload]
    ) -> None:
        before = pickle.dumps(dict(columns))
        calibration.accumulate(columns, conditions)
        _hold(pickle.dumps(dict(columns)) == before, f"{calibration.kind}: accumulate changed the columns it was given")


class PayloadLaws(StateLaws):
    """How intervals are cut and payloads made."""

    @_law
    @given(seed=_seeds)
    def test_any_cut_gives_the_same_payloads(
        self,
        calibration: Calibration,
        columns: Columns,
        conditions: Mapping[str, Payload],
        whole: State,
        seed: int,
    ) -> None:
        joined = calibration.empty()
        for part in any_cut(seed, len(columns["event"])):
            joined = calibration.merge(calibration.accumulate(take(columns, part), conditions), joined)
        same = _outcome(calibration, joined) == _outcome(calibration, whole)
        _hold(same, f"{calibration.kind}: how the events were cut shows in the payloads")

    def test_some_payload_is_made(self, calibration: Calibration, whole: State) -> None:
        made = [conclusion.message for conclusion in conclude(calibration, whole, None, flush=True)]
        some = any(c.outcome is Outcome.MADE for c in conclude(calibration, whole, None, flush=True))
        _hold(some, f"{calibration.kind}: the events of this test give no payload, so they test little: {made}")

    def test_payload_is_of_its_kind(self, calibration: Calibration, whole: State) -> None:
        made = [c.payload for c in conclude(calibration, whole, None, flush=True) if c.payload is not None]
        kinds = {payload.kind for payload in made} - {calibration.kind}
        _hold(not kinds, f"{calibration.kind}: makes payloads of kind {sorted(kinds)}")

    def test_nothing_gives_no_payload(self, calibration: Calibration) -> None:
        _hold(calibration.intervals(calibration.empty(), True) == [], f"{calibration.kind}: no unit, but an interval")
        with pytest.raises(NotEnoughData):
            calibration.finalize(calibration.empty(), None)

    def test_intervals_hold_every_unit_once(self, calibration: Calibration, whole: State) -> None:
        for flush in (True, False):
            intervals = calibration.intervals(whole, flush)
            units = [unit for interval in intervals for unit in interval.units]
            _hold(
                units == whole.units().tolist(), f"{calibration.kind}: intervals do not hold every unit once, in order"
            )
            closed = [interval.closed for interval in intervals]
            _hold(all(closed[:-1]), f"{calibration.kind}: an interval is open, and a later one exists")
            _hold(closed[-1] or not flush, f"{calibration.kind}: flushed, but the last interval is open")
            vetoed = all(set(interval.vetoed) <= set(interval.units) for interval in intervals)
            _hold(vetoed, f"{calibration.kind}: a unit is vetoed that is not of the interval")

    def test_what_is_closed_stays(self, calibration: Calibration, whole: State) -> None:
        units, final = whole.units(), calibration.intervals(whole, True)
        for known in range(1, len(units) + 1):
            closed = [i for i in calibration.intervals(whole.select(units[:known]), False) if i.closed]
            _hold(
                closed == final[: len(closed)],
                f"{calibration.kind}: data after the first {known} units changed {closed}",
            )

    def test_an_open_interval_can_be_gone_on_with(self, calibration: Calibration, whole: State) -> None:
        if calibration.granularity is not Granularity.SPAN:
            return
        units, final = whole.units(), calibration.intervals(whole, True)
        for number, interval in enumerate(final):
            again = calibration.intervals(whole.select(units[units >= interval.units[0]]), True)
            _hold(
                _units(again) == _units(final[number:]),
                f"{calibration.kind}: from {interval.units[0]} on it cuts elsewhere",
            )

    def test_settings_can_name_a_result(self, calibration: Calibration) -> None:
        for named in (calibration.accumulate_settings(), calibration.finalize_settings()):
            _hold(
                json.loads(json.dumps(named))["kind"] == calibration.kind, f"{calibration.kind}: settings are no JSON"
            )


def _outcome(calibration: Calibration, state: State) -> list[tuple[Interval, Outcome, str | None]]:
    conclusions = conclude(calibration, state, None, flush=True)
    return [(c.interval, c.outcome, c.payload.id if c.payload else None) for c in conclusions]


def _units(intervals: list[Interval]) -> list[tuple[int, ...]]:
    return [interval.units for interval in intervals]


class CalibrationLaws(PayloadLaws):
    """All laws. Inherit, and give fixtures `calibration`, `columns` and, if it uses any, `conditions`."""
