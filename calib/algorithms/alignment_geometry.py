"""How what a track is measured by goes with where a structure lies, and what all structures can do together.

A measurement is taken along an axis u of a sensor with normal w. A displacement d of the sensor in space changes it,
for a track of direction t, as if the track had been moved by -d: by -q . d, q = u - w (u.t) / (w.t), which slides along
the track back into the plane (physics note, 5.4; exact to first order). A structure that shifts by T and turns by omega
about its centre c displaces a point p by T + omega x (p - c), so one function serves sensors, ladders and half barrels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

NUMBERS = ("x", "y", "z", "rx", "ry", "rz")
"""what displaces a structure: a shift [cm] along its axes, and a rotation vector [rad] about them"""
SHIFTS = 3

REACH = 10.0
"""cm; the length that deformations are counted in, so that they are of size 1 about so far out"""
NEAREST = 1e-6
"""in these units; nearer to the z axis there is no way out of it"""


def direction(along: Floats, normal: Floats, track: Floats) -> Floats:
    """q [..., 3]: how what is measured goes with a displacement of the track in space.

    >>> direction(np.array([1.0, 0, 0]), np.array([0.0, 0, 1]), np.array([0.5, 0, 1])).tolist()
    [1.0, 0.0, -0.5]
    """
    rate = np.sum(along * track, axis=-1, keepdims=True) / np.sum(normal * track, axis=-1, keepdims=True)
    found: Floats = along - normal * rate
    return found


def slopes(q: Floats, arm: Floats) -> Floats:
    """How residuals (measured less expected) go with the six NUMBERS of a structure, [..., 6].

    `arm` [..., 3]: from the structure's centre to the hit [cm]. For a structure with axes of its own, q and arm are
    given along these.

    >>> slopes(np.array([1.0, 0, 0]), np.array([0.0, 2, 0])).tolist()
    [-1.0, -0.0, -0.0, -0.0, -0.0, 2.0]
    """
    found: Floats = np.concatenate([-q, -np.cross(arm, q)], axis=-1)
    return found


Size = Callable[[Floats, Floats, Floats, Floats], Floats]

DEFORMATIONS: Mapping[str, tuple[str, Size]] = {
    **{f"common {axis}": (axis, lambda x, y, z, r: np.ones_like(r)) for axis in "xyz"},
    **{f"common rotation about {axis}": (f"about {axis}", lambda x, y, z, r: np.ones_like(r)) for axis in "xyz"},
    "radial expansion": ("outwards", lambda x, y, z, r: r),
    "elliptical expansion, along x": ("outwards", lambda x, y, z, r: (x**2 - y**2) / r),
    "elliptical expansion, along x = y": ("outwards", lambda x, y, z, r: 2 * x * y / r),
    "bowing": ("outwards", lambda x, y, z, r: z**2),
    "curl": ("around", lambda x, y, z, r: r**2),
    "twist": ("around", lambda x, y, z, r: r * z),
    "clamshell, about x": ("around", lambda x, y, z, r: x / r),
    "clamshell, about y": ("around", lambda x, y, z, r: y / r),
    "z expansion": ("z", lambda x, y, z, r: z),
    "telescope": ("z", lambda x, y, z, r: r),
    "skew, along x": ("z", lambda x, y, z, r: x / r),
    "skew, along y": ("z", lambda x, y, z, r: y / r),
    "shear, along x": ("x", lambda x, y, z, r: r),
    "shear, along y": ("y", lambda x, y, z, r: r),
    "sagitta, along x": ("x", lambda x, y, z, r: r**2),
    "sagitta, along y": ("y", lambda x, y, z, r: r**2),
}
"""By name, displacements that tracks of a barrel tell badly or not at all: as a whole, the weak modes of CMS
(CMS-TRK-11-002), and shifts that turn or bend all tracks. The way they go, and how far, at a point (x, y, z), r from
the z axis, in units of REACH."""


def deformed(q: Floats, points: Floats) -> Floats:
    """How far each of DEFORMATIONS moves measurements by q [..., 3] at points [..., 3] in cm, [..., deformations].

    A displacement d moves them by -q . d.
    """
    x, y, z = np.moveaxis(points / REACH, -1, 0)
    r = np.maximum(np.hypot(x, y), NEAREST)
    q_x, q_y, q_z = np.moveaxis(q, -1, 0)
    along = {
        "x": q_x,
        "y": q_y,
        "z": q_z,
        "about x": y * q_z - z * q_y,
        "about y": z * q_x - x * q_z,
        "about z": x * q_y - y * q_x,
        "outwards": (x * q_x + y * q_y) / r,
        "around": (x * q_y - y * q_x) / r,
    }
    found = np.empty((len(DEFORMATIONS), *r.shape))
    for moved, (way, size) in zip(found, DEFORMATIONS.values(), strict=True):
        np.multiply(-along[way], size(x, y, z, r), out=moved)
    return np.moveaxis(found, 0, -1)
