"""Hits by layer, to be found by azimuth: what the search for tracks works on.

Azimuths are compared as whole numbers, so a window is cut at the same place whatever else is in the block. Hits shortly
after -pi are listed a second time, a turn later, at the end of their event: no window has to be cut in two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from calib.payload import Payload
from pipeline.experiments.collisions import Collection
from pipeline.experiments.ref10.alignment import Frames
from pipeline.experiments.ref10.geometry import KIND as GEOMETRY
from pipeline.experiments.ref10.geometry import Geometry, geometry_of
from pipeline.experiments.ref10.layers import LAYERS
from pipeline.experiments.ref10.reconstruct.flags import ClusterFlag
from pipeline.experiments.ref10.reconstruct.placed import USES, frames_of
from pipeline.experiments.ref10.reconstruct.search import Search

__all__ = ["USES", "LayerHits", "Shell", "Window", "layer_hits"]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

TURN = 1 << 24
"""steps of azimuth in a turn: 0.4 urad, 0.3 um in the outermost layer"""
WIDEST = TURN // 4
"""no window is wider; a track of the least momentum turns by less from one layer to the outermost"""
EVENT_SHIFT, LAYER_SHIFT = 26, 58


@dataclass(frozen=True, slots=True)
class Shell:
    """Between which radii a layer's sensors lie as they are placed, and what they do to a track. In cm."""

    inner: float
    outer: float
    precision: float
    """pitch along u: what the error of a hit is less than, unless its cluster is no good"""
    lean: float
    """how far the end of a strip lies sideways of its middle"""
    reach: float
    """how far it lies along z"""
    material: float
    """in radiation lengths at normal incidence"""


@dataclass(frozen=True, eq=False)
class LayerHits:
    """Hits of some events, an entry each: where they lie [cm, rad] and how well that is known [cm]."""

    event: Ints
    layer: NDArray[np.int16]
    """0 to 9"""
    x: Floats
    y: Floats
    z: Floats
    r: Floats
    phi: Floats
    u_error: Floats
    v_error: Floats
    lean_x: Floats
    """dx/dz and dy/dz along a strip; 0 for pixels"""
    lean_y: Floats
    shells: tuple[Shell, ...]
    """of the ten layers"""
    usable: Mask
    key: Ints
    """of usable hits, by layer, event and azimuth; rising"""
    place: Ints
    """theirs"""

    def without(self, hit: Ints, events: int, search: Search) -> LayerHits:
        """With these hits (places, -1 for none) out of use, and all of an event that is left with too few layers for a
        track."""
        usable = self.usable.copy()
        usable[hit[hit >= 0]] = False
        there = np.zeros((events, len(self.shells)), np.bool_)
        there[self.event[usable], self.layer[usable]] = True
        usable &= search.enough(there)[self.event]
        left = np.flatnonzero(usable[self.place])
        return replace(self, usable=usable, key=self.key[left], place=self.place[left])

    def within(self, layer: int | Ints, event: Ints, low: Floats, high: Floats) -> Window:
        """The usable hits of a layer, or one for each entry, within azimuths of events, from `low` to `high`."""
        start = np.floor(low * (TURN / (2 * np.pi))).astype(np.int64)
        width = np.ceil((high - low) * (TURN / (2 * np.pi))).astype(np.int64) + 1
        first = _key(layer, event, start & (TURN - 1))
        begin = np.searchsorted(self.key, first)
        end = np.searchsorted(self.key, first + np.minimum(np.maximum(width, 0), WIDEST), side="right")
        return Window(self.place, begin, end - begin)

    def of_shells(self, name: str, layer: Ints) -> Floats:
        """What the shells of these layers have by a name."""
        found: Floats = np.array([getattr(shell, name) for shell in self.shells])[layer]
        return found


