"""Each law of `calib.testing` is broken by some calibration, and found by that law."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest

from calib.accumulators import UnitRows, UnitSums
from calib.algorithms.beamspot import BeamSpot
from calib.boundaries import Interval
from calib.calibration import (
    Calibration,
    Columns,
    Conclusion,
    Granularity,
    NotConverged,
    NotEnoughData,
    Outcome,
    at_finalize,
    conclude,
    packed_units,
    row_keys,
)
from calib.payload import Payload
from calib.state import State
from calib.testing import CalibrationLaws, any_cut


@dataclass(frozen=True, kw_only=True)
class Mean(Calibration):
    """The mean of an integer column: a calibration as short as can be."""

    kind: ClassVar[str] = "mean"
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ("adc",)
    offset: int = 0
    least: int = at_finalize(1)

    def accumulate(self, columns: Columns, conditions: Mapping[str, Payload]) -> State:
        adc = columns["adc"] - self.offset
        return State({"sums": UnitSums.of_rows(packed_units(columns), np.stack([np.ones_like(adc), adc], axis=1))})

    def empty(self) -> State:
        return State({"sums": UnitSums.empty((2,))})

    def finalize(self, state: State, previous: Payload | None) -> Payload:
        count, total = state["sums"].total()
        if count < self.least:
            raise NotEnoughData(f"{count} samples; {self.least} are needed")
        return Payload(self.kind, {"mean": np.asarray(total / count)}, {"mean": "ADC"})


COLUMNS = {
    "run": np.array([1] * 20 + [2] * 10),
    "lumi": np.repeat([1, 2, 3, 1, 2, 3], 5),
    "event": np.arange(30),
    "adc": np.random.default_rng(1).integers(0, 100, 30),
}


class TestMean(CalibrationLaws):
    @pytest.fixture
    def calibration(self) -> Calibration:
        return Mean(offset=7)

    @pytest.fixture
    def columns(self) -> Columns:
        return COLUMNS


class MeanOfTheChunk(Mean):
    """Takes off what the events of the chunk have in common."""

    def accumulate(self, columns: Columns, conditions: Mapping[str, Payload]) -> State:
        adc = columns["adc"] - int(np.mean(columns["adc"])) if len(columns["adc"]) else columns["adc"]
        return super().accumulate({**columns, "adc": adc}, conditions)


class FloatSums(UnitSums):
    """Adds in floating point, so the order shows."""

    def merge(self, other: UnitSums) -> UnitSums:
        return FloatSums(*_added(self, other))


def _added(one: UnitSums, two: UnitSums) -> tuple[Any, Any]:
    keys = np.union1d(one.keys, two.keys)
    total = np.zeros((len(keys), 2))
    for part in (one, two):
        total[np.searchsorted(keys, part.keys)] += part.values
    return keys, total


class FloatMean(Mean):
    def accumulate(self, columns: Columns, conditions: Mapping[str, Payload]) -> State:
        made: UnitSums = self.empty()["sums"]
        for unit, adc in zip(packed_units(columns), columns["adc"] / 7.1, strict=True):
            made = made.merge(FloatSums(np.array([unit]), np.array([[1.0, adc]])))
        return State({"sums": made})

    def empty(self) -> State:
        return State({"sums": FloatSums(np.zeros(0, np.int64), np.zeros((0, 2)))})


class Lopsided(Mean):
    """Forgets what the right one had in common with the left."""

    def merge(self, left: State, right: State) -> State:
        new = np.setdiff1d(right.units(), left.units())
        return left.merge(right.select(new))


class Padded(Mean):
    def empty(self) -> State:
        return State({"sums": UnitSums(np.array([0]), np.array([[0, 1]]))})


class Shifting(Mean):
    """The state of a unit depends on the first of the units it came with."""

    def accumulate(self, columns: Columns, conditions: Mapping[str, Payload]) -> State:
        units = packed_units(columns)
        extra = units != units.min(initial=2**60)
        return super().accumulate({**columns, "adc": columns["adc"] + extra}, conditions)


class Meddling(Mean):
    def accumulate(self, columns: Columns, conditions: Mapping[str, Payload]) -> State:
        columns["adc"][:1] += 1
        return super().accumulate(columns, conditions)


class Local(Mean):
    """A calibration that cannot travel."""

    def __reduce__(self) -> Any:
        return Mean, ()


class Never(Mean):
    def finalize(self, state: State, previous: Payload | None) -> Payload:
        raise NotConverged("never")


class Other(Mean):
    def finalize(self, state: State, previous: Payload | None) -> Payload:
        super().finalize(state, previous)
        return Payload("median", {})


class Chatty(Mean):
    def finalize(self, state: State, previous: Payload | None) -> Payload:
        return Payload(self.kind, {})


@dataclass(frozen=True, kw_only=True)
class Unnamed(Mean):
    level: complex = 1j


class ByUnit(Mean):
    """An interval a unit."""

    def cut(self, state: State, flush: bool) -> list[Interval]:
        return [Interval((unit,), closed=True) for unit in state.units().tolist()]


class Hasty(ByUnit):
    """Joins two units, and calls the first closed before the second came."""

    def cut(self, state: State, flush: bool) -> list[Interval]:
        units = state.units().tolist()
        return [Interval(tuple(units[i : i + 2]), closed=True) for i in range(0, len(units), 2)]


class Remembering(ByUnit):
    """Where it cuts depends on how many units came before."""

    def cut(self, state: State, flush: bool) -> list[Interval]:
        units = state.units().tolist()
        if len(units) < 4:
            return [Interval(tuple(units), closed=flush)]
        return [Interval(tuple(units[:1]), closed=True), Interval(tuple(units[1:]), closed=flush)]


class Forgetful(ByUnit):
    def cut(self, state: State, flush: bool) -> list[Interval]:
        return super().cut(state, flush)[1:]


class Unordered(ByUnit):
    def cut(self, state: State, flush: bool) -> list[Interval]:
        intervals = super().cut(state, flush)
        return [*intervals[:-2], Interval(intervals[-2].units, closed=False), intervals[-1]]


class NeverClosing(ByUnit):
    def cut(self, state: State, flush: bool) -> list[Interval]:
        return [Interval(tuple(state.units().tolist()), closed=False)]


class Vetoing(ByUnit):
    def cut(self, state: State, flush: bool) -> list[Interval]:
        return [Interval(tuple(state.units().tolist()), closed=flush, vetoed=(5,))]


@dataclass(frozen=True, kw_only=True)
class Rows(Mean):
    """Keeps the rows of some units only."""

    def accumulate(self, columns: Columns, conditions: Mapping[str, Payload]) -> State:
        keys = row_keys(columns, np.ones(len(columns["event"]), np.int64))
        odd = columns["lumi"] % 2 == 1
        return State({"rows": UnitRows.of(keys[odd], {"adc": columns["adc"][odd]})})

    def empty(self) -> State:
        return State({"rows": UnitRows.empty({"adc": np.int64})})


SPAN = Granularity.SPAN
BROKEN = [
    (MeanOfTheChunk(), "test_any_cut_gives_the_same_state", "give another state than all at once"),
    (MeanOfTheChunk(), "test_event_by_event_gives_the_same_state", "events one by one give another state"),
    (MeanOfTheChunk(), "test_any_cut_gives_the_same_payloads", "how the events were cut shows"),
    (FloatMean(), "test_merge_is_associative_and_commutative", r"\(a \+ b\) \+ c is not a \+ \(b \+ c\)"),
    (Lopsided(), "test_merge_is_associative_and_commutative", r"a \+ b is not b \+ a"),
    (Padded(), "test_empty_is_the_identity", "merging the empty state changes a state"),
    (Shifting(), "test_units_do_not_mix", "alone has another state than selected from all"),
    (Rows(), "test_units_do_not_mix", "a unit left nothing in the state"),
    (Meddling(), "test_events_are_left_as_they_were", "changed the columns it was given"),
    (Local(), "test_state_survives_storage_and_travel", "pickled, it is another"),
    (Never(), "test_some_payload_is_made", "give no payload, so they test little"),
    (Other(), "test_payload_is_of_its_kind", r"makes payloads of kind \['median'\]"),
    (Chatty(), "test_nothing_gives_no_payload", "DID NOT RAISE"),
    (Unnamed(), "test_settings_can_name_a_result", "not JSON serializable"),
    (Hasty(granularity=SPAN), "test_what_is_closed_stays", "data after the first 1 units changed"),
    (Remembering(granularity=SPAN), "test_an_open_interval_can_be_gone_on_with", "on it cuts elsewhere"),
    (Forgetful(granularity=SPAN), "test_intervals_hold_every_unit_once", "do not hold every unit once"),
    (Unordered(granularity=SPAN), "test_intervals_hold_every_unit_once", "an interval is open, and a later one"),
    (NeverClosing(granularity=SPAN), "test_intervals_hold_every_unit_once", "flushed, but the last interval is open"),
    (Vetoing(granularity=SPAN), "test_intervals_hold_every_unit_once", "a unit is vetoed that is not of"),
]


@pytest.mark.parametrize(
    ("broken", "law", "message"), BROKEN, ids=[f"{type(broken).__name__}-{law}" for broken, law, _ in BROKEN]
)
def test_a_broken_law_is_found(
    broken: Calibration, law: str, message: str, tmp_path: Any, request: pytest.FixtureRequest
) -> None:
    columns = {name: values.copy() for name, values in COLUMNS.items()}
    known = {"calibration": broken, "columns": columns, "conditions": {}, "tmp_path": tmp_path}
    known["whole"] = broken.accumulate({**COLUMNS, "adc": COLUMNS["adc"].copy()}, {})
    method = getattr(CalibrationLaws(), law)
    wanted = [name for name in known if name in arguments_of(method)]
    with pytest.raises((AssertionError, TypeError, pytest.fail.Exception), match=message):
        method(**{name: known[name] for name in wanted})


def arguments_of(method: Any) -> set[str]:
    function = getattr(method, "hypothesis", None)
    return set((function.inner_test if function else method).__code__.co_varnames)


def test_fixtures_must_be_given() -> None:
    fixtures = [CalibrationLaws.calibration, CalibrationLaws.columns]
    for fixture, name in zip(fixtures, ("calibration", "columns"), strict=True):
        with pytest.raises(NotImplementedError, match=f"give a fixture `{name}`"):
            fixture.__wrapped__(CalibrationLaws())  # type: ignore[attr-defined]


def test_cuts_hold_every_event_once() -> None:
    for seed in range(50):
        parts = any_cut(seed, 30)
        assert sorted(np.concatenate(parts).tolist()) == list(range(30))
    assert len({len(any_cut(seed, 30)) for seed in range(50)}) > 4
    assert [part.tolist() for part in any_cut(1, 0)] == [[]]


class TestConclude:
    def test_each_outcome_has_its_name(self) -> None:
        state = Mean().accumulate(COLUMNS, {})
        one, two = conclude(Mean(least=15), state, None, flush=True)
        assert (one.outcome, two.outcome) == (Outcome.MADE, Outcome.NOT_ENOUGH_DATA)
        assert two.message == "10 samples; 15 are needed"
        failed: Conclusion = conclude(Never(), state, None, flush=True)[0]
        assert (failed.outcome, failed.payload, failed.message) == (Outcome.NOT_CONVERGED, None, "never")

    def test_an_open_interval_is_not_concluded(self) -> None:
        state = Mean().accumulate(COLUMNS, {})
        assert len(conclude(Mean(), state, None, flush=False)) == 1

    def test_each_interval_sees_the_payload_made_before_it(self) -> None:
        class Chained(Mean):
            looks_at_previous: ClassVar[bool] = True

            def finalize(self, state: State, previous: Payload | None) -> Payload:
                number = 0 if previous is None else int(previous["number"]) + 1
                return Payload(self.kind, {"number": np.asarray(number)})

        state = Mean().accumulate(COLUMNS, {})
        first = Payload("mean", {"number": np.asarray(7)})
        made = [c.payload for c in conclude(Chained(), state, first, flush=True)]
        assert [int(payload["number"]) for payload in made if payload] == [8, 9]
        made = [c.payload for c in conclude(Chained(), state, None, flush=True)]
        assert [int(payload["number"]) for payload in made if payload] == [0, 1]

    def test_a_calibration_without_a_rule_for_parts_of_runs_says_so(self) -> None:
        state = Mean().accumulate(COLUMNS, {})
        with pytest.raises(NotImplementedError, match="mean has no rule for granularity lumi; use 'run'"):
            Mean(granularity=Granularity.LUMI).intervals(state, True)

    def test_settings_name_what_they_decide(self) -> None:
        assert Mean(offset=1).accumulate_settings() == {"kind": "mean", "version": 1, "offset": 1}
        assert Mean(least=3).finalize_settings() == {"kind": "mean", "version": 1, "least": 3, "granularity": "run"}
        assert BeamSpot().looks_at_previous
