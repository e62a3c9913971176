"""Muons, and pairs of them from one vertex with their invariant mass.

REF10 has no muon detectors. Where the dimuon trigger has fired, every well measured track with pT above 1.5 GeV is
taken for a muon; elsewhere there is none. What is no muon makes a background of pairs of either charge, so those of the
same charge are kept too.

Columns of a muon: pt, pt_error [GeV], eta, phi [rad, (-pi, pi]], charge int8, dxy, dxy_error, dz, dz_error [cm], about
its vertex and with the errors of the track alone; vertex int32 and track int32, places in the event. Direction and
impact parameters are those at the vertex, to which the field turns a track by some mrad from the z axis.
Of a pair: mass, mass_error, pt [GeV], rapidity, phi, charge int8 (the sum), vertex int32, first and second int32
(places among the muons of the event, that of larger pT first), flags uint8 (`PairFlag`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntFlag
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.experiments.collisions import MUON_MASS, Collection
from pipeline.experiments.ref10.reconstruct.helix import azimuth
from pipeline.experiments.ref10.reconstruct.perigees import about, propagated
from pipeline.experiments.ref10.reconstruct.track_flags import TrackFlag
from pipeline.experiments.ref10.reconstruct.vertex_flags import UNRELIABLE
from pipeline.experiments.ref10.reconstruct.vertices import HALF, UNFIT

LEAST_PT = 1.5
"""GeV, of a muon"""
UNSURE = UNFIT | TrackFlag.STRAIGHT | TrackFlag.NO_FIELD
"""tracks with one of these are no muons: charge and momentum are unknown"""
MOST = 32
"""muons of an event that are paired, those of largest pT"""
BLOCK = 100_000
"""pairs worked on at a time, 400 bytes for each"""

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Flat = dict[str, NDArray[Any]]

IN_MASS = ("curvature", "phi", "cot_theta")
"""parameters of a track that its momentum depends on"""


class PairFlag(IntFlag):
    """Of a pair."""

    LOOSE_VERTEX = 1
    """its vertex is no measurement in space"""
    CROWDED = 2
    """its event has more muons than are paired: others were left out"""


@dataclass(frozen=True, eq=False)
class Dimuons:
    """Of n events."""

    muons: Collection
    pairs: Collection


def dimuons(tracks: Collection, vertices: Collection, triggered: Mask) -> Dimuons:
    """Muons and their pairs, of tracks that `vertices.fit_vertices` gave vertices; `triggered` [events] by dimuons."""
    taken = _candidates(tracks, triggered)
    parts = tracks.where(taken)
    order = np.lexsort((-parts["pt"], parts.event))
    parts = Collection(parts.counts, {name: values[order] for name, values in parts.flat.items()})
    first = np.cumsum(tracks.counts) - tracks.counts
    place = (np.flatnonzero(taken)[order] - first[parts.event]).astype(np.int32)
    begins = np.cumsum(vertices.counts) - vertices.counts
    at = begins[parts.event] + parts.flat["vertex"].astype(np.int64)
    muons, slopes = _muons(parts, vertices, at)
    muons["track"] = place
    found = Collection(parts.counts, muons)
    return Dimuons(found, _pairs(found, slopes, (vertices.flat["flags"][at] & np.uint8(UNRELIABLE)) > 0))


def _candidates(tracks: Collection, triggered: Mask) -> Mask:
    sound = (tracks.flat["flags"] & np.uint8(UNSURE)) == 0
    belongs = (tracks.flat["vertex"] >= 0) & (tracks["vertex_weight"] > HALF)
    found: Mask = sound & belongs & (tracks["pt"] > LEAST_PT) & np.repeat(triggered, tracks.counts)
    return found


def _muons(tracks: Collection, vertices: Collection, at: Ints) -> tuple[Flat, Floats]:
    """Columns, and the covariance of (ln pt, phi, cot_theta) at the vertex [3, 3, n]."""
    x, y, z = (vertices[name][at] for name in "xyz")
    near = about(tracks, x, y)
    one, along = np.ones(len(at)), x * np.cos(tracks["phi"]) + y * np.sin(tracks["phi"])
    rows = ({"curvature": -1 / tracks["curvature"]}, {"phi": one, "curvature": -along}, {"cot_theta": one})
    spread = np.array([[propagated(tracks, a, b) for b in rows] for a in rows])
    columns: Flat = {
        "pt": tracks["pt"],
        "pt_error": tracks["pt"] * np.sqrt(spread[0, 0]),
        "eta": np.arcsinh(tracks["cot_theta"]),
        "phi": azimuth(near.phi),
        "charge": tracks.flat["charge"],
        "dxy": near.d0,
        "dxy_error": np.sqrt(near.d0_variance),
        "dz": near.z0 - z,
        "dz_error": np.sqrt(near.z0_variance),
        "vertex": tracks.flat["vertex"],
    }
    return columns, spread


def _pairs(muons: Collection, spread: Floats, loose: Mask) -> Collection:
    """Each muon with all of the same vertex that come after it."""
    first = np.cumsum(muons.counts) - muons.counts
    event = muons.event
    paired = np.minimum(muons.counts, MOST)
    rank = np.arange(len(event)) - first[event]
    partners = np.maximum(paired[event] - 1 - rank, 0)
    parts: list[tuple[Ints, Flat]] = []
    for some in _slices(partners):
        left = np.repeat(np.arange(some.start, some.stop), partners[some])
        ahead = np.repeat(np.cumsum(partners[some]) - partners[some], partners[some])
        right = left + 1 + np.arange(len(left)) - ahead
        same = muons.flat["vertex"][left] == muons.flat["vertex"][right]
        left, right = left[same], right[same]
        columns = _masses(muons.flat, spread, left, right)
        columns |= {"first": rank[left].astype(np.int32), "second": rank[right].astype(np.int32)}
        columns["flags"] = _flags(loose[left], muons.counts[event[left]] > MOST)
        parts.append((event[left], columns))
    events, flat = zip(*parts, strict=True)
    counts = np.bincount(np.concatenate(events), minlength=len(muons.counts)).astype(np.int64)
    return Collection(counts, {name: np.concatenate([part[name] for part in flat]) for name in flat[0]})


def _slices(number: Ints) -> Iterator[slice]:
    """Muons in turn, of about BLOCK pairs; one slice at least."""
    before = np.cumsum(number) - number
    cuts = np.flatnonzero(np.diff(before // BLOCK)) + 1
    for start, stop in pairwise([0, *cuts.tolist(), len(number)]):
        yield slice(start, stop)


def _flags(loose: Mask, crowded: Mask) -> NDArray[np.uint8]:
    found: NDArray[np.uint8] = np.uint8(PairFlag.LOOSE_VERTEX) * loose.astype(np.uint8)
    found |= np.uint8(PairFlag.CROWDED) * crowded.astype(np.uint8)
    return found


def _masses(muons: Mapping[str, NDArray[Any]], spread: Floats, left: Ints, right: Ints) -> Flat:
    """Mass and more of pairs, and the error of the mass from those of both tracks."""
    momenta = [_momentum(muons, which) for which in (left, right)]
    _, x, y, z = (one + other for one, other in zip(*momenta, strict=True))
    pt = np.hypot(x, y)
    mass = np.sqrt(np.maximum(_square(momenta), 0.0))
    variance = np.zeros(len(left))
    for which, (own, other) in ((left, (0, 1)), (right, (1, 0))):
        slopes = _slopes(momenta[own], momenta[other], muons["pt"][which])
        for a in range(len(IN_MASS)):
            for b in range(len(IN_MASS)):
                variance += slopes[a] * slopes[b] * spread[a, b][which]
    return {
        "mass": mass,
        "mass_error": np.sqrt(variance) / mass,
        "pt": pt,
        "rapidity": np.arcsinh(z / np.hypot(mass, pt)),
        "phi": np.arctan2(y, x),
        "charge": muons["charge"][left] + muons["charge"][right],
        "vertex": muons["vertex"][left],
    }


def _momentum(muons: Mapping[str, NDArray[Any]], which: Ints) -> tuple[Floats, Floats, Floats, Floats]:
    """Energy and momentum [GeV]."""
    pt, eta, phi = (muons[name][which] for name in ("pt", "eta", "phi"))
    z = pt * np.sinh(eta)
    return np.sqrt(pt**2 + z**2 + MUON_MASS**2), pt * np.cos(phi), pt * np.sin(phi), z


def _square(momenta: list[tuple[Floats, Floats, Floats, Floats]]) -> Floats:
    """m^2 of pairs. Not from sums of momenta, whose difference from the energy loses digits for parallel muons."""
    (e1, x1, y1, z1), (e2, x2, y2, z2) = momenta
    cross = (y1 * z2 - z1 * y2) ** 2 + (z1 * x2 - x1 * z2) ** 2 + (x1 * y2 - y1 * x2) ** 2
    one, other = x1**2 + y1**2 + z1**2, x2**2 + y2**2 + z2**2
    scalar = x1 * x2 + y1 * y2 + z1 * z2
    # E1 E2 - p1.p2 = (E1^2 E2^2 - (p1.p2)^2) / (E1 E2 + p1.p2), and p1^2 p2^2 - (p1.p2)^2 is the cross product squared.
    above = cross + MUON_MASS**2 * (one + other + MUON_MASS**2)
    less = np.where(scalar > 0, above / (e1 * e2 + np.abs(scalar)), e1 * e2 - scalar)
    return np.asarray(2 * MUON_MASS**2 + 2 * less)


def _slopes(
    own: tuple[Floats, Floats, Floats, Floats], other: tuple[Floats, Floats, Floats, Floats], pt: Floats
) -> tuple[Floats, Floats, Floats]:
    """How m^2 / 2 goes with ln pt, phi and cot_theta of one of the two."""
    (energy, x, y, z), (e2, x2, y2, z2) = own, other
    ratio = e2 / energy
    with_size = (ratio * x - x2) * x + (ratio * y - y2) * y + (ratio * z - z2) * z
    return with_size, y * x2 - x * y2, pt * (ratio * z - z2)
