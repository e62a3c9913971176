"""Charge and size of the clusters of REF10's tracks, for the gain of strips and the Lorentz angle; never written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calib.payload import Payload
from pipeline.experiments.collisions import Collection
from pipeline.experiments.ref10 import geometry as geometries
from pipeline.experiments.ref10.geometry import Geometry
from pipeline.experiments.ref10.layers import CHIP, CHIPS
from pipeline.experiments.ref10.reconstruct.flags import ClusterFlag
from pipeline.experiments.ref10.reconstruct.helix import Helix
from pipeline.experiments.ref10.reconstruct.objects import Objects
from pipeline.experiments.ref10.reconstruct.placed import frames_of

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

UM = 1e4
"""in a cm"""
MOMENTUM = 1.0
"""GeV; of slower particles the charge goes with what they are"""
TRANSVERSE = 0.5
"""GeV; of tracks whose clusters' sizes are looked at"""
CHI2 = 5.0
"""largest per degree of freedom"""
LEAST_HITS = 8
WIDEST = 8
"""strips; more are of two particles, or of one that knocked out an electron"""
SPOILT = ClusterFlag.EDGE | ClusterFlag.LARGE | ClusterFlag.NEAR_MASKED | ClusterFlag.BRIDGED
"""what charge or size may be missing of; not saturated ones, which would bend what is left"""


@dataclass(frozen=True, eq=False)
class Crossings:
    """Good clusters of good tracks, flat: where, and how steeply the track goes through the sensor."""

    event: Ints
    cluster: Ints
    """place in the clusters' flat arrays"""
    track: Ints
    """place in the tracks' flat arrays"""
    row: Ints
    """of the module in the geometry"""
    along_u: Floats
    """du/dw"""
    along_v: Floats

    def where(self, keep: Mask) -> Crossings:
        """Some of them."""
        return Crossings(**{name: values[keep] for name, values in vars(self).items()})


def charge_columns(clusters: Collection, found: Objects, conditions: Mapping[str, Payload]) -> dict[str, Any]:
    """What `calib.algorithms.gain` and `.lorentz_angle` read.

    `gain_group`: the chip, 6 x strip module + chip; `gain_charge` in electrons by the gain in force; `gain_path` in um;
    `gain_saturated`. `lorentz_group`: 2 (layer - 1), and 1 more of modules that are flipped; `lorentz_slope`;
    `lorentz_size`.
    """
    geometry = geometries.geometry_of(conditions[geometries.KIND])
    crossed = crossings(clusters, found, conditions)
    return _gains(crossed, clusters, found.tracks, geometry) | _sizes(crossed, clusters, geometry)


def crossings(clusters: Collection, found: Objects, conditions: Mapping[str, Payload]) -> Crossings:
    """The clusters of tracks that are well fitted, of 8 hits or more and above 0.5 GeV; without spoilt clusters."""
    tracks = found.tracks
    good = (tracks.flat["flags"] == 0) & (tracks.flat["hits"] >= LEAST_HITS) & (tracks.flat["pt"] > TRANSVERSE)
    good &= tracks.flat["chi2"] < CHI2 * tracks.flat["ndf"]
    track = np.repeat(np.arange(len(good)), tracks.flat["hits"])
    starts = np.cumsum(clusters.counts) - clusters.counts
    # The hits of an event follow those of the one before, as tracks do.
    cluster = starts[found.hits.event] + found.hits.flat["hit"]
    keep = good[track] & ((clusters.flat["flags"][cluster] & np.uint8(SPOILT)) == 0)
    track, cluster, event = track[keep], cluster[keep], found.hits.event[keep]
    geometry = geometries.geometry_of(conditions[geometries.KIND])
    row = geometry.rows_of(clusters.flat["module"][cluster])
    direction = _directions(tracks, track, np.hypot(clusters.flat["x"][cluster], clusters.flat["y"][cluster]))
    axes = frames_of(conditions)
    u, v, w = (np.einsum("in,ni->n", direction, axis[row]) for axis in (axes.u, axes.v, axes.w))
    return Crossings(event, cluster, track, row, u / w, v / w)


def _directions(tracks: Collection, track: Ints, radius: Floats) -> Floats:
    """Where tracks go at distances from the z axis, [3, n]; of transverse length 1."""
    helix = Helix(*(tracks.flat[name][track] for name in ("curvature", "phi", "d0", "z0", "cot_theta")))
    way, _ = helix.to_radius(radius)
    azimuth = helix.phi - helix.curvature * way
    return np.stack([np.cos(azimuth), np.sin(azimuth), helix.cot_theta])


def _gains(crossed: Crossings, clusters: Collection, tracks: Collection, geometry: Geometry) -> dict[str, Any]:
    momentum = tracks["pt"] * np.sqrt(1 + tracks["cot_theta"] ** 2)
    first, size = clusters.flat["first_row"].astype(np.int64), clusters.flat["size_u"].astype(np.int64)
    one_chip = first // CHIP == (first + size - 1) // CHIP
    keep = ~geometry.pixel[crossed.row] & (momentum > MOMENTUM)[crossed.track]
    keep &= (one_chip & (size <= WIDEST))[crossed.cluster]
    some = crossed.where(keep)
    flat = {
        "group": CHIPS * geometry.strip_block[some.row] + first[some.cluster] // CHIP,
        "charge": clusters.flat["charge"][some.cluster],
        "path": UM * geometry.thickness[some.row] * np.sqrt(1 + some.along_u**2 + some.along_v**2),
        "saturated": (clusters.flat["flags"][some.cluster] & np.uint8(ClusterFlag.SATURATED)) > 0,
    }
    return _jagged("gain", flat, some, len(clusters.counts))


def _sizes(crossed: Crossings, clusters: Collection, geometry: Geometry) -> dict[str, Any]:
    flat = {
        "group": 2 * (geometry.layer[crossed.row].astype(np.int64) - 1) + geometry.flipped[crossed.row],
        "slope": crossed.along_u,
        "size": clusters.flat["size_u"][crossed.cluster],
    }
    return _jagged("lorentz", flat, crossed, len(clusters.counts))


def _jagged(prefix: str, flat: Mapping[str, NDArray[Any]], crossed: Crossings, events: int) -> dict[str, Any]:
    counts = np.bincount(crossed.event, minlength=events).astype(np.int64)
    return Collection(counts, flat).columns(prefix)
