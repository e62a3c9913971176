"""Vertices of tracks: where several tracks of an event meet, with and without what is known of the beam.

Columns of a vertex (float64 unless said); those of an event with the largest `sum_pt2` first, but UNRELIABLE ones last:
    x, y, z [cm], cov_<a>_<b> [cm^2] for a, b of x, y, z, a before b or the same
    chi2, ndf            by weights: ndf = 2 x their sum - 3
    tracks int32         of weight above 0.5
    sum_pt2 [GeV^2]      of these
    flags uint8          `VertexFlag`
    constrained_*        the same of the fit with the beam, but for `tracks` and `sum_pt2`; where `beamspot` is given
and of a track: `vertex` int32, its place in the event, -1 where none; `vertex_weight`, 0 where none.

Fits that are not constrained do not use `beamspot`, which is measured with them: where in the transverse plane to look
is told by all tracks of the event. Every fit knows that vertices are in the beam pipe, which moves a good one by 1 nm.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calib import cholesky
from calib.algorithms.beamspot_payload import KIND as BEAMSPOT
from calib.jagged import ramps
from calib.payload import Payload
from pipeline.experiments.collisions import Collection
from pipeline.experiments.ref10.reconstruct.adaptive import TERMS, Fitted, Lines, Prior, fit
from pipeline.experiments.ref10.reconstruct.helix import PARAMETERS
from pipeline.experiments.ref10.reconstruct.perigees import about, covariance_column
from pipeline.experiments.ref10.reconstruct.sums import gathered
from pipeline.experiments.ref10.reconstruct.track_flags import FAILED, TrackFlag
from pipeline.experiments.ref10.reconstruct.vertex_clusters import DEFAULT, Separation, vertex_clusters
from pipeline.experiments.ref10.reconstruct.vertex_flags import UNRELIABLE, VertexFlag

MAY_USE = (BEAMSPOT,)
"""kinds of conditions that are used where they are given; none is needed"""

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Columns = dict[str, NDArray[Any]]

BLOCK = 20_000
"""tracks worked on at a time, 600 bytes for each"""
UNFIT = FAILED | TrackFlag.UNREACHED | TrackFlag.UNSETTLED
"""tracks with one of these take no part: their errors say too little"""
PIPE = np.diag([1.0, 1.0, 1e-4])
"""inverse covariance [1/cm^2] of vertices about the origin that are only known to be within the beam pipe"""
NEAR = 0.1
"""[cm] from the axis where beams meet; as far a vertex may be from where its tracks were taken as lines"""
ROUGHLY = 0.01
"""[cm] added to errors when all tracks of an event say where the beam is, so that no single one decides"""
ROUNDS = 4
"""of that"""
SETTLED = 1e-4
"""[cm]"""
LEAST_WEIGHT, HALF = 1e-3, 0.5
LARGEST_PT = 100.0
"""GeV as which a track counts at the most: beyond, fits err"""
NAMES = "xyz"


@dataclass(frozen=True, eq=False)
class Beam:
    """The line of the beam as a prior."""

    information: Floats
    centre: Floats
    """[3]"""
    known: int
    """widths, of three"""

    @classmethod
    def of(cls, payload: Payload) -> Beam:
        """From `beamspot`; a width it does not tell does not constrain.

        How well the line itself is known is left out: that is common to all vertices.
        """
        slopes = -float(payload["dxdz"]), -float(payload["dydz"])
        rows = np.array([[1.0, 0.0, slopes[0]], [0.0, 1.0, slopes[1]], [0.0, 0.0, 1.0]])
        widths = np.array([float(payload[name]) for name in ("width_x", "width_y", "sigma_z")])
        centre = np.array([float(payload[name]) for name in NAMES])
        told = np.isfinite(widths) & (widths > 0)
        precision = np.where(told, 1 / np.where(told, widths, 1.0) ** 2, 0.0)
        return cls((rows.T * precision) @ rows, centre, int(told.sum()))


def fit_vertices(
    tracks: Collection, conditions: Mapping[str, Payload], separation: Separation = DEFAULT
) -> tuple[Collection, Collection]:
    """Vertices of the tracks of some events, and the tracks with `vertex` and `vertex_weight`; columns as above."""
    beam = Beam.of(conditions[BEAMSPOT]) if BEAMSPOT in conditions else None
    fine = usable(tracks)
    parts = [_fitted(part, beam, separation) for part in _blocks(tracks.where(fine))]
    counts, columns, place, weight = (tuple(part) for part in zip(*parts, strict=True))
    vertex = np.full(len(fine), -1, np.int32)
    vertex[fine] = np.concatenate(place)
    share = np.zeros(len(fine))
    share[fine] = np.concatenate(weight)
    flat = {name: np.concatenate([part[name] for part in columns]) for name in columns[0]}
    return Collection(np.concatenate(counts), flat), tracks.adding(vertex=vertex, vertex_weight=share)


def usable(tracks: Collection) -> NDArray[np.bool_]:
    """Tracks that can take part: well fitted, of numbers, with a covariance that is one."""
    spread = np.empty((len(PARAMETERS), len(PARAMETERS), len(tracks.flat["flags"])))
    for a, one in enumerate(PARAMETERS):
        for b, other in enumerate(PARAMETERS[: a + 1]):
            spread[a, b] = tracks[covariance_column(one, other)]
    _, sound = cholesky.factors(spread)
    for name in PARAMETERS:
        sound &= np.isfinite(tracks[name])
    found: NDArray[np.bool_] = sound & ((tracks.flat["flags"] & np.uint8(UNFIT)) == 0)
    return found


def _blocks(tracks: Collection) -> Iterator[Collection]:
    """Events in turn, about BLOCK tracks at a time, and one event at least."""
    starts = np.append(0, np.cumsum(tracks.counts))
    cuts = np.flatnonzero(np.diff(starts[:-1] // BLOCK)) + 1
    for first, last in pairwise([0, *cuts.tolist(), len(tracks.counts)]):
        some = slice(starts[first], starts[last])
        yield Collection(tracks.counts[first:last], {name: values[some] for name, values in tracks.flat.items()})


def _fitted(tracks: Collection, beam: Beam | None, separation: Separation) -> tuple[Ints, Columns, Ints, Floats]:
    """Vertices of each event, their columns, and vertex and weight of each track."""
    event = tracks.event
    x, y = beam_of_events(tracks)
    perigees = about(tracks, x[event], y[event])
    cluster = vertex_clusters(event, perigees.z0, np.sqrt(perigees.z0_variance), separation)
    # Fits want the tracks of a vertex side by side, in their order in the event.
    order = np.argsort(cluster, kind="stable")
    of, first = np.unique(cluster[order], return_index=True)
    whose = event[order][first]
    taken = Lines.through(perigees.taken(order), cluster[order])
    origin = np.array([x[whose], y[whose], np.zeros(len(of))])
    priors = [Prior(PIPE, -origin)]
    if beam is not None:
        priors.append(Prior(PIPE + beam.information, beam_centre(beam, origin)))
    found, *constrained = fit(taken, *priors)
    columns = _columns(found, taken, origin)
    if beam is not None:
        columns |= _constrained(constrained[0], taken, origin, beam)
    columns |= _told(found, taken, np.minimum(tracks["pt"][order], LARGEST_PT))
    return _by_event(columns, found.weight, (whose, cluster, order), len(tracks.counts))


def beam_centre(beam: Beam, origin: Floats) -> Floats:
    """Where the prior of beam and beam pipe together has its middle, as seen from the origins [3, n]."""
    both = np.linalg.solve(PIPE + beam.information, beam.information @ beam.centre)
    return both[:, None] - origin


def beam_of_events(tracks: Collection) -> tuple[Floats, Floats]:
    """x and y [cm] where the tracks of each event come from by their d0: near the axis, if they do not tell.

    Least squares, in which tracks that miss the place found before lose weight, so that displaced ones do not decide.
    """
    event, number, d0 = tracks.event, len(tracks.counts), tracks["d0"]
    precision = 1 / (tracks["cov_d0_d0"] + ROUGHLY**2)
    sine, cosine = np.sin(tracks["phi"]), -np.cos(tracks["phi"])
    weight, x, y = precision, np.zeros(number), np.zeros(number)
    for _ in range(ROUNDS):
        xx, yy = (gathered(event, weight * a * a, number) + NEAR**-2 for a in (sine, cosine))
        xy = gathered(event, weight * sine * cosine, number)
        right_x, right_y = (gathered(event, weight * a * d0, number) for a in (sine, cosine))
        determinant = xx * yy - xy**2
        x, y = (yy * right_x - xy * right_y) / determinant, (xx * right_y - xy * right_x) / determinant
        off = d0 - x[event] * sine - y[event] * cosine
        weight = precision / (1 + off**2 * precision)
    return x, y


def _columns(found: Fitted, lines: Lines, origin: Floats) -> Columns:
    """Of fits without the beam."""
    number = len(found.chi2)
    place = found.place + origin
    spread = found.covariance
    weight = gathered(lines.of, found.weight, number)
    few = gathered(lines.of, found.weight > LEAST_WEIGHT, number) < 2
    noted = (
        (VertexFlag.SINGLE, few),
        (VertexFlag.UNFIXED, spread[0, 0] + spread[1, 1] > NEAR**2),
        (VertexFlag.FAR, np.hypot(found.place[0], found.place[1]) > NEAR),
        (VertexFlag.UNSETTLED, found.moved > SETTLED),
    )
    flags = np.zeros(number, np.uint8)
    for flag, where in noted:
        flags |= np.where(where, np.uint8(flag), np.uint8(0))
    covariance = {f"cov_{NAMES[a]}_{NAMES[b]}": spread[a, b] for a, b in TERMS}
    values = {"chi2": found.chi2, "ndf": 2 * weight - 3, "flags": flags}
    return dict(zip(NAMES, place, strict=True)) | covariance | values


def _constrained(found: Fitted, lines: Lines, origin: Floats, beam: Beam) -> Columns:
    """Of fits with the beam, whose chi2 is counted."""
    columns = _columns(found, lines, origin)
    columns["chi2"] = columns["chi2"] + Prior(beam.information, beam.centre[:, None] - origin).chi2(found.place)
    columns["ndf"] = columns["ndf"] + beam.known
    if beam.known < len(NAMES):
        columns["flags"] |= np.uint8(VertexFlag.NO_WIDTHS)
    return {f"constrained_{name}": values for name, values in columns.items()}


def _told(found: Fitted, lines: Lines, pt: Floats) -> Columns:
    """What tracks of a vertex there are."""
    number, belongs = len(found.chi2), found.weight > HALF
    return {
        "tracks": gathered(lines.of, belongs, number).astype(np.int32),
        "sum_pt2": gathered(lines.of, belongs * pt**2, number),
    }


def _by_event(
    columns: Columns, weight: Floats, whose: tuple[Ints, Ints, Ints], events: int
) -> tuple[Ints, Columns, Ints, Floats]:
    """In the order of events, and told above; `whose`: event of vertices, vertex of tracks, order of weights."""
    event, of, order = whose
    last = (columns["flags"] & np.uint8(UNRELIABLE)) > 0
    ranked = np.lexsort((columns["z"], -columns["sum_pt2"], last, event))
    counts = np.bincount(event, minlength=events).astype(np.int64)
    place = np.empty(len(event), np.int64)
    place[ranked] = ramps(counts)
    shares = np.empty(len(order))
    shares[order] = weight
    return counts, {name: values[ranked] for name, values in columns.items()}, place[of], shares
