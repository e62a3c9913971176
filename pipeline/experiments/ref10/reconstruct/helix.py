"""Tracks as helices about the field: five parameters, where they lead, and how that goes with the parameters.

The reference point is the origin. After a transverse way s [cm] from the closest approach to the z axis the direction
has turned by -rho s. Nothing here divides by the curvature rho: a straight track is no case of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

CURVATURE_GEV = 0.00299792458
"""GeV / (T cm): pT = this x field / |rho|"""
PARAMETERS = ("curvature", "phi", "d0", "z0", "cot_theta")
"""in the order of matrices"""

_SERIES = 1e-3
"""rad below which the derivative of sin(x)/x is taken from its series: to 1e-14 of it"""


def azimuth(angle: Floats) -> Floats:
    """The angle in (-pi, pi], by whole turns."""
    turned = np.pi - np.mod(np.pi - angle, 2 * np.pi)
    return np.where(turned > -np.pi, turned, np.pi)


@dataclass(frozen=True, eq=False)
class Places:
    """Points of helices, each [..., tracks], and the transverse direction there, a unit vector."""

    way: Floats
    """transverse, from the closest approach to the z axis [cm]"""
    x: Floats
    y: Floats
    z: Floats
    dx: Floats
    dy: Floats


@dataclass(frozen=True, eq=False)
class Helix:
    """n tracks; d0 = x0 sin(phi) - y0 cos(phi) at the closest approach to the z axis."""

    curvature: Floats
    """rho [1/cm], > 0 clockwise seen against the field"""
    phi: Floats
    """of the direction at the closest approach [rad]"""
    d0: Floats
    """[cm]"""
    z0: Floats
    """[cm]"""
    cot_theta: Floats
    """dz/ds"""

    @property
    def sine(self) -> Floats:
        """Sine of the polar angle."""
        return 1 / np.sqrt(1 + self.cot_theta**2)

    def plus(self, step: Floats) -> Self:
        """With `step` [5, n] added to the parameters."""
        return type(self)(*(getattr(self, part.name) + more for part, more in zip(fields(self), step, strict=True)))

    def at(self, way: Floats) -> Places:
        """After transverse ways [..., n]."""
        cosine, sine, chord, mid_x, mid_y = self._chords(way)
        return Places(
            way,
            self.d0 * np.sin(self.phi) + chord * mid_x,
            chord * mid_y - self.d0 * np.cos(self.phi),
            self.z0 + self.cot_theta * way,
            mid_x * cosine + mid_y * sine,
            mid_y * cosine - mid_x * sine,
        )

    def _chords(self, way: Floats) -> tuple[Floats, Floats, Floats, Floats, Floats]:
        """Cosine and sine of half the turn, and the chord: its length and direction."""
        half = 0.5 * self.curvature * way
        cosine, sine = np.cos(half), np.sin(half)
        begin_x, begin_y = np.cos(self.phi), np.sin(self.phi)
        mid_x, mid_y = begin_x * cosine + begin_y * sine, begin_y * cosine - begin_x * sine
        return cosine, sine, way * _over(sine, half), mid_x, mid_y

    def bent(self, way: Floats) -> tuple[Floats, Floats]:
        """How x and y after a way go with the curvature [cm^2]."""
        cosine, sine, chord, mid_x, mid_y = self._chords(way)
        half = 0.5 * self.curvature * way
        shrinks = np.where(
            np.abs(half) < _SERIES, half * (half**2 / 30 - 1 / 3), _over(cosine - _over(sine, half), half, 0.0)
        )
        along, across = 0.5 * way**2 * shrinks, 0.5 * way * chord
        return along * mid_x + across * mid_y, along * mid_y - across * mid_x

    def to_radius(self, radius: Floats) -> tuple[Floats, Mask]:
        """The way out to distances from the z axis [..., n], and whether they are reached: else it is as far as goes.

        The chord from the closest approach to a point at r has chord^2 (1 + rho d0) = r^2 - d0^2.
        """
        squared = (radius**2 - self.d0**2) / _away_from_zero(1 + self.curvature * self.d0)
        chord = np.sqrt(np.maximum(squared, 0.0))
        sine = 0.5 * self.curvature * chord
        bounded = np.clip(sine, -1.0, 1.0)
        reached = (squared >= 0) & (bounded == sine)
        return np.minimum(chord, _largest_chord(self.curvature)) * _over(np.arcsin(bounded), bounded), reached


def _largest_chord(curvature: Floats) -> Floats:
    """The diameter [cm]."""
    bent = np.abs(curvature)
    found: Floats = np.where(bent > 1e-9, 2 / np.maximum(bent, 1e-9), 2e9)
    return found


def _over(value: Floats, by: Floats, at_zero: float = 1.0) -> Floats:
    found: Floats = np.divide(value, by, out=np.full(np.shape(by), at_zero), where=by != 0)
    return found


def _away_from_zero(values: Floats) -> Floats:
    found: Floats = np.where(np.abs(values) < 1e-9, 1e-9, values)
    return found


def transverse_momentum(curvature: Floats, tesla: float, largest: float) -> Floats:
    """pT [GeV] in a field, at most `largest`, however straight the track; 0 without a field."""
    bending = CURVATURE_GEV * abs(tesla)
    if not bending:
        return np.zeros_like(curvature)
    found: Floats = bending / np.maximum(np.abs(curvature), bending / largest)
    return found
