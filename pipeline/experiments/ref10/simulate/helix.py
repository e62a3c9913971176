"""Charged particles in a field along z: exact steps along the helix, without a special case for straight tracks.

`curvature` is the signed inverse radius rho [1/cm], positive for clockwise tracks (positive charge, field along +z):
rho = charge x 0.00299792458 B[T] / pT[GeV]. After a transverse way s the direction has turned by -rho s.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

CURVATURE_GEV = 0.00299792458
"""GeV / (T cm)"""
HIGHLAND_GEV = 0.0136

_NO_TURN = 1e-9
"""rad; the sine of less is the angle itself to the last bit"""


@dataclass(frozen=True, eq=False)
class Flight:
    """Where tracks are, and where they go to; one entry a track."""

    x: Floats
    y: Floats
    z: Floats
    dx: Floats
    """transverse direction, a unit vector"""
    dy: Floats
    slope: Floats
    """dz/ds, the cotangent of the polar angle"""
    curvature: Floats
    momentum: Floats
    """GeV"""

    def of(self, chosen: Bools | NDArray[np.int64]) -> Self:
        """Some of the tracks."""
        return type(self)(*(getattr(self, part.name)[chosen] for part in fields(self)))

    @property
    def sine(self) -> Floats:
        """Sine of the polar angle."""
        return 1 / np.sqrt(1 + self.slope**2)

    def moved(self, way: Floats) -> Self:
        """After a transverse way s [cm], backwards if negative."""
        half = 0.5 * self.curvature * way
        cosine, sine = np.cos(half), np.sin(half)
        chord = way * np.sinc(half / np.pi)
        mid_x, mid_y = self.dx * cosine + self.dy * sine, self.dy * cosine - self.dx * sine
        return type(self)(
            self.x + chord * mid_x,
            self.y + chord * mid_y,
            self.z + self.slope * way,
            mid_x * cosine + mid_y * sine,
            mid_y * cosine - mid_x * sine,
            self.slope,
            self.curvature,
            self.momentum,
        )

    def to_cylinder(self, radius: float) -> Floats:
        """The way to a cylinder about the z axis, going outwards; NaN for tracks that turn before it.

        With L = x dy - y dx and m = x dx + y dy the pair (1 + rho L, rho m) turns by rho s along the track, and
        L(r) = L + rho (r0^2 - r^2) / 2.
        """
        rho = self.curvature
        moment, along = self.x * self.dy - self.y * self.dx, self.x * self.dx + self.y * self.dy
        there = moment + 0.5 * rho * (self.x**2 + self.y**2 - radius**2)
        out = np.sqrt(_positive(radius**2 - there**2))
        return _way(rho, (1 + rho * moment, along), (1 + rho * there, out))

    def to_axis(self) -> Floats:
        """The way to the point of closest approach to the z axis; negative when that lies behind."""
        rho = self.curvature
        moment, along = self.x * self.dy - self.y * self.dx, self.x * self.dx + self.y * self.dy
        twice = 2 * moment + rho * (self.x**2 + self.y**2)
        closest = twice / (1 + np.sqrt(1 + rho * twice))
        return _way(rho, (1 + rho * moment, along), (1 + rho * closest, np.zeros_like(along)))

    def to_plane(self, normal_x: Floats, normal_y: Floats, distance: Floats) -> tuple[Floats, Floats]:
        """The way to planes parallel to z, met from inside, and the cosine of incidence in the transverse plane.

        NaN for tracks that turn before the plane. The sine of incidence falls by rho for each cm towards the plane.
        """
        gap = distance - self.x * normal_x - self.y * normal_y
        cosine = self.dx * normal_x + self.dy * normal_y
        sine = normal_x * self.dy - normal_y * self.dx
        there = sine - self.curvature * gap
        met = np.sqrt(_positive(1 - there**2))
        chord = np.hypot(gap, gap * (sine + there) / (cosine + met)) * np.sign(gap)
        half = 0.5 * self.curvature * chord
        return chord / np.sinc(np.arcsin(np.clip(half, -1, 1)) / np.pi), np.where(cosine > 0, met, np.nan)

    def scattered(self, material: Floats, kicks: Floats) -> Self:
        """After multiple scattering in so many radiation lengths; `kicks` [2, tracks] are standard normal.

        Two projected angles of width 13.6 MeV/p sqrt(X) (1 + 0.038 ln X) (Highland; Lynch and Dahl, NIM B58 (1991) 6;
        for beta = 1, as in the track fit). The momentum is kept.
        """
        width = HIGHLAND_GEV / self.momentum * np.sqrt(material) * (1 + 0.038 * np.log(material))
        sideways, upwards = width * kicks[0], width * kicks[1]
        sine = self.sine
        cosine = self.slope * sine
        out = sine - upwards * cosine
        transverse = np.hypot(out, sideways)
        slope = (cosine + upwards * sine) / transverse
        dx, dy = self.dx * out - self.dy * sideways, self.dy * out + self.dx * sideways
        # What remains of the momentum across the field has changed, and with it the curvature.
        curvature = self.curvature * sine * np.sqrt(1 + slope**2)
        return type(self)(self.x, self.y, self.z, dx / transverse, dy / transverse, slope, curvature, self.momentum)


def _positive(values: Floats) -> Floats:
    return np.where(values > 0, values, np.nan)


def _way(rho: Floats, begin: tuple[Floats, Floats], end: tuple[Floats, Floats]) -> Floats:
    """The way on which (A, m) becomes the other, when (A, rho m) turns by rho s."""
    across = begin[0] * end[1] - end[0] * begin[1]
    along = begin[0] * end[0] + rho**2 * begin[1] * end[1]
    turn = np.arctan2(rho * across, along)
    little = np.abs(turn) < _NO_TURN
    return np.where(little, across / along, turn / np.where(rho == 0, 1.0, rho))


def launched(place: tuple[Floats, Floats, Floats], pt: Floats, eta: Floats, phi: Floats, bending: Floats) -> Flight:
    """Tracks as they start at a point [cm]; `bending` is charge x field [T]."""
    return Flight(*place, np.cos(phi), np.sin(phi), np.sinh(eta), CURVATURE_GEV * bending / pt, pt * np.cosh(eta))


def at_axis(flight: Flight) -> dict[str, Floats]:
    """d0, z0 [cm] and phi at the point of closest approach to the z axis; d0 = x0 sin(phi) - y0 cos(phi)."""
    closest = flight.moved(flight.to_axis())
    return {
        "d0": closest.x * closest.dy - closest.y * closest.dx,
        "z0": closest.z,
        "phi": np.arctan2(closest.dy, closest.dx),
    }
