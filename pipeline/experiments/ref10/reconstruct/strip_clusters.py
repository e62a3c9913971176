"""Clusters of strips: neighbours above threshold, with a seed among them.

As CMS's three-threshold algorithm: every strip above 2 sigma (`unpack` keeps no other), one at least above 5, and the
sum above 5 times the noise of its strips added in quadrature.

A cluster reaches over one masked strip, if both strips beside it are above threshold: a track that crosses it obliquely
is then one cluster, not two. What the masked strip had is missing, so it is flagged (BRIDGED). Over two masked strips,
or over one that is good but has no signal, it does not reach.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from calib.payload import Payload
from pipeline.experiments.collisions import Collection
from pipeline.experiments.ref10.geometry import KIND as GEOMETRY
from pipeline.experiments.ref10.geometry import Geometry, geometry_of
from pipeline.experiments.ref10.layers import STRIPS
from pipeline.experiments.ref10.reconstruct.channel_keys import hit_keys
from pipeline.experiments.ref10.reconstruct.channels import STRIP_KINDS, strip_channels
from pipeline.experiments.ref10.reconstruct.cluster_columns import Extent, cluster_columns, flag_bits
from pipeline.experiments.ref10.reconstruct.flags import ClusterFlag
from pipeline.experiments.ref10.reconstruct.thresholds import DEFAULT, Thresholds

USES = STRIP_KINDS

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


def strip_clusters(hits: Collection, conditions: Mapping[str, Payload], thresholds: Thresholds = DEFAULT) -> Collection:
    """The clusters of `unpack`'s strips: `cluster_columns`, in the order of event, module and strip."""
    geometry = geometry_of(conditions[GEOMETRY])
    masked = strip_channels(conditions).masked
    if not len(hits.flat["row"]):
        return cluster_columns(hits.counts, geometry, Extent.none(), np.zeros(0, np.uint8))
    first = np.flatnonzero(_opens(hits, geometry, masked))
    last = np.append(first[1:], len(hits.flat["row"])) - 1
    extent, keep = _extent(hits, first, last, thresholds)
    counts = np.bincount(hits.event[first[keep]], minlength=len(hits.counts)).astype(np.int64)
    saturated = np.logical_or.reduceat(hits.flat["saturated"], first)[keep]
    found = extent.where(keep)
    flags = _flags(found, geometry, masked, thresholds) | flag_bits(saturated, ClusterFlag.SATURATED)
    return cluster_columns(counts, geometry, found, flags)


def _opens(hits: Collection, geometry: Geometry, masked: Mask) -> Mask:
    """Whether each hit is the first of a cluster."""
    step = np.diff(hit_keys(hits, geometry), prepend=-1)
    near = step == 1
    gap = np.flatnonzero(step == 2)
    channel = geometry.strip_block[hits.flat["row"][gap]] * STRIPS + hits.flat["channel"][gap]
    near[gap] = masked[channel - 1]
    # The hit before the very first is in no module.
    near[0] = False
    opens: Mask = ~near
    return opens


def _extent(hits: Collection, first: Ints, last: Ints, thresholds: Thresholds) -> tuple[Extent, Mask]:
    """What the clusters from hit `first` to hit `last` cover, and which of them are strong enough."""
    charge, strip = hits.flat["charge"].astype(np.float64), hits.flat["channel"].astype(np.int64)
    total = np.add.reduceat(charge, first)
    noise = np.sqrt(np.add.reduceat(hits.flat["noise"].astype(np.float64) ** 2, first))
    seeded = np.logical_or.reduceat(hits.flat["charge"] > np.float32(thresholds.seed) * hits.flat["noise"], first)
    zero = np.zeros(len(first), np.int64)
    extent = Extent(
        row=hits.flat["row"][first],
        low=np.stack([strip[first], zero]),
        high=np.stack([strip[last], zero]),
        mean=np.stack([np.add.reduceat(charge * strip, first) / total, zero]),
        ends=np.stack([[charge[first], charge[last]], [total, total]]),
        charge=total,
        size=last - first + 1,
    )
    return extent, seeded & (total > thresholds.cluster * noise)


def _flags(extent: Extent, geometry: Geometry, masked: Mask, thresholds: Thresholds) -> NDArray[np.uint8]:
    low, high = extent.low[0], extent.high[0]
    start = geometry.strip_block[extent.row] * STRIPS
    near = masked[start + np.maximum(low - 1, 0)] | masked[start + np.minimum(high + 1, STRIPS - 1)]
    return (
        flag_bits((low == 0) | (high == STRIPS - 1), ClusterFlag.EDGE)
        | flag_bits(extent.size > thresholds.large_strips, ClusterFlag.LARGE)
        | flag_bits(near, ClusterFlag.NEAR_MASKED)
        | flag_bits(high - low + 1 > extent.size, ClusterFlag.BRIDGED)
    )
