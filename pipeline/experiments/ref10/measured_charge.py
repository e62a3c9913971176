"""Charge and size of the clusters of REF10's tracks, and the gain of strips and the Lorentz angle made of them; never
written.

What the shapes of charge and size are under true conditions is from simulated events of two vertices: 16 000, and of
other runs and sensors than those that tests and benchmarks look at.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from calib.algorithms.gain import KIND as GAIN
from calib.algorithms.gain import Gain
from calib.algorithms.lorentz_angle import LorentzAngle
from calib.algorithms.pedestal import KIND as PEDESTAL
from calib.channel_sums import places
from calib.payload import Payload
from pipeline.experiments.collisions import Collection
from pipeline.experiments.ref10 import geometry as geometries
from pipeline.experiments.ref10.constants import FIELD, PIXEL_STATUS, STRIP_STATUS
from pipeline.experiments.ref10.geometry import Geometry
from pipeline.experiments.ref10.layers import CHIP, CHIPS, LAYERS
from pipeline.experiments.ref10.reconstruct.channels import module_rows
from pipeline.experiments.ref10.reconstruct.flags import ClusterFlag
from pipeline.experiments.ref10.reconstruct.objects import Objects
from pipeline.experiments.ref10.reconstruct.placed import frames_of
from pipeline.experiments.ref10.reconstruct.positions import THIN_CM

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

UM = 1e4
"""in a cm"""
MOMENTUM = 1.0
"""GeV; of slower particles the charge goes with what they are"""
TRANSVERSE = 0.9
"""GeV; of tracks that are looked at: of slower ones there are more than are needed"""
LEAST = 1e-9
"""nothing is divided by less"""
CHI2 = 5.0
"""largest per degree of freedom"""
LEAST_HITS = 8
WIDEST = 8
"""strips; more are of two particles, or of one that knocked out an electron"""
SPOILT = ClusterFlag.EDGE | ClusterFlag.LARGE | ClusterFlag.NEAR_MASKED | ClusterFlag.BRIDGED
"""what charge or size may be missing of; not saturated ones, which would bend what is left"""


THIN_STRIPS, THICK_STRIPS = (79.45, 0.063, 0.0485), (79.39, 0.064, 0.0344)
"""peak of charge over path at gain 1 [e/um], width and smear over the peak: of strips of 320 and of 500 um"""
PEAK_ERROR = 0.0005
"""relative, of these peaks"""
LARGEST_MOVE = 0.5
"""from the gain of 1 that one begins with, about which chips spread by 10 %"""
UNLIT = 0.4
"""share of the chips that may have too few clusters: a fourth are beyond where tracks go, and as many have few"""

INNERMOST, PIXELS = (1.007, 2.2075, 0.01), (0.9815, 2.2626, 0.0653)
"""p0, k and w of `calib.algorithms.lorentz_fit`, of layer 1 and of layers 2 to 4. Their tracks do not get as steep as
the charge drifts, so that only the flank of sizes is seen, and these cannot be measured"""
PIXEL_ERROR = 0.003
"""relative, of the tangent by these"""
THIN_SIZES, THICK_SIZES = (1.05, 2.17, 0.06), (1.05, 3.57, 0.042)
"""of strips, where the fit begins"""
STRIP_BIAS, STRIP_BIAS_ERROR = -0.013, 0.005


@dataclass(frozen=True, eq=False)
class Crossings:
    """Good clusters of good tracks, flat: where, and how steeply the track goes through the sensor."""

    event: Ints
    cluster: Ints
    """place in the clusters' flat arrays"""
    track: Ints
    """place in the tracks' flat arrays"""
    row: Ints
    """of the module in the geometry"""
    along_u: Floats
    """du/dw"""
    along_v: Floats

    def where(self, keep: Mask) -> Crossings:
        """Some of them."""
        return Crossings(**{name: values[keep] for name, values in vars(self).items()})


def charge_columns(clusters: Collection, found: Objects, conditions: Mapping[str, Payload]) -> dict[str, Any]:
    """What `calib.algorithms.gain` and `.lorentz_angle` read.

    `gain_group`: the chip, 6 x strip module + chip; `gain_charge` in electrons by the gain in force; `gain_path` in um;
    `gain_saturated`. `lorentz_group`: 2 (layer - 1), and 1 more of modules that are flipped; `lorentz_slope`;
    `lorentz_size`.
    """
    geometry = geometries.geometry_of(conditions[geometries.KIND])
    crossed = crossings(clusters, found, conditions)
    return _gains(crossed, clusters, found.tracks, geometry) | _sizes(crossed, clusters, geometry)


def crossings(clusters: Collection, found: Objects, conditions: Mapping[str, Payload]) -> Crossings:
    """The clusters of tracks that are well fitted, of 8 hits or more and above `TRANSVERSE`; none spoilt."""
    tracks = found.tracks
    good = (tracks.flat["flags"] == 0) & (tracks.flat["hits"] >= LEAST_HITS) & (tracks.flat["pt"] > TRANSVERSE)
    good &= tracks.flat["chi2"] < CHI2 * tracks.flat["ndf"]
    # The hits of an event follow those of the one before, as tracks do.
    hit = np.flatnonzero(np.repeat(good, tracks.flat["hits"]))
    event, starts = found.hits.event[hit], np.cumsum(clusters.counts) - clusters.counts
    cluster = starts[event] + found.hits.flat["hit"][hit]
    track = np.repeat(np.flatnonzero(good), tracks.flat["hits"][good])
    sound = (clusters.flat["flags"][cluster] & np.uint8(SPOILT)) == 0
    track, cluster, event = track[sound], cluster[sound], event[sound]
    geometry = geometries.geometry_of(conditions[geometries.KIND])
    row = module_rows(geometry, clusters.flat["module"][cluster]).astype(np.int64)
    direction = _directions(tracks, track, clusters.flat["x"][cluster] ** 2 + clusters.flat["y"][cluster] ** 2)
    axes = frames_of(conditions)
    u, v, w = (_along(direction, axis, row) for axis in (axes.u, axes.v, axes.w))
    return Crossings(event, cluster, track, row, u / w, v / w)


