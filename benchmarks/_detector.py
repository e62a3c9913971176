"""A detector to measure with: jagged hits, a kernel of many passes over them, and a calibration of sums."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import awkward as ak
import numpy as np
from numpy.typing import NDArray

from calib.accumulators import UnitSums, to_fixed
from calib.calibration import Calibration, packed_units
from calib.payload import Payload
from calib.state import State
from pipeline.events import write_tier
from pipeline.experiments.interface import Experiment, Processed, QualityHistogram, Wanted
from pipeline.model import Columns, EventSource, Keys, Step

RUN = 1
CHANNELS = 4096
HITS = 100
"""mean number of an event"""
PASSES = 50
"""of the unfolding of cross-talk"""
BLOCK = 5_000
"""events that are drawn; a file repeats them"""


def write_raw(path: Path, events: int, events_a_unit: int) -> Path:
    """A file of one run: `run`, `lumi`, `event`, and `Hit_channel`, `Hit_count` (jagged uint16, by channel)."""
    rng = np.random.default_rng(1)
    sizes = rng.poisson(HITS, BLOCK)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    # Steps of one or two make runs of neighbours, which is what clusters are.
    steps = np.cumsum(rng.choice([1, 1, 1, 2, 60], offsets[-1]))
    channels = (steps - np.repeat(steps[offsets[:-1]], sizes)) % CHANNELS
    counts = 100 + rng.poisson(30, offsets[-1])
    block = [ak.unflatten(values.astype(np.uint16), sizes) for values in (channels, counts)]
    repeat = -(-events // BLOCK)
    channel, count = (ak.to_packed(ak.concatenate([part] * repeat)[:events]) for part in block)
    number = np.arange(events, dtype=np.int64)
    columns = {"run": np.full(events, RUN, np.int64), "lumi": 1 + number // events_a_unit, "event": 1 + number}
    write_tier(path, {**columns, "Hit_channel": channel, "Hit_count": count}, {}, lambda point: None)
    return path


@dataclass(frozen=True, kw_only=True)
class Response(Calibration):
    """Number and energy of clusters by unit and group of 64 channels."""

    kind: ClassVar[str] = "response"
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ("Cluster_energy", "Cluster_position")

    def accumulate(self, columns: Columns, conditions: Mapping[str, Payload]) -> State:
        sizes = ak.to_numpy(ak.num(columns["Cluster_energy"]))
        units, place = np.unique(packed_units(columns), return_inverse=True)
        group = np.asarray(ak.flatten(columns["Cluster_position"])).astype(np.int64) // 64
        cell = np.repeat(place, sizes) * (CHANNELS // 64) + group
        energy = to_fixed(np.asarray(ak.flatten(columns["Cluster_energy"])), 1e-3)
        cells = len(units) * (CHANNELS // 64)
        number = np.bincount(cell, minlength=cells)
        total = np.zeros(cells, np.int64)
        np.add.at(total, cell, energy)
        values = np.stack([number, total], axis=1).reshape(len(units), CHANNELS // 64, 2)
        return State({"clusters": UnitSums(units, values)})

    def empty(self) -> State:
        return State({"clusters": UnitSums.empty((CHANNELS // 64, 2))})

    def finalize(self, state: State, previous: Payload | None) -> Payload:
        number, total = state["clusters"].total().T  # type: ignore[attr-defined]
        return Payload("response", {"mean": 1e-3 * total / np.maximum(number, 1)}, {"mean": "ADC"})


class Detector(Experiment):
    """Reads what `write_raw` writes; both steps unfold, cluster and select."""

    name: ClassVar[str] = "benchmark_detector"
    tree: ClassVar[str] = "Events"
    versions: ClassVar[Mapping[Step, int]] = {Step.EXPRESS: 1, Step.PROMPT: 1}

    def identify(self, source: EventSource, start: int, stop: int) -> Keys:
        read = source.arrays(self.tree, ("run", "lumi", "event"), start, stop)
        return Keys(*(np.asarray(read[name], np.int64) for name in ("run", "lumi", "event")))

    def wanted(self, step: Step, branches: frozenset[str]) -> Wanted:
        return Wanted(("Hit_channel", "Hit_count"))

    def process(self, step: Step, events: Columns, conditions: Mapping[str, Payload]) -> Processed:
        sizes = ak.to_numpy(ak.num(events["Hit_channel"]))
        channel = np.asarray(ak.flatten(events["Hit_channel"])).astype(np.int64)
        signal = unfold(channel, np.asarray(ak.flatten(events["Hit_count"])), sizes)
        energy, position, found = clusters(channel, signal, sizes)
        empty = found == 0
        columns = {
            "Cluster_energy": ak.unflatten(energy.astype(np.float32), found[~empty]),
            "Cluster_position": ak.unflatten(position.astype(np.float32), found[~empty]),
        }
        return Processed({step.value.upper(): columns}, columns, {"no cluster": empty})

    def calibrations(self) -> tuple[Calibration, ...]:
        return (Response(),)

    def histograms(self, step: Step) -> tuple[QualityHistogram, ...]:
        return (QualityHistogram("energy", "Cluster_energy", tuple(np.linspace(0, 500, 101)), "ADC"),)


def _linked(channel: NDArray[np.int64], sizes: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether each hit is the neighbour of the one before it, in the same event."""
    linked = np.diff(channel, prepend=-2) == 1
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    linked[starts[starts < len(channel)]] = False
    return linked


def unfold(channel: NDArray[np.int64], count: NDArray[Any], sizes: NDArray[Any]) -> NDArray[np.float64]:
    """Signals with the cross-talk between neighbours taken off, pass by pass."""
    share = 0.05 * _linked(channel, sizes)
    measured = count - (100.0 + 0.001 * channel)
    signal = measured
    for _ in range(PASSES):
        left = share * np.roll(signal, 1)
        right = np.roll(share * signal, -1)
        signal = np.maximum(measured - left - right, 0.0)
        signal = np.sqrt(signal * signal + 1e-6 * measured * measured)
    return signal


def clusters(
    channel: NDArray[np.int64], signal: NDArray[np.float64], sizes: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Energy and position of the clusters, and how many each event has."""
    event = np.repeat(np.arange(len(sizes)), sizes)
    above = signal > 15.0
    channel, signal, event = channel[above], signal[above], event[above]
    kept = np.bincount(event, minlength=len(sizes))
    starts = np.flatnonzero(~_linked(channel, kept))
    energy = np.add.reduceat(signal, starts) if len(starts) else np.zeros(0)
    position = np.add.reduceat(signal * channel, starts) / energy if len(starts) else np.zeros(0)
    return energy, position, np.bincount(event[starts], minlength=len(sizes))
