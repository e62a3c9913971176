from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from calib.boundaries import Block, Interval, Trend, merge_until_enough, run_of, running_mean
from calib.calibration import whole_runs
from calib.iov import RunLumi

UM = 1e-4


def units_of(*lumis_of_run: int) -> NDArray[np.int64]:
    """Runs 1, 2, ... of so many lumisections each."""
    return np.array(
        [RunLumi(run, lumi).packed for run, lumis in enumerate(lumis_of_run, 1) for lumi in range(1, lumis + 1)]
    )


def names(units: Block) -> list[tuple[int, int]]:
    return [tuple(RunLumi.unpack(unit)) for unit in units]


class TestMergeUntilEnough:
    @pytest.mark.parametrize(
        ("lumis", "entries", "expected"),
        [
            ((4,), [10, 3, 8, 12], [[1], [2, 3], [4]]),
            ((4,), [10, 3, 8, 2], [[1], [2, 3, 4]]),  # the left-over joins the block before
            ((3,), [1, 2, 3], [[1, 2, 3]]),  # alone, too few
            ((2, 2), [10, 4, 4, 6], [[1, 2], [3, 4]]),  # the left-over of a run joins its last block
            ((2, 2), [4, 4, 1, 6], [[1, 2, 3, 4]]),  # a run without a block goes on into the next
            ((2, 1), [10, 0, 3], [[1, 2], [3]]),  # the last run has too few, and joins no block of another run
            ((0,), [], []),
        ],
    )
    def test_left_over(self, lumis: tuple[int, ...], entries: list[int], expected: list[list[int]]) -> None:
        units = units_of(*lumis)
        number = {unit: i + 1 for i, unit in enumerate(units.tolist())}
        blocks, rest = merge_until_enough(units, np.array(entries, np.int64), 10, flush=True)
        assert [[number[unit] for unit in block] for block in blocks] == expected
        assert rest == ()

    def test_without_flush_the_last_block_of_the_last_run_is_undecided(self) -> None:
        units = units_of(4, 1)
        blocks, rest = merge_until_enough(units[:3], np.array([10, 3, 8]), 10, flush=False)
        assert (len(blocks), names(rest)) == (1, [(1, 2), (1, 3)])
        blocks, rest = merge_until_enough(units, np.array([10, 3, 8, 2, 1]), 10, flush=False)
        assert [names(block) for block in blocks] == [[(1, 1)], [(1, 2), (1, 3), (1, 4)]]
        assert names(rest) == [(2, 1)]


trends = st.lists(st.tuples(st.integers(1, 3), st.integers(0, 12)), max_size=30)


@given(trends, st.integers(0, 30))
def test_blocks_hold_all_units_and_stay(steps: list[tuple[int, int]], known: int) -> None:
    units = units_with_runs([new_run == 3 for new_run, _ in steps])
    entries = np.array([count for _, count in steps], np.int64)
    final, _ = merge_until_enough(units, entries, 10, flush=True)
    assert [unit for block in final for unit in block] == units.tolist()
    few = [sum(entries[np.isin(units, block)]) < 10 for block in final]
    assert not any(few[:-1])
    blocks, rest = merge_until_enough(units[:known], entries[:known], 10, flush=False)
    assert blocks == final[: len(blocks)]
    assert [unit for block in [*blocks, rest] for unit in block] == units[:known].tolist()
    for number, block in enumerate(final):
        from_here = units >= block[0]
        assert merge_until_enough(units[from_here], entries[from_here], 10, flush=True)[0] == final[number:]


def units_with_runs(new_run: list[bool]) -> NDArray[np.int64]:
    run = 1 + np.cumsum(np.array(new_run, bool))
    return np.array([RunLumi(int(r), i).packed for i, r in enumerate(run)], np.int64)


def trend(
    values: list[float] | NDArray[np.float64], error: float = 1.0, floor: float = 10.0, runs: list[int] | None = None
) -> Trend:
    """x only [um], a block a unit, all of one run or of the runs given."""
    column = np.asarray(values, np.float64).reshape(len(values), -1)
    blocks = [(RunLumi(run, i).packed,) for i, run in enumerate(runs or [1] * len(column), 1)]
    return Trend(blocks, column, np.full(column.shape, error), np.full(column.shape, floor))


def starts(intervals: list[Interval]) -> list[int]:
    """The lumisections where an interval begins, but for the first."""
    return [RunLumi.unpack(interval.units[0]).lumi for interval in intervals[1:]]


