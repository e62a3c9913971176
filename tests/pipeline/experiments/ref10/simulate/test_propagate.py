"""Crossings with displaced sensors, against a search over all modules; scattering angles layer by layer."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.experiments.ref10.alignment import frames
from pipeline.experiments.ref10.geometry import full_geometry, geometry_of, mini_geometry
from pipeline.experiments.ref10.layers import LAYERS
from pipeline.experiments.ref10.simulate.faults import Misalignment
from pipeline.experiments.ref10.simulate.helix import CURVATURE_GEV, launched
from pipeline.experiments.ref10.simulate.propagate import SCATTERERS, propagate
from pipeline.experiments.ref10.simulate.scenario import Scenario, tables_of
from tests.pipeline.experiments.ref10.simulate import naive

FULL, MINI = geometry_of(full_geometry()), geometry_of(mini_geometry())
FIELD = 3.8038
# Far worse than what is injected.
WILD = replace(
    Scenario(), misalignment=Misalignment(ladder_um=(150, 150), module_um=(100, 100), module_urad=(800, 800))
)


def bundle(n, seed, phi=(0.9, 2.2), eta=(-0.35, 0.35), least=0.3, slope=1.0):
    rng = np.random.default_rng(seed)
    place = rng.normal([[0.08], [-0.04], [0.5]], [[0.1], [0.1], [3.0]], (3, n))
    pt = least + rng.exponential(slope, n)
    charge = rng.choice([-1, 1], n)
    return place, pt, rng.uniform(*eta, n), rng.uniform(*phi, n), charge


def flown(geometry, displaced, place, pt, eta, phi, charge, kicks=None):
    flight = launched(tuple(place), pt, eta, phi, charge * FIELD)
    return propagate(geometry, displaced, flight, np.zeros((2, SCATTERERS, len(pt))) if kicks is None else kicks)


def test_every_module_on_the_way_is_found_and_no_other():
    displaced = frames(MINI, tables_of(WILD, MINI, 5).alignment)
    beam = bundle(60, 1)
    found = flown(MINI, displaced, *beam)
    place, pt, eta, phi, charge = beam
    overlaps = seen = 0
    for i in range(len(pt)):
        wanted = naive.crossings(MINI, displaced, place[:, i], pt[i], eta[i], phi[i], charge[i], FIELD)
        own = found.track == i
        assert found.row[own].tolist() == sorted(wanted), f"track {i}, pT {pt[i]:.3f}"
        numbers = np.stack([found.u[own], found.v[own], found.du[own], found.dv[own]], axis=1)
        assert np.allclose(
            numbers.reshape(-1, 4), np.reshape([wanted[row] for row in sorted(wanted)], (-1, 4)), atol=1e-6
        )
        overlaps += len(wanted) - len(np.unique(MINI.layer[list(wanted)]))
        seen += len(wanted)
    assert seen > 300 and overlaps > 5


def test_crossings_lie_on_the_displaced_planes_and_on_the_track():
    displaced = frames(MINI, tables_of(WILD, MINI, 5).alignment)
    place, pt, eta, phi, charge = bundle(5, 2, least=1.0)
    found = flown(MINI, displaced, place, pt, eta, phi, charge)
    points = displaced.to_global(found.row, found.u, found.v)
    assert len(points) > 20
    for track, point in zip(found.track, points, strict=True):
        momentum = pt[track] * np.array([np.cos(phi[track]), np.sin(phi[track]), np.sinh(eta[track])])
        # The way at which an integrated track has the crossing's z, and how far off it is there.
        way = (point[2] - place[2, track]) / np.sinh(eta[track])
        end, _ = naive.rk4(place[:, track], momentum, charge[track], FIELD, way, 400)
        assert np.allclose(end, point, atol=2e-6)


def test_local_slopes_are_those_of_the_track():
    flat = frames(MINI)
    n = 50
    place, phi = np.zeros((3, n)), np.full(n, np.pi / 2 + 0.02)
    found = flown(MINI, flat, place, np.full(n, 1e6), np.linspace(0.05, 0.3, n), phi, np.ones(n))
    assert np.allclose(found.du, (found.u - _straight(flat.u, flat, found)) / _straight(flat.w, flat, found), atol=1e-5)
    assert np.allclose(found.dv * _straight(flat.w, flat, found), found.v - _straight(flat.v, flat, found), atol=1e-5)


def _straight(axis, flat, found):
    """For straight tracks from the origin: the way to the plane along the axis w, and where u and v begin."""
    centre = (flat.centre[found.row] * axis[found.row]).sum(axis=1)
    return -centre if axis is not flat.w else centre


def test_layers_are_crossed_as_often_as_they_cover():
    """Straight tracks, flat in phi: the sensors cover `width` of each polygon side, and `length` of each spacing."""
    n = 20_000
    rng = np.random.default_rng(4)
    place = np.stack([np.zeros(n), np.zeros(n), rng.uniform(-3, 3, n)])
    beam = (place, np.full(n, 1e6), rng.uniform(-1, 1, n), rng.uniform(-np.pi, np.pi, n), np.ones(n))
    found = flown(FULL, frames(FULL), *beam)
    for number, layer in enumerate(LAYERS, start=1):
        across = layer.ladders * np.arctan(layer.width / 2 / layer.radius) / np.pi
        covered = across * layer.length / layer.spacing
        crossed = (FULL.layer[found.row] == number).sum() / n
        # Of one sensor, but for those that miss the layer and those that meet it twice.
        error = np.sqrt((2 * layer.missed + covered - 1) / n) + 2e-4
        assert crossed == pytest.approx(covered, abs=4.5 * error), f"layer {number}"


@pytest.mark.parametrize("momentum", [3.0, 1e6])
def test_tracks_of_the_acceptance_cross_every_layer_but_for_known_holes(momentum):
    n = 30_000
    rng = np.random.default_rng(12)
    place = np.stack([np.zeros(n), np.zeros(n), np.clip(rng.normal(0.5, 4, n), -9, 9)])
    beam = (place, np.full(n, momentum), rng.uniform(-1, 1, n), rng.uniform(-np.pi, np.pi, n), rng.choice([-1, 1], n))
    found = flown(FULL, frames(FULL), *beam)
    for number, layer in enumerate(LAYERS, start=1):
        sensors = np.bincount(found.track[FULL.layer[found.row] == number], minlength=n)
        missed = (sensors == 0).mean()
        # A twentieth: where ladders meet, they stand at an angle to one another.
        error = np.sqrt(layer.missed / n) + layer.missed / 20 / 4.5
        assert missed == pytest.approx(layer.missed, abs=4.5 * error), f"layer {number}"
        # Overlaps, not ladders that lean against one another: sensors met twice are few.
        assert (sensors > 1).mean() < 0.03 and sensors.max() <= 3
    assert max(layer.missed for layer in LAYERS) < 0.01


def test_slow_tracks_end_where_they_turn():
    n = 500
    place, _, eta, phi, charge = bundle(n, 6, phi=(-3, 3), eta=(-0.5, 0.5))
    pt = np.linspace(0.3, 0.45, n)
    found = flown(FULL, frames(FULL), place, pt, eta, phi, charge)
    for number in (8, 9, 10):
        reached = np.unique(found.track[FULL.layer[found.row] == number])
        turning = 2 * pt / (CURVATURE_GEV * FIELD)
        radius = LAYERS[number - 1].radius
        assert (turning[reached] > radius - 0.3).all()
        assert np.isin(np.flatnonzero(turning > radius + 1.0), reached).mean() > 0.98
    per_layer = np.bincount(found.track * 11 + FULL.layer[found.row])
    assert per_layer.max() <= 3


def test_beyond_the_ends_there_is_nothing():
    place = np.array([[0.0, 0.0], [0.0, 0.0], [33.0, 95.0]])
    found = flown(FULL, frames(FULL), place, np.full(2, 5.0), np.zeros(2), np.full(2, 1.0), np.ones(2))
    assert FULL.layer[found.row[found.track == 0]].min() == 5
    assert (found.track == 1).sum() == 0


@pytest.mark.parametrize("scatterer", range(SCATTERERS - 1))
def test_scattering_angle_at_each_layer(scatterer):
    """One scatterer alone turns tracks by Highland's angle, seen in the layer behind it as u and v off the track."""
    n, momentum, eta = 4000, 1.5, 0.15
    rng = np.random.default_rng(10 + scatterer)
    ones = np.ones(n)
    beam = (np.zeros((3, n)), momentum / np.cosh(eta) * ones, eta * ones, (np.pi / 2 + 0.01) * ones, ones)
    kicks = np.zeros((2, SCATTERERS, n))
    kicks[:, scatterer] = rng.standard_normal((2, n))
    placed = frames(FULL)
    one = flown(FULL, placed, *(part[..., :1] for part in beam))
    moved = flown(FULL, placed, *beam, kicks)
    points = np.hypot(*placed.to_global(one.row, one.u, one.v)[:, :2].T)
    layer = FULL.layer[one.row]
    seen = int(np.flatnonzero(layer == scatterer + 1)[0])
    radius, x0 = FULL.pipe_radius, FULL.pipe_x0 * np.cosh(eta)
    if scatterer:
        at = int(np.flatnonzero(layer == scatterer)[0])
        radius = points[at]
        x0 = FULL.x0[one.row[at]] * np.sqrt(1 + one.du[at] ** 2 + one.dv[at] ** 2)
    width = 0.0136 / momentum * np.sqrt(x0) * (1 + 0.038 * np.log(x0))
    own = moved.row == one.row[seen]
    assert own.sum() > 0.9 * n
    # A kick across is width / sin(theta) in phi, one along theta; the plane is met aslant.
    gap, aslant = points[seen] - radius, 1 + _upright(one.row, one.du, one.dv)[0][seen] ** 2
    rel = 4.5 * 1.1 / np.sqrt(2 * n)
    across, along = _upright(moved.row[own], moved.u[own], moved.v[own])
    assert _width(across) == pytest.approx(width * np.cosh(eta) * gap * aslant, rel=rel)
    wanted = width * np.cosh(eta) * gap * np.hypot(np.cosh(eta), np.sqrt(aslant - 1) * np.sinh(eta))
    assert _width(along) == pytest.approx(wanted, rel=rel)


