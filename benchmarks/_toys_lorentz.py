"""Clusters of tracks through a sensor in which charge drifts at an angle: for tests and benchmarks of
`calib.algorithms.lorentz_angle`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import awkward as ak
import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr
from scipy.stats import landau

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

STEPS = 30
AT_ONCE = 20_000
"""clusters in memory together"""


@dataclass(frozen=True)
class Sensor:
    """Pixels of 285 um, as the physics note has them (9.2); lengths in um, charge in electrons."""

    thickness: float = 285.0
    pitch: float = 100.0
    threshold: float = 3000.0
    noise: float = 200.0
    diffusion: float = 6.0
    """rms over the whole thickness, beside 1 um"""
    by_um: float = 80.6
    scale: float = 5.0


@dataclass(frozen=True, eq=False)
class Clusters:
    """n clusters: the place of the group, the track's slope across the channels, and channels above threshold."""

    group: Ints
    slope: Floats
    size: Ints

    def of_events(self, events: int, runs: tuple[int, ...] = (1,), lumis: int = 1) -> dict[str, Any]:
        """As columns of `LorentzAngle`, spread over events of runs and lumisections."""
        counts = np.diff(np.linspace(0, len(self.group), events + 1).astype(np.int64))
        unit = np.arange(events) * len(runs) * lumis // events
        columns: dict[str, Any] = {"run": np.array(runs)[unit // lumis], "lumi": 1 + unit % lumis}
        columns["event"] = np.arange(events)
        for name in ("group", "slope", "size"):
            columns[f"lorentz_{name}"] = ak.unflatten(getattr(self, name), counts)
        return columns


def clusters(
    rng: np.random.Generator, tangents: Floats, counts: Ints | int, slopes: tuple[float, float] = (-0.8, 0.8)
) -> Clusters:
    """`counts` clusters of each group, in a random order, their slopes even; those without a channel are left out."""
    group = rng.permutation(np.repeat(np.arange(len(tangents)), counts))
    slope = rng.uniform(*slopes, len(group))
    parts = [
        sizes(rng, tangents[group[start : start + AT_ONCE]] - slope[start : start + AT_ONCE], Sensor())
        for start in range(0, max(len(group), 1), AT_ONCE)
    ]
    size = np.concatenate(parts)
    seen = size > 0
    return Clusters(group[seen], slope[seen], size[seen])


def sizes(rng: np.random.Generator, drift: Floats, sensor: Sensor) -> Ints:
    """Channels above threshold, charge drifting by `drift` of the thickness while the track goes through."""
    depth = (np.arange(STEPS) + 0.5) / STEPS
    path = sensor.thickness * np.sqrt(1 + drift**2)
    lambda_ = landau.rvs(size=len(drift), random_state=rng) * np.pi / 2 + np.log(np.pi / 2)
    charge = path * np.minimum(sensor.by_um + sensor.scale * lambda_, 8 * sensor.by_um)
    share = rng.standard_gamma(4.0, (len(drift), STEPS))
    share *= (charge / share.sum(axis=1))[:, None]
    place = rng.random(len(drift))[:, None] + drift[:, None] * depth * sensor.thickness / sensor.pitch
    sigma = (sensor.diffusion * np.sqrt(depth) + 1.0) / sensor.pitch
    low = np.floor(place.min(axis=1)).astype(np.int64) - 1
    found = np.zeros(len(drift), np.int64)
    below = np.zeros(len(drift))
    for channel in range(int(np.ceil(np.ptp(place, axis=1).max(initial=0))) + 4):
        edge = (low + channel + 1)[:, None]
        collected = (share * ndtr((edge - place) / sigma)).sum(axis=1)
        own = collected - below + sensor.noise * rng.standard_normal(len(drift))
        found += own > sensor.threshold
        below = collected
    return found
