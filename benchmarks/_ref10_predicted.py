"""What is predicted of the simulated detector: closed forms and integrals, of what was put into the simulation."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.interpolate import RegularGridInterpolator
from scipy.special import ndtr
from scipy.stats import landau, norm

from benchmarks._ref10_seen import COLLISIONS, Floats
from pipeline.experiments.ref10.constants import PIXEL_THRESHOLD, STRIP_ELECTRONS
from pipeline.experiments.ref10.layers import CHIP, Layer

UM = 1e-4
PEAK = 79.5
"""most probable electrons for each um of path"""
STRIP_NOISE = COLLISIONS.electronics.noise * STRIP_ELECTRONS


@dataclass(frozen=True)
class Cut:
    """Thresholds [electrons] of a channel alone and of one beside such a channel, and the noise they act on."""

    alone: float
    beside: float
    noise: float


PIXEL = Cut(PIXEL_THRESHOLD, PIXEL_THRESHOLD, COLLISIONS.electronics.pixel_noise)
STRIP = Cut(4 * STRIP_NOISE, 2 * STRIP_NOISE, STRIP_NOISE)
MOVED = Cut(3 * STRIP_NOISE, 1 * STRIP_NOISE, STRIP_NOISE)
"""of strips whose pedestal has moved by one sigma since the DAQ's tables were made"""
SEEDS = Cut(5 * STRIP_NOISE, 5 * STRIP_NOISE, STRIP_NOISE)
"""strips that a cluster can begin with"""

PITCHES, DEPTHS, PHASES, SHOWN = 10, 40, 40, 10
WAYS = np.concatenate([np.arange(0, 4, 0.05), np.linspace(4, PITCHES, 25)])
ELECTRONS = np.geomspace(4e3, 4e5, 30)


