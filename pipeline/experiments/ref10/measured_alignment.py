"""What the stiff tracks of REF10 say of where its sensors are, and the alignment made of it; never written.

A record is a track as `reconstruct.refit` fitted it: u of each hit, v of those on pixels, less where the track crosses
the sensor as it is thought to lie, with the covariance of errors and scattering that the fit took. Half barrels and
ladders move in global axes, modules in their own, as `alignment` has them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from calib.algorithms.alignment import Alignment
from calib.algorithms.alignment_geometry import slopes
from calib.algorithms.gain import KIND as GAIN
from calib.algorithms.lorentz_angle import KIND as LORENTZ
from calib.algorithms.pedestal import KIND as PEDESTAL
from calib.jagged import jagged_of, ramps
from calib.payload import Payload
from pipeline.experiments.collisions import Collection
from pipeline.experiments.ref10.alignment import HALVES, ladder_middles
from pipeline.experiments.ref10.constants import FIELD, PIXEL_STATUS, STRIP_STATUS
from pipeline.experiments.ref10.geometry import KIND as GEOMETRY
from pipeline.experiments.ref10.geometry import Geometry, geometry_of
from pipeline.experiments.ref10.layers import LAYERS
from pipeline.experiments.ref10.reconstruct.helix import CURVATURE_GEV, PARAMETERS, Helix
from pipeline.experiments.ref10.reconstruct.objects import Objects
from pipeline.experiments.ref10.reconstruct.refit import MEASURED, OF_LAYER, Crossed, crossed, derivatives, met
from pipeline.experiments.ref10.reconstruct.scattering import Material, covariance, scatterers
from pipeline.experiments.ref10.reconstruct.track_hits import Planes, TrackHits, track_hits

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

MOMENTUM = 3.0
"""GeV; of slower tracks scattering leaves little. CMS has 4 (physics note, 5.1): a third fewer records, that tell a
fifth less"""
LEAST_HITS = 8
Z_MASS, Z_WINDOW, Z_SPREAD = 91.1876, 6.0, 0.022
"""GeV, and what the logarithm of the mass spreads by within the window, by its natural width"""
PLACES = 32
"""bits for the place of a track in its event"""
NO_PAIRS: Ints = np.zeros((0, 2), np.int64)
LEVELS = ("half_barrel", "ladder", "module")
FREE = ("half_barrel 0-1: all",)
"""the half barrels of the pixels"""
BLOCK = 512
"""tracks worked on at a time, 15 kB for each"""


class TrackerAlignment(Alignment):
    """Of residuals that everything else has made right."""

    after: ClassVar[tuple[str, ...]] = (PEDESTAL, STRIP_STATUS, PIXEL_STATUS, GAIN, LORENTZ)


def alignment_calibration(geometry: Geometry) -> TrackerAlignment:
    """Of the half barrels of the pixels, unless the settings say more; strips stay."""
    counts = (HALVES, int(geometry.ladder_row.max()) + 1, len(geometry))
    return TrackerAlignment(levels=tuple(zip(LEVELS, counts, strict=True)), free=FREE)


@dataclass(frozen=True, eq=False)
class Stiff:
    """n tracks that are looked at."""

    event: Ints
    place: Ints
    """in the event"""
    hit: Ints
    """by layer, [n, 10], -1: none"""
    row: Ints
    """of the modules they lie on, in the geometry, [n, 10]; where there is none, 0"""
    helix: Helix

    def where(self, rows: Ints | Mask) -> Stiff:
        """Some of them."""
        helix = Helix(*(getattr(self.helix, name)[rows] for name in PARAMETERS))
        return Stiff(self.event[rows], self.place[rows], self.hit[rows], self.row[rows], helix)


@dataclass(frozen=True, eq=False)
class Record:
    """n records, each as long as with every hit: of what was not seen there is nothing but a place."""

    tracks: Stiff
    """whose they are; of pairs the first"""
    seen: Mask
    """[n, m]"""
    residuals: Floats
    derivatives: Floats
    """[n, m, k]"""
    covariance: Floats
    """lower triangle, [n, m, m]"""
    labels: Ints
    """[n, m, levels]"""
    slopes: Floats
    """[n, m, levels, 6]"""
    directions: Floats
    """[n, m, 3]"""
    points: Floats

    def halves(self) -> tuple[Record, Record]:
        """The first half of them and the second."""
        half = len(self.seen) // 2
        arrays = [
            [getattr(self, part.name)[rows] for part in fields(self)[1:]] for rows in (np.s_[:half], np.s_[half:])
        ]
        one, other = (self.tracks.where(rows) for rows in np.arange(2 * half).reshape(2, half))
        return Record(one, *arrays[0]), Record(other, *arrays[1])

    def flat(self) -> dict[str, tuple[NDArray[Any], Ints]]:
        """By column the values of all records, and how many each has."""
        own = self.seen
        m, (n, most, k) = own.sum(axis=1), self.derivatives.shape
        both = np.flatnonzero(own[:, :, None] & own[:, None, :] & np.tri(most, dtype=bool))
        rows, one = np.flatnonzero(own), np.ones_like(m)

        def taken(values: NDArray[Any]) -> NDArray[Any]:
            return values.reshape(n * most, math.prod(values.shape[2:])).take(rows, axis=0).reshape(-1)

        return {
            "measurements": (m, one),
            "parameters": (np.full_like(m, k), one),
            "residuals": (taken(self.residuals), m),
            "derivatives": (taken(self.derivatives), m * k),
            "covariance": (self.covariance.reshape(-1).take(both), m * (m + 1) // 2),
            "labels": (taken(self.labels), m * len(LEVELS)),
            "slopes": (taken(self.slopes), m * len(LEVELS) * 6),
            "directions": (taken(self.directions), 3 * m),
            "points": (taken(self.points), 3 * m),
        }


def alignment_columns(
    clusters: Collection, found: Objects, conditions: Mapping[str, Payload], *, z_mass: bool = True
) -> dict[str, Any]:
    """What `calib.algorithms.alignment` reads, of stiff tracks; with `z_mass` the muons of a Z are one record."""
    tracks = stiff_tracks(clusters, found, geometry_of(conditions[GEOMETRY]))
    pairs = z_pairs(tracks, found.pairs, found.muons) if z_mass else NO_PAIRS
    alone = np.ones(len(tracks.event), np.bool_)
    alone[pairs] = False
    records = [_record(part, clusters, conditions) for part in _blocks(tracks.where(alone))]
    bending = CURVATURE_GEV * abs(float(conditions[FIELD]["tesla"]))
    for part in np.array_split(pairs, -(-len(pairs) // BLOCK)) if len(pairs) else ():
        both = _record(tracks.where(part.T.reshape(-1)), clusters, conditions)
        records.append(of_one_mass(*both.halves(), Z_MASS / bending, Z_SPREAD))
    return _columns(records, len(clusters.counts))


def _blocks(tracks: Stiff) -> list[Stiff]:
    places = np.arange(len(tracks.event))
    return [tracks.where(places[first : first + BLOCK]) for first in range(0, max(len(places), 1), BLOCK)]


def stiff_tracks(clusters: Collection, found: Objects, geometry: Geometry) -> Stiff:
    """Tracks above MOMENTUM, of 8 hits or more, and fitted. (One that fits badly is for the cut on chi2.)"""
    tracks = found.tracks
    momentum = tracks["pt"] * np.sqrt(1 + tracks["cot_theta"] ** 2)
    good = (tracks.flat["flags"] == 0) & (tracks.flat["hits"] >= LEAST_HITS) & (momentum > MOMENTUM)
    chosen = np.flatnonzero(good)
    # The hits of an event follow those of the one before, as tracks do.
    of_hit = np.flatnonzero(np.repeat(good, tracks.flat["hits"]))
    event, starts = found.hits.event[of_hit], np.cumsum(clusters.counts) - clusters.counts
    place = starts[event] + found.hits.flat["hit"][of_hit]
    of_place = geometry.rows_of(clusters.flat["module"][place])
    layer, track = geometry.layer[of_place] - 1, np.repeat(np.arange(len(chosen)), tracks.flat["hits"][chosen])
    hit, row = np.full((len(chosen), len(LAYERS)), -1, np.int64), np.zeros((len(chosen), len(LAYERS)), np.int64)
    hit[track, layer], row[track, layer] = place, of_place
    helix = Helix(*(tracks[name][chosen] for name in PARAMETERS))
    in_event = ramps(tracks.counts)
    return Stiff(tracks.event[chosen].astype(np.int64), in_event[chosen], hit, row, helix)


def z_pairs(tracks: Stiff, pairs: Collection, muons: Collection) -> Ints:
    """Places [pairs, 2] among the tracks of the muons of each Z, both of them stiff; the first pair of an event."""
    near = (pairs.flat["charge"] == 0) & (np.abs(pairs["mass"] - Z_MASS) < Z_WINDOW)
    event, first = np.unique(pairs.event[near], return_index=True)
    begins = (np.cumsum(muons.counts) - muons.counts)[event]
    key = tracks.event << PLACES | tracks.place
    found = []
    for side in ("first", "second"):
        track = muons.flat["track"][begins + pairs.flat[side][near][first].astype(np.int64)].astype(np.int64)
        wanted = event.astype(np.int64) << PLACES | track
        at = np.minimum(np.searchsorted(key, wanted), max(len(key) - 1, 0))
        found.append(np.where(key[at] == wanted, at, -1) if len(key) else np.full(len(wanted), -1))
    both = np.stack(found, axis=1)
    return both[(both >= 0).all(axis=1)]


def of_one_mass(one: Record, other: Record, mass: float, spread: float) -> Record:
    """Pairs of tracks as records of twice the parameters, with the logarithm of their mass as a measurement more.

    `mass` is in cm, over the bending of the field in GeV/cm. What it says of the parameters, the curvatures above all,
    is what tracks alone do not know of a curl. The particles are taken for massless.
    """
    n, m, k = one.derivatives.shape
    log_mass, by_parameters = _log_mass(one.tracks.helix, other.tracks.helix)
    derivatives, covariance = np.zeros((n, 2 * m + 1, 2 * k)), np.zeros((n, 2 * m + 1, 2 * m + 1))
    for side, record in enumerate((one, other)):
        rows, own = slice(side * m, (side + 1) * m), slice(side * k, (side + 1) * k)
        derivatives[:, rows, own], covariance[:, rows, rows] = record.derivatives, record.covariance
    derivatives[:, -1], covariance[:, -1, -1] = by_parameters, spread**2
    residual = (np.log(mass) - log_mass)[:, None]

    def joined(name: str, last: Any) -> Any:
        sides = [getattr(record, name) for record in (one, other)]
        return np.concatenate([*sides, np.full((n, 1, *sides[0].shape[2:]), last)], axis=1)

    residuals = np.concatenate([one.residuals, other.residuals, residual], axis=1)
    rest = (joined("labels", -1), joined("slopes", 0.0), joined("directions", 0.0), joined("points", 0.0))
    return Record(one.tracks, joined("seen", True), residuals, derivatives, covariance, *rest)


def _log_mass(one: Helix, other: Helix) -> tuple[Floats, Floats]:
    """Logarithm of the mass of pairs, in cm without the field, and how it goes with the parameters of both, [n, 10]."""
    eta = np.arcsinh(one.cot_theta) - np.arcsinh(other.cot_theta)
    phi = one.phi - other.phi
    opening = np.cosh(eta) - np.cos(phi)
    squared = 2 * opening / np.abs(one.curvature * other.curvature)
    found = np.zeros((len(phi), 2, len(PARAMETERS)))
    for side, (helix, sign) in enumerate(((one, 1), (other, -1))):
        found[:, side, PARAMETERS.index("curvature")] = -0.5 / helix.curvature
        found[:, side, PARAMETERS.index("phi")] = sign * 0.5 * np.sin(phi) / opening
        found[:, side, PARAMETERS.index("cot_theta")] = sign * 0.5 * np.sinh(eta) / opening * helix.sine
    return 0.5 * np.log(squared), found.reshape(len(phi), -1)


def _record(tracks: Stiff, clusters: Collection, conditions: Mapping[str, Payload]) -> Record:
    geometry = geometry_of(conditions[GEOMETRY])
    hits = track_hits(tracks.hit, clusters, conditions)
    material, tesla = Material.of(geometry), float(conditions[FIELD]["tesla"])
    way, _ = tracks.helix.to_radius(np.where(hits.seen, np.hypot(*hits.points[:2]), material.radius[:, None]))
    on_circle = tracks.helix.at(way)
    planes = hits.planes.standing_in(hits.seen, np.stack([on_circle.x, on_circle.y, on_circle.z]))
    there = crossed(tracks.helix, planes, met(tracks.helix, planes, way))
    seen = hits.seen[np.array(OF_LAYER)]
    scattered = scatterers(tracks.helix, there.places, there.incidence, material, tesla)
    spread = covariance(there.rows * seen, there.places, OF_LAYER, scattered)
    spread[np.arange(len(seen)), np.arange(len(seen))] += _measured(hits, "_error") ** 2
    labels, along = _structures(tracks, there, planes, geometry)
    return Record(
        tracks,
        seen.T,
        (_measured(hits, "") - there.expected).T,
        derivatives(tracks.helix, there).transpose(2, 0, 1),
        spread.transpose(2, 0, 1),
        labels,
        along,
        there.rows.transpose(2, 1, 0),
        _points(there),
    )


def _columns(records: list[Record], events: int) -> dict[str, Any]:
    parts = [record.flat() for record in records]
    event = np.concatenate([record.tracks.event for record in records])
    order = np.argsort(event, kind="stable")
    columns = {}
    for name in parts[0]:
        values, sizes = (np.concatenate([part[name][i] for part in parts]) for i in (0, 1))
        counts = np.bincount(event, sizes, minlength=events).astype(np.int64)
        columns[f"alignment_{name}"] = jagged_of(_in_order(values, sizes, order), counts)
    return columns


def _in_order(values: NDArray[Any], sizes: Ints, order: Ints) -> NDArray[Any]:
    """Values of records, of each so many, in another order of these; what stays together is taken together."""
    breaks = np.flatnonzero(np.diff(order) != 1) + 1
    if not len(breaks):
        return values
    begins = np.concatenate([[0], np.cumsum(sizes)])
    first, last = order[np.append(0, breaks)], order[np.append(breaks, len(order)) - 1] + 1
    runs = zip(begins[first].tolist(), begins[last].tolist(), strict=True)
    return np.concatenate([values[begin:end] for begin, end in runs])


def _measured(hits: TrackHits, of: str) -> Floats:
    """u and v as MEASURED has them, or their errors, [m, n]."""
    return np.stack([getattr(hits, f"{axis}{of}")[layer] for layer, axis in MEASURED])


def _points(there: Crossed) -> Floats:
    """Where the tracks cross, [n, m, 3]."""
    found: Floats = np.stack([there.places.x, there.places.y, there.places.z], axis=-1)[np.array(OF_LAYER)]
    return found.swapaxes(0, 1)


def _structures(tracks: Stiff, there: Crossed, planes: Planes, geometry: Geometry) -> tuple[Ints, Floats]:
    """The structures that measurements lie on, [n, m, levels], and the slopes in their displacements, [..., 6].

    Where nothing was measured, both have no meaning.
    """
    of_layer = np.array(OF_LAYER)
    row = tracks.row[:, of_layer]
    labels = np.stack([geometry.half[row], geometry.ladder_row[row], row], axis=-1).astype(np.int64, copy=False)
    places = np.stack([there.places.x, there.places.y, there.places.z])
    middle = ladder_middles(geometry).T[:, geometry.ladder_row[tracks.row.T]]
    arms = (places, places - middle, _along(planes, places - planes.centre))
    axes = (there.rows, there.rows, _along(planes, there.rows))
    found = np.empty((*row.shape, len(LEVELS), 6))
    for level, (q, arm) in enumerate(zip(axes, arms, strict=True)):
        found[:, :, level] = slopes(np.moveaxis(q, 0, -1), np.moveaxis(arm[:, of_layer], 0, -1)).swapaxes(0, 1)
    return labels, found


def _along(planes: Planes, vectors: Floats) -> Floats:
    """Vectors along a sensor's own axes; [3, 10, n] or, of measurements, [3, m, n]."""
    of_layer = slice(None) if vectors.shape[1] == len(LAYERS) else np.array(OF_LAYER)
    return np.stack([(axis[:, of_layer] * vectors).sum(axis=0) for axis in (planes.u, planes.v, planes.w)])
