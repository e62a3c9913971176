"""Steps along helices, against numerical integration of the Lorentz force; scattering, against Highland's width."""

import numpy as np
import pytest

from pipeline.experiments.ref10.simulate.helix import CURVATURE_GEV, at_axis, launched
from tests.pipeline.experiments.ref10.simulate import naive

FIELD = 3.8038


def tracks(n=200, seed=3, field=FIELD):
    rng = np.random.default_rng(seed)
    place = rng.normal(0, [[0.1], [0.1], [4.0]], (3, n))
    pt = 0.3 + rng.exponential(1.0, n)
    charge = rng.choice([-1.0, 1.0], n)
    flight = launched(tuple(place), pt, rng.uniform(-1, 1, n), rng.uniform(-np.pi, np.pi, n), charge * field)
    return flight, pt, charge


def test_a_step_follows_the_lorentz_force():
    flight, pt, charge = tracks(5)
    way = 60.0
    end = flight.moved(np.full(5, way))
    for i in range(5):
        start = np.array([flight.x[i], flight.y[i], flight.z[i]])
        momentum = pt[i] * np.array([flight.dx[i], flight.dy[i], flight.slope[i]])
        point, p = naive.rk4(start, momentum, charge[i], FIELD, way, 600)
        assert np.allclose([end.x[i], end.y[i], end.z[i]], point, atol=1e-7)
        assert np.allclose(pt[i] * np.array([end.dx[i], end.dy[i]]), p[:2], atol=1e-9)


def test_positive_tracks_turn_clockwise_with_the_radius_of_their_momentum():
    flight = launched(
        (np.zeros(1), np.zeros(1), np.zeros(1)), np.array([1.0]), np.zeros(1), np.zeros(1), np.array([FIELD])
    )
    radius = 1 / (CURVATURE_GEV * FIELD)
    quarter = flight.moved(np.array([radius * np.pi / 2]))
    assert quarter.x[0] == pytest.approx(radius) and quarter.y[0] == pytest.approx(-radius)
    assert radius == pytest.approx(87.69, abs=0.01)


@pytest.mark.parametrize("field", [0.0, 1e-9, FIELD])
def test_cylinders_are_met_at_their_radius_going_outwards(field):
    flight, pt, _ = tracks(field=field)
    for radius in (2.2, 30.0, 55.0):
        way = flight.to_cylinder(radius)
        there = ~np.isnan(way)
        turning = 2 * pt / (CURVATURE_GEV * max(field, 1e-30))
        assert there[turning > radius + 0.5].all() and not there[turning < radius - 0.5].any()
        end = flight.of(there).moved(way[there])
        assert np.allclose(np.hypot(end.x, end.y), radius, atol=1e-9)
        assert (end.x * end.dx + end.y * end.dy >= 0).all()
        assert (way[there] > 0).all() and (way[there] < 3 * radius).all()


@pytest.mark.parametrize("field", [0.0, 1e-9, FIELD])
def test_planes_are_met(field):
    flight, _, _ = tracks(field=field)
    phi = np.arctan2(flight.dy, flight.dx) + np.random.default_rng(1).uniform(-0.3, 0.3, len(flight.x))
    for distance in (3.0, 25.0):
        way, cosine = flight.to_plane(np.cos(phi), np.sin(phi), np.full(len(phi), distance))
        met = cosine > 0
        assert met[flight.momentum > 2].all() and (cosine[met] <= 1 + 1e-12).all()
        end = flight.of(met).moved(way[met])
        x, y = np.cos(phi[met]), np.sin(phi[met])
        assert np.allclose(end.x * x + end.y * y, distance, atol=1e-9)
        assert np.allclose(end.dx * x + end.dy * y, cosine[met], atol=1e-9)


def test_the_axis_is_approached_at_right_angles():
    flight, _, charge = tracks()
    closest = flight.moved(flight.to_axis())
    assert np.allclose(closest.x * closest.dx + closest.y * closest.dy, 0, atol=1e-12)
    found = at_axis(flight)
    assert np.allclose(closest.x, found["d0"] * np.sin(found["phi"]), atol=1e-12)
    assert np.allclose(closest.y, -found["d0"] * np.cos(found["phi"]), atol=1e-12)
    # Brute force: the least distance among points on the track.
    for i in range(0, len(charge), 20):
        way = np.linspace(-1, 1, 20001)
        near = flight.of(np.full(len(way), i)).moved(way)
        distance = np.hypot(near.x, near.y)
        assert abs(found["d0"][i]) == pytest.approx(distance.min(), abs=1e-6)
        assert found["z0"][i] == pytest.approx(near.z[distance.argmin()], abs=2e-4)


@pytest.mark.parametrize(("momentum", "eta", "material"), [(1.0, 0.0, 0.02), (0.5, 0.9, 0.004), (20.0, -0.5, 0.05)])
def test_scattering_has_highlands_width_in_both_projections(momentum, eta, material):
    n = 20_000
    rng = np.random.default_rng(2)
    zero, one = np.zeros(n), np.ones(n)
    flight = launched((zero, zero, zero), momentum / np.cosh(eta) * one, eta * one, 0.7 * one, FIELD * one)
    after = flight.scattered(np.full(n, material), rng.standard_normal((2, n)))
    width = 0.0136 / momentum * np.sqrt(material) * (1 + 0.038 * np.log(material))
    sine = 1 / np.cosh(eta)
    sideways = (np.arctan2(after.dy, after.dx) - 0.7) * sine
    upwards = np.arctan(after.slope) - np.arctan(np.sinh(eta))
    for angle in (sideways, upwards):
        assert angle.mean() == pytest.approx(0, abs=4.5 * width / np.sqrt(n) + width**2)
        assert angle.std() == pytest.approx(width, rel=4.5 / np.sqrt(2 * n) + 2 * width)
    assert np.corrcoef(sideways, upwards)[0, 1] == pytest.approx(0, abs=4.5 / np.sqrt(n))
    assert np.allclose(np.hypot(after.dx, after.dy), 1)
    # The momentum is kept: curvature x sine of the polar angle = rho of a track that is all transverse.
    assert np.allclose(after.curvature * after.sine, CURVATURE_GEV * FIELD / momentum)


def test_without_kicks_nothing_scatters():
    flight, _, _ = tracks()
    after = flight.scattered(np.full(len(flight.x), 0.02), np.zeros((2, len(flight.x))))
    for name in ("dx", "dy", "slope", "curvature"):
        assert np.allclose(getattr(after, name), getattr(flight, name), rtol=1e-14)
