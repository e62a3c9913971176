"""The hits of candidates as the fit takes them: measured planes where the alignment says that they lie.

Arrays have the layers first and the tracks last, [10, n] and [3, 10, n]: the ten layers are few and looped over, the
tracks many. A layer without a hit has `seen` false, weight 0 and a plane of no meaning until one is put in
(`standing_in`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calib.payload import Payload
from pipeline.experiments.collisions import Collection
from pipeline.experiments.ref10.geometry import KIND as GEOMETRY
from pipeline.experiments.ref10.geometry import geometry_of
from pipeline.experiments.ref10.layers import LAYERS
from pipeline.experiments.ref10.reconstruct.placed import USES, frames_of

__all__ = ["USES", "Planes", "TrackHits", "track_hits"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

NUMBERS = np.arange(1, len(LAYERS) + 1)


@dataclass(frozen=True, eq=False)
class Planes:
    """Of sensors: their middle [cm] and axes, each [3, 10, n]."""

    centre: Floats
    u: Floats
    v: Floats
    w: Floats

    def standing_in(self, seen: Mask, points: Floats) -> Planes:
        """With a plane across the way out from the z axis at `points` [3, 10, n] on layers not seen; unmeasured."""
        out = points.copy()
        out[2] = 0.0
        out /= np.maximum(np.hypot(out[0], out[1]), 1e-9)
        nothing = np.zeros_like(out)
        stands = ((self.centre, points), (self.u, nothing), (self.v, nothing), (self.w, out))
        return Planes(*(np.where(seen, real, instead) for real, instead in stands))


@dataclass(frozen=True, eq=False)
class TrackHits:
    """Hits of n tracks by layer, [10, n]."""

    seen: Mask
    planes: Planes
    u: Floats
    """measured, in the sensor's axes [cm]; 0 where there is no hit"""
    v: Floats
    u_error: Floats
    """[cm]; 1 where there is no hit"""
    v_error: Floats
    size_v: Ints
    """columns of a cluster that nothing is wrong with; else, and where there is no hit, 0"""
    pixel: Mask
    """by layer, bool[10]: v is measured, not only that it lies on the strip"""

    @property
    def points(self) -> Floats:
        """The hits in space, [3, 10, n] in cm; of strips, where v is 0."""
        planes = self.planes
        found: Floats = planes.centre + self.u * planes.u + self.v * planes.v
        return found


def track_hits(hit: Ints, clusters: Collection, conditions: Mapping[str, Payload]) -> TrackHits:
    """Of tracks by the places of their hits in the clusters' flat arrays, [n, 10], -1 where a layer has none.

    Raises ValueError for a place that is none, or of a cluster on another layer; UnknownModule for clusters of another
    geometry.
    """
    place = np.ascontiguousarray(hit.T)
    seen = place >= 0
    _check(place, len(clusters.flat["module"]))
    geometry, frames = geometry_of(conditions[GEOMETRY]), frames_of(conditions)
    row = np.zeros(place.shape, np.int64)
    row[seen] = geometry.rows_of(clusters.flat["module"][place[seen]])
    if (wrong := seen & (geometry.layer[row] != NUMBERS[:, None])).any():
        layer, track = (int(index[0]) for index in np.nonzero(wrong))
        raise ValueError(
            f"track {track} has on layer {layer + 1} a cluster of layer {geometry.layer[row[layer, track]]}"
        )
    planes = Planes(*(np.take(part.T, row, axis=1) for part in (frames.centre, frames.u, frames.v, frames.w)))

    def measured(name: str, nothing: float) -> Floats:
        found = np.full(place.shape, nothing)
        found[seen] = clusters.flat[name][place[seen]]
        return found

    values = (measured("u", 0.0), measured("v", 0.0), measured("u_error", 1.0), measured("v_error", 1.0))
    size = np.zeros(place.shape, np.int64)
    size[seen] = np.where(clusters.flat["flags"][place[seen]] == 0, clusters.flat["size_v"][place[seen]], 0)
    return TrackHits(seen, planes, *values, size, np.array([layer.pixel for layer in LAYERS]))


def _check(place: Ints, clusters: int) -> None:
    if len(place) != len(LAYERS):
        raise ValueError(f"a candidate has {len(LAYERS)} hits, one for each layer or -1, not {len(place)}")
    if place.size and place.max() >= clusters:
        raise ValueError(f"a candidate has cluster {int(place.max())}, of {clusters}: are they of other events?")
