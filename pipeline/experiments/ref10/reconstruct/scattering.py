"""Multiple scattering: how much material turns a track, and how that makes the hits further out go together.

Each scatterer k turns a track by two projected angles of width theta_k (Highland; V. L. Highland, NIM 129 (1975) 497,
with the constants of G. R. Lynch and O. I. Dahl, NIM B58 (1991) 6; beta = 1). The one across turns the azimuth by
theta / sin(T), the one along the polar angle, so cot(T) by theta / sin^2(T) and with it the curvature, as the momentum
stays. What they move a hit further out by is added up over k: V of the physics note, 5.4, for any planes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.experiments.ref10.geometry import Geometry
from pipeline.experiments.ref10.layers import LAYERS
from pipeline.experiments.ref10.reconstruct.helix import CURVATURE_GEV, Helix, Places

Floats = NDArray[np.float64]

HIGHLAND_GEV = 0.0136
GRAZING = 0.05
"""cosine of incidence below which a sensor is not met: what is less is taken as this much"""
MOMENTUM_WITHOUT_FIELD = 1.0
"""GeV; none is measured then"""
LEAST_MOMENTUM = 0.05
"""GeV; of tracks that make ten layers none has less"""
FEW = 64
"""tracks; for fewer, calls cost more than the upper triangle that they do for nothing"""
THINNEST = 1e-9
"""radiation lengths; of nothing at all the logarithm has no value"""


@dataclass(frozen=True, eq=False)
class Material:
    """Beam pipe and layers, in radiation lengths at normal incidence."""

    pipe_radius: float
    """[cm]"""
    pipe_x0: float
    x0: Floats
    """of the layers, [10]"""
    radius: Floats
    """of the layers [cm]"""

    @classmethod
    def of(cls, geometry: Geometry) -> Material:
        """From its payload. Raises ValueError where a layer has no module."""
        first = np.minimum(np.searchsorted(geometry.layer, np.arange(1, len(LAYERS) + 1)), len(geometry) - 1)
        if (lacks := np.flatnonzero(geometry.layer[first] != np.arange(1, len(LAYERS) + 1))).size:
            raise ValueError(
                f"a geometry with all of {len(LAYERS)} layers is needed; this one has no layer {lacks[0] + 1}"
            )
        return cls(geometry.pipe_radius, geometry.pipe_x0, geometry.x0[first], geometry.radius[first])


def highland(material: Floats, inverse_momentum: Floats) -> Floats:
    """Width of a projected angle [rad] after so many radiation lengths, at 1/p [1/GeV]."""
    thick = np.maximum(material, THINNEST)
    found: Floats = HIGHLAND_GEV * inverse_momentum * np.sqrt(thick) * np.maximum(1 + 0.038 * np.log(thick), 0.0)
    return found


def inverse_momentum(helix: Helix, tesla: float) -> Floats:
    """1/p [1/GeV] in a field."""
    if not tesla:
        return np.full_like(helix.curvature, 1 / MOMENTUM_WITHOUT_FIELD)
    found = np.abs(helix.curvature) * helix.sine / (CURVATURE_GEV * abs(tesla))
    return np.minimum(found, 1 / LEAST_MOMENTUM)


@dataclass(frozen=True, eq=False)
class Scatterers:
    """Where tracks scatter, [11, n]: in the beam pipe, and in the ten layers."""

    x: Floats
    y: Floats
    way: Floats
    azimuth: Floats
    """width of the turn of the azimuth [rad]"""
    slope: Floats
    """width of the change of cot(theta)"""
    half_curvature: Floats
    """[n], [1/cm]"""
    bends: Floats
    """[n]: half of what a change of cot(theta) by 1 changes the curvature by [1/cm]"""


def scatterers(helix: Helix, places: Places, incidence: Floats, material: Material, tesla: float) -> Scatterers:
    """Of tracks that cross the layers at `places` [10, n], with the transverse cosine of incidence [10, n]."""
    way, _ = helix.to_radius(np.full((1, len(helix.phi)), material.pipe_radius))
    pipe = helix.at(way)
    radial = (pipe.x * pipe.dx + pipe.y * pipe.dy) / material.pipe_radius
    sine = helix.sine
    cosine = np.maximum(np.concatenate([radial, np.abs(incidence)]), GRAZING) * sine
    x0 = np.concatenate([[material.pipe_x0], material.x0])[:, None]
    width = highland(x0 / cosine, inverse_momentum(helix, tesla))
    x, y, out = (np.concatenate([getattr(pipe, name), getattr(places, name)]) for name in ("x", "y", "way"))
    half = 0.5 * helix.curvature
    return Scatterers(x, y, out, width / sine, width / sine**2, half, half * helix.cot_theta * sine**2)


def covariance(rows: Floats, places: Places, layer: tuple[int, ...], scattered: Scatterers) -> Floats:
    """What scattering adds to the covariance of measurements, [m, m, n]; of the upper triangle nothing is said.

    `rows` [3, m, n]: how a measurement goes with a displacement of the track in space, at the layers `layer` (0 to 9,
    rising); `places` [10, n].
    """
    of_row = np.array(layer)
    x, y, way = places.x[of_row], places.y[of_row], places.way[of_row]
    found = np.zeros((len(layer), *rows.shape[1:]))
    turn, ahead = rows[1] * x - rows[0] * y, rows[0] * x + rows[1] * y
    for k in range(len(LAYERS)):
        # Scatterer 0 is the pipe, k lies on layer k - 1: it moves what is measured from layer k on.
        begin = int(np.searchsorted(of_row, k))
        after = slice(begin, None)
        across = turn[after] - (rows[1, after] * scattered.x[k] - rows[0, after] * scattered.y[k])
        arm = way[after] - scattered.way[k]
        along = ahead[after] - (rows[0, after] * scattered.x[k] + rows[1, after] * scattered.y[k])
        half = scattered.half_curvature * arm
        upwards = arm * (rows[2, after] - scattered.bends * (across + half * (1 / 3 + half**2 / 45) * along))
        across *= scattered.azimuth[k]
        upwards *= scattered.slope[k]
        if found.shape[2] < FEW:
            found[begin:, begin:] += across[:, None] * across + upwards[:, None] * upwards
            continue
        for i in range(len(across)):
            found[begin + i, begin : begin + i + 1] += across[i] * across[: i + 1] + upwards[i] * upwards[: i + 1]
    return found
