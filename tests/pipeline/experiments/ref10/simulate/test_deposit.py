"""Charge in channels, against a naive sum over steps and channels, and against what geometry and Landau say."""

import numpy as np
import pytest
from scipy import stats

from pipeline.experiments.ref10.geometry import geometry_of, mini_geometry
from pipeline.experiments.ref10.simulate.deposit import (
    GRAZING_STEPS,
    MOST_PROBABLE,
    STEPS,
    charge,
    deposit,
    path,
    shape,
    steps,
)
from pipeline.experiments.ref10.simulate.propagate import Crossings
from tests.pipeline.experiments.ref10.simulate import naive

MINI = geometry_of(mini_geometry())
TANGENTS = np.array([0.4] * 4 + [0.1] * 6)
PIXEL, STRIP, FLIPPED = (
    int(np.flatnonzero((MINI.layer == layer) & (MINI.flipped == flipped))[0])
    for layer, flipped in ((2, False), (8, False), (2, True))
)


def crossings(row, u=0.0, v=0.0, du=0.0, dv=0.0):
    columns = np.broadcast_arrays(row, u, v, du, dv)
    n = columns[0].size
    return Crossings(
        np.arange(n), columns[0].reshape(n).astype(np.int64), *(c.reshape(n).astype(float) for c in columns[1:])
    )


def weights(found, rng=None):
    """Of every crossing's steps: equal, or gamma distributed."""
    number = steps(MINI, found)
    sizes = [((number == width).sum(), width) for width in (STEPS, GRAZING_STEPS)]
    if rng is None:
        return tuple(np.ones(size) for size in sizes)
    return tuple(rng.standard_gamma(shape(size[1]), size) for size in sizes)


def image(found, electrons=1e6, rng=None, tangents=TANGENTS):
    """For each crossing {(row, column): electrons}."""
    electrons = np.broadcast_to(np.asarray(electrons, float), len(found.row))
    left = deposit(MINI, tangents, found, electrons, weights(found, rng))
    images = [{} for _ in found.row]
    for crossing, channel, value in zip(left.crossing, left.channel, left.charge, strict=True):
        images[crossing][int(channel) & 0xFFFF, int(channel) >> 16] = value
    return images


def anywhere(n, seed, steep=1.2):
    """Crossings all over the sensors and a little beyond, some of them steep."""
    rng = np.random.default_rng(seed)
    row = rng.integers(0, len(MINI), n)
    du, dv = rng.uniform(-steep, steep, (2, n))
    reach = 0.505
    u, v = (rng.uniform(-reach, reach, n) * size[row] for size in (MINI.width, MINI.length))
    return crossings(row, u, v, du, dv)


@pytest.mark.parametrize(("number_of", "steep"), [(40, 1.2), (20, 12.0)])
def test_each_channel_has_the_charge_of_a_naive_sum(number_of, steep):
    found = anywhere(number_of, 2, steep)
    rng = np.random.default_rng(2)
    electrons = rng.uniform(1e4, 1e5, number_of)
    drawn = weights(found, rng)
    left = deposit(MINI, TANGENTS, found, electrons, drawn)
    number, used = steps(MINI, found), {STEPS: 0, GRAZING_STEPS: 0}
    for i in range(number_of):
        kind = int(number[i])
        own = drawn[0 if kind == STEPS else 1][used[kind]]
        used[kind] += 1
        place = (found.u[i], found.v[i], found.du[i], found.dv[i])
        row = found.row[i]
        wanted = naive.deposit(MINI, row, TANGENTS[MINI.layer[row] - 1], place, electrons[i], own)
        wanted = {key: value for key, value in wanted.items() if value > 5.0}
        mine = left.crossing == i
        seen = {(int(c) & 0xFFFF, int(c) >> 16): q for c, q in zip(left.channel[mine], left.charge[mine], strict=True)}
        assert set(seen) == set(wanted), f"crossing {i}"
        assert all(seen[key] == pytest.approx(wanted[key], rel=1e-6, abs=1e-3) for key in seen)
    assert used[STEPS] > 5 and (used[GRAZING_STEPS] > 5) == (steep > 5)


def test_inside_a_sensor_no_charge_is_lost():
    found = anywhere(300, 3, 0.8)
    inside = (np.abs(found.u) < MINI.width[found.row] / 2 - 0.1) & (np.abs(found.v) < MINI.length[found.row] / 2 - 0.1)
    total = np.array([sum(one.values()) for one in image(found)])
    assert np.allclose(total[inside], 1e6, rtol=1e-4) and inside.sum() > 200
    # Half of what is made on the very edge falls outside.
    edge = crossings([STRIP], u=MINI.width[STRIP] / 2 - 0.025 * 0.1, du=0.0)
    assert sum(image(edge)[0].values()) == pytest.approx(5e5, rel=0.02)


def test_charge_spectrum_is_landau_and_scales_with_the_path():
    n = 200_000
    uniform = np.random.default_rng(5).random(n)
    largest = 8 * MOST_PROBABLE
    for way in (0.0285, 0.05):
        by_um = charge(np.full(n, way), uniform) / (1e4 * way)
        for edge in (74.0, 77.0, 79.5, 85.0, 100.0, 200.0, largest - 1e-6):
            share = naive.landau((edge - 80.6) / 5.0)
            assert (by_um < edge).mean() == pytest.approx(share, abs=4.5 * np.sqrt(share * (1 - share) / n))
        assert by_um.max() == pytest.approx(largest)
        counts, edges = np.histogram(by_um, np.arange(60, 120, 0.5))
        middle = edges[:-1] + 0.25
        assert _peak(middle, counts) == pytest.approx(79.5, abs=0.5)
        half = middle[counts > counts.max() / 2]
        assert half[-1] - half[0] == pytest.approx(4.018 * 5, abs=1.0)


