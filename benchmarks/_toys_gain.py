"""Clusters of charge whose gains are known: for tests and benchmarks of `calib.algorithms.gain`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import awkward as ak
import numpy as np
from numpy.typing import NDArray
from scipy.stats import landau

from calib.algorithms.gain_shape import MODE, Shape

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

PEAK = 79.5
"""e/um"""
LARGEST = 8.0
"""times the peak, where a deposit ends"""
NOTE = Shape(0.064, 0.0)
"""physics note, 4 and 9.2: Landau's distribution of 6.4 % of the peak"""
SMEARED = Shape(0.064, 0.05)
"""with a Gaussian of 5 %: as strips of 320 um have it from their noise"""


@dataclass(frozen=True)
class Sensor:
    """What clusters of a detector are like."""

    shape: Shape = NOTE
    thickness: float = 320.0
    """um"""
    steepest: float = 1.5
    """longest path over the thickness; evenly spread from 1 on"""
    saturation: float = np.inf
    """largest charge that is told, at gain 1 (e)"""
    stray: float = 0.0
    """share of the clusters that have any charge over path from 20 to 400 e/um"""


@dataclass(frozen=True, eq=False)
class Clusters:
    """n clusters: the place of the group, charge (e) as told at gain 1, path (um), whether it was cut off."""

    group: Ints
    charge: Floats
    path: Floats
    saturated: NDArray[np.bool_]

    def of_events(self, events: int, runs: tuple[int, ...] = (1,), lumis: int = 1) -> dict[str, Any]:
        """As columns of `Gain`, spread over events of runs and lumisections."""
        counts = np.diff(np.linspace(0, len(self.group), events + 1).astype(np.int64))
        unit = np.arange(events) * len(runs) * lumis // events
        columns: dict[str, Any] = {"run": np.array(runs)[unit // lumis], "lumi": 1 + unit % lumis}
        columns["event"] = np.arange(events)
        for name in ("group", "charge", "path", "saturated"):
            columns[f"gain_{name}"] = ak.unflatten(getattr(self, name), counts)
        return columns


def clusters(rng: np.random.Generator, gains: Floats, counts: Ints | int, sensor: Sensor | None = None) -> Clusters:
    """`counts` clusters of each group, in a random order; a channel counts charge / gain."""
    sensor = sensor or Sensor()
    group = rng.permutation(np.repeat(np.arange(len(gains)), counts))
    path = sensor.thickness * rng.uniform(1.0, sensor.steepest, len(group))
    charge = path * PEAK * relative(rng, sensor, len(group)) / gains[group]
    return Clusters(group, np.minimum(charge, sensor.saturation), path, charge >= sensor.saturation)


def relative(rng: np.random.Generator, sensor: Sensor, number: int) -> Floats:
    """Charge over path, the peak at 1."""
    lambda_ = landau.rvs(size=number, random_state=rng) * np.pi / 2 + np.log(np.pi / 2)
    found: Floats = np.minimum(1 + sensor.shape.width * (lambda_ - MODE), LARGEST)
    found += sensor.shape.smear * rng.standard_normal(number)
    anywhere = rng.random(number) < sensor.stray
    found[anywhere] = rng.uniform(20, 400, int(anywhere.sum())) / PEAK
    return found
