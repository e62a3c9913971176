"""Tracks of simulated events, whose hits are real clusters, given to them by the truth."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.experiments.ref10.geometry import full_geometry, geometry_of
from pipeline.experiments.ref10.reconstruct.helix import PARAMETERS
from pipeline.experiments.ref10.reconstruct.track_flags import FAILED
from pipeline.experiments.ref10.reconstruct.tracks import fit_tracks
from pipeline.experiments.ref10.simulate.scenario import Physics, Scenario
from tests.pipeline.experiments.ref10.reconstruct.assigned import Assigned, assigned
from tests.pipeline.experiments.ref10.reconstruct.test_tracks import TABLE, apart, errors, parameters

EVENTS = 400


@pytest.fixture(scope="module")
def made() -> tuple[Assigned, object]:
    """Minimum bias, Z and J/psi; the detector with all its faults, and conditions that know them."""
    some = assigned(Scenario(physics=Physics(pile_up=1, z=0.4, jpsi=0.3)), geometry_of(full_geometry()), 17, EVENTS)
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
    assert n > 4000
    width = central(pull)
    assert ((width > 0.9) & (width < 1.15)).all(), dict(zip(PARAMETERS, width, strict=True))
    # A median is known to 1.25 / sqrt(n) errors; a hundredth more for what clusters are off by with the angle.
    assert (np.abs(np.median(pull, axis=1)) < 4 * 1.25 / np.sqrt(n) + 0.05).all(), np.median(pull, axis=1)
    assert np.median(tracks["chi2"] / tracks["ndf"]) == pytest.approx(0.95, abs=0.15)


@pytest.mark.parametrize(("low", "high", "pt"), [(0.9, 1.1, 1.0), (4.0, 6.5, 5.0), (15.0, 25.0, 20.0)])
def test_resolutions_are_those_of_the_physics_note(made, low, high, pt):
    some, tracks = made
    near = (some.truth["pt"] > low) & (some.truth["pt"] < high)
    n = near.sum()
    off = apart(parameters(tracks), parameters(some.truth))[:, near]
    spread = central(off)
    momentum = central((tracks["pt"] / some.truth["pt"] - 1)[near])
    # Known to 0.9 / sqrt(n): within 30 % of the table, give or take.
    slack = 0.3 + 3 * 0.9 / np.sqrt(n)
    found = (spread[2], spread[3], momentum)
    assert found == pytest.approx(TABLE[pt], rel=slack), (n, found)
