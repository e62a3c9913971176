"""The geometry of REF10 as data: a payload with a row for each module, and what is read out of it.

A module's own axes: u across the strips (the precise one), v along them, w = u x v the normal of the sensor's middle
plane. Odd ladders are mounted flipped (u and w turned round), which tells a shift of the charge in the sensor (Lorentz
angle) from a shift of the sensor. A module's id is `layer << 16 | ladder << 8 | z module`. Lengths in cm.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calib.payload import Payload
from pipeline.experiments.ref10.layers import LAYERS, PIPE_RADIUS, PIPE_X0, Z_MODULES, Layer

KIND = "geometry"

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

PIXEL_HALVES = (0, 1)
STRIP_HALVES = (2, 3)
"""half barrels: the even ones at cos(phi) > 0"""


class UnknownModule(ValueError):
    """Data of a module that the geometry does not have."""


def full_geometry() -> Payload:
    """All 2880 modules: 1020 of pixels, 1860 of strips."""
    return _payload(
        [(layer, ladder, z) for layer in LAYERS for ladder in range(layer.ladders) for z in range(Z_MODULES)]
    )


def mini_geometry() -> Payload:
    """For unit tests: the quarter about phi = 90 degrees, which has ladders of both halves, and two modules along z."""
    places = [(layer, ladder) for layer in LAYERS for ladder in range(layer.ladders)]
    wedge = [(layer, ladder) for layer, ladder in places if abs(_phi(layer, ladder) - np.pi / 2) <= np.pi / 4 + 1e-9]
    middle = (Z_MODULES // 2 - 1, Z_MODULES // 2)
    return _payload([(layer, ladder, z) for layer, ladder in wedge for z in middle])


GEOMETRIES = {"full": full_geometry, "mini": mini_geometry}
"""by the name that settings use"""


def _phi(layer: Layer, ladder: int) -> float:
    """Azimuth of a ladder's middle."""
    return 2 * np.pi * (ladder + 0.5) / layer.ladders


def _payload(places: list[tuple[Layer, int, int]]) -> Payload:
    rows = [_module(*place) for place in places]
    arrays = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    arrays |= {"pipe_radius": np.asarray(PIPE_RADIUS), "pipe_x0": np.asarray(PIPE_X0)}
    return Payload(KIND, arrays, UNITS)


UNITS = dict.fromkeys(
    ("centre", "pitch_u", "pitch_v", "width", "length", "spacing", "thickness", "radius", "pipe_radius"), "cm"
) | {"phi": "rad", "x0": "X0", "pipe_x0": "X0"}


def _module(layer: Layer, ladder: int, z: int) -> Mapping[str, object]:
    phi = _phi(layer, ladder)
    sign = -1.0 if ladder % 2 else 1.0
    w = sign * np.array([np.cos(phi), np.sin(phi), 0.0])
    u = sign * np.array([-np.sin(phi), np.cos(phi), 0.0])
    v = np.array([0.0, 0.0, 1.0])
    turn, lean = np.cos(layer.stereo), np.sin(layer.stereo)
    east = np.cos(phi) > 0
    return {
        "module": np.uint32(layer.number << 16 | ladder << 8 | z),
        "layer": np.int16(layer.number),
        "ladder": np.int16(ladder),
        "z_module": np.int16(z),
        "pixel": np.bool_(layer.pixel),
        "flipped": np.bool_(ladder % 2),
        "half": np.int8((PIXEL_HALVES if layer.pixel else STRIP_HALVES)[0 if east else 1]),
        "phi": np.float64(phi),
        "radius": np.float64(layer.radius),
        "centre": np.array([*(layer.radius * abs(w[:2]) * np.sign([np.cos(phi), np.sin(phi)])), _z(layer, z)]),
        # Flipped or not, strips lean the same way in space: neighbours lie side by side, not in a V.
        "u": turn * u + sign * lean * v,
        "v": turn * v - sign * lean * u,
        "w": w,
        "rows": np.int32(layer.rows),
        "columns": np.int32(layer.columns),
        "pitch_u": np.float64(layer.pitch_u),
        "pitch_v": np.float64(layer.pitch_v),
        "width": np.float64(layer.width),
        "length": np.float64(layer.length),
        "spacing": np.float64(layer.spacing),
        "thickness": np.float64(layer.thickness),
        "x0": np.float64(layer.x0),
    }


