"""Tracks of simulated events, whose hits are real clusters, given to them by the truth."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.experiments.ref10.reconstruct.helix import PARAMETERS
from pipeline.experiments.ref10.reconstruct.track_flags import FAILED
from pipeline.experiments.ref10.reconstruct.tracks import fit_tracks
from pipeline.experiments.ref10.simulate.scenario import Physics, Scenario
from tests.pipeline.experiments.ref10.reconstruct.assigned import Assigned, assigned
from tests.pipeline.experiments.ref10.reconstruct.flown import PLAN
from tests.pipeline.experiments.ref10.reconstruct.test_tracks import TABLE, apart, errors, parameters

EVENTS = 150


@pytest.fixture(scope="module")
def made() -> tuple[Assigned, object]:
    """Minimum bias, Z and J/psi; the detector with all its faults, and conditions that know them."""
    some = assigned(Scenario(physics=Physics(pile_up=1, z=0.4, jpsi=0.3)), PLAN, 17, EVENTS)
    return some, fit_tracks(some.candidates, some.clusters, some.conditions)


def central(values: np.ndarray) -> np.ndarray:
    """Half the width of what holds 68.27 %: clusters that two tracks share are in the tails."""
    low, high = np.quantile(values, [0.15865, 0.84135], axis=-1)
    return (high - low) / 2


def test_pulls_have_spread_one(made):
    some, tracks = made
    assert not (tracks.flat["flags"] & np.uint8(FAILED)).any()
    pull = apart(parameters(tracks), parameters(some.truth)) / errors(tracks)
    n = pull.shape[1]
    assert n > 2500
    width = central(pull)
    assert ((width > 0.9) & (width < 1.15)).all(), dict(zip(PARAMETERS, width, strict=True))
    # A median is known to 1.25 / sqrt(n) errors; a hundredth more for what clusters are off by with the angle.
    assert (np.abs(np.median(pull, axis=1)) < 4 * 1.25 / np.sqrt(n) + 0.05).all(), np.median(pull, axis=1)
    assert np.median(tracks["chi2"] / tracks["ndf"]) == pytest.approx(0.95, abs=0.15)


SLOPES = (0.0, 0.12, 0.25, 0.5, 0.75, 1.2)


def of_slopes(off: np.ndarray, cot_theta: np.ndarray) -> list[tuple[float, float]]:
    """The width of what is off of tracks in each range of |cot(theta)|, and how well it is known."""
    which = np.searchsorted(SLOPES, np.abs(cot_theta), side="right")
    parts = [off[which == number] for number in range(1, len(SLOPES))]
    return [(float(central(part)), 0.9 * float(central(part)) / np.sqrt(len(part))) for part in parts]


def test_pulls_of_z0_do_not_go_with_the_slope(made):
    """One error for each size of clusters gave 1.3 of upright tracks and 0.65 to 0.84 at slopes of 0.25 to 0.5."""
    some, tracks = made
    pull = apart(parameters(tracks), parameters(some.truth))[3] / errors(tracks)[3]
    for width, error in of_slopes(pull, some.truth["cot_theta"]):
        assert 0.9 - 2 * error < width < 1.15 + 2 * error


@pytest.mark.parametrize("pt", list(TABLE))
def test_resolutions_are_those_of_the_physics_note(pt):
    """All tracks of one momentum, up to |eta| = 1 where the table is for 0."""
    some = assigned(Scenario(physics=Physics(pile_up=1, z=0, jpsi=0)), PLAN, 18, 60, pt)
    tracks = fit_tracks(some.candidates, some.clusters, some.conditions)
    off = apart(parameters(tracks), parameters(some.truth))
    assert off.shape[1] > 900
    pull = central(off / errors(tracks))
    # A width of 68 % is known to 0.9 / sqrt(n), 3 %.
    assert ((pull > 0.87) & (pull < 1.15)).all(), pull
    for width, error in of_slopes(off[3] / errors(tracks)[3], some.truth["cot_theta"]):
        assert 0.9 - 3 * error < width < 1.15 + 3 * error
    found = (central(off[2]), central(tracks["pt"] / some.truth["pt"] - 1))
    assert found == pytest.approx((TABLE[pt][0], TABLE[pt][2]), rel=0.3)
    # The table has 30 um along z everywhere. Clusters have a third of it where pixels share charge, from a slope of
    # 0.25 on; upright tracks leave one pixel, 150 um / sqrt(12) = 43 um.
    assert central(off[3]) < 1.3 * TABLE[pt][1]
    upright = np.abs(some.truth["cot_theta"]) < 0.12
    assert upright.sum() > 80
    assert central(off[3, upright]) == pytest.approx(TABLE[pt][1] * (43 / 30 if pt > 1 else 1.2), rel=0.3)