def cut(values: list[float], **more: object) -> list[Interval]:
    return running_mean(trend(values, **more), 4.0, flush=True)  # type: ignore[arg-type]


class TestRunningMeanOnToys:
    """The table of physics note 11: x of 20 lumisections, 1 um error each."""

    LUMI = np.arange(1, 21)

    def found(self, truth: NDArray[np.float64], error: float = 1.0, toys: int = 100) -> Counter[tuple[int, ...]]:
        rng = np.random.default_rng(12)
        return Counter(
            tuple(starts(running_mean(trend(truth + error * rng.standard_normal(20), error), 4.0, True)))
            for _ in range(toys)
        )

    def test_flat(self) -> None:
        assert self.found(np.zeros(20)) == {(): 100}

    @pytest.mark.parametrize("step", [40.0, -40.0])
    @pytest.mark.parametrize("error", [1.0, 3.0])
    def test_step(self, step: float, error: float) -> None:
        assert self.found(np.where(self.LUMI >= 12, step, 0.0), error) == {(12,): 100}

    @pytest.mark.parametrize("spike", [60.0, -60.0])
    @pytest.mark.parametrize("error", [1.0, 3.0])
    def test_spike(self, spike: float, error: float) -> None:
        assert self.found(np.where(self.LUMI == 8, spike, 0.0), error) == {(): 100}

    def test_step_at_a_larger_error_is_mostly_found_and_not_at_14_um(self) -> None:
        step = np.where(self.LUMI >= 12, 40.0, 0.0)
        assert sum(n for cuts, n in self.found(step, 8.0).items() if 12 in cuts) > 60
        assert sum(n for cuts, n in self.found(step, 14.0).items() if cuts) < 30

    def test_slow_drift_is_cut_once(self) -> None:
        found = self.found(1.5 * self.LUMI)
        assert all(len(cuts) == 1 and 12 <= cuts[0] <= 16 for cuts in found)

    def test_fast_drift_is_cut_every_few(self) -> None:
        found = self.found(5.0 * self.LUMI)
        gaps = [gap for cuts, toys in found.items() for gap in np.diff([1, *cuts]).tolist() * toys]
        assert np.isin(gaps, [3, 4]).mean() > 0.95


class TestRunningMeanRules:
    def test_a_spike_is_vetoed_and_left_out_of_the_payload(self) -> None:
        (interval,) = cut([0, 0, 60, 0, 1])
        assert [RunLumi.unpack(unit).lumi for unit in interval.vetoed] == [3]
        assert [RunLumi.unpack(unit).lumi for unit in interval.used] == [1, 2, 4, 5]
        assert len(interval.units) == 5

    def test_two_off_on_different_sides_close_nothing(self) -> None:
        (interval,) = cut([0, 0, 60, -60, 0, 0])
        assert len(interval.vetoed) == 2

    def test_two_that_do_not_agree_open_an_interval_each(self) -> None:
        assert starts(cut([0, 0, 0, 40, 80, 80, 80])) == [4, 5]

    def test_no_veto_across_a_run_boundary(self) -> None:
        assert starts(cut([0, 0, 40, 40], runs=[1, 1, 2, 2])) == [3]
        assert starts(cut([0, 0, 60, 0, 0], runs=[1, 1, 2, 3, 3])) == [3, 4]

    def test_off_at_the_end_of_a_run_has_an_interval_of_its_own(self) -> None:
        before, own, after = cut([0, 0, 60, 0, 0], runs=[1, 1, 1, 2, 2])
        assert (before.unconfirmed, own.unconfirmed, after.unconfirmed) == (False, True, False)
        assert [len(interval.units) for interval in (before, own, after)] == [2, 1, 2]

    def test_the_next_run_confirms_it(self) -> None:
        before, after = cut([0, 0, 60, 60, 60], runs=[1, 1, 1, 2, 2])
        assert (len(before.units), len(after.units), after.unconfirmed) == (2, 3, False)

    def test_off_at_the_end_of_the_data_is_unconfirmed(self) -> None:
        before, own = cut([0, 0, 0, 60])
        assert (before.unconfirmed, own.unconfirmed, len(own.units)) == (False, True, 1)
        (still_open,) = running_mean(trend([0.0, 0, 0, 60]), 4.0, flush=False)
        assert (still_open.closed, still_open.vetoed) == (False, ())

    def test_a_move_below_the_floor_or_within_the_errors_never_closes(self) -> None:
        assert starts(cut([0, 0, 9, 9, 9])) == []
        assert starts(cut([0, 0, 40, 40], error=11.0)) == []
        assert starts(cut([0, 0, 40, 40], error=9.0)) == [3]

    def test_any_coordinate_closes(self) -> None:
        both = np.array([[0.0, 0], [0, 0], [0, 40], [0, 40]])
        assert starts(running_mean(trend(both), 4.0, True)) == [3]
        crossed = np.array([[0.0, 0], [0, 0], [40, 0], [0, 40], [0, 0]])
        assert starts(running_mean(trend(crossed), 4.0, True)) == []

    def test_what_was_not_measured_has_no_say(self) -> None:
        assert starts(cut([np.nan, 0, np.nan, 40, 40, np.nan])) == [4]
        assert starts(cut([np.nan, np.nan])) == []
        for error in (0.0, np.nan, np.inf):
            assert starts(cut([0, 0, 40, 40], error=error)) == []

    def test_the_mean_is_weighted(self) -> None:
        values = trend([0.0, 30, 20, 20])
        values.errors[1] = 100.0
        assert starts(running_mean(values, 4.0, True)) == [3]
        values.errors[1] = 1.0
        assert starts(running_mean(values, 4.0, True)) != [3]

    def test_nothing_gives_no_interval(self) -> None:
        nothing = Trend((), *np.empty((3, 0, 1)))
        assert running_mean(nothing, 4.0, True) == []
        assert running_mean(nothing, 4.0, False, (5, 6)) == [Interval((5, 6), closed=False)]