@dataclass(frozen=True, eq=False)
class Window:
    """For each of n entries a range of hits."""

    place: Ints
    """of all hits, by layer, event and azimuth"""
    begin: Ints
    number: Ints

    def hits(self, entries: slice) -> tuple[Ints, Ints]:
        """The pairs (entry, place of the hit) of some entries.

        >>> window = Window(np.array([5, 6, 7, 8]), np.array([2, 0, 1]), np.array([2, 0, 1]))
        >>> [part.tolist() for part in window.hits(slice(0, 3))]
        [[0, 0, 2], [7, 8, 6]]
        """
        number = self.number[entries]
        which = np.repeat(np.arange(len(number)), number)
        offset = self.begin[entries] - (np.cumsum(number) - number)
        return which + entries.start, self.place[np.arange(len(which)) + np.repeat(offset, number)]


def layer_hits(clusters: Collection, conditions: Mapping[str, Payload]) -> LayerHits:
    """Of placed clusters; those flagged LARGE are of no use. Raises UnknownModule for clusters of another geometry."""
    geometry, standing = geometry_of(conditions[GEOMETRY]), _standing(conditions)
    row = geometry.rows_of(clusters.flat["module"])
    layer, event = (geometry.layer - 1)[row], clusters.event
    x, y, z = (clusters[name] for name in "xyz")
    phi = np.arctan2(y, x)
    usable = (clusters.flat["flags"] & np.uint8(ClusterFlag.LARGE)) == 0
    key, place = _table(layer, event, phi, np.flatnonzero(usable))
    return LayerHits(
        event=event,
        layer=layer,
        x=x,
        y=y,
        z=z,
        r=np.hypot(x, y),
        phi=phi,
        u_error=clusters["u_error"],
        v_error=clusters["v_error"],
        lean_x=standing.lean_x[row],
        lean_y=standing.lean_y[row],
        shells=standing.shells,
        usable=usable,
        key=key,
        place=place,
    )


def _table(layer: NDArray[np.int16], event: Ints, phi: Floats, usable: Ints) -> tuple[Ints, Ints]:
    """Keys and places of the hits at these places."""
    step = np.floor(phi[usable] * (TURN / (2 * np.pi))).astype(np.int64) & (TURN - 1)
    key = _key(layer[usable].astype(np.int64), event[usable], step)
    again = np.flatnonzero(step < WIDEST)
    both = np.concatenate([key, key[again] + TURN])
    order = np.argsort(both, kind="stable")
    return both[order], np.concatenate([usable, usable[again]])[order]


@dataclass(frozen=True, eq=False)
class _Standing:
    """How modules stand."""

    lean_x: Floats
    """of each module"""
    lean_y: Floats
    shells: tuple[Shell, ...]


_STANDING: dict[tuple[str, ...], _Standing] = {}


def _standing(conditions: Mapping[str, Payload]) -> _Standing:
    """Worked out once for each pair of contents."""
    key = tuple(conditions[kind].id for kind in USES)
    if key not in _STANDING:
        if len(_STANDING) >= 4:
            _STANDING.clear()
        geometry, frames = geometry_of(conditions[GEOMETRY]), frames_of(conditions)
        slope = np.where(geometry.pixel, 0.0, 1 / np.where(geometry.pixel, 1.0, frames.v[:, 2]))
        shells = tuple(_shell(geometry, frames, geometry.layer == layer.number) for layer in LAYERS)
        _STANDING[key] = _Standing(frames.v[:, 0] * slope, frames.v[:, 1] * slope, shells)
    return _STANDING[key]


def _shell(geometry: Geometry, frames: Frames, own: Mask) -> Shell:
    height = np.abs(np.sum(frames.centre[own] * frames.w[own], axis=1))
    along = np.hypot(frames.v[own, 0], frames.v[own, 1]) * geometry.length[own] / 2
    strips = not geometry.pixel[own].any()
    return Shell(
        inner=float(height.min()),
        outer=float(np.hypot(height, geometry.width[own] / 2 + along).max()),
        precision=float(geometry.pitch_u[own].max()),
        lean=float(along.max()) if strips else 0.0,
        reach=float((geometry.length[own] / 2).max()) if strips else 0.0,
        material=float(geometry.x0[own].max()),
    )


def _key(layer: int | Ints, event: Ints, step: Ints) -> Ints:
    return (layer << LAYER_SHIFT) + (event << EVENT_SHIFT) + step
