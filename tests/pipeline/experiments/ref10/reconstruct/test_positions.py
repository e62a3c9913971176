"""Where clusters lie: on the sensor by their shape, in space by the alignment."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.experiments.collisions import Collection
from pipeline.experiments.ref10.alignment import alignment, frames
from pipeline.experiments.ref10.constants import field, lorentz_angle
from pipeline.experiments.ref10.geometry import UnknownModule, full_geometry
from pipeline.experiments.ref10.reconstruct.cluster_columns import MADE
from pipeline.experiments.ref10.reconstruct.flags import ClusterFlag
from pipeline.experiments.ref10.reconstruct.placed import placed
from pipeline.experiments.ref10.reconstruct.positions import positions
from tests.pipeline.experiments.ref10.reconstruct.raw import PLAN, plain

UM = 1e-4


def clusters(module, row, size=(1, 1), skew=(0.0, 0.0), flags=0, first=None, column=0.0):
    """One cluster."""
    first_row = int(row - (size[0] - 1) / 2) if first is None else first
    values = (module, row, column, first_row, int(column), max(size), *size, 3e4, *skew, flags)
    kinds = ("u4", "f4", "f4", "u2", "u2", "u4", "u2", "u2", "f4", "f4", "f4", "u1")
    flat = {name: np.array([value], kind) for name, value, kind in zip(MADE, values, kinds, strict=True)}
    return Collection(np.array([1]), flat)


def located(cluster, **conditions):
    found = positions(cluster, plain(**conditions))
    return {name: float(found.flat[name][0]) for name in ("u", "v", "u_error", "v_error")}


def module_of(layer, *, flipped=False):
    return int(PLAN.module[np.flatnonzero((PLAN.layer == layer) & (PLAN.flipped == flipped))[0]])


def test_channels_are_centred_as_the_geometry_says():
    pixels = located(clusters(module_of(2), 0.0, column=431.0))
    assert (pixels["u"], pixels["v"]) == pytest.approx((-111.5 * 0.01, 215.5 * 0.015))
    strips = located(clusters(module_of(5), 383.0))
    assert (strips["u"], strips["v"]) == pytest.approx((-0.5 * 0.013, 0.0))
    assert strips["v_error"] == pytest.approx(18.3 / np.sqrt(12))


@pytest.mark.parametrize(
    ("size", "skew", "row", "wanted"),
    [
        (1, 0.0, 100.0, 100.0),
        (2, 0.5, 100.8, 100.5 + 0.25),
        (3, 0.5, 101.2, 101.2),
        (4, 0.5, 101.9, 101.9),
        (5, 0.5, 102.2, 102.25),
        (7, -1.0, 103.0, 102.5),
    ],
)
def test_the_estimate_by_size(size, skew, row, wanted):
    found = located(clusters(module_of(2), row, (size, 1), (skew, 0.0), first=100))
    assert found["u"] == pytest.approx((wanted - 111.5) * 0.01, abs=1e-6)


def test_over_a_masked_strip_only_the_ends_count():
    found = located(clusters(module_of(6), 101.4, (3, 1), (0.5, 0.0), int(ClusterFlag.BRIDGED), first=100))
    assert found["u"] == pytest.approx((101.25 - 383.5) * 0.0128)


@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize(("layer", "shift"), [(1, 57.0), (2, 57.0), (5, 16.0), (9, 25.0)])
def test_half_the_drift_is_taken_out_towards_plus_u(layer, shift, flipped):
    """0.40 x 285/2 um of pixels, 0.10 x 320/2 and 0.10 x 500/2 um of strips; the other way in space if flipped."""
    tangents = lorentz_angle(np.array([0.4] * 4 + [0.1] * 6))
    cluster = clusters(module_of(layer, flipped=flipped), 80.0)
    before, after = (placed(positions(cluster, given), given) for given in (plain(), plain(lorentz_angle=tangents)))
    assert (before.flat["u"] - after.flat["u"])[0] == pytest.approx(shift * UM, rel=1e-3)
    moved = np.array([after.flat[name][0] - before.flat[name][0] for name in "xyz"])
    row = PLAN.rows_of(cluster.flat["module"])[0]
    around = np.cross([0.0, 0.0, 1.0], PLAN.centre[row] * [1, 1, 0] / PLAN.radius[row])
    assert moved @ around == pytest.approx((1 if flipped else -1) * shift * UM * abs(PLAN.u[row] @ around), rel=1e-3)


@pytest.mark.parametrize("tesla", [1.9, -3.8, 0.0])
def test_the_drift_is_that_in_the_field_of_the_events(tesla):
    cluster = clusters(module_of(1), 80.0)
    angle = lorentz_angle(np.full(10, 0.4), 3.8)
    in_its_own = lorentz_angle(np.full(10, 0.4 * tesla / 3.8), tesla)
    one, other = (
        positions(cluster, plain(lorentz_angle=given, field=field(tesla))).flat["u"][0] for given in (angle, in_its_own)
    )
    assert one == pytest.approx(other, abs=1e-7)
    none = lorentz_angle(np.zeros(10), 0.0)
    if tesla:
        with pytest.raises(ValueError, match="lorentz_angle is of no field"):
            positions(cluster, plain(lorentz_angle=none, field=field(tesla)))


def test_errors_grow_with_what_is_wrong():
    sound = located(clusters(module_of(2), 100.0, (2, 1)))["u_error"]
    assert sound == pytest.approx(8.6 * UM)
    flags = [ClusterFlag.SATURATED, ClusterFlag.BRIDGED, ClusterFlag.EDGE, ClusterFlag.NEAR_MASKED, ClusterFlag.LARGE]
    for flag in flags:
        assert located(clusters(module_of(2), 100.0, (2, 1), flags=int(flag)))["u_error"] > 1.4 * sound, flag
    at_border = clusters(module_of(2), 0.5, (2, 1), flags=int(ClusterFlag.EDGE), first=0)
    assert located(at_border)["u_error"] == pytest.approx(60 * UM)
    other_border = clusters(module_of(2), 222.5, (2, 1), flags=int(ClusterFlag.EDGE), first=222)
    assert located(other_border)["u_error"] == pytest.approx(60 * UM)


def test_points_lie_where_the_alignment_puts_the_module():
    rng = np.random.default_rng(4)
    parts = [1e-2 * rng.standard_normal((n, 6)) for n in (4, int(PLAN.ladder_row.max()) + 1, len(PLAN))]
    given = plain(alignment=alignment(*parts))
    where = frames(PLAN, given["alignment"])
    for layer in (1, 5, 10):
        for flipped in (False, True):
            cluster = positions(clusters(module_of(layer, flipped=flipped), 33.0, column=0.0), given)
            found = placed(cluster, given).flat
            row = PLAN.rows_of(cluster.flat["module"])
            wanted = where.centre[row] + cluster["u"] * where.u[row] + cluster["v"] * where.v[row]
            assert [found[name][0] for name in "xyz"] == pytest.approx(wanted[0].tolist(), abs=1e-12)


def test_clusters_or_alignment_of_another_geometry_are_refused():
    stranger = clusters(1, 33.0)
    with pytest.raises(UnknownModule):
        positions(stranger, plain())
    with pytest.raises(UnknownModule):
        placed(stranger.adding(u=np.zeros(1), v=np.zeros(1)), plain())
    inside = positions(clusters(module_of(2), 33.0), plain())
    with pytest.raises(ValueError, match="an alignment of this geometry has"):
        placed(inside, plain() | {"geometry": full_geometry()})