@cache
def over_threshold(pitch: float, cut: Cut) -> RegularGridInterpolator:
    """How many channels of a pitch [cm] are over threshold along one axis, on average over where the way begins; and
    for each of SHOWN such places the share of the charge that they see. By the logarithm of the charge [electrons] and
    by how many pitches it is spread over.

    The charge lies evenly along its way, blurred by diffusion (6 um sqrt(d) + 1 um at the share d of the drift).
    Averages are taken over the noise of each channel.
    """
    depth = (np.arange(DEPTHS) + 0.5) / DEPTHS
    phase = (np.arange(PHASES) + 0.5) / PHASES
    edge = (np.arange(-2, PITCHES + 4) - phase[:, None])[None, :, :, None]
    blur = (6 * np.sqrt(depth) + 1) * UM / pitch
    share = np.diff(ndtr((edge - WAYS[:, None, None, None] * depth) / blur).mean(axis=-1), axis=-1)
    height = ELECTRONS[:, None, None, None] * share
    alone, beside = ((height - level) / cut.noise for level in (cut.alone, cut.beside))
    none = np.pad(1 - ndtr(alone), [(0, 0)] * 3 + [(1, 1)], constant_values=1)
    near = 1 - none[..., :-2] * none[..., 2:]
    number = ndtr(alone) + (ndtr(beside) - ndtr(alone)) * near
    # Of a channel that is over threshold noise is part of what is seen.
    lifted = norm.pdf(alone) + (norm.pdf(beside) - norm.pdf(alone)) * near
    kept = number * share + lifted * cut.noise / ELECTRONS[:, None, None, None]
    values = np.concatenate(
        [number.sum(axis=-1).mean(axis=-1, keepdims=True), kept.sum(axis=-1)[..., :: PHASES // SHOWN]], axis=-1
    )
    return RegularGridInterpolator((np.log(ELECTRONS), WAYS), values, bounds_error=False, fill_value=None)


def along(layer: Layer, axis: str, slope: Floats, electrons: Floats, cut: Cut) -> tuple[Floats, Floats]:
    """How many channels along an axis tracks of a slope (du/dw or dv/dw) and a charge leave over threshold, and the
    shares of the charge that these see, [..., SHOWN]."""
    pitch, shift = (layer.pitch_u, COLLISIONS.by_layer[layer.number - 1]) if axis == "u" else (layer.pitch_v, 0.0)
    way = np.abs(slope - shift) * layer.thickness / pitch
    found = over_threshold(pitch, cut)(np.stack([np.log(electrons), way], axis=-1))
    return found[..., 0], found[..., 1:]


def channels_of(layer: Layer, du: Floats, dv: Floats, electrons: Floats, cut: Cut) -> Floats:
    """How many channels tracks leave over threshold.

    Of pixels one more for each border that is crossed, but for the pieces shorter than the share f = T/Q of the way:
    those along one axis, and where borders of both are crossed (a and b times) within f of each other, 2abf.
    """
    if not layer.pixel:
        return along(layer, "u", du, electrons, cut)[0]
    along_u, along_v = (along(layer, *of, electrons, cut)[0] for of in (("u", du), ("v", dv)))
    a = np.abs(du - COLLISIONS.tangents[0]) * layer.thickness / layer.pitch_u
    b = np.abs(dv) * layer.thickness / layer.pitch_v
    f = PIXEL_THRESHOLD / electrons
    return along_u + along_v - 1 - 2 * a * b * f + 3 * a * b * f**2


def landau_cdf(by_um: Floats) -> Floats:
    """Of electrons for each um, 80.6 + 5.0 lambda; scipy has Landau's lambda as pi/2 x + ln(pi/2)."""
    found: Floats = landau.cdf(((by_um - 80.6) / 5.0 - np.log(np.pi / 2)) / (np.pi / 2))
    return found


@cache
def landau_by_um() -> Floats:
    """Electrons for each um, at the middles of 16 equal shares of Landau's distribution, at most 8 times the peak."""
    value = landau.ppf((np.arange(16) + 0.5) / 16) * np.pi / 2 + np.log(np.pi / 2)
    return np.minimum(80.6 + 5.0 * value, 8 * PEAK)


def reaching(layer: Layer) -> tuple[Floats, Floats, Floats]:
    """Weight, du/dw and dv/dw of minimum-bias tracks where they cross a layer: from spectrum, field and beam.

    Tracks turn by asin(r / 2R) until they are there, meet a ladder anywhere, and may have left it at its ends. Axes are
    the sensor's: turned where it is a stereo layer.
    """
    grid = np.geomspace(0.3, 30, 4000)
    spectrum = 1 - 0.95 * np.exp(-(grid - 0.3) / 0.5) - 0.05 * np.exp(-(grid - 0.3) / 2.0)
    pt = np.interp((np.arange(120) + 0.5) / 120, spectrum, grid)
    diameter = 2 * pt / (0.00299792458 * COLLISIONS.field_tesla)
    eta, inside = ((np.arange(n) + 0.5) / n * 2 - 1 for n in (8, 6))
    bend, phi = np.arcsin(np.minimum(layer.radius / diameter, 1)), inside * np.pi / layer.ladders
    turn = np.concatenate([bend, -bend])[:, None, None] + phi
    climb = np.sinh(eta)[:, None]
    way = np.tile(diameter * bend, 2)[:, None, None] * climb
    region, end = COLLISIONS.beam.start, 5 * layer.spacing
    there = norm.cdf((end - way - region.z) / region.sigma_z) - norm.cdf((-end - way - region.z) / region.sigma_z)
    met = np.tile(diameter > layer.radius, 2)[:, None, None] & (np.abs(turn) < 1.5)
    shape = np.broadcast_shapes(turn.shape, climb.shape)
    weight, du, dv = (np.broadcast_to(x, shape).ravel() for x in (there * met, np.tan(turn), climb / np.cos(turn)))
    cosine, sine = np.cos(layer.stereo), np.sin(layer.stereo)
    return weight / weight.size, cosine * du + sine * dv, cosine * dv - sine * du


def cover(layer: Layer) -> float:
    """How many sensors a track meets in a layer on average: overlaps count twice, gaps not at all."""
    return layer.ladders * np.arctan(layer.width / 2 / layer.radius) / np.pi * layer.length / layer.spacing


def digis_a_track(layer: Layer, moved: float) -> float:
    """How many channels a track leaves over threshold in a layer, of whose chips the share `moved` has moved."""
    weight, du, dv = reaching(layer)
    electrons = layer.thickness / UM * np.sqrt(1 + du**2 + dv**2) * landau_by_um()[:, None]
    du, dv = np.broadcast_to(du, electrons.shape), np.broadcast_to(dv, electrons.shape)
    cuts = ((PIXEL, 1.0),) if layer.pixel else ((STRIP, 1 - moved), (MOVED, moved))
    number = sum(share * channels_of(layer, du, dv, electrons, cut) for cut, share in cuts)
    return cover(layer) * float((weight * number).sum(axis=1).mean())


def digis_by_noise(layer: Layer, moved: float, hot: float) -> float:
    """What share of the strips of a layer an event sends that no track crosses, `hot` of them pulses.

    The error of the common mode and the rounding to whole counts add to the noise; a strip lifts the median itself.
    """
    if layer.pixel:
        return 0.0
    wide = np.sqrt(1 + np.pi / 2 / CHIP + 1 / 12 / COLLISIONS.electronics.noise**2)
    lift = np.sqrt(np.pi / 2) / CHIP
    found = hot
    for shift, share in ((0, 1 - moved), (1, moved)):
        alone, beside = (norm.sf((level + lift - shift) / wide) for level in (4, 2))
        found += share * alone * (1 + 2 * (beside - alone))
    return found
