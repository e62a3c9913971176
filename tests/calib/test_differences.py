"""Two histories and two payloads are compared as a naive loop would."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from calib.differences import Difference, differences, distances
from calib.iov import RunLumi
from calib.payload import Payload
from calib.tags import Entry, Validity


def history(*steps: tuple[int, str | None]) -> list[Validity]:
    """Payloads by the run they begin at; None: nothing holds from there on."""
    found = []
    for place, (since, name) in enumerate(steps):
        until = RunLumi(steps[place + 1][0]) if place + 1 < len(steps) else None
        if name is not None:
            at = RunLumi(since)
            entry = Entry(place, "t", at, at, name, "ann", datetime(2026, 5, 1, tzinfo=UTC), "", {}, place)
            found.append(Validity(at, until, name, entry))
    return found


steps = st.dictionaries(st.integers(0, 12), st.sampled_from(["a", "b", "c", None]), max_size=6).map(
    lambda found: sorted(found.items())
)


def held(of: list[tuple[int, str | None]], run: int) -> str | None:
    return next((name for since, name in reversed(of) if since <= run), None)


@given(steps, steps)
def test_every_run_is_told_once_and_rightly(one: list[Any], other: list[Any]) -> None:
    found = differences(history(*one), history(*other))
    for run in range(14):
        pair = held(one, run), held(other, run)
        over = [d for d in found if d.since <= RunLumi(run) and (d.until is None or RunLumi(run) < d.until)]
        assert [(d.one, d.other) for d in over] == ([pair] if pair[0] != pair[1] else [])
    # As few as can be, in order.
    for before, after in pairwise(found):
        assert before.until is not None and before.until <= after.since
        assert before.until < after.since or (before.one, before.other) != (after.one, after.other)


def test_neighbours_that_say_the_same_are_one() -> None:
    found = differences(history((1, "a"), (3, "a")), history((1, "b"), (5, "a")))
    assert found == [Difference(RunLumi(1), RunLumi(5), "a", "b")]


def payload(**values: Any) -> Payload:
    return Payload("beamspot", {name: np.asarray(value) for name, value in values.items()}, {"x": "cm"})


doubles = st.floats(-1e3, 1e3) | st.sampled_from([math.nan, math.inf, -math.inf])
columns = st.integers(0, 6).flatmap(lambda n: st.tuples(*[arrays(np.float64, n, elements=doubles) for _ in range(4)]))


@given(columns)
def test_distances_are_those_of_a_loop(found: tuple[Any, Any, Any, Any]) -> None:
    left, right, left_error, right_error = found
    apart, pulls, numberless = [], [], []
    for place, (a, b, ea, eb) in enumerate(zip(*(column.tolist() for column in found), strict=True)):
        if a == b or (math.isnan(a) and math.isnan(b)):
            apart.append(0.0)
        elif math.isnan(a) or math.isnan(b):
            apart.append(0.0)
            numberless.append(place)
            continue
        else:
            apart.append(abs(b - a))
        errors = [e if math.isfinite(e) and e > 0 else 0.0 for e in (ea, eb)]
        if any(errors):
            pulls.append(apart[-1] / math.hypot(*errors))
    told = distances(payload(x=left, x_error=left_error), payload(x=right, x_error=right_error))
    of_x = [distance for distance in told if distance.array == "x"]
    if not any(apart) and not numberless:
        assert not of_x
        return
    [x] = of_x
    first = apart.index(max(apart)) if any(apart) else numberless[0]
    assert (x.largest, x.where, x.numberless) == (max(apart), f"x[{first}]", len(numberless))
    assert (x.changed, x.size, x.unit) == (sum(map(bool, apart)) + len(numberless), len(apart), "cm")
    assert x.sigma == (pytest.approx(max(pulls), rel=1e-12) if pulls else None)


@given(st.integers(-(2**63), 2**63 - 1), st.integers(-(2**63), 2**63 - 1))
def test_large_integers_are_not_rounded_away(one: int, other: int) -> None:
    told = distances(payload(x=np.int64(one)), payload(x=np.int64(other)))
    assert [distance.largest for distance in told] == ([] if one == other else [float(abs(one - other))])


def test_what_cannot_be_compared_is_said() -> None:
    def why(one: Payload, other: Payload) -> list[str]:
        return [f"{distance.array}: {distance.why}" for distance in distances(one, other)]

    assert why(payload(x=1.0), payload(x=1.0, y=2.0)) == ["y: the one has none"]
    assert why(payload(x=1.0, y=2.0), payload(x=1.0)) == ["y: the other has none"]
    assert why(payload(x=np.zeros(2)), payload(x=np.zeros(3))) == ["x: of shape (2,) and of shape (3,)"]
    assert why(payload(x=1.0), Payload("beamspot", {"x": np.array(1.0)}, {"x": "mm"})) == ["x: in cm and in mm"]
    assert why(payload(x=np.float64(1)), payload(x=np.float32(1))) == ["x: float64 and float32"]


def test_truth_values_and_one_error_for_all_are_compared() -> None:
    [status] = distances(payload(x=np.array([True, False])), payload(x=np.array([True, True])))
    assert (status.where, status.changed, status.far) == ("x[1]", 1, "changed")
    [x] = distances(payload(x=np.array([0.0, 1.0]), x_error=0.5), payload(x=np.array([0.0, 2.0]), x_error=0.5))
    assert x.sigma == pytest.approx(1 / math.hypot(0.5, 0.5))


def test_what_is_no_number_does_not_hide_how_far_the_numbers_are() -> None:
    one = payload(x=np.array([0.0, math.nan, 1.0, math.nan]), x_error=0.5)
    other = payload(x=np.array([0.25, 3.0, 1.0, math.nan]), x_error=0.5)
    [x] = distances(one, other)
    assert (x.changed, x.numberless, x.far) == (2, 1, "0.25 cm at x[0]; no number in one of the two: 1")
    assert x.sigma == pytest.approx(0.25 / math.hypot(0.5, 0.5))
    [x] = distances(payload(x=math.nan, x_error=0.5), payload(x=1.0, x_error=0.5))
    assert (x.changed, x.sigma, x.far) == (1, None, "no number in one of the two: 1")
