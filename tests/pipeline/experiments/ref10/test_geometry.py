"""The geometry: what is where, that it closes, and how misalignment moves it."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from pipeline.experiments.ref10.alignment import alignment, frames, no_displacement, rotation
from pipeline.experiments.ref10.geometry import UnknownModule, full_geometry, geometry_of, mini_geometry
from pipeline.experiments.ref10.layers import LAYERS

FULL, MINI = geometry_of(full_geometry()), geometry_of(mini_geometry())


def test_as_many_modules_and_channels_as_drawn():
    assert (len(FULL), FULL.pixel.sum(), len(FULL.strip_rows) * 768) == (2880, 1020, 1_428_480)
    assert FULL.ladder_row.max() + 1 == sum(layer.ladders for layer in LAYERS) == 288


def test_flat_ladders_close_every_circle():
    for layer in LAYERS:
        assert layer.width >= 2 * layer.radius * np.tan(np.pi / layer.ladders), f"layer {layer.number}"


@pytest.mark.parametrize("geometry", [FULL, MINI])
def test_axes_are_right_handed_and_lie_in_the_sensor(geometry):
    axes = np.stack([geometry.u, geometry.v, geometry.w], axis=1)
    assert np.allclose(np.einsum("nij,nkj->nik", axes, axes), np.eye(3), atol=1e-12)
    assert np.allclose(np.cross(geometry.u, geometry.v), geometry.w, atol=1e-12)
    outward = np.sign(np.einsum("ni,ni->n", geometry.w, geometry.centre * [1, 1, 0]))
    assert (outward == np.where(geometry.flipped, -1, 1)).all()
    assert np.allclose(np.einsum("ni,ni->n", geometry.w, geometry.centre), outward * geometry.radius)


def test_one_layer_is_stereo():
    leaning = np.unique(FULL.layer[np.abs(FULL.v[:, 2]) < 1 - 1e-9])
    assert leaning.tolist() == [5]
    assert np.allclose(FULL.v[FULL.layer == 5, 2], np.cos(0.1))


def test_ladders_of_the_stereo_layer_lean_alike():
    """Seen from outside strips lean to the same side on every ladder, flipped or not."""
    own = FULL.layer == 5
    around = np.stack([-np.sin(FULL.phi), np.cos(FULL.phi), np.zeros(len(FULL))], axis=1)[own]
    assert np.allclose(np.einsum("ni,ni->n", FULL.v[own], around), -np.sin(0.1))
    assert FULL.flipped[own].any() and not FULL.flipped[own].all()


def test_mini_is_a_part_of_the_whole_with_all_layers_and_halves():
    rows = FULL.rows_of(MINI.module)
    assert (FULL.centre[rows] == MINI.centre).all()
    assert np.unique(MINI.layer).tolist() == list(range(1, 11))
    assert np.unique(MINI.half).tolist() == [0, 1, 2, 3]


def test_module_of_another_detector_is_refused():
    assert MINI.index(np.array([MINI.module[3], 1])).tolist() == [3, -1]
    with pytest.raises(UnknownModule, match="1 modules are not in the geometry"):
        MINI.rows_of(np.array([MINI.module[3], 1]))


def test_every_module_is_found_in_its_grid():
    for number, grid in enumerate(FULL.grids, start=1):
        assert (FULL.layer[grid] == number).all()
        assert (FULL.z_module[grid] == np.arange(10)).all()


def test_without_displacement_modules_are_where_they_were_drawn():
    placed = frames(FULL, no_displacement(FULL))
    for name in ("centre", "u", "v", "w"):
        assert np.allclose(getattr(placed, name), getattr(FULL, name), atol=1e-14)


def test_structures_move_within_one_another():
    rng = np.random.default_rng(5)
    ladders = int(MINI.ladder_row.max()) + 1
    half, ladder, module = (1e-3 * rng.standard_normal((n, 6)) for n in (4, ladders, len(MINI)))
    placed = frames(MINI, alignment(half, ladder, module))
    for row in range(0, len(MINI), 7):
        axes = np.stack([MINI.u[row], MINI.v[row], MINI.w[row]])
        point = MINI.centre[row] + 0.3 * axes[0] - 0.7 * axes[1]
        middle = np.array([*MINI.centre[row][:2], 0.0])
        steps = (
            (MINI.centre[row], module[row, :3] @ axes, module[row, 3:] @ axes),
            (middle, ladder[MINI.ladder_row[row], :3], ladder[MINI.ladder_row[row], 3:]),
            (np.zeros(3), half[MINI.half[row], :3], half[MINI.half[row], 3:]),
        )
        for about, shift, turn in steps:
            point = about + shift + _turned(turn, point - about)
        found = placed.to_global(np.array([row]), np.array([0.3]), np.array([-0.7]))[0]
        assert np.allclose(found, point, atol=1e-12)


def _turned(turn, vector):
    return Rotation.from_rotvec(turn).apply(vector)


def test_rotation_of_any_angle():
    turn = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, np.pi / 2], [np.pi, 0.0, 0.0]])
    found = rotation(turn)
    assert np.allclose(found[0], np.eye(3))
    assert np.allclose(found[1] @ [1, 0, 0], [0, 1, 0])
    assert np.allclose(found[2] @ [0, 1, 0], [0, -1, 0])


def test_alignment_of_another_geometry_is_refused():
    with pytest.raises(ValueError, match="this one has"):
        frames(FULL, no_displacement(MINI))
