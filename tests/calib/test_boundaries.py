from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from math import erfc

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
    values: Sequence[float] | NDArray[np.float64],
    error: float | Sequence[float] | NDArray[np.float64] = 1.0,
    floor: float = 10.0,
    runs: list[int] | None = None,
) -> Trend:
    """x only [um], a block a unit, all of one run or of the runs given; one error for all, or one a unit."""
    column = np.asarray(values, np.float64).reshape(len(values), -1)
    blocks = [(RunLumi(run, i).packed,) for i, run in enumerate(runs or [1] * len(column), 1)]
    errors = np.array(np.broadcast_to(np.reshape(error, (-1, 1)), column.shape), np.float64)
    return Trend(blocks, column, errors, np.full(column.shape, floor))


def starts(intervals: list[Interval]) -> list[int]:
    """The lumisections where an interval begins, but for the first."""
    return [RunLumi.unpack(interval.units[0]).lumi for interval in intervals[1:]]


def cut(values: list[float], **more: object) -> list[Interval]:
    """By blocks one by one."""
    return running_mean(trend(values, **more), 4.0, flush=True, drifts=False)  # type: ignore[arg-type]


class TestRunningMeanOnToys:
    """The table of physics note 11: x of 20 lumisections, 1 um error each."""

    LUMI = np.arange(1, 21)

    def found(
        self, truth: NDArray[np.float64], error: float = 1.0, toys: int = 100, drifts: bool = True
    ) -> Counter[tuple[int, ...]]:
        rng = np.random.default_rng(12)
        drawn = [trend(truth + error * rng.standard_normal(20), error) for _ in range(toys)]
        return Counter(tuple(starts(running_mean(toy, 4.0, True, drifts=drifts))) for toy in drawn)

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

    def test_step_at_a_larger_error_is_found_one_by_one_in_part_and_not_at_14_um(self) -> None:
        step = np.where(self.LUMI >= 12, 40.0, 0.0)
        # 40 um are 4.8 errors of a unit of 8 um from the mean of 11 of them: seen in 0.79 of them, twice in 0.62.
        found = self.found(step, 8.0, toys=400, drifts=False)
        assert abs(sum(n for cuts, n in found.items() if 12 in cuts) - 0.62 * 400) < 40
        found = self.found(step, 14.0, toys=400, drifts=False)
        assert sum(n for cuts, n in found.items() if not cuts) > 0.9 * 400

    def test_all_blocks_together_find_a_step_at_14_um(self) -> None:
        # 40 um between eleven and nine are 6.4 errors; of those found, as many lie at their place as its errors allow.
        found = self.found(np.where(self.LUMI >= 12, 40.0, 0.0), 14.0, toys=200)
        assert found[(12,)] > 0.45 * 200
        assert found[()] < 0.2 * 200

    def test_errors_of_14_um_alone_and_a_spike_cut_nothing(self) -> None:
        for truth in (np.zeros(20), np.where(self.LUMI == 8, 60.0, 0.0)):
            assert self.found(truth, 14.0, toys=200)[()] >= 199

    def test_a_drift_at_8_um_is_cut_before_it_has_gone_far(self) -> None:
        truth = 5.0 * self.LUMI
        together, one_by_one = (self.found(truth, 8.0, toys=100, drifts=drifts) for drifts in (True, False))
        mean_length = [20 / np.mean([len(cuts) + 1 for cuts in found.elements()]) for found in (together, one_by_one)]
        assert mean_length[0] < 5.5 < 7.5 < mean_length[1]

    def test_slow_drift_is_cut_once(self) -> None:
        found = self.found(1.5 * self.LUMI)
        assert all(len(cuts) == 1 and 10 <= cuts[0] <= 16 for cuts in found)
        assert sum(n for cuts, n in found.items() if 12 <= cuts[0] <= 14) > 60

    def test_step_and_drift_together(self) -> None:
        found = self.found(1.5 * self.LUMI + np.where(self.LUMI >= 12, 40.0, 0.0))
        assert found[(12,)] >= 80
        assert all(12 in cuts for cuts in found)

    def test_fast_drift_is_cut_every_few(self) -> None:
        found = self.found(5.0 * self.LUMI)
        gaps = [gap for cuts, toys in found.items() for gap in np.diff([1, *cuts]).tolist() * toys]
        assert np.isin(gaps, [3, 4]).mean() > 0.95


