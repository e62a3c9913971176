"""Clusters of pixels: all that touch, also by a corner, and together have enough charge.

The pixels of a chunk are the nodes of one graph, pairs that touch its edges, clusters its connected components. RAW is
sorted by column and row, so of a pixel's four neighbours ahead one is the next in line, and the three in the next
column lie together and are found by one search; two of these are enough, as three touch one another.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from calib.payload import Payload
from pipeline.experiments.collisions import Collection
from pipeline.experiments.ref10.constants import roc_of
from pipeline.experiments.ref10.geometry import KIND as GEOMETRY
from pipeline.experiments.ref10.geometry import Geometry, geometry_of
from pipeline.experiments.ref10.reconstruct.channel_keys import COLUMN_SHIFT, NEXT_COLUMN, ROW_MASK, hit_keys
from pipeline.experiments.ref10.reconstruct.channels import PIXEL_KINDS, PixelChips, pixel_chips
from pipeline.experiments.ref10.reconstruct.cluster_columns import Extent, cluster_columns, flag_bits
from pipeline.experiments.ref10.reconstruct.flags import ClusterFlag
from pipeline.experiments.ref10.reconstruct.thresholds import DEFAULT, Thresholds

USES = PIXEL_KINDS

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


def pixel_clusters(hits: Collection, conditions: Mapping[str, Payload], thresholds: Thresholds = DEFAULT) -> Collection:
    """The clusters of `unpack`'s pixels: `cluster_columns`, in the order of event, module and first pixel."""
    geometry = geometry_of(conditions[GEOMETRY])
    if not len(hits.flat["row"]):
        return cluster_columns(hits.counts, geometry, Extent.none(), np.zeros(0, np.uint8))
    label, first = components(hit_keys(hits, geometry))
    charge = np.bincount(label, weights=hits.flat["charge"]).astype(np.float64)
    row = hits.flat["row"][first]
    keep = charge > np.where(geometry.layer[row] == 1, thresholds.pixels_layer_1, thresholds.pixels)
    counts = np.bincount(hits.event[first[keep]], minlength=len(hits.counts)).astype(np.int64)
    extent = _extent(hits, label, row, charge)
    near = _beside_masked(hits, geometry, pixel_chips(conditions))
    flags = _flags(extent, geometry, thresholds)
    for which, flag in ((hits.flat["saturated"], ClusterFlag.SATURATED), (near, ClusterFlag.NEAR_MASKED)):
        flags[label[which]] |= np.uint8(flag)
    return cluster_columns(counts, geometry, extent.where(keep), flags[keep])


def components(keys: Ints) -> tuple[Ints, Ints]:
    """The number of each channel's cluster, and of each cluster its first channel; numbered in the order of these.

    `keys` int64[n] (`channel_keys`) must rise.
    """
    label = connected_components(_touching(keys), directed=False)[1].astype(np.int64)
    first = _first_of(label)
    if (np.diff(first) > 0).all():
        return label, first
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return rank[label], first[order]


def _first_of(label: Ints) -> Ints:
    first = np.full(int(label.max()) + 1, len(label), np.int64)
    np.minimum.at(first, label, np.arange(len(label)))
    return first


def _touching(keys: Ints) -> csr_matrix:
    channels = len(keys)
    corner = keys + (NEXT_COLUMN - 1)
    ahead = np.searchsorted(keys, corner)
    below = np.flatnonzero(np.diff(keys) == 1)
    one, other = [below], [below + 1]
    for step in range(2):
        place = np.minimum(ahead + step, channels - 1)
        # Rows that no sensor has lie between the lines of keys: what is at most two from the corner touches. The last
        # channel stands in for those beyond; it lies before its own corner.
        touches = np.flatnonzero((keys[place] >= corner) & (keys[place] <= corner + 2))
        one.append(touches)
        other.append(place[touches])
    source, target = np.concatenate(one), np.concatenate(other)
    return csr_matrix((np.ones(len(source), np.int8), (source, target)), shape=(channels, channels))


def _extent(hits: Collection, label: Ints, row: NDArray[np.int32], charge: Floats) -> Extent:
    clusters, weight = len(charge), hits.flat["charge"].astype(np.float64)
    # Every pixel that is read out has charge, so no cluster is without.
    along = [_along(line, label, weight, charge) for line in _lines(hits.flat["channel"])]
    low, high, mean, ends = (np.stack(part) for part in zip(*along, strict=True))
    return Extent(row, low, high, mean, ends, charge, np.bincount(label, minlength=clusters))


def _along(line: Ints, label: Ints, weight: Floats, charge: Floats) -> tuple[Ints, Ints, Floats, Floats]:
    """Along one axis: first and last line of each cluster, centre of charge, and charge of these lines [2, n]."""
    low = np.full(len(charge), np.iinfo(np.int64).max)
    high = np.full(len(charge), -1, np.int64)
    np.minimum.at(low, label, line)
    np.maximum.at(high, label, line)
    ends = [np.bincount(label, weights=weight * (line == end[label])) for end in (low, high)]
    return low, high, np.bincount(label, weights=weight * line) / charge, np.stack(ends)


def _lines(channel: NDArray[np.uint32]) -> tuple[Ints, Ints]:
    """Row and column of pixels."""
    return (channel & ROW_MASK).astype(np.int64), (channel >> COLUMN_SHIFT).astype(np.int64)


def _beside_masked(hits: Collection, geometry: Geometry, chips: PixelChips) -> Mask:
    """Whether a neighbour of each pixel is masked. Chips are wider than two, so its four corners tell."""
    beside = np.zeros(len(hits.flat["row"]), bool)
    suspect = np.flatnonzero(chips.touched[hits.flat["row"]])
    module = hits.flat["row"][suspect]
    row, column = _lines(hits.flat["channel"][suspect])
    for down in (-1, 1):
        for right in (-1, 1):
            corner = (
                np.clip(row + down, 0, geometry.rows[module] - 1),
                np.clip(column + right, 0, geometry.columns[module] - 1),
            )
            beside[suspect] |= chips.masked[chips.place[module], roc_of(*corner)]
    return beside


def _flags(extent: Extent, geometry: Geometry, thresholds: Thresholds) -> NDArray[np.uint8]:
    ends = np.stack([geometry.rows[extent.row], geometry.columns[extent.row]]) - 1
    edge = ((extent.low == 0) | (extent.high == ends)).any(axis=0)
    return flag_bits(edge, ClusterFlag.EDGE) | flag_bits(extent.size > thresholds.large_pixels, ClusterFlag.LARGE)
