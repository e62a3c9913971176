"""Where the beam is for tracks that are fitted on sensors thought to lie elsewhere than they do."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchmarks._calibration_toys import Floats
from calib.payload import Payload
from pipeline.experiments.ref10.alignment import Frames, frames
from pipeline.experiments.ref10.geometry import Geometry
from pipeline.experiments.ref10.layers import LAYERS
from pipeline.experiments.ref10.reconstruct.helix import Helix
from pipeline.experiments.ref10.reconstruct.refit import refit
from pipeline.experiments.ref10.reconstruct.scattering import Material
from pipeline.experiments.ref10.reconstruct.track_hits import Planes, TrackHits
from pipeline.experiments.ref10.simulate.helix import Flight, at_axis, launched
from pipeline.experiments.ref10.simulate.propagate import SCATTERERS, propagate
from pipeline.experiments.ref10.simulate.scenario import Beam, Region, Scenario

TRACKS = 8000
LEAST_HITS = 8
LEAST_PT, MORE_PT = 1.0, 1.0
"""GeV: the least, and the mean of what is more (physics note, 10)"""
PIXEL_U, PIXEL_V, STRIP_U = 10e-4, 30e-4, 25e-4
"""errors of hits [cm], by which a fit weighs them"""


def frame_of(detector: Geometry, found: Payload, true: Payload) -> tuple[Floats, Floats]:
    """By how much the beam is seen off where it is at z = 0, x and y [cm], and how much more by cm of z.

    Of tracks that neither scatter nor are mismeasured, through sensors that lie as `true` has them, fitted as if these
    lay as in `found`: what their d0 is off by, by azimuth and z, is what a beam there would do.
    """
    beam = Beam().start
    tracks, seen, row, u, v = _crossed(detector, frames(detector, true), _launched(beam))
    hits = _hits(detector, frames(detector, found), seen, row, u, v)
    axis = at_axis(tracks)
    start = Helix(tracks.curvature, axis["phi"], axis["d0"], axis["z0"], tracks.slope)
    fitted = refit(start, hits, Material.of(detector), Scenario().field_tesla)
    weight = (fitted.covariance[2, 2] + beam.width_x * beam.width_y) ** -0.5
    ways = np.stack([np.sin(axis["phi"]), -np.cos(axis["phi"])])
    ways = np.concatenate([ways, ways * axis["z0"]]) * weight
    shift_x, shift_y, *tilt = np.linalg.lstsq(ways.T, (fitted.helix.d0 - axis["d0"]) * weight, rcond=None)[0]
    return np.array([shift_x, shift_y]), np.array(tilt)


def _launched(beam: Region) -> Flight:
    rng = np.random.default_rng(10)
    along = rng.normal(0.0, beam.sigma_z, TRACKS)
    place = (beam.x + beam.dxdz * along, beam.y + beam.dydz * along, beam.z + along)
    pt, charge = LEAST_PT + rng.exponential(MORE_PT, TRACKS), rng.choice([-1.0, 1.0], TRACKS)
    eta, phi = rng.uniform(-1.0, 1.0, TRACKS), rng.uniform(-np.pi, np.pi, TRACKS)
    return launched(place, pt, eta, phi, charge * Scenario().field_tesla)


def _crossed(
    detector: Geometry, real: Frames, flight: Flight
) -> tuple[Flight, NDArray[np.bool_], NDArray[np.int64], Floats, Floats]:
    """Tracks with enough hits, and by layer [10, n] whether there is one, the module's row, and u and v on it [cm]."""
    crossings = propagate(detector, real, flight, np.zeros((2, SCATTERERS, TRACKS)))
    place = crossings.track * len(LAYERS) + detector.layer[crossings.row] - 1
    # Where two sensors of a layer reach over each other, the first.
    place, first = np.unique(place, return_index=True)
    every = []
    for values in (np.ones(len(crossings.row), np.bool_), crossings.row, crossings.u, crossings.v):
        by_layer = np.zeros((TRACKS, len(LAYERS)), values.dtype)
        by_layer.reshape(-1)[place] = values[first]
        every.append(by_layer.T)
    enough = every[0].sum(axis=0) >= LEAST_HITS
    seen, row, u, v = (values[:, enough] for values in every)
    return flight.of(enough), seen, row, u, v


def _hits(
    detector: Geometry, thought: Frames, seen: NDArray[np.bool_], row: NDArray[np.int64], u: Floats, v: Floats
) -> TrackHits:
    planes = Planes(*(np.take(part.T, row, axis=1) for part in (thought.centre, thought.u, thought.v, thought.w)))
    pixel = np.array([layer.pixel for layer in LAYERS])
    on_pixels = pixel[:, None] & seen
    u_error = np.where(seen, np.where(on_pixels, PIXEL_U, STRIP_U), 1.0)
    v_error = np.where(seen, np.where(on_pixels, PIXEL_V, detector.length[row] / np.sqrt(12)), 1.0)
    return TrackHits(
        seen, planes, u, np.where(on_pixels, v, 0.0), u_error, v_error, np.zeros(seen.shape, np.int64), pixel
    )