def _z(layer: Layer, z: int) -> float:
    return (z - (Z_MODULES - 1) / 2) * layer.spacing


@dataclass(frozen=True, eq=False)
class Geometry:
    """A geometry payload, read: a row for each module, sorted by id; see the module's docstring for the axes."""

    module: NDArray[np.uint32]
    layer: NDArray[np.int16]
    """1 to 10"""
    ladder: NDArray[np.int16]
    z_module: NDArray[np.int16]
    pixel: NDArray[np.bool_]
    flipped: NDArray[np.bool_]
    half: NDArray[np.int8]
    """half barrel: 0 and 1 of the pixels, 2 and 3 of the strips; the even ones at cos(phi) > 0"""
    phi: Floats
    """azimuth of the ladder's middle [rad]"""
    radius: Floats
    """distance of the ladder's plane from the beam line [cm]"""
    centre: Floats
    """[modules, 3] cm"""
    u: Floats
    """unit vectors [modules, 3]"""
    v: Floats
    w: Floats
    rows: NDArray[np.int32]
    """channels along u"""
    columns: NDArray[np.int32]
    """channels along v; 1 for strips"""
    pitch_u: Floats
    pitch_v: Floats
    width: Floats
    """sensitive length along u [cm]"""
    length: Floats
    """sensitive length along v [cm]"""
    spacing: Floats
    """from one module to the next along z [cm]"""
    thickness: Floats
    """cm"""
    x0: Floats
    """material in radiation lengths at normal incidence"""
    pipe_radius: float
    pipe_x0: float

    def __len__(self) -> int:
        return len(self.module)

    def index(self, module: NDArray[np.integer]) -> Ints:
        """The row of each module id, int64; -1 where the geometry has no such module."""
        place = np.minimum(np.searchsorted(self.module, module), len(self.module) - 1)
        found: Ints = np.where(self.module[place] == module, place, -1)
        return found

    def rows_of(self, module: NDArray[np.integer]) -> Ints:
        """As `index`. Raises UnknownModule."""
        found = self.index(module)
        if (found < 0).any():
            unknown = np.unique(np.asarray(module)[found < 0])
            shown = ", ".join(f"{number:#x}" for number in unknown[:5].tolist())
            raise UnknownModule(
                f"{len(unknown)} modules are not in the geometry (first: {shown}): is it of another detector?"
            )
        return found

    @cached_property
    def strip_rows(self) -> Ints:
        """Rows of the strip modules; strip s of the i-th of them is channel `768 i + s`."""
        return np.flatnonzero(~self.pixel)

    @cached_property
    def strip_block(self) -> Ints:
        """The place of each module among the strip modules, int64[modules]; -1 for pixels."""
        block = np.full(len(self), -1, np.int64)
        block[self.strip_rows] = np.arange(len(self.strip_rows))
        return block

    @cached_property
    def ladder_row(self) -> Ints:
        """The number of each module's ladder among all ladders, counted by layer and ladder, int64[modules]."""
        found: Ints = np.unique(self.module >> 8, return_inverse=True)[1].astype(np.int64)
        return found

    @cached_property
    def grids(self) -> tuple[Ints, ...]:
        """For each of LAYERS the row by ladder and z module, int64[ladders, z modules]; -1 where there is none."""
        grids = [np.full((layer.ladders, Z_MODULES), -1, np.int64) for layer in LAYERS]
        for row, (layer, ladder, z) in enumerate(zip(self.layer, self.ladder, self.z_module, strict=True)):
            grids[layer - 1][ladder, z] = row
        return tuple(grids)


def geometry_of(payload: Payload) -> Geometry:
    """The geometry in a payload; read once for each content."""
    if payload.kind != KIND:
        raise ValueError(f"a payload of kind {KIND!r} is needed, this one is of kind {payload.kind!r}")
    if payload.id not in _READ:
        if len(_READ) >= 4:
            _READ.clear()
        found: dict[str, Any] = {field.name: payload[field.name] for field in fields(Geometry)}
        pipe = {name: float(found[name]) for name in ("pipe_radius", "pipe_x0")}
        _READ[payload.id] = Geometry(**(found | pipe))
    return _READ[payload.id]


_READ: dict[str, Geometry] = {}
