"""Circle and line against the formulas in a loop, exact points, and points that tell nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.experiments.ref10.reconstruct.circle import circle
from pipeline.experiments.ref10.reconstruct.helix import Helix
from pipeline.experiments.ref10.reconstruct.line import line
from tests.pipeline.experiments.ref10.reconstruct.naive_fit import karimaki

RADII = np.array([3.0, 7.0, 11.0, 16.0, 25.0, 34.0, 43.0, 52.0, 61.0, 70.0])

tracks = st.builds(
    lambda *values: values,
    st.floats(-0.02, 0.02),
    st.floats(-3.1, 3.1),
    st.floats(-1.0, 1.0),
    st.lists(st.integers(0, 9), min_size=3, max_size=10, unique=True),
    st.integers(0, 2**32 - 1),
)


def points(curvature, phi, d0, spread=0.0, seed=0):
    """[10, n] points where circles have the radii, this far off them."""
    n = len(phi)
    helix = Helix(np.asarray(curvature), np.asarray(phi), np.asarray(d0), np.zeros(n), np.zeros(n))
    there = helix.at(helix.to_radius(np.repeat(RADII[:, None], n, axis=1))[0])
    off = np.random.default_rng(seed).normal(0, 1, (2, 10, n)) * spread
    return there.x + off[0], there.y + off[1], there.way


@given(st.lists(tracks, min_size=1, max_size=5))
@settings(max_examples=25)
def test_circles_are_the_naive_ones(several):
    curvature, phi, d0 = np.array([track[:3] for track in several]).T
    x, y, _ = points(curvature, phi, d0, 25e-4, several[0][4])
    weight = np.zeros_like(x)
    for track, (_, _, _, layers, seed) in enumerate(several):
        weight[layers, track] = np.random.default_rng(seed).uniform(1, 9, len(layers)) * 1e5
    found = circle(x, y, weight)
    assert found.found.all()
    for track in range(len(several)):
        rho, angle, d, chi2 = karimaki(
            [(*hit,) for hit in zip(x[:, track], y[:, track], weight[:, track], strict=True)]
        )
        assert found.curvature[track] == pytest.approx(rho, rel=1e-6, abs=1e-9)
        assert np.cos(found.phi[track] - angle) == pytest.approx(1, abs=1e-12)
        assert found.d0[track] == pytest.approx(d, rel=1e-6, abs=1e-7)
        assert found.chi2[track] == pytest.approx(chi2, rel=1e-4, abs=1e-4)
        alone = circle(x[:, [track]], y[:, [track]], weight[:, [track]])
        assert [part[track] for part in (found.curvature, found.phi, found.d0, found.chi2)] == [
            part[0] for part in (alone.curvature, alone.phi, alone.d0, alone.chi2)
        ]


@pytest.mark.parametrize("curvature", [0.0, 1e-9, 0.004, -0.02])
def test_exact_points_give_their_circle(curvature):
    phi, d0 = np.linspace(-3, 3, 7), np.linspace(-0.5, 0.5, 7)
    x, y, _ = points(np.full(7, curvature), phi, d0)
    found = circle(x, y, np.full_like(x, 1e6))
    np.testing.assert_allclose(found.curvature, curvature, atol=1e-11)
    np.testing.assert_allclose(np.cos(found.phi - phi), 1, atol=1e-13)
    np.testing.assert_allclose(found.d0, d0, atol=1e-8)
    np.testing.assert_allclose(found.chi2, 0, atol=1e-5)


def test_the_spread_of_toys_is_what_their_chi2_says():
    n = 2000
    x, y, _ = points(np.full(n, 0.003), np.full(n, 1.0), np.full(n, 0.1), 20e-4)
    found = circle(x, y, np.full_like(x, 1 / 20e-4**2))
    # 7 degrees of freedom: mean 7, spread sqrt(14).
    assert abs(found.chi2.mean() - 7) < 4 * np.sqrt(14 / n)
    assert abs(found.curvature.mean() - 0.003) < 4 * found.curvature.std() / np.sqrt(n)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        ([0.0] * 10, [0.0] * 10),
        ([3.0] * 10, [4.0] * 10),
        ([3.0, 4.0, 5.0, 0.0, 0.0] * 2, [4.0, 3.0, 0.0, 5.0, -5.0] * 2),
    ],
)
def test_points_that_tell_no_circle_are_told(x, y):
    """All the same, or all as far from the origin."""
    found = circle(np.array(x)[:, None], np.array(y)[:, None], np.ones((10, 1)))
    assert not found.found[0]
    assert [part[0] for part in (found.curvature, found.phi, found.d0, found.chi2)] == [0.0] * 4


def test_no_points_and_no_tracks():
    nothing = circle(np.ones((10, 2)), np.ones((10, 2)), np.zeros((10, 2)))
    assert not nothing.found.any()
    assert len(circle(*np.zeros((3, 10, 0))).phi) == 0
    assert len(line(*np.zeros((3, 10, 0)))[0]) == 0


@given(st.lists(st.tuples(st.floats(-20, 20), st.floats(-2, 2), st.integers(0, 1023)), min_size=1, max_size=5))
@settings(max_examples=25)
def test_lines_are_those_of_a_weighted_fit(several):
    way = np.repeat(RADII[:, None], len(several), axis=1)
    rng = np.random.default_rng([track[2] for track in several])
    z = np.array([z0 + slope * RADII for z0, slope, _ in several]).T + rng.normal(0, 0.1, way.shape)
    weight = np.array([[float(mask >> layer & 1) for mask in (track[2] for track in several)] for layer in range(10)])
    z0, slope = line(way, z, weight)
    for track in range(len(several)):
        seen = weight[:, track] > 0
        if seen.sum() >= 2:
            wanted = np.polyfit(way[seen, track], z[seen, track], 1)
            assert [slope[track], z0[track]] == pytest.approx(wanted.tolist(), rel=1e-7, abs=1e-8)
        else:
            assert slope[track] == 0.0
            assert z0[track] == (pytest.approx(z[seen, track][0]) if seen.any() else 0.0)
