"""Collisions about a known beam: for tests and benchmarks of `calib.algorithms.beamspot`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import awkward as ak
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

UM = 1e-4
"""cm"""
DISPLACED = 0.1
"""cm, Laplace's scale of displaced tracks"""


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
    alike: bool = False
    """whether every event has as many"""
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
    events = vertex.shape[1]
    counts = np.full(events, detector.tracks) if detector.alike else rng.poisson(detector.tracks, events)
    x, y, z = np.repeat(vertex, counts, axis=1)
    n = len(x)
    phi, pt = rng.uniform(-np.pi, np.pi, n), 1 + rng.exponential(1.0, n)
    error = np.hypot(detector.constant, detector.over_pt / pt)
    d0 = x * np.sin(phi) - y * np.cos(phi) + error * rng.standard_normal(n)
    d0 += (rng.random(n) < detector.displaced) * rng.laplace(0, DISPLACED, n)
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