def share_beyond(significance: float) -> float:
    """Of a Gaussian, either side."""
    return erfc(significance / np.sqrt(2))


class TestUnequalErrors:
    """The mean of the open interval has an error too. Without it, a run known to 7 um followed by one known to 0.6 um
    at the same place was cut in 73 % of these toys, and the pair of 10 and 1 um in 32 %.
    """

    RUNS = 2500

    @pytest.mark.parametrize("significance", [2.0, 3.0, 4.0])
    @pytest.mark.parametrize("errors", [(7.0, 0.6), (0.6, 7.0), (3.0, 3.0)])
    def test_a_beam_at_rest_is_cut_between_two_runs_as_often_as_chance_has_it(
        self, errors: tuple[float, float], significance: float
    ) -> None:
        rng = np.random.default_rng(31)
        toys = np.array(errors) * rng.standard_normal((self.RUNS, 2))
        cuts = sum(len(running_mean(trend(toy, errors, 0.0, [1, 2]), significance, True)) - 1 for toy in toys)
        expected = self.RUNS * share_beyond(significance)
        assert abs(cuts - expected) < 4 * np.sqrt(expected) + 2

    @pytest.mark.parametrize("significance", [2.0, 4.0])
    def test_a_beam_at_rest_is_cut_along_many_runs_as_often_as_chance_has_it(self, significance: float) -> None:
        rng, runs = np.random.default_rng(32), list(range(1, 41))
        cuts = 0
        for _ in range(100):
            errors = np.exp(rng.uniform(np.log(0.5), np.log(20.0), 40))
            cuts += (
                len(running_mean(trend(errors * rng.standard_normal(40), errors, 0.0, runs), significance, True)) - 1
            )
        # A run that has opened an interval by chance is off by chance; so is then the next, more often than others.
        expected = 100 * 39 * share_beyond(significance)
        assert expected - 4 * np.sqrt(expected) - 2 < cuts < 1.5 * expected + 4 * np.sqrt(expected) + 2

    @pytest.mark.parametrize("errors", [(10.0, 1.0), (1.0, 10.0), (1.0, 1.0)])
    def test_a_pair_at_one_place_opens_one_interval(self, errors: tuple[float, float]) -> None:
        rng = np.random.default_rng(33)
        all_errors = np.array([1.0, 1.0, 1.0, *errors, 1.0, 1.0])
        truth = np.where(np.arange(7) >= 3, 100.0, 0.0)
        toys = truth + all_errors * rng.standard_normal((1000, 7))
        found = Counter(tuple(starts(running_mean(trend(toy, all_errors), 4.0, True))) for toy in toys)
        assert found[(4,)] >= 998

    def test_a_move_is_still_found_where_the_errors_allow(self) -> None:
        rng, errors = np.random.default_rng(34), np.array([7.0, 0.6])
        toys = np.array([0.0, 50.0]) + errors * rng.standard_normal((1000, 2))
        found = sum(len(running_mean(trend(toy, errors, runs=[1, 2]), 4.0, True)) - 1 for toy in toys)
        # 50 um are 7.1 sigma of hypot(7, 0.6).
        assert found >= 998

    def test_the_error_of_a_long_interval_is_small(self) -> None:
        # 4 sigma of a unit alone are 40 um; beside the mean of 1, and of 100, they are 56.6 and 40.2 um.
        assert starts(cut([0, 45, 45], error=10.0)) == []
        assert starts(cut([0] * 100 + [45, 45], error=10.0)) == [101]


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
        # The error of the difference from the mean of two is sqrt(3/2) that of one.
        assert starts(cut([0, 0, 40, 40], error=8.3)) == []
        assert starts(cut([0, 0, 40, 40], error=8.1)) == [3]

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


