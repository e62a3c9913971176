"""CMS's rule as coded: the table of physics note 11, and the code's own order of things in a loop."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from calib.boundaries import Trend
from calib.collapsing import CMS_MOVES, Move, collapse
from calib.iov import RunLumi

Floats = NDArray[np.float64]

AS_CODED = CMS_MOVES["x"]
WITH_FABS = replace(AS_CODED, falls_only=False)

LUMI = np.arange(1, 21)
TOYS = 1000


def trend(values: Floats, errors: Floats | float = 1.0, floors: Floats | float = 25.0) -> Trend:
    """Lumisections 1, 2, ... of a run; a column a coordinate [um]."""
    columns = values if values.ndim == 2 else values[:, None]
    blocks = [(RunLumi(1, i).packed,) for i in range(1, len(columns) + 1)]
    return Trend(blocks, columns, *(np.array(np.broadcast_to(given, columns.shape)) for given in (errors, floors)))


def starts(values: Floats, *moves: Move, errors: Floats | float = 1.0, floors: Floats | float = 25.0) -> list[int]:
    """The lumisections where an interval begins, but for the first."""
    found = collapse(trend(values, errors, floors), moves)
    return [RunLumi.unpack(interval.units[0]).lumi for interval in found[1:]]


def rates(truth: Floats, move: Move) -> dict[tuple[int, ...], float]:
    """How often which cuts are made, at 1 um a lumisection."""
    rng = np.random.default_rng(41)
    found = Counter(tuple(starts(truth + rng.standard_normal(20), move)) for _ in range(TOYS))
    return {cuts: n / TOYS for cuts, n in found.items()}


NONE, ONE, BOTH, EARLY = (), (12,), (11, 12), (11,)
RISE, FALL = np.where(LUMI >= 12, 40.0, 0.0), np.where(LUMI >= 12, -40.0, 0.0)
TABLE = {
    "flat": (np.zeros(20), {NONE: 1.0}, {NONE: 1.0}),
    "step up": (RISE, {NONE: 0.26, ONE: 0.24, BOTH: 0.26, EARLY: 0.24}, {ONE: 0.5, BOTH: 0.5}),
    "step down": (FALL, {ONE: 0.5, BOTH: 0.5}, {ONE: 0.5, BOTH: 0.5}),
    "slow drift": (1.5 * LUMI, {NONE: 1.0}, {NONE: 1.0}),
    "fast drift": (5.0 * LUMI, {NONE: 1.0}, {NONE: 1.0}),
}


@pytest.mark.parametrize("case", TABLE)
def test_the_table_of_the_note(case: str) -> None:
    truth, *expected = TABLE[case]
    for move, wanted in zip((AS_CODED, WITH_FABS), expected, strict=True):
        found = rates(truth, move)
        assert set(found) == set(wanted)
        for cuts, rate in wanted.items():
            # Both the note's and this are of 1000 toys.
            assert abs(found[cuts] - rate) <= 4 * np.sqrt(2 * rate * (1 - rate) / TOYS)


@pytest.mark.parametrize(
    ("spike", "move", "wanted"), [(60.0, AS_CODED, 1.0), (-60.0, AS_CODED, 0.73), (60.0, WITH_FABS, 1.0)]
)
def test_a_spike_opens_intervals(spike: float, move: Move, wanted: float) -> None:
    found = rates(np.where(LUMI == 8, spike, 0.0), move)
    assert set(found) <= {(), (9,), (7,), (7, 9)}
    closed = 1 - found.get((), 0.0)
    assert abs(closed - wanted) <= 4 * np.sqrt(2 * 0.73 * 0.27 / TOYS) * (wanted < 1)


def naive(values: list[float], floor: float, move: Move, most: int) -> list[int]:
    """Begins of intervals, in the order the code does it: current, next, the one after that."""
    n = len(values)
    if n <= 2:
        return list(range(n))
    begins, collected = [0], 1
    for i in range(n - 1):
        delta1, last = values[i] - values[i + 1], i == n - 2
        size = delta1 if move.falls_only else abs(delta1)
        shift = abs(delta1) / np.sqrt(2) > move.significance and size >= floor
        if not last:
            delta2 = values[i + 1] - values[i + 2]
            if move.two_steps and not shift and delta1 * delta2 > 0 and abs(delta1 + delta2) >= floor:
                shift = True
            elif move.spike_veto and shift and delta1 * delta2 < 0 and 0.33 < abs(delta1 / delta2) < 3:
                shift = False
        elif not move.last_counts:
            shift = False
        if shift or (collected == most and not last):
            begins.append(i + 1)
            collected = 0
        collected += 1
    return begins


moves = st.builds(Move, st.sampled_from([3.5, 5.0]), st.booleans(), st.booleans(), st.booleans(), st.booleans())
values = st.lists(st.sampled_from([0.0, 1.0, 4.2, 13.0, 26.0, 31.0, 60.0, 100.0]), max_size=12)


@given(values, st.sampled_from([0.0, 25.5]), moves, st.integers(2, 5))
def test_it_agrees_with_a_loop(values: list[float], floor: float, move: Move, most: int) -> None:
    whole = trend(np.array(values), floors=floor)
    found = collapse(whole, [move], most)
    assert [RunLumi.unpack(interval.units[0]).lumi - 1 for interval in found] == naive(values, floor, move, most)
    assert [unit for interval in found for unit in interval.units] == [unit for block in whole.blocks for unit in block]
    assert all(interval.closed for interval in found)


def test_an_interval_is_full_with_sixty() -> None:
    assert starts(np.zeros(150), AS_CODED) == [61, 121]
    # The last lumisection alone is not split off.
    assert starts(np.zeros(61), AS_CODED) == []


def test_a_shift_into_the_last_one_gives_it_an_interval_but_not_by_its_shape() -> None:
    step = np.array([0.0] * 5 + [-40.0])
    assert starts(step, AS_CODED) == [6]
    assert starts(step, CMS_MOVES["z"]) == [6]
    assert starts(step, CMS_MOVES["dxdz"]) == []


def test_any_coordinate_closes() -> None:
    both = np.zeros((8, 2))
    both[4:, 1] = 6.0
    floors = np.array([25.0, 0.0])
    assert starts(both, AS_CODED, CMS_MOVES["sigma_z"], floors=floors) == []
    both[4:, 1] = 8.0
    assert starts(both, AS_CODED, CMS_MOVES["sigma_z"], floors=floors) == [5]


def test_errors_are_those_of_both_neighbours() -> None:
    errors = np.array([1.0, 1.0, 1.0, 12.0, 1.0, 1.0])[:, None]
    assert starts(np.array([40.0, 40, 40, 0, 0, 0]), replace(AS_CODED, two_steps=False), errors=errors) == []
    assert starts(np.array([50.0, 50, 50, 0, 0, 0]), replace(AS_CODED, two_steps=False), errors=errors) == [4]


def test_what_was_not_measured_is_left_out() -> None:
    values = np.array([np.nan, 40, 40, np.nan, 0, 0, np.nan])
    first, second = collapse(trend(values), [replace(AS_CODED, two_steps=False)])
    assert [RunLumi.unpack(unit).lumi for unit in first.units] == [1, 2, 3, 4]
    assert [RunLumi.unpack(unit).lumi for unit in first.vetoed] == [1, 4]
    assert [RunLumi.unpack(unit).lumi for unit in second.vetoed] == [7]
    (nothing,) = collapse(trend(values[:1]), [AS_CODED])
    assert nothing.used == ()
    assert collapse(trend(values[:0]), [AS_CODED]) == []


def test_several_runs_are_refused() -> None:
    blocks = [(RunLumi(1, 1).packed,), (RunLumi(2, 1).packed,)]
    with pytest.raises(ValueError, match="run by run"):
        collapse(Trend(blocks, *np.zeros((3, 2, 1))), [AS_CODED])
