"""Conditions of REF10 that are wrong in one way, made from those that are true. Each is the physics note's, 11."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from benchmarks._ref10_played import Conditions
from calib.algorithms import beamspot_payload
from calib.payload import Payload
from pipeline.experiments.ref10.alignment import KIND as ALIGNMENT
from pipeline.experiments.ref10.alignment import alignment
from pipeline.experiments.ref10.constants import (
    DESIGN_TANGENTS,
    FIELD,
    GAIN,
    LORENTZ,
    field,
    gain,
    lorentz_angle,
)
from pipeline.experiments.ref10.geometry import KIND as GEOMETRY
from pipeline.experiments.ref10.geometry import PIXEL_HALVES, geometry_of
from pipeline.experiments.ref10.layers import LAYERS
from pipeline.experiments.ref10.simulate.scenario import Region

Floats = NDArray[np.float64]

UM = 1e-4
HALVES = UM * np.array([[50.0, -30.0, 40.0], [-20.0, 60.0, -80.0]])
"""where the half barrels of the pixels are, beside where they were drawn [cm]; at cos(phi) > 0, and at < 0"""
OUTERMOST = LAYERS[-1].radius


@dataclass(frozen=True)
class HalfBarrels:
    """Believed where they were drawn; with `times` 2 as far off again."""

    times: float

    def shift(self, phi: Floats) -> Floats:
        """By how much pixel hits at these azimuths are believed off their places, x and y [2, n] in cm."""
        east, west = -self.times * HALVES[:, :2]
        return np.where(np.cos(phi) > 0, east[:, None], west[:, None])

    def __call__(self, real: Conditions) -> Conditions:
        moved = real[ALIGNMENT]["half_barrel"].copy()
        moved[list(PIXEL_HALVES), :3] -= self.times * HALVES
        return {**real, ALIGNMENT: _aligned(real[ALIGNMENT], half_barrel=moved)}


@dataclass(frozen=True)
class Ladders:
    """Off by random shifts of these rms [um] along each axis, of pixels and of strips; `draw` tells one draw apart."""

    pixels: float
    strips: float
    draw: int

    def __call__(self, real: Conditions) -> Conditions:
        geometry = geometry_of(real[GEOMETRY])
        moved = real[ALIGNMENT]["ladder"].copy()
        rms = np.zeros(len(moved))
        rms[geometry.ladder_row] = np.where(geometry.pixel, self.pixels, self.strips)
        moved[:, :3] += UM * rms[:, None] * np.random.default_rng(self.draw).standard_normal((len(moved), 3))
        return {**real, ALIGNMENT: _aligned(real[ALIGNMENT], ladder=moved)}


@dataclass(frozen=True)
class Curl:
    """Hits are believed turned about the beam, by `um` in the outermost layer and with the square of the radius."""

    um: float

    @property
    def curvature(self) -> float:
        """What it adds to every track's [1/cm]: hits further left by k r^2 are less clockwise by 2 k."""
        return -2 * UM * self.um / OUTERMOST**2

    def __call__(self, real: Conditions) -> Conditions:
        geometry = geometry_of(real[GEOMETRY])
        moved = real[ALIGNMENT]["ladder"].copy()
        turn = UM * self.um * geometry.radius / OUTERMOST**2
        row, first = np.unique(geometry.ladder_row, return_index=True)
        centre, angle = geometry.centre[first], turn[first]
        # As rigid bodies: their middle on its way round the beam, and turned by as much about that.
        moved[row, 0] += -np.sin(angle) * centre[:, 1] - (1 - np.cos(angle)) * centre[:, 0]
        moved[row, 1] += np.sin(angle) * centre[:, 0] - (1 - np.cos(angle)) * centre[:, 1]
        moved[row, 5] += angle
        return {**real, ALIGNMENT: _aligned(real[ALIGNMENT], ladder=moved)}


@dataclass(frozen=True)
class BeamSpot:
    """The luminous region is believed off by this [um]."""

    region: Region
    x: float
    y: float

    def __call__(self, real: Conditions) -> Conditions:
        believed = replace(self.region, x=self.region.x + UM * self.x, y=self.region.y + UM * self.y)
        payload = beamspot_payload.nominal(**asdict(believed))
        return {**real, payload.kind: payload}


@dataclass(frozen=True)
class FieldScaled:
    """The field is believed larger by this factor."""

    factor: float

    def __call__(self, real: Conditions) -> Conditions:
        return {**real, FIELD: field(self.factor * float(real[FIELD]["tesla"]))}


def lorentz_as_designed(real: Conditions) -> Conditions:
    """Pixels as the design has them, 0.36 for 0.40; strips as they are."""
    tangents = [DESIGN_TANGENTS[0] if layer.pixel else real[LORENTZ]["tan"][i] for i, layer in enumerate(LAYERS)]
    return {**real, LORENTZ: lorentz_angle(np.array(tangents), float(real[FIELD]["tesla"]))}


def equal_gains(real: Conditions) -> Conditions:
    """All chips alike."""
    return {**real, GAIN: gain(np.ones_like(real[GAIN]["gain"]))}


def _aligned(real: Payload, **changed: Floats) -> Payload:
    return alignment(**{**{name: real[name] for name in ("half_barrel", "ladder", "module")}, **changed})
