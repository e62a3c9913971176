"""The fit of one track in plain loops: circles by their centre, derivatives by differences, one hit at a time.

Nothing of the product's helix, planes or matrices: a point on a track is found by going round the centre of its circle,
a crossing by secants, what a parameter or a scatterer does by trying it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import asin, atan2, cos, hypot, log, pi, sin, sqrt

import numpy as np
from numpy.typing import NDArray

from pipeline.experiments.ref10.alignment import KIND as ALIGNMENT
from pipeline.experiments.ref10.alignment import frames
from pipeline.experiments.ref10.constants import FIELD
from pipeline.experiments.ref10.geometry import KIND as GEOMETRY
from pipeline.experiments.ref10.geometry import geometry_of

Floats = NDArray[np.float64]

KAPPA = 0.299792458e-2
STEP = np.array([1e-7, 1e-6, 1e-5, 1e-5, 1e-6])
"""of curvature, phi, d0, z0 and cot(theta) by which derivatives are tried"""
KICK = 1e-6


def karimaki(points: list[tuple[float, float, float]]) -> tuple[float, float, float, float]:
    """Curvature, phi, d0 and chi2 of the circle through (x, y, weight): the formulas of the physics note, 9.4.5."""
    total = sum(w for _, _, w in points)
    names = {"x": lambda x, y: x, "y": lambda x, y: y, "r": lambda x, y: x * x + y * y}
    mean = {a: sum(w * names[a](x, y) for x, y, w in points) / total for a in names}
    c = {
        a + b: sum(w * (names[a](x, y) - mean[a]) * (names[b](x, y) - mean[b]) for x, y, w in points) / total
        for a in names
        for b in names
    }
    q1 = c["rr"] * c["xy"] - c["xr"] * c["yr"]
    q2 = c["rr"] * (c["xx"] - c["yy"]) - c["xr"] ** 2 + c["yr"] ** 2
    phi = 0.5 * atan2(2 * q1, q2)
    if cos(phi) * mean["x"] + sin(phi) * mean["y"] < 0:
        phi += pi
    k = (sin(phi) * c["xr"] - cos(phi) * c["yr"]) / c["rr"]
    off = -k * mean["r"] + sin(phi) * mean["x"] - cos(phi) * mean["y"]
    rho = 2 * k / sqrt(1 - 4 * off * k)
    d = 2 * off / (1 + sqrt(1 - 4 * off * k))
    chi2 = 0.0
    for x, y, w in points:
        r, around = hypot(x, y), atan2(y, x)
        residual = rho * r**2 / 2 - (1 + rho * d) * r * sin(phi - around) + rho * d**2 / 2 + d
        chi2 += w * residual**2
    return rho, phi, d, chi2


@dataclass(frozen=True)
class State:
    """Somewhere on a track."""

    x: float
    y: float
    z: float
    phi: float
    curvature: float
    cot: float

    @property
    def point(self) -> Floats:
        return np.array([self.x, self.y, self.z])

    def flown(self, way: float) -> State:
        """Round the centre of the circle, clockwise for a positive curvature."""
        radius = 1 / self.curvature
        centre_x, centre_y = self.x + radius * sin(self.phi), self.y - radius * cos(self.phi)
        phi = self.phi - way * self.curvature
        x, y = centre_x - radius * sin(phi), centre_y + radius * cos(phi)
        return State(x, y, self.z + self.cot * way, phi, self.curvature, self.cot)

    def kicked(self, across: float, upwards: float) -> State:
        """Turned by two small angles, the momentum kept."""
        theta = atan2(1.0, self.cot)
        turned = theta - upwards
        bent = self.curvature * sin(theta) / sin(turned)
        return State(self.x, self.y, self.z, self.phi + across / sin(theta), bent, cos(turned) / sin(turned))

    def to(self, height, guess: float) -> State:
        """Where `height` of a state is zero, from a guess of the way; found by secants."""
        low, high = guess, guess + 0.1
        at_low, at_high = height(self.flown(low)), height(self.flown(high))
        for _ in range(30):
            if abs(at_high) < 1e-12 or at_high == at_low:
                break
            low, high = high, high - at_high * (high - low) / (at_high - at_low)
            at_low, at_high = at_high, height(self.flown(high))
        return self.flown(high)


def start_of(parameters: Floats) -> State:
    """At the closest approach to the z axis."""
    rho, phi, d0, z0, cot = parameters.tolist()
    return State(d0 * sin(phi), -d0 * cos(phi), z0, phi, rho, cot)


@dataclass(frozen=True)
class Hit:
    """On a sensor; layers without a hit have none."""

    layer: int
    centre: Floats
    u: Floats
    v: Floats
    w: Floats
    x0: float
    measured: dict[str, tuple[float, float]]
    """value and error by axis"""

    def height(self, state: State) -> float:
        return float(self.w @ (state.point - self.centre))

    def local(self, state: State, axis: str) -> float:
        return float(getattr(self, axis) @ (state.point - self.centre))


class NaiveFit:
    """Of one track after the other, by their rows of candidate hits."""

    def __init__(self, conditions, clusters) -> None:
        self.plan = geometry_of(conditions[GEOMETRY])
        self.frames = frames(self.plan, conditions[ALIGNMENT])
        self.tesla = float(conditions[FIELD]["tesla"])
        self.clusters = clusters

    def hits(self, places) -> list[Hit]:
        found = []
        for layer, place in enumerate(places):
            if place < 0:
                continue
            row = int(np.flatnonzero(self.plan.module == self.clusters.flat["module"][place])[0])
            values = {
                axis: (float(self.clusters.flat[axis][place]), float(self.clusters.flat[f"{axis}_error"][place]))
                for axis in ("uv" if self.plan.pixel[row] else "u")
            }
            lies = (getattr(self.frames, name)[row] for name in ("centre", "u", "v", "w"))
            found.append(Hit(layer, *lies, float(self.plan.x0[row]), values))
        return found

    def fit(self, places, start: Floats, *, renewed: bool = False) -> tuple[Floats, Floats, float]:
        """Parameters, covariance, chi2 by three Gauss-Newton steps, with derivatives of the start or renewed ones."""
        hits = self.hits(places)
        rows = [(hit, axis) for hit in hits for axis in hit.measured]
        weight = np.linalg.inv(self.covariance(start, hits, rows))
        measured = np.array([hit.measured[axis][0] for hit, axis in rows])
        parameters = start.copy()
        slopes = self.slopes(parameters, rows)
        for _ in range(3):
            cov = np.linalg.inv(slopes.T @ weight @ slopes)
            parameters = parameters + cov @ slopes.T @ weight @ (measured - self.expected(parameters, rows))
            if renewed:
                slopes = self.slopes(parameters, rows)
        r = measured - self.expected(parameters, rows)
        return parameters, cov, float(r @ weight @ r)

    def slopes(self, parameters: Floats, rows) -> Floats:
        found = np.empty((len(rows), 5))
        for p in range(5):
            more, less = parameters.copy(), parameters.copy()
            more[p] += STEP[p]
            less[p] -= STEP[p]
            found[:, p] = (self.expected(more, rows) - self.expected(less, rows)) / (2 * STEP[p])
        return found

    def expected(self, parameters: Floats, rows) -> Floats:
        start = start_of(parameters)
        return np.array([hit.local(start.to(hit.height, _way_to(start, hit.centre)), axis) for hit, axis in rows])

    def covariance(self, parameters: Floats, hits, rows) -> Floats:
        """Of the measurements: errors, and each scatterer's two kicks tried on all that comes after it."""
        start = start_of(parameters)
        v = np.diag([hit.measured[axis][1] ** 2 for hit, axis in rows])
        for layer, state, material in self.scatterers(start, hits):
            momentum = KAPPA * abs(self.tesla) / abs(state.curvature) * sqrt(1 + state.cot**2)
            width = 0.0136 / momentum * sqrt(material) * (1 + 0.038 * log(material))
            for kick in ((KICK, 0.0), (0.0, KICK)):
                moved = np.zeros(len(rows))
                for i, (hit, axis) in enumerate(rows):
                    if hit.layer > layer:
                        guess = _way_to(start, hit.centre) - _way_to(start, state.point)
                        there = [state.kicked(sign * kick[0], sign * kick[1]).to(hit.height, guess) for sign in (1, -1)]
                        moved[i] = (hit.local(there[0], axis) - hit.local(there[1], axis)) / (2 * KICK)
                v += width**2 * np.outer(moved, moved)
        return v

    def scatterers(self, start: State, hits):
        """Layer (-1: the pipe), the track there, and the material on its way."""
        yield -1, *self._on_cylinder(start, self.plan.pipe_radius, self.plan.pipe_x0)
        by_layer = {hit.layer: hit for hit in hits}
        for layer in range(10):
            if layer in by_layer:
                hit = by_layer[layer]
                at = start.to(hit.height, _way_to(start, hit.centre))
                yield layer, at, hit.x0 / _incidence(at, hit.w)
            else:
                drawn = np.flatnonzero(self.plan.layer == layer + 1)[0]
                yield layer, *self._on_cylinder(start, float(self.plan.radius[drawn]), float(self.plan.x0[drawn]))

    def _on_cylinder(self, start: State, radius: float, x0: float) -> tuple[State, float]:
        at = start.to(lambda at: hypot(at.x, at.y) - radius, _way_to(start, np.array([radius, 0, 0])))
        return at, x0 / _incidence(at, np.array([at.x, at.y, 0.0]))


def _incidence(at: State, normal: Floats) -> float:
    direction = np.array([cos(at.phi), sin(at.phi), at.cot]) / sqrt(1 + at.cot**2)
    return abs(float(direction @ normal)) / float(np.linalg.norm(normal))


def _way_to(start: State, point: Floats) -> float:
    """About that far out, for a track from near the axis."""
    bent = abs(start.curvature)
    return 2 / bent * asin(min(bent * hypot(float(point[0]), float(point[1])) / 2, 1.0))
