"""Hits by layer, to be found by azimuth: what the search for tracks works on.

Azimuths are compared as whole numbers, so a window is cut at the same place whatever else is in the block. Hits shortly
after -pi are listed a second time, a turn later, at the end of their event: no window has to be cut in two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

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

__all__ = ["USES", "LayerHits", "Shell", "each_of", "layer_hits"]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

TURN = 1 << 24
"""steps of azimuth in a turn: 0.4 urad, 0.3 um in the outermost layer"""
WIDEST = TURN // 4
"""no window is wider; a track of the least momentum turns by less from one layer to the outermost"""
EVENT_SHIFT = 26


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

    def without(self, hit: Ints) -> LayerHits:
        """With these hits (places, -1 for none) out of use."""
        usable = self.usable.copy()
        usable[hit[hit >= 0]] = False
        return replace(self, usable=usable)

    @cached_property
    def tables(self) -> tuple[tuple[Ints, Ints], ...]:
        """For each layer the keys of usable hits, rising, and their places."""
        step = _steps(self.phi)
        return tuple(self._table(layer, step) for layer in range(len(LAYERS)))

    def _table(self, layer: int, step: Ints) -> tuple[Ints, Ints]:
        place = np.flatnonzero(self.usable & (self.layer == layer))
        again = place[step[place] < WIDEST]
        key = np.concatenate([_key(self.event[place], step[place]), _key(self.event[again], step[again] + TURN)])
        order = np.argsort(key, kind="stable")
        return key[order], np.concatenate([place, again])[order]

    def within(self, layer: int, event: Ints, low: Floats, high: Floats) -> tuple[Ints, Ints]:
        """For each window of azimuth in an event where in the layer's table its hits begin, and their number."""
        key, _ = self.tables[layer]
        start = np.floor(low * (TURN / (2 * np.pi))).astype(np.int64)
        width = np.ceil((high - low) * (TURN / (2 * np.pi))).astype(np.int64) + 1
        first = _key(event, start & (TURN - 1))
        begin = np.searchsorted(key, first)
        end = np.searchsorted(key, first + np.clip(width, 0, WIDEST), side="right")
        return begin, end - begin


def layer_hits(clusters: Collection, conditions: Mapping[str, Payload]) -> LayerHits:
    """Of placed clusters; those flagged LARGE are of no use. Raises UnknownModule for clusters of another geometry."""
    geometry, frames = geometry_of(conditions[GEOMETRY]), frames_of(conditions)
    row = geometry.rows_of(clusters.flat["module"])
    x, y, z = (clusters[name] for name in "xyz")
    slope = np.where(geometry.pixel, 0.0, 1 / np.where(geometry.pixel, 1.0, frames.v[:, 2]))
    return LayerHits(
        event=clusters.event,
        layer=(geometry.layer - 1)[row],
        x=x,
        y=y,
        z=z,
        r=np.hypot(x, y),
        phi=np.arctan2(y, x),
        u_error=clusters["u_error"],
        v_error=clusters["v_error"],
        lean_x=(frames.v[:, 0] * slope)[row],
        lean_y=(frames.v[:, 1] * slope)[row],
        shells=_shells(geometry, frames),
        usable=(clusters.flat["flags"] & np.uint8(ClusterFlag.LARGE)) == 0,
    )


def each_of(begin: Ints, number: Ints) -> tuple[Ints, Ints]:
    """Ranges in line: to which each entry belongs, and the entry.

    >>> [part.tolist() for part in each_of(np.array([7, 0, 3]), np.array([2, 0, 1]))]
    [[0, 0, 2], [7, 8, 3]]
    """
    which = np.repeat(np.arange(len(number)), number)
    return which, np.arange(len(which)) + np.repeat(begin - (np.cumsum(number) - number), number)


def _shells(geometry: Geometry, frames: Frames) -> tuple[Shell, ...]:
    return tuple(_shell(geometry, frames, geometry.layer == layer.number) for layer in LAYERS)


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


def _steps(phi: Floats) -> Ints:
    return np.floor(phi * (TURN / (2 * np.pi))).astype(np.int64) & (TURN - 1)


def _key(event: Ints, step: Ints) -> Ints:
    return (event << EVENT_SHIFT) + step
