"""Clusters in space, where the alignment says their modules are."""

from __future__ import annotations

from collections.abc import Mapping

from calib.payload import Payload
from pipeline.experiments.collisions import Collection
from pipeline.experiments.ref10.alignment import KIND as ALIGNMENT
from pipeline.experiments.ref10.alignment import Frames, frames
from pipeline.experiments.ref10.geometry import KIND as GEOMETRY
from pipeline.experiments.ref10.geometry import geometry_of

USES = (GEOMETRY, ALIGNMENT)
MADE = ("x", "y", "z")
"""float64 [cm]"""

_FRAMES: dict[tuple[str, str], Frames] = {}


def placed(clusters: Collection, conditions: Mapping[str, Payload]) -> Collection:
    """Clusters with their local `u` and `v`, and the global `x`, `y`, `z` [cm] added.

    Raises UnknownModule for clusters of another geometry, ValueError for an alignment of another.
    """
    row = geometry_of(conditions[GEOMETRY]).rows_of(clusters.flat["module"])
    points = frames_of(conditions).to_global(row, clusters["u"], clusters["v"])
    return clusters.adding(**dict(zip(MADE, points.T, strict=True)))


def frames_of(conditions: Mapping[str, Payload]) -> Frames:
    """Where the alignment says that the modules lie; worked out once for each pair of contents."""
    drawn, displaced = (conditions[kind] for kind in USES)
    key = (drawn.id, displaced.id)
    if key not in _FRAMES:
        if len(_FRAMES) >= 4:
            _FRAMES.clear()
        _FRAMES[key] = frames(geometry_of(drawn), displaced)
    return _FRAMES[key]
