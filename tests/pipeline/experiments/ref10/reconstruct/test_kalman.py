"""Helices as they are followed: the circle through three points, gradients, scattering, and what a sigma is worth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.experiments.ref10.reconstruct.kalman import Helices, begun, measured, through
from pipeline.experiments.ref10.reconstruct.layer_hits import LayerHits, layer_hits
from pipeline.experiments.ref10.reconstruct.search import DEFAULT, Search
from pipeline.experiments.ref10.simulate.helix import CURVATURE_GEV, launched
from tests.pipeline.experiments.ref10.reconstruct.hits_by_hand import CONDITIONS, FIELD, clusters, tracks
from tests.pipeline.experiments.ref10.reconstruct.raw import PLAN

RADII = (3.0, 7.0, 11.0, 16.0, 25.0, 40.0)
SHELLS = layer_hits(clusters([]), CONDITIONS).shells

flights = st.tuples(
    st.floats(-0.2, 0.2),
    st.floats(-0.2, 0.2),
    st.floats(0.4, 1000.0),
    st.floats(-1.0, 1.0),
    st.floats(-3.1, 3.1),
    st.sampled_from([-1, 1]),
)


def flown(x, y, pt, eta, phi, charge):
    """A particle's exact places at RADII, as hits, and its flight."""
    start = [np.array([value]) for value in (x, y, 1.0)]
    flight = launched(tuple(start), *(np.array([value]) for value in (pt, eta, phi, charge * FIELD)))
    there = [flight.moved(flight.to_cylinder(r)) for r in RADII]
    places = [np.concatenate([getattr(one, name) for one in there]) for name in "xyz"]
    n, zero = len(RADII), np.zeros(len(RADII))
    r, phi = np.hypot(*places[:2]), np.arctan2(places[1], places[0])
    event, layer = np.zeros(n, np.int64), np.zeros(n, np.int16)
    error = np.full(n, 1e-3)
    usable, none = np.ones(n, bool), np.zeros(0, np.int64)
    return LayerHits(event, layer, *places, r, phi, error, error, zero, zero, SHELLS, usable, none, none), flight


@given(flights)
@settings(max_examples=40)
def test_three_points_give_the_helix_and_it_meets_the_others(flight):
    hits, exact = flown(*flight)
    found = through(hits, np.array([[0], [1], [2]]))
    _, _, pt, _, _, charge = flight
    assert found.circle[1, 0] == pytest.approx(charge * CURVATURE_GEV * FIELD / pt, rel=1e-6, abs=1e-9)
    closest = exact.moved(exact.to_axis())
    assert found.circle[2, 0] == pytest.approx((closest.x * closest.dy - closest.y * closest.dx)[0], abs=1e-8)
    assert found.line[:, 0] == pytest.approx([closest.z[0], exact.slope[0]], abs=1e-7)
    for place in range(len(RADII)):
        seen = measured(found, hits, np.array([place]), SHELLS[0], DEFAULT)
        assert seen.turn.value[0] == pytest.approx(0, abs=1e-8)
        assert seen.height.value[0] == pytest.approx(0, abs=1e-6)


@given(flights, st.sampled_from(RADII))
@settings(max_examples=40)
def test_gradients_are_those_of_the_azimuth(flight, r):
    """By moving each parameter in turn: a covariance of one parameter alone spreads the azimuth by its gradient."""
    hits, _ = flown(*flight)
    helix = through(hits, np.array([[0], [1], [2]]))
    for number, (diagonal, step) in enumerate(zip((0, 3, 5), (1e-6, 1e-8, 1e-6), strict=True)):
        sides = []
        for sign in (-1, 1):
            circle = helix.circle.copy()
            circle[number] += sign * step
            sides.append(replace(helix, circle=circle).azimuth(r)[0])
        cov = np.zeros((6, 1))
        cov[diagonal] = 1.0
        spread = np.sqrt(replace(helix, circle_cov=cov).variance(r)[0])
        assert spread == pytest.approx(abs(sides[1] - sides[0]) / (2 * step), rel=1e-4)


