"""Hits that several tracks claim go to the best of these; a track left with too few is dropped."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.experiments.ref10.reconstruct.search import Search

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

Tracks = tuple[Ints, Ints, Floats]
"""event [n], hits [n, 10] (-1 for none) and chi2 [n]"""


def ranked(event: Ints, hit: Ints, chi2: Floats) -> Ints:
    """The order of tracks: by event, then most hits first, then least chi2, then by their hits from inside out."""
    hits = (hit >= 0).sum(axis=1)
    order = np.lexsort((chi2, -hits, event))
    keys = [key[order] for key in (event, hits, chi2)]
    if np.logical_and.reduce([key[1:] == key[:-1] for key in keys]).any():
        order = np.lexsort((*hit.T[::-1], chi2, -hits, event))
    return order


def shared_out(tracks: Tracks, search: Search) -> Tracks:
    """Tracks of which no two have a hit in common, in the order of `ranked`.

    As if one took them in that order, each with the hits that none before it has kept, and kept it if these are enough.
    Here in rounds, all events together: tracks whose every hit is claimed by no better one keep them.
    """
    order = ranked(*tracks)
    event, hit, chi2 = tracks[0][order], tracks[1][order], tracks[2][order]
    kept = np.zeros(len(event), bool)
    claim = np.empty(int(hit.max(initial=-1)) + 2, np.int64)
    taken = np.zeros(len(claim), bool)
    waiting = np.arange(len(event))
    while len(waiting):
        wanted = hit[waiting]
        # Place -1, no hit, is the last: what is there says nothing.
        claim[wanted] = len(event)
        np.minimum.at(claim, wanted, waiting[:, None])
        first = ((claim[wanted] == waiting[:, None]) | (wanted < 0)).all(axis=1)
        kept[waiting[first]] = True
        taken[wanted[first]] = True
        taken[-1] = False
        waiting = waiting[~first]
        hit[waiting] = np.where(taken[hit[waiting]], -1, hit[waiting])
        waiting = waiting[search.enough(hit[waiting] >= 0)]
    return event[kept], hit[kept], chi2[kept]
