"""Figures of merit, and when one set of conditions is worse than another."""

import numpy as np
import pytest

from calib.accumulators import UnitHistogram
from calib.state import State
from pipeline.experiments.interface import Measure, Merit, QualityHistogram
from pipeline.merits import compare, figure

EDGES = np.linspace(-5.0, 5.0, 201)
RNG = np.random.default_rng(11)
VALUES = RNG.normal(0.0, 1.0, 4000)
HISTOGRAM = QualityHistogram("residual", "residual", tuple(EDGES.tolist()), "um")


def filled(values):
    """In two lumisections, which must not show."""
    return UnitHistogram.fill(EDGES, np.arange(len(values)) % 2, values)


def merit(measure, tolerance=0.0, **more):
    return Merit("residual", "residual", measure, tolerance, **more)


def judged(one, old, new):
    return compare([one], [HISTOGRAM], State({"residual": filled(old)}), State({"residual": filled(new)}))[0]


def test_an_offset_is_the_distance_of_the_mean_from_its_target():
    found = figure(merit(Measure.OFFSET, target=1.0), filled(VALUES), filled(VALUES))
    assert found.cost == pytest.approx(abs(VALUES.mean() - 1.0), abs=0.003)
    assert found.error == pytest.approx(VALUES.std() / np.sqrt(len(VALUES)), rel=0.01)


def test_a_width_is_half_of_the_central_range():
    found = figure(merit(Measure.WIDTH), filled(VALUES), filled(VALUES))
    low, high = np.quantile(VALUES, [0.1586553, 0.8413447])
    assert found.cost == pytest.approx((high - low) / 2, abs=0.01)


def test_the_error_of_a_width_is_that_of_toys():
    widths = [figure(merit(Measure.WIDTH), filled(RNG.normal(0, 1, 400)), filled(VALUES)) for _ in range(400)]
    spread = np.std([width.cost for width in widths])
    # 400 toys know their spread to 3.5 %; four of these.
    assert np.mean([width.error for width in widths]) == pytest.approx(spread, rel=0.14)


def test_a_loss_is_a_share_of_what_there_was():
    found = judged(merit(Measure.LOSS, 0.1), VALUES, VALUES[:3000])
    assert found.new.cost == pytest.approx(0.25) and found.old.cost == 0.0
    assert found.worse and found.unit == ""


@pytest.mark.parametrize(
    ("shift", "worse"), [(0.0, False), (0.04, False), (0.3, True)], ids=["same", "within three errors", "far"]
)
def test_a_mean_further_off_than_its_error_is_worse(shift, worse):
    found = judged(merit(Measure.OFFSET), VALUES - VALUES.mean(), VALUES - VALUES.mean() + shift)
    assert found.worse is worse
    assert ("is worse" in str(found)) is worse and "um" in str(found)


def test_what_the_tolerance_allows_is_no_worse():
    assert not judged(merit(Measure.OFFSET, tolerance=0.5), VALUES, VALUES + 0.3).worse


def test_better_is_never_worse():
    assert not judged(merit(Measure.WIDTH), 2 * VALUES, VALUES).worse
    assert judged(merit(Measure.WIDTH), VALUES, 2 * VALUES).worse


def test_too_few_entries_say_nothing():
    found = judged(merit(Measure.OFFSET, entries=10), VALUES[:5], VALUES[:5] + 3)
    assert not found.judged and not found.worse and "not judged, 5 entries of the 10 needed" in str(found)


def test_all_entries_gone_is_worse():
    assert judged(merit(Measure.OFFSET), VALUES, VALUES[:0]).worse
    assert not judged(merit(Measure.OFFSET), VALUES[:0], VALUES).worse
