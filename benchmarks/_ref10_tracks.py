"""Tracks found against the truth: which particle each follows, and which particles could have been found.

A cluster is of every particle that has the largest share of one of its channels. A track is of the particle that has
most of its hits, if these are three in four at least; else it is a fake. A particle can be found when it crosses eight
layers, three of them pixels, where a channel is read out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import awkward as ak
import numpy as np
from numpy.typing import NDArray

from calib.payload import Payload
from pipeline.experiments.collisions import Collection
from pipeline.experiments.ref10.constants import GOOD, PIXEL_STATUS, STRIP_STATUS, roc_of
from pipeline.experiments.ref10.geometry import KIND as GEOMETRY
from pipeline.experiments.ref10.geometry import Geometry, geometry_of
from pipeline.experiments.ref10.layers import STRIPS
from pipeline.experiments.ref10.reconstruct.candidates import Candidates
from pipeline.experiments.ref10.simulate.events import Simulated
from pipeline.model import Columns

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]
Conditions = Mapping[str, Payload]

MATCHED = 0.75
"""share of a track's hits that are of its particle"""
LAYERS_CROSSED, PIXELS_CROSSED = 8, 3


@dataclass(frozen=True, eq=False)
class Judged:
    """Particles of some events, an entry each, and tracks."""

    pt: NDArray[np.float64]
    findable: Mask
    tracks: Ints
    """how many tracks are of it"""
    particle: Ints
    """of each track, -1 for fakes"""

    def efficiency(self, pt: float) -> tuple[float, int]:
        """The share of findable particles above a momentum [GeV] that have a track; and how many these are."""
        wanted = self.findable & (self.pt > pt)
        return float((self.tracks[wanted] > 0).mean()), int(wanted.sum())

    @property
    def fakes(self) -> float:
        """The share of tracks that are of no particle."""
        return float((self.particle < 0).mean())

    @property
    def repeated(self) -> float:
        """The share of tracks whose particle has another."""
        return float(np.maximum(self.tracks - 1, 0).sum() / len(self.particle))


def judged(made: Simulated, conditions: Conditions, clusters: Collection, found: Candidates) -> Judged:
    """The candidates found among the clusters of simulated events."""
    first = first_of(made.truth, "Particle_pt")
    pt = ak.to_numpy(ak.flatten(made.truth["Particle_pt"]))
    particle = particle_of_tracks(found, cluster_particles(made, clusters, first))
    return Judged(
        pt=pt,
        findable=findable(made.truth, conditions, first),
        tracks=np.bincount(particle[particle >= 0], minlength=len(pt)),
        particle=particle,
    )


def first_of(columns: Columns, name: str) -> Ints:
    """The place of each event's first entry in the flat values of a jagged column."""
    counts = ak.to_numpy(ak.num(columns[name])).astype(np.int64)
    found: Ints = np.cumsum(counts) - counts
    return found


def cluster_particles(made: Simulated, clusters: Collection, first: Ints) -> tuple[Ints, Ints]:
    """Pairs (cluster, particle), each once, both by place in the flat arrays, sorted by cluster."""
    event = np.repeat(np.arange(len(first)), ak.to_numpy(ak.num(made.raw["digi_module"])))
    digi = {name: ak.to_numpy(ak.flatten(made.raw[f"digi_{name}"])).astype(np.int64) for name in ("module", "chan")}
    particle = ak.to_numpy(ak.flatten(made.truth["digi_particle"])).astype(np.int64)
    seen = np.flatnonzero(particle >= 0)
    key = clusters.event.astype(np.int64) << 32 | clusters.flat["module"].astype(np.int64)
    wanted = event[seen] << 32 | digi["module"][seen]
    begin, end = np.searchsorted(key, wanted), np.searchsorted(key, wanted, side="right")
    which = np.repeat(np.arange(len(seen)), end - begin)
    place = np.arange(len(which)) + np.repeat(begin - (np.cumsum(end - begin) - (end - begin)), end - begin)
    channel = digi["chan"][seen][which]
    inside = _covers(clusters, place, "row", "u", channel & 0xFFFF) & _covers(
        clusters, place, "column", "v", channel >> 16
    )
    whose = (first[event[seen]] + particle[seen])[which[inside]]
    pairs = np.unique(np.stack([place[inside], whose]), axis=1)
    return pairs[0], pairs[1]