def _peak(middle, counts):
    top = counts > 0.92 * counts.max()
    square, line, _ = np.polyfit(middle[top] - 80, counts[top], 2)
    return 80 - line / square / 2


def test_landau_quantiles_are_the_inverse_of_his_distribution():
    uniform = np.array([0.001, 0.1, 0.37, 0.5, 0.9, 0.97, 0.99])
    found = charge(np.full(len(uniform), 0.03), uniform) / 300
    assert np.allclose([naive.landau((value - 80.6) / 5.0) for value in found], uniform, atol=2e-6)


def test_the_path_is_longer_where_the_track_is_inclined():
    found = crossings([STRIP, STRIP, PIXEL], du=[0, 0.75, 0.3], dv=[0, 1.0, -0.4])
    assert np.allclose(path(MINI, found), [0.05, 0.05 * np.sqrt(1 + 0.75**2 + 1), 0.0285 * np.sqrt(1.25)])


@pytest.mark.parametrize(("row", "tangent"), [(PIXEL, 0.4), (FLIPPED, 0.4), (STRIP, 0.1)])
def test_charge_moves_by_half_the_thickness_times_the_tangent(row, tangent):
    u = np.random.default_rng(1).uniform(-0.5, 0.5, 4000)
    found = crossings(np.full(4000, row), u=u)
    shift = [_centre(one, row) for one in image(found)] - u
    wanted = MINI.thickness[row] / 2 * tangent
    assert shift.mean() == pytest.approx(wanted, abs=4.5 * shift.std() / np.sqrt(4000))
    assert wanted > 20 * shift.std() / np.sqrt(4000)


def _centre(one, row):
    lines = np.array([line for line, _ in one])
    charges = np.array(list(one.values()))
    return ((lines + 0.5 - MINI.rows[row] / 2) * MINI.pitch_u[row] * charges).sum() / charges.sum()


@pytest.mark.parametrize("dv", [0.8, 1.2, 2.0, 3.5])
def test_clusters_grow_with_the_angle(dv):
    """Columns over threshold: those a projected length L touches, 1 + L/p, less ends too short for the threshold."""
    n, threshold, drift_free = 4000, 3000.0, 0.4
    rng = np.random.default_rng(7)
    electrons = 79.5e4 * 0.0285 * np.sqrt(1 + dv**2 + drift_free**2)
    # At du = tan(theta_L) all charge arrives in one row: away from its borders nothing is shared along u.
    u = (0.5 - 0.2 + 0.05 * rng.random(n)) * MINI.pitch_u[PIXEL] - 0.5 * 0.0285 * drift_free
    found = crossings(np.full(n, PIXEL), u=u, v=rng.uniform(-1, 1, n), du=drift_free, dv=dv)
    images = image(found, electrons)
    size = np.mean([len({column for (_, column), q in one.items() if q > threshold}) for one in images])
    projected = 0.0285 * dv
    short = threshold / electrons * projected
    wanted = 1 + (projected - 2 * short) / MINI.pitch_v[PIXEL]
    assert size == pytest.approx(wanted, rel=0.02)


def test_charge_is_shared_between_neighbours_by_diffusion():
    """Straight down a border of strips half goes to either side; sigma grows from 1 um at the readout side to 7 um."""
    border, off = (crossings([STRIP], u=u, du=TANGENTS[7]) for u in (0.0, 7e-4))
    for one, share in ((border, 0.5), (off, _mean_share(7e-4))):
        centred = crossings([STRIP], u=one.u - 0.025 * TANGENTS[7], du=TANGENTS[7])
        found = image(centred)[0]
        assert found[384, 0] / 1e6 == pytest.approx(share, abs=2e-3)


def _mean_share(distance):
    depth = np.linspace(0, 1, 10_001)
    return stats.norm.cdf(distance / (6e-4 * np.sqrt(depth) + 1e-4)).mean()


def test_steps_fluctuate_by_a_half_for_ten_microns_of_silicon():
    rng = np.random.default_rng(4)
    drawn = rng.standard_gamma(shape(STEPS), (2000, STEPS))
    assert drawn.std() / drawn.mean() == pytest.approx(0.5, rel=0.02)
    # Of six times as many steps each is a sixth: sums of six vary alike.
    fine = rng.standard_gamma(shape(GRAZING_STEPS), (2000, GRAZING_STEPS)).reshape(2000, STEPS, 6).sum(axis=2)
    assert fine.std() / fine.mean() == pytest.approx(0.5, rel=0.02)


def test_steps_are_finer_where_they_would_skip_channels():
    found = crossings([PIXEL, PIXEL, PIXEL, STRIP, STRIP], du=[5, 5.5, 0, 3.5, 4.0], dv=[0, 0, 8.0, 20.0, 0])
    assert steps(MINI, found).tolist() == [30, 180, 180, 30, 180]


def test_nothing_crossed_leaves_nothing():
    found = crossings(np.zeros(0, int))
    left = deposit(MINI, TANGENTS, found, np.zeros(0), weights(found))
    assert len(left.charge) == len(left.channel) == len(left.crossing) == 0
