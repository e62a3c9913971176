"""Tracks: the hits of candidates fitted, from a circle and a line to all five parameters and their covariance.

Columns of a track (float64 unless said):
    curvature [1/cm], phi [rad, (-pi, pi]], d0 [cm], z0 [cm], cot_theta   at the closest approach to the z axis
    cov_<a>_<b>    covariance, a and b of these in this order, a before b or the same
    chi2, ndf int32, hits int16, pixel_hits int16
    pt [GeV], charge int8      by the field; at most LARGEST_PT
    flags uint8                `TrackFlag`
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calib.payload import Payload
from pipeline.experiments.collisions import Collection
from pipeline.experiments.ref10.constants import FIELD
from pipeline.experiments.ref10.geometry import KIND as GEOMETRY
from pipeline.experiments.ref10.geometry import geometry_of
from pipeline.experiments.ref10.reconstruct import track_hits as hits_of
from pipeline.experiments.ref10.reconstruct.candidates import Candidates
from pipeline.experiments.ref10.reconstruct.circle import circle
from pipeline.experiments.ref10.reconstruct.helix import PARAMETERS, Helix, azimuth, transverse_momentum
from pipeline.experiments.ref10.reconstruct.line import line
from pipeline.experiments.ref10.reconstruct.refit import Fitted, refit
from pipeline.experiments.ref10.reconstruct.scattering import Material
from pipeline.experiments.ref10.reconstruct.track_flags import FAILED, TrackFlag
from pipeline.experiments.ref10.reconstruct.track_hits import TrackHits, track_hits

USES = (*hits_of.USES, FIELD)

BLOCK = 1024
"""tracks fitted at a time, 6 kB for each: they stay near"""
LEAST_HITS = 3
LARGEST_PT = 1e4
"""GeV, above what any beam has; of a track without curvature"""
UNKNOWN = 1e6
"""variance of each parameter of a track that could not be fitted"""

PAIRS = tuple((a, b) for a in range(len(PARAMETERS)) for b in range(a, len(PARAMETERS)))
COVARIANCES = tuple(f"cov_{PARAMETERS[a]}_{PARAMETERS[b]}" for a, b in PAIRS)
"""columns of the covariance, upper triangle, row by row"""

Columns = dict[str, NDArray[Any]]


def fit_tracks(candidates: Candidates, clusters: Collection, conditions: Mapping[str, Payload]) -> Collection:
    """Tracks of the candidates of some events, one for each, in their order; columns as above.

    Raises ValueError for hits that are no clusters of their layer, UnknownModule for clusters of another geometry.
    """
    material = Material.of(geometry_of(conditions[GEOMETRY]))
    tesla = float(conditions[FIELD]["tesla"])
    parts = []
    for first in range(0, max(len(candidates.hit), 1), BLOCK):
        hits = track_hits(candidates.hit[first : first + BLOCK], clusters, conditions)
        start, told = starting(hits)
        fitted = refit(start, hits, material, tesla)
        parts.append(_columns(replace(fitted, fixed=fitted.fixed & told), hits, tesla))
    return Collection(candidates.counts, {name: np.concatenate([part[name] for part in parts]) for name in parts[0]})


def hits_of_tracks(candidates: Candidates, clusters: Collection) -> Collection:
    """The hits of an event's tracks, one track after the other and outwards: `hit` uint32, the place of the cluster in
    its event. Where a track begins follows from the tracks' `hits`."""
    seen = candidates.hit >= 0
    event = np.repeat(np.arange(len(candidates.counts)), candidates.counts)
    first = (np.cumsum(clusters.counts) - clusters.counts)[event]
    counts = np.bincount(event, seen.sum(axis=1), minlength=len(candidates.counts)).astype(np.int64)
    return Collection(counts, {"hit": (candidates.hit - first[:, None])[seen].astype(np.uint32)})


def starting(hits: TrackHits) -> tuple[Helix, NDArray[np.bool_]]:
    """A circle and a line through hits, as points, and whether they tell a circle: else it is straight."""
    planes, points = hits.planes, hits.points
    # A strip turned against the z axis says little in the transverse plane before z is known.
    sideways = hits.u_error**2 + hits.v_error**2 * (planes.v[0] ** 2 + planes.v[1] ** 2)
    upwards = hits.v_error**2 * planes.v[2] ** 2 + hits.u_error**2 * planes.u[2] ** 2
    round_ = circle(points[0], points[1], hits.seen / sideways)
    nothing = np.zeros_like(round_.phi)
    flat = Helix(round_.curvature, round_.phi, round_.d0, nothing, nothing)
    way, _ = flat.to_radius(np.hypot(points[0], points[1]))
    z0, cot_theta = line(way, points[2], hits.seen / np.where(hits.seen, upwards, 1.0))
    return Helix(round_.curvature, round_.phi, round_.d0, z0, cot_theta), round_.found


def _columns(fitted: Fitted, hits: TrackHits, tesla: float) -> Columns:
    number, pixels = hits.seen.sum(axis=0), hits.seen[hits.pixel].sum(axis=0)
    few = (number < LEAST_HITS) | (number + pixels < len(PARAMETERS))
    flags = _flags(fitted, few, tesla)
    failed = (flags & np.uint8(FAILED)) > 0
    helix = fitted.helix
    found = (helix.curvature, azimuth(helix.phi), helix.d0, helix.z0, helix.cot_theta)
    values = dict(zip(PARAMETERS, found, strict=True))
    values |= {"chi2": fitted.chi2, "pt": transverse_momentum(helix.curvature, tesla, LARGEST_PT)}
    known: Columns = {name: np.where(failed, 0.0, column) for name, column in values.items()}
    spreads = {
        name: np.where(failed, UNKNOWN if a == b else 0.0, fitted.covariance[a, b])
        for name, (a, b) in zip(COVARIANCES, PAIRS, strict=True)
    }
    return (
        known
        | spreads
        | {
            "ndf": np.where(failed, 0, fitted.ndf).astype(np.int32),
            "hits": number.astype(np.int16),
            "pixel_hits": pixels.astype(np.int16),
            "charge": (np.sign(known["curvature"]) * np.sign(tesla)).astype(np.int8),
            "flags": flags,
        }
    )


def _flags(fitted: Fitted, few: NDArray[np.bool_], tesla: float) -> NDArray[np.uint8]:
    failed = few | ~fitted.fixed
    error = np.sqrt(fitted.covariance[0, 0])
    noted = (
        (TrackFlag.TOO_FEW, few),
        (TrackFlag.SINGULAR, ~few & ~fitted.fixed),
        (TrackFlag.UNREACHED, ~failed & ~fitted.reached),
        (TrackFlag.UNSETTLED, ~failed & ~fitted.settled),
        (TrackFlag.STRAIGHT, ~failed & (np.abs(fitted.helix.curvature) < error)),
        (TrackFlag.NO_FIELD, np.full(len(few), not tesla)),
    )
    flags = np.zeros(len(few), np.uint8)
    for flag, where in noted:
        flags |= np.where(where, np.uint8(flag), np.uint8(0))
    return flags
