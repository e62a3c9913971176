"""Seeds followed outwards, layer by layer: the nearest hit within some sigmas, and on with what is then known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pipeline.experiments.ref10.reconstruct import kalman
from pipeline.experiments.ref10.reconstruct.budget import Budget
from pipeline.experiments.ref10.reconstruct.kalman import Helices, Measured, measured
from pipeline.experiments.ref10.reconstruct.layer_hits import LayerHits, Window
from pipeline.experiments.ref10.reconstruct.search import PIXELS, Search
from pipeline.experiments.ref10.reconstruct.seeds import Seeds

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

BEGUN = 3
"""layers that all seeds have hits in, but for one of them at the most; taken in together"""


@dataclass(frozen=True, eq=False)
class Followed:
    """Tracks as far as they have been followed."""

    event: Ints
    last: Ints
    """layer of the last hit of the seed"""
    hit: Ints
    """[10, n]: place of the hit of each layer, -1 for none"""
    chi2: Floats
    helices: Helices

    def of(self, which: Ints) -> Self:
        """Those at these places."""
        hit, helices = self.hit.take(which, axis=1), self.helices.of(which)
        return type(self)(self.event[which], self.last[which], hit, self.chi2[which], helices)


@dataclass(frozen=True, eq=False)
class Taken:
    """The hits of one layer that tracks go on with."""

    which: Ints
    """places of the tracks, rising"""
    place: Ints
    """of the hits"""
    found: Measured


def followed(hits: LayerHits, begun: Seeds, search: Search, budget: Budget) -> Followed:
    """Seeds with the hits of the layers outside theirs; those that keep enough hits.

    Layers within or before the seed that are not of it are taken as missed: seeds with them came before.
    """
    groups = begun.groups
    hit = np.full((len(hits.shells), groups.hit.shape[1]), -1, np.int64)
    np.put_along_axis(hit, groups.layers, groups.hit, axis=0)
    helices, chi2, beyond = kalman.begun(begun.helices, hits, hit[:BEGUN], search)
    tracks = Followed(hits.event[groups.hit[0]], groups.layers[-1], hit, chi2, helices)
    tracks = _kept(tracks, BEGUN, beyond <= search.sigmas, search)
    for layer in range(BEGUN, len(hits.shells)):
        if not len(tracks.event):
            break
        taken = _given(hits, tracks, layer, search) if layer < PIXELS else []
        ahead = np.flatnonzero(tracks.last < layer)
        if len(ahead):
            taken += _nearest(hits, tracks, ahead, layer, search, budget)
        tracks = _stepped(hits, tracks, layer, taken, search)
    return tracks


def _given(hits: LayerHits, tracks: Followed, layer: int, search: Search) -> list[Taken]:
    """The hits of seeds."""
    which = np.flatnonzero(tracks.hit[layer] >= 0)
    if not len(which):
        return []
    place = tracks.hit[layer, which]
    return [Taken(which, place, measured(tracks.helices.of(which), hits, place, hits.shells[layer], search))]


def _stepped(hits: LayerHits, tracks: Followed, layer: int, taken: list[Taken], search: Search) -> Followed:
    """With the layer's hits and its material taken in, less those that can no more have enough hits or do not fit."""
    shell, helices, chi2 = hits.shells[layer], tracks.helices, tracks.chi2
    keep = np.ones(len(chi2), np.bool_)
    for some in taken:
        found, which = some.found, some.which
        tracks.hit[layer, which] = some.place
        chi2[which] += found.chi2()
        keep[which] = found.beyond <= search.sigmas
        if len(which) == len(chi2):
            helices = helices.updated(found)
        else:
            helices = helices.with_some(which, helices.of(which).updated(found))
    if layer == len(hits.shells) - 1:
        return _kept(Followed(tracks.event, tracks.last, tracks.hit, chi2, helices), layer + 1, keep, search)
    if taken and len(taken[0].which) == len(chi2):
        r, way = taken[0].found.r, taken[0].found.way
    else:
        middle = 0.5 * (shell.inner + shell.outer)
        r, way = np.full(len(chi2), middle), helices.way(middle)
        for some in taken:
            r[some.which], way[some.which] = some.found.r, some.found.way
    stepped = Followed(tracks.event, tracks.last, tracks.hit, chi2, helices.scattered(shell, r, way, search))
    return _kept(stepped, layer + 1, keep, search)


def _kept(tracks: Followed, layers: int, keep: Mask, search: Search) -> Followed:
    """Those of the mask that can still have enough hits, after so many layers."""
    missed = (tracks.hit[:layers] < 0).sum(axis=0)
    keep = keep & (missed <= len(tracks.hit) - search.hits)
    return tracks if keep.all() else tracks.of(np.flatnonzero(keep))


def _nearest(hits: LayerHits, every: Followed, ahead: Ints, layer: int, search: Search, budget: Budget) -> list[Taken]:
    """For each of some tracks the hit nearest to it in units of its error, if one is near enough; a part of them after
    the other."""
    tracks = every if len(ahead) == len(every.event) else every.of(ahead)
    shell, window = hits.shells[layer], _window(hits, tracks, layer, search)
    window = Window(window.place, window.begin, budget.to_try(tracks.event, window.number))
    nearest = []
    for some in budget.entries(window.number):
        which, place = window.hits(some)
        if not len(which):
            continue
        found = measured(tracks.helices.of(which), hits, place, shell, search)
        chi2 = found.chi2()
        near = np.flatnonzero((found.turn.chi2 <= search.sigmas**2) & (found.beyond <= search.sigmas))
        best = near[_best(which[near] - some.start, chi2[near], some.stop - some.start)]
        if len(best):
            nearest.append(Taken(ahead[which[best]], place[best], found.of(best)))
    return nearest


def _window(hits: LayerHits, tracks: Followed, layer: int, search: Search) -> Window:
    """Where a track's hit may lie, whatever the radius at which it meets the layer's sensors."""
    shell = hits.shells[layer]
    (one, other), variance, reaches = tracks.helices.passing(shell.inner, shell.outer)
    slack = search.sigmas * np.sqrt(variance + (shell.precision**2 + search.placed**2) / shell.inner**2)
    slack += shell.lean / shell.inner
    window = hits.within(layer, tracks.event, np.minimum(one, other) - slack, np.maximum(one, other) + slack)
    return Window(window.place, window.begin, np.where(reaches, window.number, 0))


def _best(which: Ints, chi2: Floats, tracks: int) -> Ints:
    """Of entries in the order of their tracks, for each track that has any that with the least chi2, the first of
    several."""
    least = np.full(tracks, np.inf)
    np.minimum.at(least, which, chi2)
    best = np.flatnonzero(chi2 == least[which])
    first = np.ones(len(best), np.bool_)
    np.not_equal(which[best[1:]], which[best[:-1]], out=first[1:])
    return best[first]
