"""Toy collisions with a known beam, and toy counts of channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import awkward as ak
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

UM = 1e-4
"""cm"""


@dataclass(frozen=True)
class Beam:
    x: float = 0.08
    y: float = -0.04
    z: float = 0.5
    width: float = 15 * UM
    sigma_z: float = 4.0
    dxdz: float = 2e-4
    dydz: float = -1e-4


@dataclass(frozen=True)
class Detector:
    tracks: int = 10
    """mean number an event"""
    displaced: float = 0.03
    constant: float = 10 * UM
    over_pt: float = 40 * UM
    vertex_error: float = 25 * UM


def collisions(
    rng: np.random.Generator,
    units: Sequence[tuple[int, int]],
    beams: Sequence[Beam],
    events: int,
    detector: Detector | None = None,
) -> dict[str, Any]:
    """`events` events of each unit, its beam given; the columns of `BeamSpot`, all of them."""
    detector = detector or Detector()
    at = np.repeat(np.arange(len(units)), events)
    run, lumi = np.repeat(np.array(units, np.int64), events, axis=0).T

    def of(name: str) -> Floats:
        return np.array([getattr(beam, name) for beam in beams])[at]

    z = of("z") + of("sigma_z") * rng.standard_normal(len(at))
    x = of("x") + of("dxdz") * (z - of("z")) + of("width") * rng.standard_normal(len(at))
    y = of("y") + of("dydz") * (z - of("z")) + of("width") * rng.standard_normal(len(at))
    columns: dict[str, Any] = {"run": run, "lumi": lumi, "event": np.arange(len(at)) + 1}
    columns |= _tracks(rng, detector, np.stack([x, y, z]))
    columns |= _vertices(rng, detector, np.stack([x, y, z]))
    return columns


def _tracks(rng: np.random.Generator, detector: Detector, vertex: Floats) -> dict[str, Any]:
    counts = rng.poisson(detector.tracks, vertex.shape[1])
    x, y, z = np.repeat(vertex, counts, axis=1)
    n = len(x)
    phi, pt = rng.uniform(-np.pi, np.pi, n), 1 + rng.exponential(1.0, n)
    error = np.hypot(detector.constant, detector.over_pt / pt)
    d0 = x * np.sin(phi) - y * np.cos(phi) + error * rng.standard_normal(n)
    d0 += (rng.random(n) < detector.displaced) * rng.laplace(0, 0.1, n)
    flat = {"d0": d0, "phi": phi, "z0": z + 2 * error * rng.standard_normal(n), "d0_error": error, "pt": pt}
    return {f"track_{name}": ak.unflatten(values, counts) for name, values in flat.items()}


def _vertices(rng: np.random.Generator, detector: Detector, vertex: Floats) -> dict[str, Any]:
    seen = rng.random(vertex.shape[1]) < 0.9
    scale = detector.vertex_error * rng.lognormal(0, 0.4, int(seen.sum()))
    columns = {}
    for axis, place, factor in zip("xyz", vertex, (1.0, 1.0, 1.4), strict=True):
        error = factor * scale
        measured = place[seen] + error * rng.standard_normal(len(error))
        columns[f"vertex_{axis}"] = ak.unflatten(measured, seen.astype(np.int64))
        columns[f"vertex_{axis}_error"] = ak.unflatten(error, seen.astype(np.int64))
    return columns


def without(columns: dict[str, Any], *starts: str) -> dict[str, Any]:
    """The columns whose names do not begin so."""
    return {name: values for name, values in columns.items() if not name.startswith(starts)}


def dark_counts(rng: np.random.Generator, units: Sequence[tuple[int, int]], rates: Floats, fano: float = 1.5) -> Any:
    """Columns of `ChannelStatus`, one event a unit: counts of mean `rates`, their variance `fano` times that."""
    run, lumi = np.array(units, np.int64).T
    spread = rng.negative_binomial(np.maximum(rates, 1e-9) / (fano - 1), 1 / fano, (len(units), len(rates)))
    counts = np.where(rates > 0, spread, 0)
    return {"run": run, "lumi": lumi, "event": np.arange(len(units)), "counts": counts.astype(np.uint16)}


@dataclass(frozen=True)
class Adc:
    """What the channels of a detector are like: `pedestal` and `noise` float64[channels], ADC."""

    pedestal: Floats
    noise: Floats
    common: float
    """rms of the common mode of a group, ADC"""
    block: int
    group: int
    occupancy: float = 0.0
    """share of samples with a hit on top, of about 90 ADC, three in ten of them shared with a neighbour"""
    dead: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """every second of these reads its pedestal and nothing else, the others zero"""
    hot: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """hit ten times as often, and five times as noisy"""

    @property
    def channels(self) -> int:
        return len(self.pedestal)


def adc_samples(rng: np.random.Generator, truth: Adc, events: int, only_common: bool = False) -> Any:
    """Samples uint16[events, channels]; or the common modes behind them, float64[events, groups].

    The same random numbers whatever is dead or hot.
    """
    size = truth.group or truth.channels
    common = truth.common * rng.standard_normal((events, truth.channels // size))
    if only_common:
        return common
    noise, often = truth.noise.copy(), np.full(truth.channels, truth.occupancy)
    noise[truth.hot] *= 5
    often[truth.hot] *= 10
    analog = noise.astype(np.float32) * rng.standard_normal((events, truth.channels), np.float32)
    analog += truth.pedestal
    analog.reshape(events, -1, size)[...] += common[..., None]
    # All that might be hit in a hot channel draw their numbers, so that the others keep theirs.
    draw = rng.random((events, truth.channels), np.float32)
    place = np.flatnonzero(draw < 10 * truth.occupancy)
    charge = 90 + 8 * rng.gumbel(size=len(place))
    charge *= np.where(rng.random(len(place)) < 0.3, rng.random(len(place)), 1.0)
    charge[draw.reshape(-1)[place] >= often[place % truth.channels]] = 0
    analog.reshape(-1)[place] += charge
    analog[:, truth.dead] = np.rint(truth.pedestal[truth.dead])
    analog[:, truth.dead[1::2]] = 0
    return np.clip(np.rint(analog), 0, 1023).astype(np.uint16)


def pedestal_columns(blocks: NDArray[np.uint32], adc: NDArray[np.uint16]) -> dict[str, Any]:
    """Columns of `Pedestal`, one run and unit: `blocks` [events, k] and their samples [events, k * block]."""
    one = np.ones(len(blocks), np.int64)
    columns: dict[str, Any] = {"run": one, "lumi": one, "event": np.arange(len(blocks))}
    for name, values in (("pedestal_block", blocks), ("pedestal_adc", adc)):
        columns[name] = ak.unflatten(values.reshape(-1), np.full(len(values), values.shape[1]))
    return columns
