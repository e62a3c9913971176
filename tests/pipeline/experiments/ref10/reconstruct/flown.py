"""Tracks flown through the detector as it really lies, and clusters made of their crossings: no digis, no search.

An event has one track each, unless said.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from calib.payload import Payload
from pipeline.experiments.collisions import Collection
from pipeline.experiments.ref10.alignment import KIND as ALIGNMENT
from pipeline.experiments.ref10.alignment import alignment, frames
from pipeline.experiments.ref10.constants import FIELD, field
from pipeline.experiments.ref10.geometry import KIND as GEOMETRY
from pipeline.experiments.ref10.geometry import Geometry, full_geometry, geometry_of
from pipeline.experiments.ref10.reconstruct.candidates import Candidates
from pipeline.experiments.ref10.simulate.helix import Flight, at_axis, launched
from pipeline.experiments.ref10.simulate.propagate import SCATTERERS, propagate

Floats = NDArray[np.float64]

TESLA = 3.8038
FULL = full_geometry()
PLAN = geometry_of(FULL)

ERRORS = ((10e-4, 30e-4), (25e-4, None))
"""of u and v [cm], of pixels and strips, as the physics note's table has them; along strips nothing is measured"""


@cache
def displaced(geometry: Geometry = PLAN, scale: float = 1.0) -> Payload:
    """Half barrels, ladders and modules off their places by 100 um and 1 mrad times `scale`."""
    rng = np.random.default_rng(5)
    ladders = int(geometry.ladder_row.max()) + 1
    return alignment(
        *(scale * rng.normal(0, [1e-2] * 3 + [1e-3] * 3, (rows, 6)) for rows in (4, ladders, len(geometry)))
    )


def conditions(tesla: float = TESLA, moved: Payload | None = None) -> dict[str, Payload]:
    return {GEOMETRY: FULL, ALIGNMENT: displaced() if moved is None else moved, FIELD: field(tesla)}


@dataclass(frozen=True, eq=False)
class Flown:
    """n tracks: their truth, clusters and candidates, and the conditions under which they flew."""

    truth: dict[str, Floats]
    clusters: Collection
    candidates: Candidates
    conditions: dict[str, Payload]


def flight(pt: Floats, seed: int = 1, tesla: float = TESLA, eta: float = 0.8) -> Flight:
    """Tracks of these pT, everywhere in azimuth, from near the axis, of both charges."""
    rng = np.random.default_rng([seed, 1])
    n = len(pt)
    place = (rng.normal(0.08, 0.02, n), rng.normal(-0.04, 0.02, n), rng.normal(0.5, 4, n))
    charge = rng.choice([-1.0, 1.0], n)
    return launched(place, pt, rng.uniform(-eta, eta, n), rng.uniform(-np.pi, np.pi, n), charge * tesla)


def flown(
    pt: Floats, *, seed: int = 1, scatter: bool = True, smear: bool = True, under: dict[str, Payload] | None = None
) -> Flown:
    """One track an event; the first crossing of each layer is its hit."""
    rng = np.random.default_rng([seed, 2])
    under = under or conditions()
    tracks = flight(pt, seed, float(under[FIELD]["tesla"]))
    kicks = rng.normal(0, 1, (2, SCATTERERS, len(pt))) * scatter
    found = propagate(PLAN, frames(PLAN, under[ALIGNMENT]), tracks, kicks)
    layer = PLAN.layer[found.row].astype(np.int64) - 1
    first = np.unique(found.track * 10 + layer, return_index=True)[1]
    track, row, layer = found.track[first], found.row[first], layer[first]
    flat = clusters_at(row, found.u[first], found.v[first], rng.normal(0, 1, (2, len(first))) * smear)
    hit = np.full((len(pt), 10), -1)
    hit[track, layer] = np.arange(len(first))
    counts = np.bincount(track, minlength=len(pt)).astype(np.int64)
    axis = at_axis(tracks)
    truth = axis | {"curvature": tracks.curvature, "cot_theta": tracks.slope, "pt": pt}
    return Flown(truth, Collection(counts, flat), one_each(hit), under)


def clusters_at(row: NDArray[np.int64], u: Floats, v: Floats, off: Floats) -> dict[str, NDArray[np.generic]]:
    """Clusters at points of sensors, `off` [2, n] errors away; of strips v is 0."""
    pixel = PLAN.pixel[row]
    (pixel_u, pixel_v), (strip_u, _) = ERRORS
    u_error = np.where(pixel, pixel_u, strip_u)
    v_error = np.where(pixel, pixel_v, PLAN.length[row] / np.sqrt(12))
    return {
        "module": PLAN.module[row],
        "u": u + u_error * off[0],
        "v": np.where(pixel, v + v_error * off[1], 0.0),
        "u_error": u_error,
        "v_error": v_error,
        # Of no size, so that errors are what they are told to be.
        "size_v": np.zeros(len(row), np.uint16),
        "flags": np.zeros(len(row), np.uint8),
    }


def one_each(hit: NDArray[np.int64]) -> Candidates:
    """One candidate in each event."""
    return Candidates(np.ones(len(hit), np.int64), hit, np.zeros(len(hit), np.uint8))
