"""Strip modules read out without zero suppression: every strip with noise, common mode and signal."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pipeline.experiments.ref10.constants import STRIP_LARGEST, STRIP_SATURATION
from pipeline.experiments.ref10.layers import CHIP, CHIPS, STRIPS
from pipeline.experiments.ref10.simulate.channels import Channels
from pipeline.experiments.ref10.simulate.particles import NZS_GROUPS
from pipeline.experiments.ref10.simulate.response import Strips
from pipeline.experiments.ref10.simulate.streams import Purpose, Streams

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

_EVENTS = 16
"""read out together, to bound memory: 11 MB of numbers"""


def chosen(nzs: Bools, events: Ints, modules: int) -> Ints:
    """What is read out in full: event x modules + strip module, sorted; of an NZS event every 16th module.

    `nzs` says for each of `events` whether it is such an event, `modules` is the number of strip modules.
    """
    event = np.flatnonzero(nzs)
    group = np.asarray(events[event] % NZS_GROUPS)
    there = np.arange(modules) % NZS_GROUPS == group[:, None]
    which, module = np.nonzero(there)
    return event[which] * modules + module


@dataclass(frozen=True, eq=False)
class FullReadout:
    """Modules read out in full, sorted by event and module, and their counts [modules, 768]."""

    event: Ints
    block: Ints
    """place among the strip modules"""
    adc: NDArray[np.uint16]


def full_readout(
    channels: Channels, signal: Strips, full: Ints, common_mode: float, draws: tuple[Streams, Ints]
) -> FullReadout:
    """The modules in `full` (see `chosen`), every strip of them.

    adc = round(pedestal + common mode + min(254, signal + noise)), 0 to 1023; a dead strip sends its pedestal.
    """
    modules = len(channels.dead) // STRIPS
    event, block = np.divmod(full, modules)
    adc = np.empty((len(full), STRIPS), np.uint16)
    ends = np.flatnonzero(np.diff(event, append=-1)) + 1
    edges = np.unique(np.concatenate([[0], ends[_EVENTS - 1 :: _EVENTS], ends[-1:]]))
    for start, stop in pairwise(edges.tolist()):
        adc[start:stop] = _counts(channels, signal, full[start:stop], common_mode, draws)
    return FullReadout(event, block, adc)


def _counts(
    channels: Channels, signal: Strips, full: Ints, common_mode: float, draws: tuple[Streams, Ints]
) -> NDArray[np.uint16]:
    streams, events = draws
    modules = len(channels.dead) // STRIPS
    counts = np.bincount(full // modules, minlength=len(events)) * (STRIPS + CHIPS)
    normal = streams.normal(Purpose.FULL_READOUT, events, counts).reshape(-1, STRIPS + CHIPS)
    strip = (full % modules * STRIPS)[:, None] + np.arange(STRIPS)
    height = channels.noise[strip] * normal[:, :STRIPS] + _dense(signal, full)
    baseline = channels.pedestal[strip] + common_mode * np.repeat(normal[:, STRIPS:], CHIP, axis=1)
    adc = np.where(channels.dead[strip], channels.pedestal[strip], baseline + np.minimum(height, STRIP_SATURATION))
    sent: NDArray[np.uint16] = np.clip(np.rint(adc), 0, STRIP_LARGEST).astype(np.uint16)
    return sent


def _dense(signal: Strips, full: Ints) -> Floats:
    """Signal in every strip of the modules, [modules, 768] counts."""
    found = np.zeros((len(full), STRIPS))
    module = signal.key // STRIPS
    place = np.minimum(np.searchsorted(full, module), len(full) - 1)
    own = full[place] == module
    found[place[own], signal.key[own] % STRIPS] = signal.counts[own]
    return found
