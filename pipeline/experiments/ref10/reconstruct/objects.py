"""Physics objects: what the stages after `placed` make of the clusters of events.

    found       which hits belong together
    fitted      tracks
    vertices    of tracks; with the beam too
    dimuons     muons of triggered events, and their pairs

Each works through its events block by block, so a chunk is given as one. `BEHIND_CLUSTERS` are the kinds of conditions
that act only behind stored clusters: where no other has changed, all this can be made of these.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calib.payload import Payload
from pipeline.experiments.collisions import Collection
from pipeline.experiments.ref10.reconstruct import candidates as finding
from pipeline.experiments.ref10.reconstruct import stages
from pipeline.experiments.ref10.reconstruct import tracks as fitting
from pipeline.experiments.ref10.reconstruct import vertices as vertexing
from pipeline.experiments.ref10.reconstruct.dimuons import dimuons
from pipeline.experiments.ref10.reconstruct.search import DEFAULT, Search

FOUND, FITTED, VERTICES, DIMUONS = "found", "fitted", "vertices", "dimuons"

USES: Mapping[str, tuple[str, ...]] = {
    **stages.USES,
    FOUND: finding.USES,
    FITTED: fitting.USES,
    VERTICES: vertexing.MAY_USE,
    DIMUONS: (),
}
"""the kinds of conditions that each stage uses, from RAW on, in the order of the stages"""

KINDS = tuple(dict.fromkeys(kind for kinds in USES.values() for kind in kinds))

_OF_CLUSTERS = {*USES[stages.UNPACK], *USES[stages.CLUSTERS]}

BEHIND_CLUSTERS = tuple(kind for kind in KINDS if kind not in _OF_CLUSTERS)
"""the kinds that only the stages after `clusters` use"""


@dataclass(frozen=True, eq=False)
class Objects:
    """Of n events; columns as the stages have them."""

    tracks: Collection
    hits: Collection
    """`hit`: the places in their event of the clusters of its tracks, one track after the other"""
    vertices: Collection
    muons: Collection
    pairs: Collection
    flags: NDArray[np.uint8]
    """`EventFlag.UNCOMBINED` or nothing, of each event"""


def objects(
    clusters: Collection, triggered: NDArray[np.bool_], conditions: Mapping[str, Payload], search: Search = DEFAULT
) -> Objects:
    """The stages after `placed`; `triggered` bool[n]: by dimuons. Raises ValueError for conditions of another
    geometry."""
    found = finding.candidates(clusters, conditions, search)
    fitted = fitting.fit_tracks(found, clusters, conditions)
    vertices, tracks = vertexing.fit_vertices(fitted, conditions)
    both = dimuons(tracks, vertices, triggered)
    hits = fitting.hits_of_tracks(found, clusters)
    return Objects(tracks, hits, vertices, both.muons, both.pairs, found.flags)
