"""The helix of the track fit against circles about their centre, and its derivatives against differences."""

from __future__ import annotations

from math import cos, hypot, sin

import numpy as np
import pytest

from pipeline.experiments.ref10.reconstruct.helix import CURVATURE_GEV, Helix, transverse_momentum
from tests.pipeline.experiments.ref10.reconstruct.naive_fit import start_of

WAYS = (-3.0, 0.0, 2.2, 16.0, 70.0)


def some(n: int = 40, curvature=None) -> Helix:
    rng = np.random.default_rng(3)
    bent = rng.uniform(-0.03, 0.03, n) if curvature is None else np.full(n, curvature)
    return Helix(bent, rng.uniform(-np.pi, np.pi, n), rng.normal(0, 0.3, n), rng.normal(0, 4, n), rng.normal(0, 0.7, n))


def stacked(helix: Helix):
    return np.stack([helix.curvature, helix.phi, helix.d0, helix.z0, helix.cot_theta])


@pytest.mark.parametrize("way", WAYS)
def test_places_are_on_the_circle_about_its_centre(way):
    helix = some()
    found = helix.at(np.full((1, 40), way))
    for track, parameters in enumerate(stacked(helix).T):
        there = start_of(parameters).flown(way)
        seen = [getattr(found, name)[0, track] for name in ("x", "y", "z", "dx", "dy")]
        assert seen == pytest.approx([there.x, there.y, there.z, cos(there.phi), sin(there.phi)], abs=1e-9)


@pytest.mark.parametrize("curvature", [0.0, 5e-324, 1e-300, 1e-12])
def test_without_curvature_tracks_are_straight(curvature):
    helix = some(curvature=curvature)
    found = helix.at(np.full((1, 40), 50.0))
    straight = helix.d0 * np.sin(helix.phi) + 50 * np.cos(helix.phi)
    np.testing.assert_allclose(found.x[0], straight, atol=1e-8)
    way, reached = helix.to_radius(np.full((1, 40), 50.0))
    assert reached.all()
    np.testing.assert_allclose(way[0], np.sqrt(50**2 - helix.d0**2), rtol=1e-9)


@pytest.mark.parametrize("curvature", [None, 0.0, 1e-6, 3.9e-5, 4.1e-5])
def test_the_way_to_a_radius_ends_there(curvature):
    """1e-3 rad of half turn, where the series of the derivative ends, is between the last two."""
    helix = some(curvature=curvature)
    way, reached = helix.to_radius(np.full((1, 40), 25.0))
    there = helix.at(way)
    assert reached.all()
    np.testing.assert_allclose(np.hypot(there.x, there.y), 25.0, rtol=1e-12)
    assert (way > 0).all()


def test_a_radius_that_is_not_reached_is_told_and_the_way_ends_at_the_far_side():
    helix = Helix(*np.array([[0.05, 0.05, -0.05], [0.0, 1.0, 2.0], [0.0, 0.1, 5.0], [0.0] * 3, [0.0] * 3]))
    way, reached = helix.to_radius(np.array([[60.0, 45.0, 3.0]] * 1))
    assert not reached.any()
    assert way[0, :2] == pytest.approx([np.pi / 0.05] * 2)
    assert way[0, 2] == 0.0


@pytest.mark.parametrize("curvature", [None, 0.0, 3.9e-5, 4.1e-5, 0.03])
def test_what_the_curvature_does_is_the_difference_that_it_makes(curvature):
    helix, way, step = some(curvature=curvature), np.full((1, 40), 50.0), 1e-6
    more, less = (helix.plus(np.array([[change], [0], [0], [0], [0]])) for change in (step, -step))
    bent = helix.bent(way)
    for name, found in zip("xy", bent, strict=True):
        difference = (getattr(more.at(way), name) - getattr(less.at(way), name)) / (2 * step)
        np.testing.assert_allclose(found, difference, rtol=1e-6, atol=1e-4)


def test_momentum_comes_from_field_and_curvature_and_is_bounded():
    curvature = np.array([CURVATURE_GEV * 3.8, -CURVATURE_GEV * 1.9, 0.0, 1e-300])
    assert transverse_momentum(curvature, 3.8, 1e4).tolist() == pytest.approx([1.0, 2.0, 1e4, 1e4])
    assert transverse_momentum(curvature, -3.8, 1e4).tolist() == pytest.approx([1.0, 2.0, 1e4, 1e4])
    assert transverse_momentum(curvature, 0.0, 1e4).tolist() == [0.0] * 4


def test_the_closest_approach_is_where_the_way_is_zero():
    helix = some()
    there = helix.at(np.zeros((1, 40)))
    np.testing.assert_allclose(there.x * there.dx + there.y * there.dy, 0, atol=1e-14)
    np.testing.assert_allclose(there.x * there.dy - there.y * there.dx, [helix.d0], atol=1e-14)
    assert all(hypot(*pair) == pytest.approx(abs(d)) for *pair, d in zip(there.x[0], there.y[0], helix.d0, strict=True))
