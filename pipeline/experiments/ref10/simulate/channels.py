"""The strips as the DAQ sees them after it has taken out the common mode: where they lie, how much they move, how often
they fire by themselves.

The DAQ's common mode is the median over a chip of adc - online pedestal, less where that median usually lies: a running
mean over events, so that what moves with the event is taken out and pedestals that moved for good stay in the data, for
the calibration to find. For 128 Gaussian strips of noise sigma it
varies about the true common mode by 1.2533 sigma / sqrt(128), the asymptotic error of a median, and k strips above the
others raise it by 1.2533 sigma k / 128. All that the median knows of a strip is that it lies above: a strip with signal
or in the tail of its noise, 2 sigma up or more, lifts it as one of the k and has nothing else to do with its error. The
rounding to whole counts adds 1/12 to a strip's variance.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from calib.iov import RunLumi
from pipeline.experiments.ref10.geometry import Geometry
from pipeline.experiments.ref10.layers import CHIP, LAYERS, STRIPS, Z_MODULES
from pipeline.experiments.ref10.simulate.scenario import Scenario, tables_of, true_pedestal

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

MEDIAN_ERROR = np.sqrt(np.pi / 2)
"""times sigma / sqrt(n): 1.2533"""
ROUNDING = 1 / 12
"""variance of rounding to whole counts"""

SEED, BESIDE = 4.0, 2.0
"""thresholds in units of the online noise: of a strip alone, and of one beside such a strip"""

STRIPS_A_TRACK = 2.8
"""strips over threshold that a track has in a layer, about, for what occupancy is to be expected"""

_SEARCH_STEPS = 6


@dataclass(frozen=True, eq=False)
class Channels:
    """By strip channel in ADC counts, if not by chip; for one lumisection."""

    online: Floats
    """the DAQ's pedestal"""
    threshold: Floats
    """the DAQ's noise"""
    pedestal: Floats
    noise: Floats
    centre: Floats
    """mean of a strip less online pedestal and common mode, when nothing crosses the chip"""
    spread: Floats
    """rms of the same"""
    own_spread: Floats
    """rms of the part of it that is the strip's own; the rest is the common mode's error"""
    median_error: Floats
    """by chip: rms of the common mode's error"""
    gain: Floats
    """by chip"""
    dead: Bools
    firing: Floats
    """probability to be over the DAQ's first threshold, when nothing crosses the strip"""
    noise_rate: Floats
    """cumulative: sums of -log(1 - firing) up to and with each strip"""
    pulse_rate: Floats
    """cumulative, of the pulses of hot strips"""


def channels(scenario: Scenario, geometry: Geometry, seed: int, run: int, lumi: int) -> Channels:
    """The strips in a lumisection; kept for the next that is the same."""
    at, faults = RunLumi(run, lumi), scenario.faults
    # Only these differ from one lumisection of a run to the next.
    state = (faults.shifted.holds(at), faults.dead.holds(at), faults.hot.holds(at))
    return _channels(scenario, geometry, seed, _Moment(at, (run, *state)))


class _Moment:
    """A lumisection that is equal to any other with the same state of the strips."""

    def __init__(self, at: RunLumi, state: tuple[int | bool, ...]) -> None:
        self.at, self.state = at, state

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Moment) and self.state == other.state

    def __hash__(self) -> int:
        return hash(self.state)


@lru_cache(maxsize=2)
def _channels(scenario: Scenario, geometry: Geometry, seed: int, moment: _Moment) -> Channels:
    tables, at = tables_of(scenario, geometry, seed), moment.at
    _, _, dead_now, hot_now = moment.state
    dead, hot = (np.logical_and(table, now) for table, now in ((tables.dead, dead_now), (tables.hot, hot_now)))
    noise, online = tables.noise.astype(np.float64), tables.pedestal.astype(np.float64)
    pedestal = true_pedestal(scenario, tables, at)
    # A dead strip does not follow the common mode: seen from the others it moves with it.
    own = np.where(dead, scenario.electronics.common_mode, noise)
    chip_noise = _median_noise((pedestal - online).reshape(-1, CHIP), np.maximum(own, 1e-3).reshape(-1, CHIP))
    median_error = MEDIAN_ERROR * chip_noise / np.sqrt(CHIP)
    centre = pedestal - online - np.repeat(median_error / np.sqrt(CHIP), CHIP)
    own_spread = np.sqrt(noise**2 + ROUNDING)
    spread = np.hypot(own_spread, np.repeat(median_error, CHIP))
    firing = np.where(dead, 0.0, ndtr((centre - SEED * noise) / spread))
    pulses = np.where(hot, scenario.faults.hot_factor * expected_occupancy(scenario, geometry), 0.0)
    return Channels(
        online=online,
        threshold=noise,
        pedestal=pedestal,
        noise=noise,
        centre=centre,
        spread=spread,
        own_spread=own_spread,
        median_error=median_error,
        gain=tables.gain.astype(np.float64),
        dead=dead,
        firing=firing,
        noise_rate=np.cumsum(-np.log1p(-firing)),
        pulse_rate=np.cumsum(pulses),
    )


def _median_noise(place: Floats, sigma: Floats) -> Floats:
    """Of strips at `place` with Gaussian noise `sigma`, [chips, 128]: the noise that the median of all varies with.

    The median m solves sum Phi((m - place) / sigma) = 64 (Newton); it varies as for strips whose density there is the
    mean density, 1 / (sigma' sqrt(2 pi)) at the peak.
    """
    middle = np.median(place, axis=1)
    for _ in range(_SEARCH_STEPS):
        share = (middle[:, None] - place) / sigma
        density = (np.exp(-0.5 * share**2) / sigma).mean(axis=1) / np.sqrt(2 * np.pi)
        middle = middle - np.clip((ndtr(share).mean(axis=1) - 0.5) / density, -1, 1)
    noise: Floats = 1 / (np.sqrt(2 * np.pi) * density)
    return noise


def expected_occupancy(scenario: Scenario, geometry: Geometry) -> Floats:
    """How often a good strip of each channel's layer is expected to fire in an event, from tracks and from noise."""
    physics = scenario.physics
    tracks = (1 + physics.pile_up) * physics.tracks * STRIPS_A_TRACK
    strips = np.array([layer.ladders * Z_MODULES * STRIPS for layer in LAYERS])
    by_layer = tracks / strips + ndtr(-SEED)
    return np.repeat(by_layer[geometry.layer[geometry.strip_rows] - 1], STRIPS)