def naive_running_mean(
    values: list[float], errors: list[float], runs: list[int], floor: float
) -> list[tuple[int, bool]]:
    """Begin of every interval and whether it is unconfirmed, written out step by step for one coordinate, exactly.

    A value is off if it adds more than 4^2 to the chi2 of one constant through all that is kept.
    """

    def constant(kept: list[int]) -> tuple[Fraction, Fraction]:
        weights = [1 / Fraction(errors[k]) ** 2 for k in kept]
        mean = sum(w * Fraction(values[k]) for w, k in zip(weights, kept, strict=True)) / sum(weights)
        return mean, sum(w * (Fraction(values[k]) - mean) ** 2 for w, k in zip(weights, kept, strict=True))

    def off(i: int, kept: list[int]) -> int:
        mean, chi2 = constant(kept)
        move = Fraction(values[i]) - mean
        if abs(move) <= Fraction(floor) or constant([*kept, i])[1] - chi2 <= 16:
            return 0
        return 1 if move > 0 else -1

    found, kept, pending = [(0, False)], [0], None
    for i in range(1, len(values)):
        if runs[i] != runs[i - 1]:
            if pending is not None:
                found.append((pending, True))
                kept, pending = [pending], None
            if off(i, kept):
                found.append((i, False))
                kept = [i]
            else:
                kept.append(i)
                if found[-1] == (i - 1, True):
                    found[-1] = (i - 1, False)
        elif pending is not None and off(i, kept) and off(i, kept) == off(pending, kept):
            found.append((pending, False))
            kept = [pending]
            if off(i, kept):
                found.append((i, False))
                kept = [i]
            else:
                kept.append(i)
            pending = None
        else:
            pending = i if off(i, kept) else None
            if pending is None:
                kept.append(i)
    return [*found, (pending, True)] if pending is not None else found


# Numbers with which no move is just 4 errors or just the floor: there rounding decides.
steps_of_one = st.tuples(
    st.sampled_from([0, 0, 0, 1]), st.sampled_from([0, 1, 11, 12, 40, 61]), st.sampled_from([0.75, 1.25, 2.25, 7.5])
)
moves = st.lists(steps_of_one, min_size=1, max_size=16)


@given(moves, st.integers(1, 16))
def test_running_mean_agrees_with_a_loop_and_is_stable(steps: list[tuple[int, int, float]], known: int) -> None:
    values, errors = [float(value) for _, value, _ in steps], [error for _, _, error in steps]
    runs = np.cumsum([new for new, _, _ in steps]).tolist()
    whole = trend(values, errors, 10.0, runs)
    final = running_mean(whole, 4.0, flush=True, drifts=False)
    found = [(RunLumi.unpack(interval.units[0]).lumi - 1, interval.unconfirmed) for interval in final]
    assert found == naive_running_mean(values, errors, runs, 10.0)
    assert [unit for interval in final for unit in interval.units] == [unit for block in whole.blocks for unit in block]
    for drifts in (False, True):
        final = running_mean(whole, 4.0, flush=True, drifts=drifts)
        part = trend(values[:known], errors[:known], 10.0, runs[:known])
        early = running_mean(part, 4.0, flush=False, drifts=drifts)
        closed = [interval for interval in early if interval.closed]
        assert closed == final[: len(closed)]
        assert not early[-1].closed
        # What is open starts afresh when more is there.
        begun = len(values) - len([u for interval in final[len(closed) :] for u in interval.units])
        afresh = trend(values[begun:], errors[begun:], 10.0, runs[begun:])
        lengths = [len(interval.units) for interval in running_mean(afresh, 4.0, flush=True, drifts=drifts)]
        assert lengths == [len(interval.units) for interval in final[len(closed) :]]


def test_whole_runs_leave_the_last_open() -> None:
    units = units_of(3, 2)
    assert [len(run.units) for run in whole_runs(units[::-1], flush=True)] == [3, 2]
    assert [run.closed for run in whole_runs(units, flush=False)] == [True, False]
    assert whole_runs(np.zeros(0, np.int64), flush=True) == []
    assert [run_of(run.units[0]) for run in whole_runs(units, True)] == [1, 2]