def _along(direction: Floats, axis: Floats, row: Ints) -> Floats:
    """The part of directions [3, n] along an axis [modules, 3] of modules [n]."""
    x, y, z = (direction[i] * np.ascontiguousarray(axis[:, i])[row] for i in range(3))
    found: Floats = x + y + z
    return found


def _directions(tracks: Collection, track: Ints, squared: Floats) -> Floats:
    """Where tracks go at squared distances from the z axis, [3, n]; of transverse length 1.

    As by `Helix.to_radius`; the sine of half the turn, curvature chord / 2, tells the turn without angles.
    """
    seen, of = places(track, len(tracks.flat["phi"]))
    phi, curvature, d0, cot_theta = (tracks.flat[name][seen] for name in ("phi", "curvature", "d0", "cot_theta"))
    about = 1 + curvature * d0
    bend = curvature**2 / (4 * np.where(np.abs(about) < LEAST, LEAST, about))
    half = np.clip(bend[of] * (squared - (d0**2)[of]), 0.0, 1.0)
    onward, aside = 1 - 2 * half, (2 * np.sign(curvature))[of] * np.sqrt(half * (1 - half))
    cosine, sine = np.cos(phi)[of], np.sin(phi)[of]
    return np.stack([cosine * onward + sine * aside, sine * onward - cosine * aside, cot_theta[of]])


def _gains(crossed: Crossings, clusters: Collection, tracks: Collection, geometry: Geometry) -> dict[str, Any]:
    momentum = tracks["pt"] * np.sqrt(1 + tracks["cot_theta"] ** 2)
    some = crossed.where(~geometry.pixel[crossed.row] & (momentum > MOMENTUM)[crossed.track])
    first, size = (clusters.flat[name][some.cluster].astype(np.int32) for name in ("first_row", "size_u"))
    chip = first // CHIP
    keep = (chip == (first + size - 1) // CHIP) & (size <= WIDEST)
    some, chip = some.where(keep), chip[keep]
    flat = {
        "group": CHIPS * geometry.strip_block[some.row] + chip,
        "charge": clusters.flat["charge"][some.cluster],
        "path": UM * geometry.thickness[some.row] * np.sqrt(1 + some.along_u**2 + some.along_v**2),
        "saturated": (clusters.flat["flags"][some.cluster] & np.uint8(ClusterFlag.SATURATED)) > 0,
    }
    return _jagged("gain", flat, some, len(clusters.counts))


def _sizes(crossed: Crossings, clusters: Collection, geometry: Geometry) -> dict[str, Any]:
    flat = {
        "group": 2 * (geometry.layer[crossed.row].astype(np.int64) - 1) + geometry.flipped[crossed.row],
        "slope": crossed.along_u,
        "size": clusters.flat["size_u"][crossed.cluster],
    }
    return _jagged("lorentz", flat, crossed, len(clusters.counts))


def _jagged(prefix: str, flat: Mapping[str, NDArray[Any]], crossed: Crossings, events: int) -> dict[str, Any]:
    counts = np.bincount(crossed.event, minlength=events).astype(np.int64)
    return Collection(counts, flat).columns(prefix)


class StripGain(Gain):
    """Of the chips of strips."""

    after: ClassVar[tuple[str, ...]] = (PEDESTAL, STRIP_STATUS)


class TrackLorentzAngle(LorentzAngle):
    """Of pixels and strips. Where a cluster lies that reaches over two chips goes by the gains of both, and with it the
    slopes and which tracks are good: gains that are 10 % off move the tangent, if by a thousandth of its error."""

    after: ClassVar[tuple[str, ...]] = (*StripGain.after, GAIN, PIXEL_STATUS)
    uses: ClassVar[tuple[str, ...]] = (FIELD,)
    field: ClassVar[str | None] = FIELD


def charge_calibrations(geometry: Geometry) -> tuple[StripGain, TrackLorentzAngle]:
    """The gain of strips by chip; the Lorentz angle by layer, of modules that are flipped and that are not together."""
    thick = geometry.thickness[geometry.strip_rows] > THIN_CM
    first_thick = CHIPS * int(np.argmax(thick))
    expected, width, smear = zip(THIN_STRIPS, THICK_STRIPS, strict=True)
    gain = StripGain(
        groups=CHIPS * len(thick),
        first=(0, first_thick),
        expected=expected,
        expected_error=(PEAK_ERROR, PEAK_ERROR),
        width=width,
        smear=smear,
        most_few=UNLIT,
        max_move=LARGEST_MOVE,
    )
    angle = TrackLorentzAngle(
        groups=2 * len(LAYERS),
        together=2,
        first=(0, 2, 8, 14),
        shape=(INNERMOST, PIXELS, THIN_SIZES, THICK_SIZES),
        held=(True, True, False, False),
        bias=(0.0, 0.0, STRIP_BIAS, STRIP_BIAS),
        bias_error=(PIXEL_ERROR, PIXEL_ERROR, STRIP_BIAS_ERROR, STRIP_BIAS_ERROR),
    )
    return gain, angle