def _upright(row, u, v):
    """Around the barrel and along z, of vectors in the planes of sensors, those of the stereo layer turned back."""
    around = np.stack([-np.sin(FULL.phi[row]), np.cos(FULL.phi[row]), 0 * FULL.phi[row]], axis=1)
    vector = u[:, None] * FULL.u[row] + v[:, None] * FULL.v[row]
    return (vector * around).sum(axis=1), vector[:, 2]


def _width(values):
    low, high = np.quantile(values, [0.1587, 0.8413])
    return (high - low) / 2


def test_scattering_adds_up_from_layer_to_layer():
    """All scatterers together: sums over the layers before, weighted with the distances (physics note, 5.4)."""
    n, momentum = 4000, 3.0
    rng = np.random.default_rng(8)
    beam = (np.zeros((3, n)), np.full(n, momentum), np.zeros(n), np.full(n, np.pi / 2 + 0.004), np.ones(n))
    beam[0][2] = 2.0
    moved = flown(FULL, frames(FULL), *beam, rng.standard_normal((2, SCATTERERS, n)))
    x0 = np.array([FULL.pipe_x0] + [layer.x0 for layer in LAYERS])
    radii = np.array([FULL.pipe_radius] + [layer.radius for layer in LAYERS])
    theta = 0.0136 / momentum * np.sqrt(x0) * (1 + 0.038 * np.log(x0))
    for number in (4, 5, 7, 10):
        rows, sizes = np.unique(moved.row[FULL.layer[moved.row] == number], return_counts=True)
        own = moved.row == rows[sizes.argmax()]
        wanted = np.sqrt(((theta * (radii[number] - radii)) ** 2)[:number].sum())
        across, _ = _upright(moved.row[own], moved.u[own], moved.v[own])
        assert _width(across) == pytest.approx(wanted, rel=0.06)


def test_scattered_tracks_keep_to_what_their_numbers_say():
    """Tracks do not depend on which others fly with them."""
    beam = bundle(300, 9, phi=(-3, 3), eta=(-1, 1))
    kicks = np.random.default_rng(3).standard_normal((2, SCATTERERS, 300))
    displaced = frames(FULL, tables_of(Scenario(), FULL, 1).alignment)
    together = flown(FULL, displaced, *beam, kicks)
    for i in range(0, 300, 23):
        one = flown(FULL, displaced, *(part[..., i : i + 1] for part in beam), kicks[..., i : i + 1])
        own = together.track == i
        for name in ("row", "u", "v", "du", "dv"):
            assert (getattr(one, name) == getattr(together, name)[own]).all()