@given(flights)
@settings(max_examples=40)
def test_scattering_spreads_behind_a_layer_and_not_at_it(flight):
    hits, _ = flown(*flight)
    helix = through(hits, np.array([[0], [1], [2]]))
    known = replace(helix, circle_cov=np.zeros((6, 1)), line_cov=np.zeros((3, 1)))
    behind = known.scattered(SHELLS[2], np.array([11.0]), known.way(11.0), DEFAULT)
    here, later = (behind.variance(r)[0] for r in (11.0, 25.0))
    assert here == pytest.approx(0, abs=1e-9 * later)
    _, _, pt, eta, _, _ = flight
    # Highland's angle at the material that is met, times the way over the radius: small bends only change it a little.
    if pt > 2:
        material = SHELLS[2].material * np.cosh(eta)
        angle = 0.0136 / pt * np.sqrt(material) * (1 + 0.038 * np.log(material))
        assert np.sqrt(later) == pytest.approx(angle * (25 - 11) / 25, rel=0.03)
        way = behind.way(25.0) - behind.way(11.0)
        assert np.sqrt(behind.height(behind.way(25.0))[1][0]) == pytest.approx(angle * np.cosh(eta) * way[0], rel=0.03)


def test_hits_lie_as_far_from_where_they_are_expected_as_is_said():
    """Over many tracks: pulls in azimuth and along z, layer by layer, have width 1."""
    events = [hits for pt in (0.6, 4.0) for hits in tracks(pt, 250)]
    events = [hits for hits in events if [PLAN.layer[hit.row] for hit in hits] == list(range(1, 11))]
    hits, sure = layer_hits(clusters(events), CONDITIONS), Search(placed=0.0)
    place = np.arange(10)[:, None] + 10 * np.arange(len(events))
    helices: Helices = through(hits, place[:3])
    for layer, shell in enumerate(hits.shells):
        found = measured(helices, hits, place[layer], shell, sure)
        if layer >= 3:
            assert np.mean(found.turn.chi2) == pytest.approx(1, abs=4 * np.sqrt(2 / len(events)) + 0.1), layer
            assert (found.beyond <= 5).all()
        if layer == 3:
            assert np.mean(found.height.chi2) == pytest.approx(1, abs=4 * np.sqrt(2 / len(events)) + 0.1)
        helices = helices.updated(found).scattered(shell, found.r, found.way, sure)


@given(flights, st.sampled_from([(0, 1, 2), (1, 2, 3), (0, 2, 3), (0, 1, 3)]), st.floats(-0.02, 0.02))
@settings(max_examples=40)
def test_seeds_begin_as_one_layer_after_the_other_would(flight, triplet, off):
    """But for what the third hit's z changes of the angle at which material is met."""
    hits, _ = flown(*flight)
    z = hits.z.copy()
    z[triplet[1]] += off
    hits = replace(hits, z=z)
    place = np.full((3, 1), -1)
    for layer in triplet:
        if layer < 3:
            place[layer] = layer
    start = through(hits, np.array(triplet)[:, None])
    found, chi2, beyond = begun(start, hits, place, DEFAULT)
    helices, total, pull = start, 0.0, 0.0
    for layer, shell in enumerate(SHELLS[:3]):
        r = np.array([0.5 * (shell.inner + shell.outer)])
        way = helices.way(r)
        if place[layer, 0] >= 0:
            seen = measured(helices, hits, place[layer], shell, DEFAULT)
            helices, r, way = helices.updated(seen), seen.r, seen.way
            total, pull = total + seen.chi2()[0], max(pull, seen.beyond[0])
        helices = helices.scattered(shell, r, way, DEFAULT)
    assert (chi2[0], beyond[0]) == pytest.approx((total, pull), rel=1e-3, abs=1e-6)
    for name in ("circle", "circle_cov", "line", "line_cov"):
        one, other = (getattr(helix, name)[:, 0] for helix in (found, helices))
        assert one == pytest.approx(other, rel=0.02, abs=1e-3 * np.abs(other).max()), name


def test_what_is_out_of_use_takes_along_events_that_are_left_with_too_little():
    whole = [event for event in tracks(2.0, 60) if {int(PLAN.layer[hit.row]) for hit in event} == set(range(1, 11))]
    hits = layer_hits(clusters(whole[:3]), CONDITIONS)
    gone = np.flatnonzero((hits.event == 1) & (hits.layer >= 7) | (hits.event == 2) & (hits.layer == 4))
    left = hits.without(np.append(gone, -1), 3, DEFAULT)
    assert np.unique(hits.event[left.usable]).tolist() == [0, 2]
    assert not left.usable[gone].any()
    assert np.unique(left.place).tolist() == np.flatnonzero(left.usable).tolist()
    assert left.key.tolist() == sorted(left.key.tolist())
    wanted = left.within(4, np.array([0, 1, 2]), np.full(3, 0.8), np.full(3, 2.35))
    assert wanted.number.tolist() == [1, 0, 0]
