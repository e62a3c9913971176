"""What the stiff tracks of REF10 say of where its sensors are, and the alignment made of it; never written.

A record is a track as `reconstruct.refit` fitted it: u of each hit, v of those on pixels, less where the track crosses
the sensor as it is thought to lie, with the covariance of errors and scattering that the fit took. Half barrels and
ladders move in global axes, modules in their own, as `alignment` has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from calib.algorithms.alignment import Alignment
from calib.algorithms.alignment_geometry import slopes
from calib.algorithms.gain import KIND as GAIN
from calib.algorithms.lorentz_angle import KIND as LORENTZ
from calib.algorithms.pedestal import KIND as PEDESTAL
from calib.payload import Payload
from pipeline.experiments.collisions import Collection
from pipeline.experiments.ref10.alignment import HALVES, ladder_middles
from pipeline.experiments.ref10.constants import FIELD, PIXEL_STATUS, STRIP_STATUS
from pipeline.experiments.ref10.geometry import KIND as GEOMETRY
from pipeline.experiments.ref10.geometry import Geometry, geometry_of
from pipeline.experiments.ref10.layers import LAYERS
from pipeline.experiments.ref10.reconstruct.helix import PARAMETERS, Helix
from pipeline.experiments.ref10.reconstruct.objects import Objects
from pipeline.experiments.ref10.reconstruct.placed import frames_of
from pipeline.experiments.ref10.reconstruct.refit import MEASURED, OF_LAYER, Crossed, crossed, derivatives, met
from pipeline.experiments.ref10.reconstruct.scattering import Material, covariance, scatterers
from pipeline.experiments.ref10.reconstruct.track_hits import TrackHits, track_hits

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

MOMENTUM = 3.0
"""GeV; of slower tracks scattering leaves little"""
LEAST_HITS = 8
LEVELS = ("half_barrel", "ladder", "module")
FREE = ("half_barrel 0-1: all",)
"""the half barrels of the pixels"""
BLOCK = 512
"""tracks worked on at a time, 15 kB for each"""


class TrackerAlignment(Alignment):
    """Of residuals that everything else has made right."""

    after: ClassVar[tuple[str, ...]] = (PEDESTAL, STRIP_STATUS, PIXEL_STATUS, GAIN, LORENTZ)


def alignment_calibration(geometry: Geometry) -> TrackerAlignment:
    """Of the half barrels of the pixels, unless the settings say more; strips stay."""
    counts = (HALVES, int(geometry.ladder_row.max()) + 1, len(geometry))
    return TrackerAlignment(levels=tuple(zip(LEVELS, counts, strict=True)), free=FREE)


@dataclass(frozen=True, eq=False)
class Stiff:
    """Tracks that are looked at: the event of each, its hits by layer [n, 10], -1: none, and its fit."""

    event: Ints
    hit: Ints
    helix: Helix

    def part(self, rows: slice) -> Stiff:
        """Some of them."""
        helix = Helix(*(getattr(self.helix, name)[rows] for name in PARAMETERS))
        return Stiff(self.event[rows], self.hit[rows], helix)


def alignment_columns(clusters: Collection, found: Objects, conditions: Mapping[str, Payload]) -> dict[str, Any]:
    """What `calib.algorithms.alignment` reads, of stiff tracks."""
    geometry = geometry_of(conditions[GEOMETRY])
    tracks = stiff_tracks(clusters, found, geometry)
    parts = [
        _records(tracks.part(slice(first, first + BLOCK)), clusters, conditions)
        for first in range(0, max(len(tracks.event), 1), BLOCK)
    ]
    events = len(clusters.counts)
    columns = {}
    for name in parts[0]:
        values, sizes = (np.concatenate([part[name][i] for part in parts]) for i in (0, 1))
        counts = np.bincount(tracks.event, sizes, minlength=events).astype(np.int64)
        columns[f"alignment_{name}"] = Collection(counts, {}).jagged(values)
    return columns


def stiff_tracks(clusters: Collection, found: Objects, geometry: Geometry) -> Stiff:
    """Tracks above 3 GeV with 8 hits or more, and fitted. (One that fits badly is for the alignment's cut on chi2.)"""
    tracks = found.tracks
    momentum = tracks["pt"] * np.sqrt(1 + tracks["cot_theta"] ** 2)
    good = (tracks.flat["flags"] == 0) & (tracks.flat["hits"] >= LEAST_HITS) & (momentum > MOMENTUM)
    chosen = np.flatnonzero(good)
    # The hits of an event follow those of the one before, as tracks do.
    of_hit = np.flatnonzero(np.repeat(good, tracks.flat["hits"]))
    event, starts = found.hits.event[of_hit], np.cumsum(clusters.counts) - clusters.counts
    place = starts[event] + found.hits.flat["hit"][of_hit]
    layer = geometry.layer[geometry.rows_of(clusters.flat["module"][place])] - 1
    hit = np.full((len(chosen), len(LAYERS)), -1, np.int64)
    hit[np.repeat(np.arange(len(chosen)), tracks.flat["hits"][chosen]), layer] = place
    helix = Helix(*(tracks[name][chosen] for name in PARAMETERS))
    return Stiff(tracks.event[chosen].astype(np.int64), hit, helix)


def _records(tracks: Stiff, clusters: Collection, conditions: Mapping[str, Payload]) -> dict[str, tuple[Any, Ints]]:
    """By column the values of all tracks, and how many each has."""
    geometry = geometry_of(conditions[GEOMETRY])
    hits = track_hits(tracks.hit, clusters, conditions)
    material, tesla = Material.of(geometry), float(conditions[FIELD]["tesla"])
    way, _ = tracks.helix.to_radius(np.where(hits.seen, np.hypot(*hits.points[:2]), material.radius[:, None]))
    on_circle = tracks.helix.at(way)
    planes = hits.planes.standing_in(hits.seen, np.stack([on_circle.x, on_circle.y, on_circle.z]))
    there = crossed(tracks.helix, planes, met(tracks.helix, planes, way))
    of_layer = np.array(OF_LAYER)
    seen = hits.seen[of_layer]
    scattered = scatterers(tracks.helix, there.places, there.incidence, material, tesla)
    spread = covariance(there.rows * seen, there.places, OF_LAYER, scattered)
    spread[np.arange(len(seen)), np.arange(len(seen))] += _measured(hits, "_error") ** 2
    labels, along = _structures(tracks, there, geometry, conditions, clusters)
    own = seen.T
    m, k = own.sum(axis=1), len(PARAMETERS)
    both = own[:, :, None] & own[:, None, :] & np.tri(len(seen), dtype=bool)
    one = np.ones_like(m)
    return {
        "measurements": (m, one),
        "parameters": (np.full_like(m, k), one),
        "residuals": ((_measured(hits, "") - there.expected).T[own], m),
        "derivatives": (derivatives(tracks.helix, there).transpose(2, 0, 1)[own].reshape(-1), m * k),
        "covariance": (spread.transpose(2, 0, 1)[both], m * (m + 1) // 2),
        "labels": (labels[own].reshape(-1), m * len(LEVELS)),
        "slopes": (along[own].reshape(-1), m * len(LEVELS) * 6),
        "directions": (there.rows.transpose(2, 1, 0)[own].reshape(-1), 3 * m),
        "points": (_points(there)[own].reshape(-1), 3 * m),
    }


def _measured(hits: TrackHits, of: str) -> Floats:
    """u and v as MEASURED has them, or their errors, [m, n]."""
    return np.stack([getattr(hits, f"{axis}{of}")[layer] for layer, axis in MEASURED])


def _points(there: Crossed) -> Floats:
    """Where the tracks cross, [n, m, 3]."""
    found: Floats = np.stack([there.places.x, there.places.y, there.places.z], axis=-1)[np.array(OF_LAYER)]
    return found.swapaxes(0, 1)


def _structures(
    tracks: Stiff, there: Crossed, geometry: Geometry, conditions: Mapping[str, Payload], clusters: Collection
) -> tuple[Ints, Floats]:
    """The structures that measurements lie on, [n, m, levels], and the slopes in their displacements, [..., 6].

    Where nothing was measured, both have no meaning.
    """
    place = np.maximum(tracks.hit, 0)
    every = clusters.flat["module"][place] if place.size else np.zeros(place.shape, geometry.module.dtype)
    row = geometry.rows_of(every)[:, np.array(OF_LAYER)]
    labels = np.stack([geometry.half[row].astype(np.int64), geometry.ladder_row[row], row], axis=-1)
    frames, q, points = frames_of(conditions), there.rows.transpose(2, 1, 0), _points(there)
    axes = np.stack([frames.u, frames.v, frames.w], axis=1)[row]
    arm = points - frames.centre[row]
    own = (np.matmul(axes, part[..., None])[..., 0] for part in (q, arm))
    of_ladder = points - ladder_middles(geometry)[geometry.ladder_row[row]]
    return labels, np.stack([slopes(q, points), slopes(q, of_ladder), slopes(*own)], axis=2)