def _covers(clusters: Collection, place: Ints, name: str, axis: str, line: Ints) -> Mask:
    low = clusters.flat[f"first_{name}"].astype(np.int64)[place]
    found: Mask = (line >= low) & (line < low + clusters.flat[f"size_{axis}"].astype(np.int64)[place])
    return found


def particle_of_tracks(found: Candidates, pairs: tuple[Ints, Ints]) -> Ints:
    """The particle that has most hits of each track, -1 where these are too few."""
    track, layer = np.nonzero(found.hit >= 0)
    hit = found.hit[track, layer]
    begin, end = np.searchsorted(pairs[0], hit), np.searchsorted(pairs[0], hit, side="right")
    which = np.repeat(np.arange(len(hit)), end - begin)
    place = np.arange(len(which)) + np.repeat(begin - (np.cumsum(end - begin) - (end - begin)), end - begin)
    claims, count = np.unique(np.stack([track[which], pairs[1][place]]), axis=1, return_counts=True)
    order = np.lexsort((count, claims[0]))
    best = np.full(len(found.hit), -1, np.int64)
    most = np.zeros(len(found.hit), np.int64)
    # Written in this order, the particle with most hits stays.
    best[claims[0][order]], most[claims[0][order]] = claims[1][order], count[order]
    return np.where(most >= MATCHED * (found.hit >= 0).sum(axis=1), best, -1)


def findable(truth: Columns, conditions: Conditions, first: Ints) -> Mask:
    """Which particles cross enough layers on silicon that is read out."""
    geometry = geometry_of(conditions[GEOMETRY])
    event = np.repeat(np.arange(len(first)), ak.to_numpy(ak.num(truth["Crossing_module"])))
    row = geometry.rows_of(ak.to_numpy(ak.flatten(truth["Crossing_module"])))
    particle = first[event] + ak.to_numpy(ak.flatten(truth["Crossing_particle"]))
    active = _active(truth, conditions, geometry, row)
    crossed = np.zeros((int(ak.sum(ak.num(truth["Particle_pt"]))), 10), bool)
    crossed[particle[active], geometry.layer[row[active]] - 1] = True
    found: Mask = (crossed.sum(axis=1) >= LAYERS_CROSSED) & (crossed[:, :4].sum(axis=1) >= PIXELS_CROSSED)
    return found


def _active(truth: Columns, conditions: Conditions, geometry: Geometry, row: Ints) -> Mask:
    """Whether the channel at a crossing is good."""
    u, v = (ak.to_numpy(ak.flatten(truth[f"Crossing_{name}"])) for name in "uv")
    line = np.clip(np.floor(u / geometry.pitch_u[row] + geometry.rows[row] / 2), 0, geometry.rows[row] - 1)
    column = np.clip(np.floor(v / geometry.pitch_v[row] + geometry.columns[row] / 2), 0, geometry.columns[row] - 1)
    line, column = line.astype(np.int64), column.astype(np.int64)
    pixel = geometry.pixel[row]
    place = (np.cumsum(geometry.pixel) - 1)[row]
    status = conditions[PIXEL_STATUS]["status"]
    of_pixels = status[np.where(pixel, place, 0), np.where(pixel, roc_of(line, column), 0)]
    of_strips = conditions[STRIP_STATUS]["status"][np.where(pixel, 0, geometry.strip_block[row] * STRIPS + line)]
    found: Mask = np.where(pixel, of_pixels, of_strips) == GOOD
    return found
