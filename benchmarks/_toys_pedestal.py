"""Samples of channels whose pedestals and noise are known: for tests and benchmarks of `calib.algorithms.pedestal`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import awkward as ak
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


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
