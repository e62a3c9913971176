"""Tracks through a barrel of four layers of pixels and six of strips whose structures are out of place, as the columns
that `calib.algorithms.alignment` reads.

Linear in what is small: residuals are the derivatives times what was put in, with errors of hits and scattering drawn
step by step from layer to layer, not from the covariance that the columns tell. Lengths in cm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import awkward as ak
import numpy as np
from numpy.typing import NDArray

from calib.algorithms.alignment_geometry import direction, slopes

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

UM = 1e-4
RADII = np.array([3.0, 7, 11, 16, 25, 34, 43, 52, 61, 70])
LADDERS = np.array([12, 20, 30, 40, 16, 22, 28, 34, 40, 46])
X0 = np.array([0.02, 0.015, 0.015, 0.015, 0.02, 0.02, 0.02, 0.02, 0.02, 0.02])
PIXELS = 4
Z_MODULES, SPACING = 10, 6.5
ERRORS = {"pixel u": 10 * UM, "pixel v": 30 * UM, "strip u": 25 * UM}
LAYER = np.array([0, 0, 1, 1, 2, 2, 3, 3, 4, 5, 6, 7, 8, 9])
ALONG_V = np.array([False, True] * PIXELS + [False] * 6)
LEVELS = (("half_barrel", 4), ("ladder", int(LADDERS.sum())), ("module", int(LADDERS[:PIXELS].sum()) * Z_MODULES))
CURVATURE = 0.0114
"""1/cm of 1 GeV, across 3.8 T"""


@dataclass(frozen=True)
class Play:
    """What is played."""

    tracks: int
    momentum: tuple[float, float] = (3.0, 1.0)
    """GeV: the least, and the mean of what is more"""
    stereo: float = 0.0
    """rad, by which the strips of layers 5 and 8 are turned"""
    missing: float = 0.03
    """share of hits that are not there, behind the third layer"""
    per_event: float = 0.7
    scatters: bool = True


@dataclass(frozen=True, eq=False)
class Crossings:
    """Of n tracks with the ten layers."""

    phi: Floats
    """of the track at each layer, [n, 10]"""
    cot: Floats
    pt: Floats
    ladder: Ints
    """counted through, [n, 10]"""
    points: Floats
    """[n, 10, 3]"""
    track: Floats
    """directions, [n, 10, 3]"""
    u: Floats
    v: Floats
    w: Floats
    across: Floats
    """a unit vector across the track, [n, 10, 3]"""


def crossings(rng: np.random.Generator, play: Play) -> Crossings:
    """Of tracks from the beam line."""
    n = play.tracks
    pt = play.momentum[0] + rng.exponential(play.momentum[1], n)
    bend = CURVATURE / pt * rng.choice([-1.0, 1.0], n)
    phi0, cot, z0 = rng.uniform(-np.pi, np.pi, n), np.sinh(rng.uniform(-1, 1, n)), rng.normal(0, 4, n)
    phi = phi0[:, None] - 0.5 * bend[:, None] * RADII
    heading = phi0[:, None] - bend[:, None] * RADII
    place = np.floor((phi % (2 * np.pi)) / (2 * np.pi) * LADDERS).astype(np.int64) % LADDERS
    middle = 2 * np.pi * (place + 0.5) / LADDERS
    flip = np.where(place % 2, -1.0, 1.0)[..., None]
    nothing = np.zeros_like(phi)
    w = flip * np.stack([np.cos(middle), np.sin(middle), nothing], -1)
    u = flip * np.stack([-np.sin(middle), np.cos(middle), nothing], -1)
    v = np.broadcast_to([0.0, 0.0, 1.0], w.shape)
    lean = np.where(np.isin(np.arange(10), (4, 7)), play.stereo, 0.0)[:, None] * flip
    u, v = np.cos(lean) * u + np.sin(lean) * v, np.cos(lean) * v - np.sin(lean) * u
    out = RADII / np.cos(phi - middle)
    points = np.stack([out * np.cos(phi), out * np.sin(phi), z0[:, None] + cot[:, None] * out], -1)
    track = np.stack([np.cos(heading), np.sin(heading), np.broadcast_to(cot[:, None], phi.shape)], -1)
    across = np.stack([-np.sin(heading), np.cos(heading), nothing], -1)
    ladder = place + np.cumsum([0, *LADDERS[:-1]])
    return Crossings(phi, cot, pt, ladder, points, track, u, v, w, across)


def labels_of(found: Crossings) -> Ints:
    """Half barrel, ladder and module of each crossing, [n, 10, 3]; strips have no modules here."""
    east = np.cos(2 * np.pi * (0.5 + found.ladder - np.cumsum([0, *LADDERS[:-1]])) / LADDERS) > 0
    half = np.where(np.arange(10) < PIXELS, 0, 2) + ~east
    z = np.clip(np.floor(found.points[..., 2] / SPACING + Z_MODULES / 2), 0, Z_MODULES - 1).astype(np.int64)
    module = np.where(np.arange(10) < PIXELS, found.ladder * Z_MODULES + z, -1)
    return np.stack([half, found.ladder, module], -1)


def slopes_of(found: Crossings, q: Floats, layer: Ints) -> Floats:
    """In the displacements of half barrel, ladder and module, [n, m, 3, 6]; modules have axes of their own."""
    points = found.points[:, layer]
    middle = RADII[layer][:, None] * np.abs(found.w[:, layer]) * np.sign(found.points[:, layer] * [1, 1, 0])
    z = np.clip(np.floor(points[..., 2] / SPACING + Z_MODULES / 2), 0, Z_MODULES - 1)
    centre = middle + np.stack([0 * z, 0 * z, (z - (Z_MODULES - 1) / 2) * SPACING], -1)
    axes = np.stack([found.u[:, layer], found.v[:, layer], found.w[:, layer]], -2)
    own = [np.einsum("nmij,nmj->nmi", axes, part) for part in (q, points - centre)]
    return np.stack([slopes(q, points), slopes(q, points - middle), slopes(*own)], 2)


def scattered(found: Crossings) -> tuple[Floats, Floats]:
    """Widths of the turns in azimuth and in cot(theta) at each layer, [n, 10]."""
    sine = 1 / np.sqrt(1 + found.cot**2)
    material = X0 / sine[:, None]
    theta = 0.0136 * sine[:, None] / found.pt[:, None] * np.sqrt(material) * (1 + 0.038 * np.log(material))
    return theta / sine[:, None], theta / sine[:, None] ** 2


def played(seed: int, play: Play, truth: Floats | None = None, run: int = 1) -> dict[str, Any]:
    """Columns of tracks; `truth` [structures, 6] in um and urad, how far structures are from where they are thought."""
    rng = np.random.default_rng(seed)
    found = crossings(rng, play)
    layer, n, m = LAYER, play.tracks, len(LAYER)
    along = np.where(ALONG_V[:, None], found.v[:, layer], found.u[:, layer])
    q = direction(along, found.w[:, layer], found.track[:, layer])
    way, ahead = RADII[layer], np.array([0.0, 0.0, 1.0])
    side, rise = np.sum(q * found.across[:, layer], -1), q @ ahead
    derivatives = np.stack([-0.5 * way**2 * side, way * side, -side, rise, way * rise], -1)
    labels = labels_of(found)[:, layer]
    given = slopes_of(found, q, layer)
    turn, lean = scattered(found)
    arm = np.maximum(way[:, None] - RADII, 0.0)
    moves = np.concatenate([side[..., None] * arm * turn[:, None], rise[..., None] * arm * lean[:, None]], -1)
    error = np.where(layer >= PIXELS, ERRORS["strip u"], np.where(ALONG_V, ERRORS["pixel v"], ERRORS["pixel u"]))
    covariance = np.einsum("nik,njk->nij", moves, moves) * play.scatters
    covariance[:, np.arange(m), np.arange(m)] += error**2
    residuals = rng.standard_normal((n, m)) * error
    residuals += play.scatters * np.einsum("nik,nk->ni", moves, rng.standard_normal((n, 20)))
    residuals += np.einsum("nik,nk->ni", derivatives, rng.standard_normal((n, 5)) * [1e-6, 1e-4, 1e-3, 1e-3, 1e-4])
    if truth is not None:
        size = truth.shape[0]
        first = np.cumsum([0, *(count for _, count in LEVELS)])[:-1]
        number = np.where(labels >= 0, labels + first, size)
        every = np.concatenate([truth * [UM, UM, UM, 1e-6, 1e-6, 1e-6], np.zeros((1, 6))])
        residuals += np.einsum("nmlk,nmlk->nm", given, every[number])
    seen = rng.random((n, 10)) > play.missing * (np.arange(10) > 2)
    return _columns(
        rng, play, seen[:, layer], run, (residuals, derivatives, covariance, labels, given, q, found.points[:, layer])
    )


def _columns(
    rng: np.random.Generator, play: Play, seen: NDArray[np.bool_], run: int, of: tuple[Any, ...]
) -> dict[str, Any]:
    residuals, derivatives, covariance, labels, given, q, points = of
    n = play.tracks
    event = np.sort(rng.integers(0, max(1, int(n / play.per_event)), n))
    events = int(event[-1]) + 1 if n else 0
    m = seen.sum(axis=1)
    low = np.tril(np.ones(covariance.shape[1:], bool))
    parts = {
        "measurements": (m, np.ones(n, np.int64)),
        "parameters": (np.full(n, 5), np.ones(n, np.int64)),
        "residuals": (residuals[seen], m),
        "derivatives": (derivatives[seen].reshape(-1), 5 * m),
        "covariance": (covariance[seen[:, :, None] & seen[:, None] & low], m * (m + 1) // 2),
        "labels": (labels[seen].reshape(-1).astype(np.int32), labels.shape[2] * m),
        "slopes": (given[seen].reshape(-1), 6 * labels.shape[2] * m),
        "directions": (q[seen].reshape(-1), 3 * m),
        "points": (points[seen].reshape(-1), 3 * m),
    }
    columns: dict[str, Any] = {
        "run": np.full(events, run),
        "lumi": 1 + np.arange(events) * 4 // max(events, 1),
        "event": np.arange(events),
    }
    for name, (values, size) in parts.items():
        counts = np.bincount(event, size, minlength=events).astype(np.int64)
        columns[f"alignment_{name}"] = ak.unflatten(values, counts)
    return columns
