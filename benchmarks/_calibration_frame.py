"""Where the beam is for tracks that are fitted on sensors thought to lie elsewhere than they do, and how wide."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks._calibration_toys import Floats
from benchmarks._ref10_played import LUMI, RUN
from calib.payload import Payload
from pipeline.experiments.ref10.alignment import Frames, frames
from pipeline.experiments.ref10.geometry import Geometry
from pipeline.experiments.ref10.layers import LAYERS
from pipeline.experiments.ref10.reconstruct.helix import Helix
from pipeline.experiments.ref10.reconstruct.refit import refit
from pipeline.experiments.ref10.reconstruct.scattering import Material
from pipeline.experiments.ref10.reconstruct.track_hits import Planes, TrackHits
from pipeline.experiments.ref10.simulate.helix import Flight, at_axis
from pipeline.experiments.ref10.simulate.propagate import SCATTERERS, propagate
from pipeline.experiments.ref10.simulate.scenario import Scenario
from pipeline.experiments.ref10.simulate.stages import Simulation
from pipeline.experiments.ref10.upright import PIXEL, PIXELS, STRIP

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

SEED = 10
EVENTS, STIFFEST = 3000, 1 / 15
"""for the beam line, and the share of their tracks that a run keeps for it"""
FOR_VERTICES, LEAST_TRACKS, BEST = 400, 10, 1 / 3
"""events for vertices, tracks of one that is looked at, and the share of these that a run keeps, the best measured"""
LEAST_HITS = 8
PIXEL_V = 30e-4
"""error of hits of pixels along z [cm], by which a fit weighs them"""


@dataclass(frozen=True, eq=False)
class Frame:
    """How a beam is seen; lengths in cm."""

    shift: Floats
    """by how much off where it is at z = 0, x and y"""
    tilt: Floats
    """how much more by cm of z"""
    spread: Floats
    """rms by which vertices are off beside, x and y"""


def frame_of(scenario: Scenario, detector: Geometry, found: Payload, true: Payload) -> Frame:
    """Of tracks that neither scatter nor are mismeasured, through sensors that lie as `true` has them, fitted as if
    these lay as in `found`: d0 is off as a beam elsewhere would make it, by azimuth and z, and what is left of it
    scatters vertices."""
    collided = Simulation(scenario, detector, SEED, RUN, LUMI).collide(np.arange(1, EVENTS + 1))
    made, beam = collided.particles, scenario.beam.start
    stiff = np.flatnonzero(made.pt > np.quantile(made.pt, 1 - STIFFEST))
    thought, real = frames(detector, found), frames(detector, true)
    of_line = _fitted(scenario, detector, collided.flight.of(stiff), thought, real)
    weight = (of_line.variance + beam.width_x * beam.width_y) ** -0.5
    line = np.linalg.lstsq((of_line.ways * weight).T, of_line.off * weight, rcond=None)[0]
    some = np.flatnonzero(made.event < FOR_VERTICES)
    of_vertices = _fitted(scenario, detector, collided.flight.of(some), thought, real)
    return Frame(line[:2], line[2:], _spread(made.vertex[some][of_vertices.track], of_vertices, line))


@dataclass(frozen=True, eq=False)
class _Fits:
    """Of the tracks that have enough hits."""

    track: Ints
    """their places"""
    off: Floats
    """of d0 [cm]"""
    variance: Floats
    """of d0, by the errors of hits and by scattering"""
    ways: Floats
    """d0 of a beam that is shifted along x and y, and tilted, [4, n]"""


def _fitted(scenario: Scenario, detector: Geometry, flight: Flight, thought: Frames, real: Frames) -> _Fits:
    seen, row, u, v = _crossed(detector, real, flight)
    enough = np.flatnonzero(seen.sum(axis=0) >= LEAST_HITS)
    hits = _hits(detector, thought, *(part[:, enough] for part in (seen, row, u, v)))
    tracks = flight.of(enough)
    axis = at_axis(tracks)
    start = Helix(tracks.curvature, axis["phi"], axis["d0"], axis["z0"], tracks.slope)
    fitted = refit(start, hits, Material.of(detector), scenario.field_tesla)
    across = np.stack([np.sin(axis["phi"]), -np.cos(axis["phi"])])
    ways = np.concatenate([across, across * axis["z0"]])
    return _Fits(enough, fitted.helix.d0 - axis["d0"], fitted.covariance[2, 2], ways)


def _spread(vertex: Ints, tracks: _Fits, line: Floats) -> Floats:
    """Rms of the places of vertices, by how much d0 of their tracks is off that of a beam there."""
    across, off = tracks.ways[:2], tracks.off - line @ tracks.ways
    enough = np.bincount(vertex) >= LEAST_TRACKS

    def summed(values: Floats) -> Floats:
        return np.bincount(vertex, values / tracks.variance)[enough]

    matrix = np.array([[summed(one * other) for other in across] for one in across]).transpose(2, 0, 1)
    right = np.array([summed(one * off) for one in across]).T
    covariance = np.linalg.inv(matrix)
    best = np.argsort(np.trace(covariance, axis1=1, axis2=2))[: max(int(BEST * len(right)), 1)]
    places = np.einsum("nij,nj->ni", covariance[best], right[best])
    found: Floats = np.sqrt((places**2).mean(axis=0))
    return found


def _crossed(detector: Geometry, real: Frames, flight: Flight) -> tuple[Mask, Ints, Floats, Floats]:
    """By layer and track [10, n] whether there is a hit, the module's row, and u and v on it [cm]."""
    n = len(flight.x)
    crossings = propagate(detector, real, flight, np.zeros((2, SCATTERERS, n)))
    # Where two sensors of a layer reach over each other, the first.
    layer = detector.layer[crossings.row].astype(np.int64) - 1
    place, first = np.unique(layer * n + crossings.track, return_index=True)
    seen, row, u, v = (np.zeros((len(LAYERS), n), kind) for kind in (np.bool_, np.int64, np.float64, np.float64))
    for of, values in ((seen, True), (row, crossings.row[first]), (u, crossings.u[first]), (v, crossings.v[first])):
        of.reshape(-1)[place] = values
    return seen, row, u, v


def _hits(detector: Geometry, thought: Frames, seen: Mask, row: Ints, u: Floats, v: Floats) -> TrackHits:
    planes = Planes(*(np.take(part.T, row, axis=1) for part in (thought.centre, thought.u, thought.v, thought.w)))
    on_pixels = PIXELS[:, None] & seen
    u_error = np.where(seen, np.where(on_pixels, PIXEL, STRIP), 1.0)
    v_error = np.where(seen, np.where(on_pixels, PIXEL_V, detector.length[row] / np.sqrt(12)), 1.0)
    size_v = np.zeros(seen.shape, np.int64)
    return TrackHits(seen, planes, u, np.where(on_pixels, v, 0.0), u_error, v_error, size_v, PIXELS)
