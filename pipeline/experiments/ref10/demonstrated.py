"""What is put into the runs of the demonstration and what is found of it: beam, impact parameters, pedestals.

Lengths in cm unless a name says um. `put_in` is of the truth; of d0 against phi, what the misalignment in it makes of
tracks whose conditions do not know it, by linear algebra (`upright`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calib.algorithms.pedestal import is_good
from calib.iov import IOV, RunLumi
from calib.payload import Payload, PayloadStore
from pipeline.events import read_tier
from pipeline.experiments.collisions import Collection
from pipeline.experiments.ref10 import alignment, daq
from pipeline.experiments.ref10.constants import GOOD, STRIP_STATUS
from pipeline.experiments.ref10.geometry import KIND as GEOMETRY
from pipeline.experiments.ref10.geometry import Geometry, geometry_of
from pipeline.experiments.ref10.layers import CHIP, LAYERS, Z_MODULES
from pipeline.experiments.ref10.simulation import TRUTH, truth_of
from pipeline.experiments.ref10.upright import UM, fit
from pipeline.experiments.simulated import Found

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

PEDESTAL, BEAM = "pedestal", "beamspot"

GRID = np.geomspace(0.4, 100.0, 30)
"""GeV, at which fits are worked out"""
LEAST_JUMP = 2.0
"""ADC, of the mean pedestal of a chip; more is no drift"""
FARTHEST = 0.05
"""cm from the beam; a track further off is no track of it"""


@dataclass(frozen=True)
class Truth:
    """The conditions that are true in simulated runs."""

    data: Path
    lumis: int

    def payload(self, kind: str, at: RunLumi) -> Payload:
        """Of a lumisection."""
        return self._store.get(truth_of(self.data, at.run, at.lumi)[kind])

    def file(self, kind: str, at: RunLumi) -> Path:
        """Where that payload lies."""
        return self._store.path(truth_of(self.data, at.run, at.lumi)[kind])

    @cached_property
    def _store(self) -> PayloadStore:
        return PayloadStore(self.data / TRUTH / "conditions")

    @cached_property
    def tables(self) -> NDArray[np.float32]:
        """The pedestals that the DAQ works with."""
        with np.load(self.data / daq.TABLES) as tables:
            found: NDArray[np.float32] = tables["mean"]
        return found

    def beam(self, run: int) -> Mapping[str, Floats]:
        """x, y, z, dxdz and dydz of the beam in each lumisection of a run."""
        payloads = [self.payload(BEAM, RunLumi(run, lumi)) for lumi in range(1, self.lumis + 1)]
        return {name: np.array([float(one[name]) for one in payloads]) for name in ("x", "y", "z", "dxdz", "dydz")}


@dataclass(frozen=True, eq=False)
class Tracks:
    """Tracks of one run that have a hit on every layer: `off` their d0 about the true beam, `error` its error with the
    width of the beam, `moved` by how much a misalignment that is not known moves it."""

    phi: Floats
    off: Floats
    error: Floats
    moved: Floats

    @property
    def amplitude(self) -> tuple[float, float, float]:
        """Of d0 against phi [um]: rms of what an unknown misalignment does, and how much of it is seen, and its error.

        What is seen is the scatter about `moved` times a factor: least squares for that.
        """
        weight = self.error**-2.0
        square = np.sum(weight * self.moved**2)
        rms = np.sqrt(square / weight.sum()) / UM
        return float(rms), float(rms * np.sum(weight * self.moved * self.off) / square), float(rms / np.sqrt(square))

    @property
    def beam_moved(self) -> tuple[float, float]:
        """By how much the place of the beam in x and y is found off where `moved` is all that is wrong."""
        weight = self.error**-2.0
        design = np.stack([np.sin(self.phi), -np.cos(self.phi)])
        found = np.linalg.solve((design * weight) @ design.T, (design * weight) @ self.moved)
        return float(found[0]), float(found[1])


NAMES = ("d0", "phi", "z0", "cot_theta", "curvature", "pt", "cov_d0_d0", "flags", "hits")


def tracks_of(files: Sequence[Path], run: int, truth: Truth) -> Tracks:
    """The tracks in the AOD of a run."""
    parts = [read_tier(path) for path in files]
    read = [Collection.read(part, "Track", NAMES) for part in parts]
    lumi = np.concatenate([np.asarray(part["lumi"])[of.event] for part, of in zip(parts, read, strict=True)])
    flat = {name: np.concatenate([of.flat[name] for of in read]) for name in NAMES}
    beam = {name: values[lumi - 1] for name, values in truth.beam(run).items()}
    along = flat["z0"] - beam["z"]
    x, y = beam["x"] + beam["dxdz"] * along, beam["y"] + beam["dydz"] * along
    off = flat["d0"] - (x * np.sin(flat["phi"]) - y * np.cos(flat["phi"]))
    whole = (flat["flags"] == 0) & (flat["hits"] == len(LAYERS)) & (np.abs(off) < FARTHEST)
    kept = {name: values[whole].astype(np.float64) for name, values in flat.items()}
    width = float(truth.payload(BEAM, RunLumi(run, 1))["width_x"])
    error = np.sqrt(kept["cov_d0_d0"] + width**2)
    geometry, displaced = (truth.payload(kind, RunLumi(run, 1)) for kind in (GEOMETRY, alignment.KIND))
    return Tracks(kept["phi"], off[whole], error, d0_moved(kept, geometry_of(geometry), displaced))


def d0_moved(tracks: Mapping[str, Floats], geometry: Geometry, displaced: Payload) -> Floats:
    """By how much d0 [cm] moves of tracks that are fitted as if modules were where they were drawn.

    The hit of a layer is then off by what its module is displaced, the other way, and counts for what the fit makes of
    it. `tracks` have phi, z0 [cm], cot_theta, curvature [1/cm] and pt [GeV]; `displaced` is an alignment.
    """
    shift = alignment.frames(geometry, displaced).centre - geometry.centre
    gains = np.array([fit(pt).gain[0] for pt in GRID])
    found = np.zeros(len(tracks["phi"]))
    for number, (layer, grid) in enumerate(zip(LAYERS, geometry.grids, strict=True)):
        turned = tracks["curvature"] * layer.radius
        azimuth = tracks["phi"] - turned / 2
        ladder = np.floor(azimuth / (2 * np.pi) * layer.ladders).astype(np.int64) % layer.ladders
        along = (tracks["z0"] + tracks["cot_theta"] * layer.radius) / layer.spacing + Z_MODULES / 2
        row = grid[ladder, np.clip(along.astype(np.int64), 0, Z_MODULES - 1)]
        x, y, _ = np.where(row[:, None] >= 0, shift[row], 0.0).T
        direction = tracks["phi"] - turned
        gain = np.interp(np.log(tracks["pt"]), np.log(GRID), gains[:, number])
        found -= gain * (x * np.sin(direction) - y * np.cos(direction))
    return found


@dataclass(frozen=True)
class BeamFound:
    """The beam in one interval inside a run, `first` to `last` lumisection; each of x and y as (put in, found, error)
    [um], at the z of the payload."""

    run: int
    first: int
    last: int
    x: tuple[float, float, float]
    y: tuple[float, float, float]


def beam_found(intervals: Sequence[tuple[IOV, Payload]], runs: Sequence[int], truth: Truth) -> list[BeamFound]:
    """Interval by interval, an interval over several runs once in each."""
    found = []
    for run in runs:
        beam = truth.beam(run)
        for iov, payload in intervals:
            held = np.array([iov.contains(RunLumi(run, lumi + 1)) for lumi in range(truth.lumis)])
            if not held.any():
                continue
            lumis = np.flatnonzero(held) + 1
            axes = []
            for axis, slope in (("x", "dxdz"), ("y", "dydz")):
                put_in = beam[axis] + beam[slope] * (float(payload["z"]) - beam["z"])
                numbers = put_in[held].mean(), float(payload[axis]), float(payload[f"{axis}_error"])
                axes.append(tuple(float(number / UM) for number in numbers))
            found.append(BeamFound(run, int(lumis[0]), int(lumis[-1]), *axes))  # type: ignore[arg-type]
    return found


@dataclass(frozen=True, eq=False)
class Pedestals:
    """Of one run, of good strips: by how much pedestals are above the DAQ's tables [ADC], put in and found, with the
    errors of what is found; `jumped` are the strips of chips whose pedestals jump, `chip` is that of each."""

    put_in: Floats
    found: Floats
    error: Floats
    jumped: Mask
    chip: NDArray[np.int64]

    @property
    def jump(self) -> tuple[float, float, float]:
        """How far chips jump on the average: put in, found, and the error of what is found [ADC].

        Strips of a chip share what is left of its common mode; so the error is by how much the other chips scatter.
        """
        off, numbers = self.found - self.put_in, np.bincount(self.chip[~self.jumped])
        means = np.bincount(self.chip[~self.jumped], off[~self.jumped])[numbers > 0] / numbers[numbers > 0]
        chips = len(np.unique(self.chip[self.jumped]))
        error = np.sqrt(np.mean(means**2) / max(chips, 1))
        return float(self.put_in[self.jumped].mean()), float(self.found[self.jumped].mean()), float(error)

    @property
    def drift(self) -> tuple[float, float, float]:
        """Of the other chips: rms of the drift put in, how much of it is found, and the error of that [ADC].

        Each strip drifts its own way: what is found is a factor times what is put in, and scatter.
        """
        still = ~self.jumped
        put_in, weight = self.put_in[still], self.error[still] ** -2.0
        square = np.sum(weight * put_in**2)
        rms = np.sqrt(square / weight.sum())
        found = rms * np.sum(weight * put_in * self.found[still]) / square
        return float(rms), float(found), float(rms / np.sqrt(square))

    @property
    def pulls(self) -> Floats:
        """What is found less what is put in, in errors."""
        return (self.found - self.put_in) / self.error


def pedestals_of(run: int, payload: Payload, truth: Truth, runs: Sequence[int]) -> Pedestals:
    """Of one run; chips jump with the second of the `runs`, by much more than any drift."""
    true = truth.payload(PEDESTAL, RunLumi(run, 1))
    good = (truth.payload(STRIP_STATUS, RunLumi(run, 1))["status"] == GOOD) & is_good(payload)
    first, second = (
        truth.payload(PEDESTAL, RunLumi(one, 1))["mean"].reshape(-1, CHIP).mean(axis=1) for one in runs[:2]
    )
    put_in, found = ((one["mean"] - truth.tables)[good].astype(np.float64) for one in (true, payload))
    return Pedestals(
        put_in,
        found,
        payload["mean_error"][good].astype(np.float64),
        np.repeat(second - first > LEAST_JUMP, CHIP)[good],
        np.flatnonzero(good) // CHIP,
    )


@dataclass(frozen=True, eq=False)
class Seen:
    """All that is compared; tracks and pedestals by run."""

    beam: Sequence[BeamFound]
    tracks: Mapping[int, Tracks]
    pedestals: Mapping[int, Pedestals]
    truth: Truth


def seen(found: Found, runs: Sequence[int], truth: Truth) -> Seen:
    """What the chain made of some runs, beside what is true in them."""
    last = {run: found.at(PEDESTAL, RunLumi(run, truth.lumis)) for run in runs}
    return Seen(
        beam_found(found.conditions[BEAM], runs, truth),
        {run: tracks_of(found.outputs[run], run, truth) for run in runs},
        {run: pedestals_of(run, payload, truth, runs) for run, payload in last.items()},
        truth,
    )
