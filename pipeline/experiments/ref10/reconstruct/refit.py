"""The fit of all five parameters of tracks with multiple scattering: generalized least squares, two Gauss-Newton steps.

A hit is compared with where the helix crosses its sensor as that really lies, along the sensor's own axes: u of every
layer, v of the pixels. (Strips along v: which of the modules it is, to 5 cm; pixels have known z to better by far.) A
turned strip measures a mixture of both planes, so transverse and longitudinal parameters are fitted together. The
covariance of the measurements, errors of hits and scattering, is taken at the start: V of the physics note, 5.4. The
slope at the start says how well clusters know v (`sharing`).

A displacement of the track moves what is measured along u by q . displacement, q = u - w (u.t) / (w.t) with t the
track's direction: it slides along the track back into the plane. The same q is what alignment needs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calib import cholesky
from pipeline.experiments.ref10.layers import LAYERS
from pipeline.experiments.ref10.reconstruct.helix import PARAMETERS, Helix, Places
from pipeline.experiments.ref10.reconstruct.scattering import GRAZING, Material, Scatterers, covariance, scatterers
from pipeline.experiments.ref10.reconstruct.sharing import narrowed
from pipeline.experiments.ref10.reconstruct.sums import summed
from pipeline.experiments.ref10.reconstruct.track_hits import Planes, TrackHits

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

MEASURED = tuple((number, axis) for number, layer in enumerate(LAYERS) for axis in ("uv" if layer.pixel else "u"))
"""layer (0 to 9) and axis of each of the m measurements of a track, in the order of matrices"""
OF_LAYER = tuple(number for number, _ in MEASURED)
ALONG = [row for row, (_, axis) in enumerate(MEASURED) if axis == "v"]
"""those along v, of each layer of pixels one"""
SETTLED = 0.1
"""chi2 by which the last step may still lower a fit"""


@dataclass(frozen=True, eq=False)
class Crossed:
    """Where helices cross sensors, [10, n], and how measurements there go with a displacement in space."""

    places: Places
    incidence: Floats
    """cosine in the transverse plane, negative where the normal points inwards; never nearer to 0 than GRAZING"""
    grazing: Mask
    """less than that"""
    rows: Floats
    """q, [3, m, n]"""
    slopes: Floats
    """how far the helix goes along the axis measured while it goes 1 along the normal, [m, n]"""
    expected: Floats
    """where the helix crosses along the axis measured, [m, n] in cm"""


@dataclass(frozen=True, eq=False)
class Fitted:
    """n tracks fitted."""

    helix: Helix
    covariance: Floats
    """of the parameters in the order of PARAMETERS, [5, 5, n]"""
    chi2: Floats
    ndf: NDArray[np.int64]
    fixed: Mask
    """the hits fix all parameters; else helix and covariance are finite, but of no meaning"""
    settled: Mask
    reached: Mask
    """the helix comes to all hits, and meets their sensors at more than GRAZING"""


def met(helix: Helix, planes: Planes, way: Floats) -> Floats:
    """The ways to planes, [10, n], one Newton step better than those given: from centimetres to tens of microns."""
    height, toward, _ = _height(helix.at(way), helix, planes)
    return way - height / _steep(toward)[0]


def crossed(helix: Helix, planes: Planes, way: Floats) -> Crossed:
    """Where helices cross planes, from ways [10, n] that are right to some tenths of a millimetre.

    What is left of the distance is slid along the track: measurements are right to half its square over the track's
    radius, 0.01 um.
    """
    places = helix.at(way)
    _, toward, offset = _height(places, helix, planes)
    toward, grazing = _steep(toward)
    of_layer = np.array(OF_LAYER)
    along = planes.u[:, of_layer]
    along[:, ALONG] = planes.v[:, of_layer[ALONG]]
    rate = along[0] * places.dx[of_layer] + along[1] * places.dy[of_layer] + along[2] * helix.cot_theta
    slopes = rate / toward[of_layer]
    rows = along - planes.w[:, of_layer] * slopes
    return Crossed(places, toward, grazing, rows, slopes, _dot(rows, offset[:, of_layer]))


def _height(places: Places, helix: Helix, planes: Planes) -> tuple[Floats, Floats, Floats]:
    """Distance above the planes, how it grows with the way, and the offset from their middle [3, 10, n]."""
    w = planes.w
    offset = np.stack([places.x, places.y, places.z]) - planes.centre
    return _dot(w, offset), w[0] * places.dx + w[1] * places.dy + w[2] * helix.cot_theta, offset


def _dot(one: Floats, other: Floats) -> Floats:
    found: Floats = one[0] * other[0] + one[1] * other[1] + one[2] * other[2]
    return found


def _steep(toward: Floats) -> tuple[Floats, Mask]:
    grazing = np.abs(toward) < GRAZING
    return np.where(grazing, np.copysign(GRAZING, toward), toward), grazing


def derivatives(helix: Helix, found: Crossed) -> Floats:
    """How measurements go with the parameters, [m, 5, n]."""
    places, of_layer = found.places, np.array(OF_LAYER)
    bent_x, bent_y = helix.bent(places.way)
    x, y, way = places.x[of_layer], places.y[of_layer], places.way[of_layer]
    across, up, along = found.rows
    result = np.empty((len(MEASURED), len(PARAMETERS), len(helix.phi)))
    result[:, 0] = across * bent_x[of_layer] + up * bent_y[of_layer]
    result[:, 1] = up * x - across * y
    result[:, 2] = across * np.sin(helix.phi) - up * np.cos(helix.phi)
    result[:, 3] = along
    result[:, 4] = along * way
    return result


def refit(start: Helix, hits: TrackHits, material: Material, tesla: float) -> Fitted:
    """Fit from a start near enough that two steps suffice; layers without a hit have no weight, but scatter.

    Covariance and derivatives are those at the start in both steps.
    """
    way, within = start.to_radius(np.where(hits.seen, np.hypot(*hits.points[:2]), material.radius[:, None]))
    on_circle = start.at(way)
    planes = hits.planes.standing_in(hits.seen, np.stack([on_circle.x, on_circle.y, on_circle.z]))
    weighed = np.array([hits.seen[layer] for layer in OF_LAYER])
    measured = np.stack([getattr(hits, axis)[layer] for layer, axis in MEASURED])
    found = crossed(start, planes, met(start, planes, way))
    lower = _whitening(scatterers(start, found.places, found.incidence, material, tesla), hits, found, weighed)
    right = np.concatenate([derivatives(start, found), (measured - found.expected)[:, None]], axis=1)
    right *= weighed[:, None]
    white = cholesky.solved(lower, right)
    slopes = white[:, :-1]
    normal, fixed = cholesky.factors(_products(slopes))
    helix = start.plus(_step(slopes, normal, white[:, -1]))
    found = crossed(helix, planes, found.places.way)
    residual = cholesky.solved(lower, ((measured - found.expected) * weighed)[:, None])[:, 0]
    step = _step(slopes, normal, residual)
    gained = summed(np.swapaxes(slopes, 0, 1) * step[:, None])
    chi2 = summed((residual - gained) ** 2)
    ndf = np.maximum(weighed.sum(axis=0) - len(PARAMETERS), 0)
    reached: Mask = np.logical_and.reduce(~hits.seen | (within & ~found.grazing), axis=0)
    settled = summed(gained**2) < SETTLED
    return Fitted(helix.plus(step), cholesky.inverse(normal), chi2, ndf, fixed, settled, reached)


def _whitening(scattered: Scatterers, hits: TrackHits, found: Crossed, weighed: Mask) -> Floats:
    """The factor L of the measurements' covariance; those not weighed have nothing to do with the others."""
    total = covariance(found.rows * weighed, found.places, OF_LAYER, scattered)
    errors = np.stack([getattr(hits, f"{axis}_error")[layer] for layer, axis in MEASURED])
    errors[ALONG] *= narrowed(hits.size_v[hits.pixel], found.slopes[ALONG])
    for row, error in enumerate(errors):
        total[row, row] += np.where(weighed[row], error**2, 1.0)
    lower, _ = cholesky.factors(total)
    return lower


def _products(slopes: Floats) -> Floats:
    """The normal matrix of whitened derivatives [m, 5, n], lower triangle."""
    size = slopes.shape[1]
    normal = np.zeros((size, size, slopes.shape[2]))
    for a in range(size):
        normal[a, : a + 1] = summed(slopes[:, a, None] * slopes[:, : a + 1])
    return normal


def _step(slopes: Floats, normal: Floats, residual: Floats) -> Floats:
    """Of the parameters, [5, n], by the factor of the normal matrix."""
    right = summed(slopes * residual[:, None])
    return cholesky.solved_back(normal, cholesky.solved(normal, right[:, None]))[:, 0]
