"""Seeds: triplets of pixel hits that one helix from near the axis goes through (physics note, 9.4.4).

Doublets are looked for in a window of azimuth that the least momentum and the largest d0 leave, and must point to where
collisions are; a doublet and the range of d0 leave a window for the third hit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from pipeline.experiments.ref10.reconstruct.budget import Budget
from pipeline.experiments.ref10.reconstruct.kalman import Helices, through, within_half_turn
from pipeline.experiments.ref10.reconstruct.layer_hits import LayerHits, Shell, Window
from pipeline.experiments.ref10.reconstruct.scattering import HIGHLAND_GEV
from pipeline.experiments.ref10.reconstruct.search import Search

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

TRIPLETS = ((0, 1, 2), (0, 1, 2), (1, 2, 3), (0, 2, 3), (0, 1, 3))
"""pixel layers (0 to 3) in which seeds are looked for, in turn: the first for tracks with a hit in each, and once more
for those that had lost too many hits to a better one beside them; the others for those that lack one"""
CURVED = 0.002
"""rad by which azimuths of a circle from near the axis are off the parabola that the window of the third hit goes by:
0.0015 at the least momentum, from layers 1 and 2 to layer 4"""
HIT = 0.05
"""cm that the errors of hits may move the z expected in the third layer"""


@dataclass(frozen=True, eq=False)
class Seeds:
    """Triplets of whole events, in the order of these, with the helices through them."""

    layers: tuple[int, int, int]
    hit: Ints
    """[3, n]: places of the hits"""
    helices: Helices


def seeds(hits: LayerHits, layers: tuple[int, int, int], search: Search, budget: Budget) -> Iterator[Seeds]:
    """The seeds of three layers, some events at a time."""
    inner = np.flatnonzero(hits.usable & (hits.layer == layers[0]))[None]
    if not inner.size:
        return
    collided, in_line = partial(_from_collisions, hits, search), partial(_in_line, hits, hits.shells[layers[1]], search)
    for pair in _extended(hits, inner, _second(hits, layers, inner[0], search), collided, budget):
        for triplet in _extended(hits, pair, _third(hits, layers, pair, search), in_line, budget):
            helices = through(hits, triplet)
            _, rho, d = helices.circle
            sound = np.flatnonzero((np.abs(rho) <= search.curvature) & (np.abs(d) <= search.d0))
            if len(sound):
                yield Seeds(layers, triplet[:, sound], helices.of(sound))


def _extended(
    hits: LayerHits, groups: Ints, window: Window, fits: Callable[[Ints], Mask], budget: Budget
) -> Iterator[Ints]:
    """Groups of k hits [k, n], each with every hit of its window that fits, [k + 1, m]; whole events at a time, if there
    are any."""
    event = hits.event[groups[0]]
    window = replace(window, number=budget.to_try(event, window.number))
    for some in budget.events(event, window.number):
        parts = []
        for part in budget.entries(window.number[some]):
            which, place = window.hits(slice(some.start + part.start, some.start + part.stop))
            longer = np.stack([*groups[:, which], place])
            parts.append(longer[:, fits(longer)])
        found = np.concatenate(parts, axis=1)
        kept = budget.to_keep(hits.event[found[0]])
        if len(kept):
            yield found[:, kept]


def _second(hits: LayerHits, layers: tuple[int, int, int], inner: Ints, search: Search) -> Window:
    """Where hits of the second layer may lie, for those of the first."""
    r, outer = hits.r[inner], hits.shells[layers[1]].outer
    turn = np.arcsin(0.5 * search.curvature * outer) - np.arcsin(0.5 * search.curvature * r)
    reach = turn + search.d0 * (1 / r - 1 / outer)
    return hits.within(layers[1], hits.event[inner], hits.phi[inner] - reach, hits.phi[inner] + reach)


def _from_collisions(hits: LayerHits, search: Search, pair: Ints) -> Mask:
    """Whether the straight line through two hits comes from where collisions are."""
    r, z = hits.r[pair], hits.z[pair]
    found: Mask = np.abs(z[0] - (z[1] - z[0]) * r[0] / (r[1] - r[0])) <= search.z0
    return found


def _third(hits: LayerHits, layers: tuple[int, int, int], pair: Ints, search: Search) -> Window:
    """Where hits of the third layer may lie: with azimuth phi - curvature r / 2 - d0 / r, for all d0 that may be."""
    shell = hits.shells[layers[2]]
    r, phi = hits.r[pair], hits.phi[pair]
    turn, gap = within_half_turn(phi[1] - phi[0]), r[1] - r[0]
    lever = 1 / r[0] - 1 / r[1]
    bend = 0.5 * search.curvature * gap
    least, most = (np.clip((turn + side) / lever, -search.d0, search.d0) for side in (-bend, bend))
    edges = [
        (turn - d * lever) * ((outer - r[1]) / gap) + d * (1 / r[1] - 1 / outer)
        for d in (least, most)
        for outer in (shell.inner, shell.outer)
    ]
    slack = CURVED + search.sigmas * _scattering(hits.shells[layers[1]], search)
    low, high = np.minimum.reduce(edges) - slack, np.maximum.reduce(edges) + slack
    return hits.within(layers[2], hits.event[pair[0]], phi[1] + low, phi[1] + high)


def _in_line(hits: LayerHits, middle: Shell, search: Search, triplet: Ints) -> Mask:
    """Whether the third hit lies where a line through the others has it, but for what bends and scatters."""
    r, z = hits.r[triplet], hits.z[triplet]
    cot = (z[1] - z[0]) / (r[1] - r[0])
    bow = search.curvature**2 / 24 * r[2] ** 3 * np.abs(cot)
    scattered = search.sigmas * _scattering(middle, search) * (1 + cot**2) * (r[2] - r[1])
    found: Mask = np.abs(z[2] - z[1] - cot * (r[2] - r[1])) <= bow + scattered + HIT
    return found


def _scattering(shell: Shell, search: Search) -> float:
    """rad by which the material of the layer turns a track of the least momentum, at 45 degrees and a width."""
    return float(HIGHLAND_GEV * search.curvature / search.stiffness * np.sqrt(2 * shell.material))
