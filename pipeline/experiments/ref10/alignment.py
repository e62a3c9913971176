"""Where the modules really are: half barrels, ladders and modules, each displaced and turned within the one above.

A structure's displacement is six numbers, a shift T [cm] and a rotation vector omega [rad] about its centre c, which
carry a point p to `c + T + R(omega) (p - c)`. Half barrels (centre: the origin) and ladders (their middle) have them in
global axes, modules in their own u, v, w about their middle.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calib.payload import Payload
from pipeline.experiments.ref10.geometry import Geometry

KIND = "alignment"
HALVES = 4

Floats = NDArray[np.float64]

SHAPES = "half_barrel[4, 6], ladder[ladders, 6], module[modules, 6]"


@dataclass(frozen=True, eq=False)
class Frames:
    """Where each module lies: middle [modules, 3] in cm, and unit axes [modules, 3]."""

    centre: Floats
    u: Floats
    v: Floats
    w: Floats

    def to_global(self, row: NDArray[np.int64], u: Floats, v: Floats) -> Floats:
        """Points of the sensors' middle planes, [n, 3] in cm; `row` is the module's row in the geometry."""
        found: Floats = self.centre[row] + u[:, None] * self.u[row] + v[:, None] * self.v[row]
        return found


def alignment(half_barrel: Floats, ladder: Floats, module: Floats) -> Payload:
    """Displacements [cm, rad] of half barrels [4, 6], ladders [ladders, 6] and modules [modules, 6]."""
    arrays = {"half_barrel": half_barrel, "ladder": ladder, "module": module}
    found = {name: np.asarray(values, np.float64) for name, values in arrays.items()}
    return Payload(KIND, found, dict.fromkeys(arrays, "cm, rad"))


def no_displacement(geometry: Geometry) -> Payload:
    """Everything where it was drawn."""
    ladders = int(geometry.ladder_row.max()) + 1
    return alignment(np.zeros((HALVES, 6)), np.zeros((ladders, 6)), np.zeros((len(geometry), 6)))


def frames(geometry: Geometry, displaced: Payload | None = None) -> Frames:
    """The modules where an alignment says they are; without one, where they were drawn.

    Raises ValueError for displacements of another geometry.
    """
    placed = Frames(geometry.centre, geometry.u, geometry.v, geometry.w)
    if displaced is None:
        return placed
    _check(geometry, displaced)
    return _within_barrel(
        geometry, displaced, _within_ladder(geometry, displaced, _module(geometry, displaced, placed))
    )


def _check(geometry: Geometry, displaced: Payload) -> None:
    wanted = {name: array.shape for name, array in no_displacement(geometry).arrays.items()}
    # One that was measured has more: errors, and what is said of them.
    found = {name: array.shape for name, array in displaced.arrays.items() if name in wanted}
    if found != wanted:
        raise ValueError(f"an alignment of this geometry has {SHAPES}, that is {wanted}; this one has {found}")


def _module(geometry: Geometry, displaced: Payload, placed: Frames) -> Frames:
    own = displaced["module"]
    axes = np.stack([placed.u, placed.v, placed.w], axis=1)
    shift, turn = (np.einsum("ni,nij->nj", part, axes) for part in (own[:, :3], own[:, 3:]))
    return _moved(placed, placed.centre, shift, turn)


def _within_ladder(geometry: Geometry, displaced: Payload, placed: Frames) -> Frames:
    row = geometry.ladder_row
    own = displaced["ladder"][row]
    return _moved(placed, ladder_middles(geometry)[row], own[:, :3], own[:, 3:])


def ladder_middles(geometry: Geometry) -> Floats:
    """The middles of the drawn ladders, [ladders, 3] in cm: z 0, however many of its modules there are."""
    row = geometry.ladder_row
    middle = np.zeros((int(row.max()) + 1, 3))
    middle[row, :2] = geometry.centre[:, :2]
    return middle


def _within_barrel(geometry: Geometry, displaced: Payload, placed: Frames) -> Frames:
    own = displaced["half_barrel"][geometry.half]
    return _moved(placed, np.zeros((len(geometry), 3)), own[:, :3], own[:, 3:])


def _moved(placed: Frames, about: Floats, shift: Floats, turn: Floats) -> Frames:
    matrix = rotation(turn)
    u, v, w = (np.einsum("nij,nj->ni", matrix, axis) for axis in (placed.u, placed.v, placed.w))
    arm = np.einsum("nij,nj->ni", matrix, placed.centre - about)
    return Frames(about + shift + arm, u, v, w)


def rotation(turn: Floats) -> Floats:
    """Rotation matrices [n, 3, 3] of rotation vectors [n, 3] in rad (Rodrigues' formula)."""
    angle = np.linalg.norm(turn, axis=1)
    # sin(a)/a and (1 - cos(a))/a^2 written so that a = 0 is no case of its own.
    one, half = np.sinc(angle / np.pi), np.sinc(angle / (2 * np.pi))
    cross = np.zeros((len(turn), 3, 3))
    x, y, z = turn.T
    cross[:, 0, 1], cross[:, 0, 2], cross[:, 1, 2] = -z, y, -x
    cross[:, 1, 0], cross[:, 2, 0], cross[:, 2, 1] = z, -y, x
    squared = np.einsum("nij,njk->nik", cross, cross)
    found: Floats = np.eye(3) + one[:, None, None] * cross + (half**2 / 2)[:, None, None] * squared
    return found
