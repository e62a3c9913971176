"""Seeds: triplets of pixel hits that one helix from near the axis goes through (physics note, 9.4.4).

Doublets are looked for in a window of azimuth that the least momentum and the largest d0 leave, and must point to where
collisions are; a doublet and the range of d0 leave a window for the third hit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pipeline.experiments.ref10.reconstruct.budget import Budget
from pipeline.experiments.ref10.reconstruct.kalman import Helices, through, within_half_turn
from pipeline.experiments.ref10.reconstruct.layer_hits import LayerHits, Window
from pipeline.experiments.ref10.reconstruct.scattering import HIGHLAND_GEV
from pipeline.experiments.ref10.reconstruct.search import Search

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

Triplet = tuple[int, int, int]

ROUNDS: tuple[tuple[Triplet, ...], ...] = (((0, 1, 2),), ((0, 1, 2), (1, 2, 3), (0, 2, 3), (0, 1, 3)))
"""pixel layers (0 to 3) in which seeds are looked for: first those for tracks with a hit in each of the first three;
then the same once more, for tracks that had lost too many hits to a better one beside them, and together with it those
for tracks that lack one of these"""
CURVED = 0.002
"""rad by which azimuths of a circle from near the axis are off the parabola that the window of the third hit goes by:
0.0015 at the least momentum, from layers 1 and 2 to layer 4"""
HIT = 0.05
"""cm that the errors of hits may move the z expected in the third layer"""


@dataclass(frozen=True, eq=False)
class Groups:
    """Hits of the first k layers of n triplets, in the order of events."""

    layers: Ints
    """[3, n]: of the triplet"""
    hit: Ints
    """[k, n]: places"""

    def of(self, which: Ints) -> Self:
        """Those at these places."""
        return type(self)(self.layers.take(which, axis=1), self.hit.take(which, axis=1))

    def longer(self, which: Ints, place: Ints) -> Self:
        """Those at these places with one more hit each."""
        some = self.of(which)
        return type(self)(some.layers, np.concatenate([some.hit, place[None]]))


@dataclass(frozen=True, eq=False)
class Seeds:
    """Triplets of whole events, in the order of these, with the helices through them."""

    groups: Groups
    helices: Helices


def seeds(hits: LayerHits, triplets: tuple[Triplet, ...], search: Search, budget: Budget) -> Iterator[Seeds]:
    """The seeds in triplets of layers, some events at a time, if there are any."""
    inner = _inner(hits, triplets)
    if not inner.hit.size:
        return
    collided, in_line = partial(_from_collisions, hits, search), partial(_in_line, hits, search)
    for pair in _extended(hits, inner, _second(hits, inner, search), collided, budget):
        for triplet in _extended(hits, pair, _third(hits, pair, search), in_line, budget):
            helices = through(hits, triplet.hit)
            _, rho, d = helices.circle
            sound = np.flatnonzero((np.abs(rho) <= search.curvature) & (np.abs(d) <= search.d0))
            if len(sound):
                yield Seeds(triplet.of(sound), helices.of(sound))


def _inner(hits: LayerHits, triplets: tuple[Triplet, ...]) -> Groups:
    """The hits that triplets begin with."""
    of_layer = {first: np.flatnonzero(hits.usable & (hits.layer == first)) for first in {one[0] for one in triplets}}
    places = [of_layer[one[0]] for one in triplets]
    layers = np.repeat(np.array(triplets), [len(some) for some in places], axis=0).T
    groups = Groups(layers, np.concatenate(places)[None])
    return groups if len(triplets) == 1 else groups.of(np.argsort(hits.event[groups.hit[0]], kind="stable"))


def _extended(
    hits: LayerHits, groups: Groups, window: Window, fits: Callable[[Groups], Mask], budget: Budget
) -> Iterator[Groups]:
    """Groups with every hit of their window that fits; whole events at a time, if there are any."""
    event = hits.event[groups.hit[0]]
    window = Window(window.place, window.begin, budget.to_try(event, window.number))
    for some in budget.events(event, window.number):
        parts = []
        for part in budget.entries(window.number[some]):
            which, place = window.hits(slice(some.start + part.start, some.start + part.stop))
            longer = groups.longer(which, place)
            parts.append(longer.of(np.flatnonzero(fits(longer))))
        found = Groups(*(np.concatenate([getattr(part, name) for part in parts], axis=1) for name in ("layers", "hit")))
        kept = budget.to_keep(hits.event[found.hit[0]])
        if len(kept):
            yield found.of(kept)


def _second(hits: LayerHits, inner: Groups, search: Search) -> Window:
    """Where hits of the second layer may lie, for those of the first."""
    hit, layer = inner.hit[0], inner.layers[1]
    r, outer = hits.r[hit], hits.of_shells("outer", layer)
    turn = np.arcsin(0.5 * search.curvature * outer) - np.arcsin(0.5 * search.curvature * r)
    reach = turn + search.d0 * (1 / r - 1 / outer)
    return hits.within(layer, hits.event[hit], hits.phi[hit] - reach, hits.phi[hit] + reach)


def _from_collisions(hits: LayerHits, search: Search, pair: Groups) -> Mask:
    """Whether the straight line through two hits comes from where collisions are."""
    r, z = hits.r[pair.hit], hits.z[pair.hit]
    found: Mask = np.abs(z[0] - (z[1] - z[0]) * r[0] / (r[1] - r[0])) <= search.z0
    return found


def _third(hits: LayerHits, pair: Groups, search: Search) -> Window:
    """Where hits of the third layer may lie: with azimuth phi - curvature r / 2 - d0 / r, for all d0 that may be."""
    _, middle, layer = pair.layers
    r, phi = hits.r[pair.hit], hits.phi[pair.hit]
    turn, gap = within_half_turn(phi[1] - phi[0]), r[1] - r[0]
    lever = 1 / r[0] - 1 / r[1]
    bend = 0.5 * search.curvature * gap
    least, most = (np.clip((turn + side) / lever, -search.d0, search.d0) for side in (-bend, bend))
    edges = [
        (turn - d * lever) * ((outer - r[1]) / gap) + d * (1 / r[1] - 1 / outer)
        for d in (least, most)
        for outer in (hits.of_shells("inner", layer), hits.of_shells("outer", layer))
    ]
    slack = CURVED + search.sigmas * _scattering(hits, middle, search)
    low, high = np.minimum.reduce(edges) - slack, np.maximum.reduce(edges) + slack
    return hits.within(layer, hits.event[pair.hit[0]], phi[1] + low, phi[1] + high)


def _in_line(hits: LayerHits, search: Search, triplet: Groups) -> Mask:
    """Whether the third hit lies where a line through the others has it, but for what bends and scatters."""
    r, z = hits.r[triplet.hit], hits.z[triplet.hit]
    cot = (z[1] - z[0]) / (r[1] - r[0])
    bow = search.curvature**2 / 24 * r[2] ** 3 * np.abs(cot)
    scattered = search.sigmas * _scattering(hits, triplet.layers[1], search) * (1 + cot**2) * (r[2] - r[1])
    found: Mask = np.abs(z[2] - z[1] - cot * (r[2] - r[1])) <= bow + scattered + HIT
    return found


def _scattering(hits: LayerHits, layer: Ints, search: Search) -> Floats:
    """rad by which the material of a layer turns a track of the least momentum, at 45 degrees and a width."""
    width = np.sqrt([2 * shell.material for shell in hits.shells])
    found: Floats = (HIGHLAND_GEV * search.curvature / search.stiffness * width)[layer]
    return found
