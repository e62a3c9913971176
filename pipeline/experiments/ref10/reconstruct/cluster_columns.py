"""The columns of a cluster, the same for strips and pixels."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from pipeline.experiments.collisions import Collection
from pipeline.experiments.ref10.geometry import Geometry
from pipeline.experiments.ref10.reconstruct.flags import ClusterFlag

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

MADE = (
    "module",
    "row",
    "column",
    "first_row",
    "first_column",
    "size",
    "size_u",
    "size_v",
    "charge",
    "skew_u",
    "skew_v",
    "flags",
)
"""`module` id; `row`, `column` float32: centre of the charge in channels (a whole number is the middle of a channel);
`first_row`, `first_column` uint16 and `size_u`, `size_v` uint16: where it begins and how far it reaches along u and v;
`size` uint32: its channels; `charge` float32 [e]; `skew_u`, `skew_v` float32: charge of the last line of channels less
that of the first, over their sum, -1 to 1; `flags` uint8: `ClusterFlag`."""


@dataclass(frozen=True, eq=False)
class Extent:
    """What n clusters cover; axis 0 of a pair is u (rows) and v (columns)."""

    row: NDArray[np.int32]
    """of the module in the geometry"""
    low: Ints
    """first line of channels, [2, n]"""
    high: Ints
    """last line of channels, [2, n]"""
    mean: Floats
    """centre of the charge, [2, n]"""
    ends: Floats
    """charge [e] of the first and of the last line: [2 axes, 2 ends, n]"""
    charge: Floats
    """[e]"""
    size: Ints
    """channels"""

    @classmethod
    def none(cls) -> Extent:
        """No cluster."""
        pair, one = np.zeros((2, 0)), np.zeros(0)
        lines = pair.astype(np.int64)
        return cls(one.astype(np.int32), lines, lines, pair, np.zeros((2, 2, 0)), one, one.astype(np.int64))

    def where(self, keep: NDArray[np.bool_]) -> Extent:
        """The clusters of the mask."""
        place = np.flatnonzero(keep)
        return Extent(**{part.name: np.take(getattr(self, part.name), place, axis=-1) for part in fields(Extent)})


def cluster_columns(counts: Ints, geometry: Geometry, extent: Extent, flags: NDArray[np.uint8]) -> Collection:
    """Clusters with the columns MADE; `counts` of them in each event. All charges must be above zero."""
    # Of a single line both ends are the same charge, and the skew is zero by itself.
    skew = (extent.ends[:, 1] - extent.ends[:, 0]) / (extent.ends[:, 1] + extent.ends[:, 0])
    reach = extent.high - extent.low + 1
    values = (
        geometry.module[extent.row],
        *extent.mean.astype(np.float32),
        *extent.low.astype(np.uint16),
        extent.size.astype(np.uint32),
        *reach.astype(np.uint16),
        extent.charge.astype(np.float32),
        *skew.astype(np.float32),
        flags,
    )
    return Collection(counts, dict(zip(MADE, values, strict=True)))


def flag_bits(which: NDArray[np.bool_], flag: ClusterFlag) -> NDArray[np.uint8]:
    """The flag's bit where `which` is true."""
    return which.astype(np.uint8) * np.uint8(flag)
