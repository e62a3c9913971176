"""Which hits belong together: pattern recognition, from clusters in space to one hit a layer for each track.

In two rounds: seeds in three pixel layers (`seeds`), followed outwards through all layers (`following`), and their hits
given to the best of them (`arbitration`). What a track has got is not looked at in the second, which is for tracks that
lack a hit in one of the first three layers; it has little left to combine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from calib.payload import Payload
from pipeline.experiments.collisions import Collection
from pipeline.experiments.ref10.layers import LAYERS
from pipeline.experiments.ref10.reconstruct.arbitration import Tracks, ranked, shared_out
from pipeline.experiments.ref10.reconstruct.budget import Budget
from pipeline.experiments.ref10.reconstruct.following import followed
from pipeline.experiments.ref10.reconstruct.layer_hits import USES as HIT_KINDS
from pipeline.experiments.ref10.reconstruct.layer_hits import LayerHits, layer_hits
from pipeline.experiments.ref10.reconstruct.search import DEFAULT, Search
from pipeline.experiments.ref10.reconstruct.seeds import ROUNDS, seeds

USES = HIT_KINDS

Ints = NDArray[np.int64]

BLOCK = 200_000
"""clusters worked on at a time at the most (or one event), some 300 bytes for each"""


@dataclass(frozen=True, eq=False)
class Candidates:
    """The hits of tracks of some events; n tracks in the order of the events."""

    counts: Ints
    """tracks of each event"""
    hit: Ints
    """[n, 10]: place of the hit of each layer in the clusters' flat arrays, -1 where there is none"""
    flags: NDArray[np.uint8]
    """of each event: `EventFlag.UNCOMBINED` or nothing"""


def candidates(clusters: Collection, conditions: Mapping[str, Payload], search: Search = DEFAULT) -> Candidates:
    """The candidates of tracks among placed clusters; within an event the best come first (`arbitration.ranked`).

    Clusters flagged LARGE take no part. An event in which more would have to be combined than `search`
    allows has no candidates and the flag UNCOMBINED. Raises UnknownModule for clusters of another geometry.
    """
    parts = []
    for start, some in _blocks(clusters):
        hits = layer_hits(some, conditions)
        event, hit, flags = _found(hits, len(some.counts), search)
        counts = np.bincount(event, minlength=len(some.counts)).astype(np.int64)
        parts.append(Candidates(counts, np.where(hit >= 0, hit + start, -1), flags))
    joined = (np.concatenate([getattr(part, name) for part in parts]) for name in ("counts", "hit", "flags"))
    return Candidates(*joined)


def _blocks(clusters: Collection) -> Iterator[tuple[int, Collection]]:
    """Events in turn, in blocks about as large as one another; with the place of the first cluster of each."""
    starts = np.append(0, np.cumsum(clusters.counts))
    blocks = -(-int(starts[-1]) // BLOCK)
    bounds = np.searchsorted(starts[:-1], [starts[-1] * block // blocks for block in range(1, blocks)])
    for first, last in pairwise([0, *np.unique(bounds).tolist(), len(clusters.counts)]):
        start, stop = starts[first], starts[last]
        flat = {name: values[start:stop] for name, values in clusters.flat.items()}
        yield int(start), Collection(clusters.counts[first:last], flat)


def _found(hits: LayerHits, events: int, search: Search) -> tuple[Ints, Ints, NDArray[np.uint8]]:
    """Event and hits [n, 10] of all tracks, and the events' flags."""
    budget = Budget.of(events, search)
    found: list[Tracks] = [(np.zeros(0, np.int64), np.zeros((0, len(LAYERS)), np.int64), np.zeros(0))]
    for triplets in ROUNDS:
        for begun in seeds(hits, triplets, search, budget):
            tracks = followed(hits, begun, search, budget)
            if len(tracks.event):
                found.append(shared_out((tracks.event, tracks.hit.T, tracks.chi2), search))
        hits = hits.without(np.concatenate([hit for _, hit, _ in found]), events, search)
    event, hit, chi2 = (np.concatenate(part) for part in zip(*found, strict=True))
    sound = budget.flags[event] == 0
    order = ranked(event[sound], hit[sound], chi2[sound])
    return event[sound][order], hit[sound][order], budget.flags
