"""Seeds followed outwards, layer by layer: the nearest hit within some sigmas, and on with what is then known."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pipeline.experiments.ref10.reconstruct.budget import Budget
from pipeline.experiments.ref10.reconstruct.kalman import Helices, measured
from pipeline.experiments.ref10.reconstruct.layer_hits import LayerHits, Window
from pipeline.experiments.ref10.reconstruct.search import Search
from pipeline.experiments.ref10.reconstruct.seeds import Seeds

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Followed:
    """Tracks as far as they have been followed."""

    event: Ints
    hit: Ints
    """[10, n]: place of the hit of each layer, -1 for none"""
    chi2: Floats
    helices: Helices

    def of(self, which: Ints) -> Self:
        """Those at these places."""
        return type(self)(self.event[which], np.take(self.hit, which, axis=1), self.chi2[which], self.helices.of(which))


def followed(hits: LayerHits, begun: Seeds, search: Search, budget: Budget) -> Followed:
    """Seeds with the hits of the layers outside theirs; those that keep enough hits.

    Layers within or before the seed that are not of it are taken as missed: seeds with them came before.
    """
    hit = np.full((len(hits.shells), begun.hit.shape[1]), -1, np.int64)
    hit[list(begun.layers)] = begun.hit
    tracks = Followed(hits.event[begun.hit[0]], hit, np.zeros(hit.shape[1]), begun.helices)
    for layer in range(len(hits.shells)):
        if layer > begun.layers[-1]:
            tracks.hit[layer] = _nearest(hits, tracks, layer, search, budget)
        tracks = _stepped(hits, tracks, layer, search)
    return tracks


def _stepped(hits: LayerHits, tracks: Followed, layer: int, search: Search) -> Followed:
    """With the layer's hits and its material taken in, less those that can no more have enough hits or do not fit."""
    shell, place = hits.shells[layer], tracks.hit[layer]
    there = place >= 0
    found = measured(tracks.helices, hits, np.maximum(place, 0), shell, search).where(there)
    middle = 0.5 * (shell.inner + shell.outer)
    r = np.where(there, found.r, middle)
    helices = tracks.helices.updated(found)
    way = found.way if there.all() else np.where(there, found.way, helices.way(middle))
    helices = helices.scattered(shell, r, way, search)
    missed = (tracks.hit[: layer + 1] < 0).sum(axis=0)
    keep = (missed <= len(hits.shells) - search.hits) & (found.beyond <= search.sigmas)
    chi2 = tracks.chi2 + found.chi2()
    return Followed(tracks.event, tracks.hit, chi2, helices).of(np.flatnonzero(keep))


def _nearest(hits: LayerHits, tracks: Followed, layer: int, search: Search, budget: Budget) -> Ints:
    """The place of the hit nearest to each track in units of its error, -1 where none is near enough."""
    shell, window = hits.shells[layer], _window(hits, tracks, layer, search)
    window = replace(window, number=budget.to_try(tracks.event, window.number))
    nearest = np.full(len(tracks.event), -1, np.int64)
    for some in budget.entries(window.number):
        which, place = window.hits(some)
        found = measured(tracks.helices.of(which), hits, place, shell, search)
        near = np.flatnonzero((found.turn.chi2 <= search.sigmas**2) & (found.beyond <= search.sigmas))
        nearest[some] = _best(which[near] - some.start, place[near], found.chi2()[near], some.stop - some.start)
    return nearest


def _window(hits: LayerHits, tracks: Followed, layer: int, search: Search) -> Window:
    """Where a track's hit may lie, whatever the radius at which it meets the layer's sensors."""
    shell, helices = hits.shells[layer], tracks.helices
    azimuth = np.stack([helices.azimuth(shell.inner), helices.azimuth(shell.outer)])
    slack = search.sigmas * np.sqrt(
        helices.variance(shell.outer) + (shell.precision**2 + search.placed**2) / shell.inner**2
    )
    slack += shell.lean / shell.inner
    window = hits.within(layer, tracks.event, azimuth.min(axis=0) - slack, azimuth.max(axis=0) + slack)
    return replace(window, number=np.where(helices.reaches(shell.inner), window.number, 0))


def _best(which: Ints, place: Ints, chi2: Floats, tracks: int) -> Ints:
    """For each track the place with the least chi2, the first of several; -1 for a track without."""
    least = np.full(tracks, np.inf)
    np.minimum.at(least, which, chi2)
    best = np.flatnonzero(chi2 == least[which])
    first = np.full(tracks, len(which))
    np.minimum.at(first, which[best], best)
    found: Ints = np.append(place, -1)[first]
    return found
