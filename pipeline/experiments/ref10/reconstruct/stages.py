"""The stages of reconstruction up to clusters in space: what each uses, and from where to start again.

    unpack      RAW to hits: calibrated charge of every channel that counts
    clusters    hits to clusters, in channels
    positions   where on the sensor, Lorentz shift out
    placed      where in space, by the alignment

`Cluster_*` columns can be written to a tier and read back. When only conditions that the last two stages alone use have
changed (`BEHIND_CLUSTERS`), clusters are read back and these done `again`; the result is the same to the last bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from calib.payload import Payload
from pipeline.experiments.collisions import Collection
from pipeline.experiments.ref10.reconstruct import cluster_columns, pixel_clusters, placed, positions, strip_clusters
from pipeline.experiments.ref10.reconstruct import unpack as unpacking
from pipeline.experiments.ref10.reconstruct.digis import READS, Raw, Tally
from pipeline.experiments.ref10.reconstruct.flags import EventFlag
from pipeline.experiments.ref10.reconstruct.thresholds import DEFAULT, Thresholds
from pipeline.model import Columns

__all__ = ["BEHIND_CLUSTERS", "READS", "USES", "FromRaw", "Reconstructed", "again", "clustered", "reconstruct"]

UNPACK, CLUSTERS, POSITIONS, PLACED = "unpack", "clusters", "positions", "placed"

USES: Mapping[str, tuple[str, ...]] = {
    UNPACK: unpacking.USES,
    CLUSTERS: tuple(dict.fromkeys((*strip_clusters.USES, *pixel_clusters.USES))),
    POSITIONS: positions.USES,
    PLACED: placed.USES,
}
"""the kinds of conditions that each stage uses, in the order of the stages"""

BEHIND_CLUSTERS = tuple(
    kind for kind in dict.fromkeys((*USES[POSITIONS], *USES[PLACED])) if kind not in {*USES[UNPACK], *USES[CLUSTERS]}
)
"""the kinds that only the stages after `clusters` use"""

CLUSTER = "Cluster"
STORED = cluster_columns.MADE
"""columns of clusters, `Cluster_<name>`, from which the stages after `clusters` can be done"""

BLOCK = 200_000
"""channels worked on at a time, 350 bytes for each at the most: memory is bounded, and what is in between stays near"""


@dataclass(frozen=True, eq=False)
class Reconstructed:
    """Clusters of n events and what was wrong with their data."""

    clusters: Collection
    tally: Tally

    def columns(self) -> dict[str, Any]:
        """As columns of a tier: `Cluster_*` jagged, `reco_flags` (`EventFlag`), `bad_digis` and `bad_nzs` an event."""
        of_events = {"reco_flags": self.tally.flags, "bad_digis": self.tally.bad_digis, "bad_nzs": self.tally.bad_nzs}
        return {**self.clusters.columns(CLUSTER), **of_events}


@dataclass(frozen=True, eq=False)
class FromRaw(Reconstructed):
    """And what RAW alone tells."""

    masked: Collection
    """digis of masked channels, as `unpack.Hits` has them"""


def reconstruct(events: Columns, conditions: Mapping[str, Payload], thresholds: Thresholds = DEFAULT) -> FromRaw:
    """All stages, from RAW. Raises ValueError for conditions that do not fit together."""
    parts, masked, tallies = [], [], []
    for some in Raw.of(events).parts(BLOCK):
        hits = unpacking.unpack(some, conditions, thresholds)
        clusters = clustered(hits, conditions, thresholds)
        hits.tally.note(EventFlag.CROWDED, clusters.counts > thresholds.clusters)
        tallies.append(hits.tally)
        masked.append(hits.masked)
        parts.append(_located(clusters, conditions))
    return FromRaw(_joined(parts), _tallied(tallies), _joined(masked))


def clustered(hits: unpacking.Hits, conditions: Mapping[str, Payload], thresholds: Thresholds = DEFAULT) -> Collection:
    """The clusters of hits, of pixels and of strips, in the order of event and module."""
    return _merged(
        pixel_clusters.pixel_clusters(hits.pixels, conditions, thresholds),
        strip_clusters.strip_clusters(hits.strips, conditions, thresholds),
    )


def again(columns: Columns, conditions: Mapping[str, Payload]) -> Collection:
    """The stages after `clusters`, on stored `Cluster_*` columns. For another change than of `BEHIND_CLUSTERS`, RAW is
    needed."""
    return _located(Collection.read(columns, CLUSTER, STORED), conditions)


def _located(clusters: Collection, conditions: Mapping[str, Payload]) -> Collection:
    return placed.placed(positions.positions(clusters, conditions), conditions)


def _merged(pixels: Collection, strips: Collection) -> Collection:
    both = {name: np.concatenate([pixels.flat[name], strips.flat[name]]) for name in pixels.flat}
    event = np.concatenate([pixels.event, strips.event])
    order = np.argsort((event << 32) | both["module"], kind="stable")
    return Collection(pixels.counts + strips.counts, {name: values[order] for name, values in both.items()})


def _joined(parts: list[Collection]) -> Collection:
    """What there is of one block after the other."""
    flat = {name: np.concatenate([part.flat[name] for part in parts]) for name in parts[0].flat}
    return Collection(np.concatenate([part.counts for part in parts]), flat)


def _tallied(parts: list[Tally]) -> Tally:
    joined = {part.name: np.concatenate([getattr(tally, part.name) for tally in parts]) for part in fields(Tally)}
    return Tally(**joined)
