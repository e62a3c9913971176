"""Errors along v by size and slope: as written out one by one, against other events, and what goes with them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from pipeline.experiments.ref10.reconstruct.positions import PIXEL_V, SPREAD
from pipeline.experiments.ref10.reconstruct.sharing import OVER_PITCH, STEP, narrowed
from tests.pipeline.experiments.ref10.reconstruct.test_resolution import PIXELS, simulated, spread

SLOPES = (0.0, 0.12, 0.25, 0.37, 0.5, 0.7, 0.9, 1.2)


def by_hand(size: int, slope: float) -> float:
    """The error over the pitch; NaN where the table has none."""
    if not 1 <= size <= 3:
        return np.nan
    nodes = [STEP * node for node in range(OVER_PITCH.shape[1])]
    return float(np.interp(abs(slope), nodes, OVER_PITCH[size - 1]))


def test_errors_are_those_of_the_table():
    rng = np.random.default_rng(3)
    size, slope = rng.integers(0, 9, (4, 200)), rng.uniform(-2, 2, (4, 200))
    found = narrowed(size, slope)
    for one, own, factor in zip(size.flat, slope.flat, found.flat, strict=True):
        wanted = by_hand(one, own)
        assert factor == (1 if np.isnan(wanted) else pytest.approx(wanted / SPREAD[PIXEL_V, one - 1]))


def test_slopes_beyond_the_table_and_of_no_number_give_its_last_value():
    found = narrowed(np.full(4, 3), np.array([1e9, -np.inf, np.nan, 1.2]))
    assert found.tolist() == pytest.approx([0.083 / SPREAD[PIXEL_V, 2]] * 4)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_other_events_have_these_errors(size):
    found = simulated()
    own = found.of(PIXELS) & (found.flat["size_v"] == size)
    factor = narrowed(np.full(len(found.dv), size), found.dv)
    judged = 0
    for low, high in pairwise(SLOPES):
        chosen = own & (np.abs(found.dv) >= low) & (np.abs(found.dv) < high)
        if chosen.sum() < 150:
            continue
        width, error = spread(found.pull("v")[chosen] / factor[chosen])
        assert abs(width - 1) < 0.06 + 4 * error, (low, width, error)
        judged += chosen.sum()
    assert judged > 0.97 * own.sum()


def test_without_the_slope_errors_are_too_small_and_too_large():
    """What the table is for: of one pixel, upright and oblique."""
    found = simulated()
    own = found.of(PIXELS) & (found.flat["size_v"] == 1)
    steep = np.abs(found.dv)
    assert spread(found.pull("v")[own & (steep < 0.12)])[0] > 1.2
    assert spread(found.pull("v")[own & (steep > 0.4)])[0] < 0.6
