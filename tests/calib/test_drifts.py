"""The line through all blocks of a stretch, against a loop over them."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from calib.boundaries import Trend, running_mean
from calib.drifts import Stretch, moves_at
from calib.iov import RunLumi

Floats = NDArray[np.float64]
SIGNIFICANCE, FLOOR = 4.0, 10.0


def line(times: list[float], values: list[float], weights: list[float]) -> tuple[float, float, float]:
    """Value at time 0, slope, and the error of the slope."""
    design = np.stack([np.ones(len(times)), times], axis=1)
    covariance = np.linalg.inv(design.T @ np.diag(weights) @ design)
    at_0, slope = covariance @ design.T @ np.diag(weights) @ values
    return float(at_0), float(slope), float(np.sqrt(covariance[1, 1]))


def mean(values: list[float], weights: list[float]) -> float:
    return sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)


def chi2(values: list[float], weights: list[float], expected: list[float]) -> float:
    return sum(w * (v - e) ** 2 for v, w, e in zip(values, weights, expected, strict=True))


def naive(times: list[float], values: list[float], weights: list[float]) -> int | None:
    n = len(times)
    at_0, slope, _ = line(times, values, weights)
    on_line = [at_0 + slope * t for t in times]
    off = [i for i in range(1, n) if abs(on_line[i] - mean(on_line[:i], weights[:i])) > FLOOR]
    if not off:
        return None
    steps = []
    for i in range(1, n):
        one, two = mean(values[:i], weights[:i]), mean(values[i:], weights[i:])
        steps.append((chi2(values, weights, [one] * i + [two] * (n - i)), i, two - one))
    best, i, step = min(steps)
    if best >= chi2(values, weights, on_line):
        return off[0]
    error = np.sqrt(1 / sum(weights[:i]) + 1 / sum(weights[i:]))
    return i if abs(step) > SIGNIFICANCE * error and abs(step) > FLOOR else None


def toys(number: int) -> list[tuple[Floats, Floats, Floats]]:
    """Times with gaps, values that drift or step, and errors."""
    rng, made = np.random.default_rng(8), []
    for _ in range(number):
        n = int(rng.integers(3, 25))
        times = np.cumsum(rng.integers(1, 3, n)).astype(np.float64)
        errors = np.exp(rng.uniform(np.log(3), np.log(20), n))
        truth = rng.choice([0.0, 2.0, -4.0]) * times + rng.choice([0.0, 40.0]) * (np.arange(n) >= n // 2)
        made.append((times, truth + errors * rng.standard_normal(n), errors**-2.0))
    return made


def test_where_it_moves_agrees_with_a_loop() -> None:
    found = []
    for times, values, weights in toys(400):
        found.append(moves_at(times, values, weights, np.full(len(times), FLOOR), SIGNIFICANCE))
        assert found[-1] == naive(times.tolist(), values.tolist(), weights.tolist())
    assert min(found.count(None), sum(at is not None for at in found)) > 50


def test_a_slope_is_significant_with_the_last_block_and_without_it() -> None:
    told = 0
    for times, values, weights in toys(100):
        stretch = Stretch(1)
        for i, time in enumerate(times):
            stretch.add(int(time), values[i : i + 1] + 8e4, weights[i : i + 1])
            if i < 2:
                continue
            fits = [line(*(each[:end].tolist() for each in (times, values, weights))) for end in (i, i + 1)]
            pulls = [slope / error for _, slope, error in fits]
            expected = bool(min(np.abs(pulls)) > SIGNIFICANCE and pulls[0] * pulls[1] > 0)
            assert stretch.tilted(SIGNIFICANCE).tolist() == [0] * expected
            told += expected
    assert told > 100


def test_blocks_without_a_value_have_no_say() -> None:
    stretch, seen = Stretch(2), Stretch(1)
    for i in range(12):
        missing = i % 3 == 0
        value = 0.0 if missing else 6.0 * i
        stretch.add(i, np.array([value, 5.0]), np.array([0.0 if missing else 1.0, 1.0]))
        if not missing:
            seen.add(i, np.array([value]), np.ones(1))
    assert stretch.tilted(SIGNIFICANCE).tolist() == seen.tilted(SIGNIFICANCE).tolist() == [0]


def cuts(values: Floats, error: float, runs: list[int] | None = None) -> list[int]:
    blocks = [(RunLumi(run, i).packed,) for i, run in enumerate(runs or [1] * len(values), 1)]
    found = running_mean(Trend(blocks, values, np.full(values.shape, error), np.full(values.shape, FLOOR)), 4.0, True)
    return [RunLumi.unpack(interval.units[0]).lumi for interval in found[1:]]


def test_without_noise_a_drift_is_cut_where_single_blocks_of_small_errors_cut_it() -> None:
    drift = 3.0 * np.arange(24.0)[:, None]
    # A block lies 3 (n + 1) / 2 um off the mean of n before it: 10.5 with six.
    assert cuts(drift, 0.1) == [7, 13, 19]
    assert cuts(drift, 3.0) == [7, 13, 19]
    # One by one a block has to be 25 um off, and one alone says nothing.
    assert cuts(drift, 6.0)[0] == 7


@pytest.mark.parametrize("runs", [[1] * 6 + [2] * 6, list(range(1, 13))])
def test_a_line_is_through_blocks_of_one_run(runs: list[int]) -> None:
    drift = 4.0 * np.arange(12.0)[:, None]
    assert cuts(drift, 9.0) != []
    assert cuts(drift, 9.0, runs) == []


def test_a_line_has_no_block_that_was_off_at_the_end_of_the_run_before() -> None:
    drift = 80.0 + 4.0 * np.arange(16.0)[:, None]
    of_one_run = cuts(drift[1:], 8.0)
    both = np.concatenate([np.zeros((4, 1)), drift])
    # Block 5 has an interval with the run that follows, which is cut where it would be alone.
    assert of_one_run and cuts(both, 8.0, [1] * 5 + [2] * 15) == [5, *(5 + at for at in of_one_run)]


def test_a_spike_that_was_vetoed_stays_with_the_part_it_lies_in() -> None:
    values = 5.0 * np.arange(16.0)
    values[6] += 200.0
    blocks = [(RunLumi(1, i).packed,) for i in range(1, 17)]
    column = values[:, None]
    found = running_mean(Trend(blocks, column, np.full(column.shape, 8.0), np.full(column.shape, FLOOR)), 4.0, True)
    assert [RunLumi.unpack(unit).lumi for interval in found for unit in interval.vetoed] == [7]
    assert all(set(interval.vetoed) <= set(interval.units) for interval in found)
    assert len(found) > 2