def naive_running_mean(values: list[float], runs: list[int], error: float, floor: float) -> list[tuple[int, bool]]:
    """Begin of every interval and whether it is unconfirmed, written out step by step for one coordinate."""

    def off(x: float, kept: list[float]) -> int:
        move = x - sum(kept) / len(kept)
        return 0 if abs(move) <= max(4 * error, floor) else (1 if move > 0 else -1)

    found, kept, pending = [(0, False)], [values[0]], None
    for i in range(1, len(values)):
        x = values[i]
        if runs[i] != runs[i - 1]:
            if pending is not None:
                found.append((pending, True))
                kept, pending = [values[pending]], None
            if off(x, kept):
                found.append((i, False))
                kept = [x]
            else:
                kept.append(x)
                if found[-1] == (i - 1, True):
                    found[-1] = (i - 1, False)
        elif pending is not None and off(x, kept) and off(x, kept) == off(values[pending], kept):
            found.append((pending, False))
            kept = [values[pending]]
            if off(x, kept):
                found.append((i, False))
                kept = [x]
            else:
                kept.append(x)
            pending = None
        else:
            pending = i if off(x, kept) else None
            if pending is None:
                kept.append(x)
    return [*found, (pending, True)] if pending is not None else found


steps_of_one = st.tuples(st.sampled_from([0, 0, 0, 1]), st.sampled_from([0, 1, 11, 12, 40, 60]))
moves = st.lists(steps_of_one, min_size=1, max_size=16)


@given(moves, st.integers(1, 16))
def test_running_mean_agrees_with_a_loop_and_is_stable(steps: list[tuple[int, int]], known: int) -> None:
    values = [float(value) for _, value in steps]
    runs = np.cumsum([new for new, _ in steps]).tolist()
    whole = trend(values, runs=runs)
    final = running_mean(whole, 4.0, flush=True)
    found = [(RunLumi.unpack(interval.units[0]).lumi - 1, interval.unconfirmed) for interval in final]
    assert found == naive_running_mean(values, runs, 1.0, 10.0)
    assert [unit for interval in final for unit in interval.units] == [unit for block in whole.blocks for unit in block]
    early = running_mean(trend(values[:known], runs=runs[:known]), 4.0, flush=False)
    closed = [interval for interval in early if interval.closed]
    assert closed == final[: len(closed)]
    assert not early[-1].closed


def test_whole_runs_leave_the_last_open() -> None:
    units = units_of(3, 2)
    assert [len(run.units) for run in whole_runs(units[::-1], flush=True)] == [3, 2]
    assert [run.closed for run in whole_runs(units, flush=False)] == [True, False]
    assert whole_runs(np.zeros(0, np.int64), flush=True) == []
    assert [run_of(run.units[0]) for run in whole_runs(units, True)] == [1, 2]
