"""Runs of REF10 through the whole chain, what their express has calibrated set against what was simulated."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

from benchmarks._calibration_frame import frame_of
from benchmarks._calibration_toys import Floats, width_of
from benchmarks._ref10_claims import Limits
from benchmarks._ref10_played import RUN
from benchmarks._ref10_run import Plan, derived
from calib.algorithms import gain, lorentz_angle, pedestal
from calib.algorithms.alignment_payload import Flag
from calib.algorithms.occupancy_status import Status as HitStatus
from calib.payload import Payload
from pipeline.experiments.ref10.geometry import GEOMETRIES, PIXEL_HALVES, Geometry, geometry_of
from pipeline.experiments.ref10.simulate.scenario import DEAD, HOT, Beam, Physics, Scenario, truth

Mask = NDArray[np.bool_]
Payloads = Mapping[str, Payload]

MOST = 1.35
"""times what is expected: the RMS in a whole chain"""
CHANCE = 1e-3
FRAME = 0.05
"""share to which it is known what sensors that are thought off their places do to the beam: tracks of another momentum
see it so much elsewhere"""
WORTH = {"half_barrel": 2.3 / 4, "ladder": 85 / 576}
"""independent shifts along x and y for each, in the covariance of a run's alignment"""
UM, URAD = 1e-4, 1e-6
SCENARIO = Scenario(
    beam=Beam(drift_um=0.0, step_um=0.0), physics=Physics(pile_up=1.0, tracks=25.0, z=0.3, jpsi=0.5, nzs=1.0)
)
"""A beam that stays where it is, so that there is one truth; enough of everything in few events"""
GEOMETRY = "full"
LUMI = 1


@dataclass(frozen=True, eq=False)
class Compared:
    """A quantity of one run: found less true, the error claimed, and that expected, of values that were measured."""

    kind: str
    name: str
    unit: str
    off: Floats
    error: Floats
    expected: Floats
    kept: int
    """values that are what they were before"""
    said: str
    """where the expectation is from"""
    worth: float = 1.0
    """independent values that tell as much, for each: ladders move together"""

    @property
    def ratio(self) -> float:
        """RMS over what is expected, value by value."""
        return float(np.sqrt(np.mean((self.off / self.expected) ** 2)))


@dataclass(frozen=True)
class Flagged:
    """How many channels of a sort have a flag, in one run."""

    sort: str
    flagged: int
    of: int


@dataclass(frozen=True, eq=False)
class OneRun:
    """What came of a run."""

    seed: int
    compared: tuple[Compared, ...]
    flagged: tuple[Flagged, ...]
    told: str
    stale: tuple[str, ...]
    """kinds of which the run has found nothing"""


CLAIMED = "the claimed error"
IN_FRAME = f"the claimed error, and {FRAME:.0%} of what sensors off their places do to it"
GAIN, ANGLE = 0.115, 0.30
"""over the root of the clusters (physics note, 10): relative, and of the tangent"""
GOOD = "good strips with any of these"
FALSE = 1e-4
"""share of the good strips that may have a flag"""


def run_of(seed: int, folder: Path, size: tuple[int, int], workers: int) -> OneRun:
    """Simulate a run of a `size` in lumisections and events of each, work it through, and compare."""
    plan = Plan(seed, SCENARIO, GEOMETRY, *size, workers)
    try:
        found = derived(plan, folder, LUMI)
    except SystemExit as unfinished:
        return OneRun(seed, (), (), str(unfinished), tuple(COMPARED))
    detector = geometry_of(GEOMETRIES[GEOMETRY]())
    true = truth(SCENARIO, detector, seed, RUN, LUMI)
    before, after = dict(found.before.ids), dict(found.after.ids)
    stale = tuple(kind for kind in COMPARED if after.get(kind) == before.get(kind))
    payloads = found.after({})
    compared = [one for kind in COMPARED if kind not in stale for one in COMPARED[kind](payloads, true, detector)]
    return OneRun(seed, tuple(compared), tuple(flags(payloads, true)), found.told, stale)


# By kind. -------------------------------------------------------------------------------------------------------------


def of_pedestals(found: Payloads, true: Payloads, detector: Geometry) -> list[Compared]:
    """Of strips that are neither dead nor hot."""
    payload, real, electronics = found["pedestal"], true["pedestal"], SCENARIO.electronics
    new = (payload["status"] == pedestal.Status.NEW) & (true["strip_status"]["status"] == 0)
    noise, entries = real["noise"][new].astype(float), payload["entries"][new].astype(float)
    width = np.sqrt(noise**2 + electronics.common_mode**2 + 1 / 12)
    expected = {"mean": width / np.sqrt(entries), "noise": (noise**2 + 1 / 12) / noise / np.sqrt(2 * entries)}
    kept = int(np.count_nonzero(payload["status"] & ~np.int8(pedestal.Status.NOISY)))
    return [
        Compared(
            "pedestal",
            name,
            "ADC",
            (payload[name].astype(float) - real[name])[new],
            payload[f"{name}_error"][new].astype(float),
            expected[name],
            kept,
            f"physics note, 10: s / sqrt({'N' if name == 'mean' else '2N'})",
        )
        for name in ("mean", "noise")
    ]


def of_gains(found: Payloads, true: Payloads, detector: Geometry) -> list[Compared]:
    """Relative; chips of which most strips are alive."""
    payload, real = found["gain"], true["gain"]["gain"].astype(float)
    new = payload["status"] == gain.Status.NEW
    off = 100 * (payload["gain"].astype(float) / real - 1)[new]
    scale = payload["scale_error"].max()
    error = 100 * np.hypot(payload["gain_error"] / real, scale)[new]
    expected = 100 * np.hypot(GAIN / np.sqrt(payload["entries"][new]), scale)
    said = f"physics note, 10: {GAIN} / sqrt(N), and what is known of the scale"
    return [Compared("gain", "chips", "%", off, error, expected, int(np.count_nonzero(~new)), said)]


def of_angles(found: Payloads, true: Payloads, detector: Geometry) -> list[Compared]:
    """By layer."""
    payload = found["lorentz_angle"]
    new = (payload["status"] & ~np.int8(lorentz_angle.Status.DIFFER)) == 0
    off = 1e3 * (payload["tan"] - true["lorentz_angle"]["tan"])[new]
    error = 1e3 * np.hypot(payload["tan_error"], payload["scale_error"])[new]
    expected = 1e3 * np.hypot(ANGLE / np.sqrt(payload["entries"][new]), payload["scale_error"][new])
    said = f"physics note, 10: {ANGLE} / sqrt(N), and what is known of the bias"
    return [Compared("lorentz_angle", "layers", "10^-3", off, error, expected, int(np.count_nonzero(~new)), said)]


def of_places(found: Payloads, true: Payloads, detector: Geometry) -> list[Compared]:
    """Shifts of half barrels of the pixels, and of ladders, as far as they are aligned."""
    payload, real, compared = found["alignment"], true["alignment"], []
    for name, rows in (("half_barrel", list(PIXEL_HALVES)), ("ladder", slice(None))):
        error = payload[f"{name}_error"][rows, :2] / UM
        known = np.isfinite(error) & ((payload[f"{name}_flags"][rows, :2] & ~np.int8(Flag.WEAK)) == 0)
        off = (payload[name] - real[name])[rows, :2] / UM
        what = f"{name.replace('_', ' ')}s, x and y"
        kept = int(np.count_nonzero(~known))
        compared.append(
            Compared("alignment", what, "um", off[known], error[known], error[known], kept, CLAIMED, WORTH[name])
        )
    return compared


def of_beam(found: Payloads, true: Payloads, detector: Geometry) -> list[Compared]:
    """Tracks lie in the frame of the sensors as they were found, so the beam is looked for there; and vertices are
    scattered by what these are off."""
    payload, real = found["beamspot"], true["beamspot"]
    lever = float(payload["z"] - real["z"])
    frame = frame_of(SCENARIO, detector, found["alignment"], true["alignment"])
    moved = frame.shift + frame.tilt * float(real["z"])
    widths = [float(real[f"width_{axis}"]) for axis in "xy"]
    wider = np.hypot(widths, frame.spread) - widths
    place, slopes, width = (
        np.array([float(payload[name] - real[name]) for name in names])
        for names in (("x", "y"), ("dxdz", "dydz"), ("width_x", "width_y"))
    )
    place -= [float(real[f"d{axis}dz"]) * lever for axis in "xy"]
    rows = {
        "x, y": (place, moved, ["x", "y"], UM, "um"),
        "widths": (width, wider, ["width_x", "width_y"], UM, "um"),
        "length": (np.array([float(payload["sigma_z"] - real["sigma_z"])]), np.zeros(1), ["sigma_z"], 0.1, "mm"),
        "slopes": (slopes, frame.tilt, ["dxdz", "dydz"], URAD, "urad"),
    }
    compared = []
    for name, (off, seen, names, unit, written) in rows.items():
        error = np.hypot([float(payload[f"{one}_error"]) for one in names], FRAME * seen) / unit
        compared.append(Compared("beamspot", name, written, (off - seen) / unit, error, error, 0, IN_FRAME))
    return compared


COMPARED: Mapping[str, Callable[[Payloads, Payloads, Geometry], list[Compared]]] = {
    "pedestal": of_pedestals,
    "gain": of_gains,
    "lorentz_angle": of_angles,
    "alignment": of_places,
    "beamspot": of_beam,
}


def flags(found: Payloads, true: Payloads) -> list[Flagged]:
    """Of strips: hot and dead ones by the status, dead ones by the pedestal too, and good ones that have a flag."""
    status, real = found["strip_status"]["status"], true["strip_status"]["status"]
    noisy = (status & HitStatus.HOT) != 0
    gone = (status & (HitStatus.DEAD | HitStatus.DEAD_GROUP)) != 0
    still = (found["pedestal"]["status"] & pedestal.Status.DEAD) != 0
    good = real == 0
    return [
        Flagged(name, int(np.count_nonzero(flag & which)), int(np.count_nonzero(which)))
        for name, flag, which in (
            ("hot strips called hot", noisy, real == HOT),
            ("dead strips called dead by occupancy", gone, real == DEAD),
            ("dead strips called dead by pedestal", still, real == DEAD),
            (GOOD, noisy | gone | still, good),
        )
    ]


# All runs together. ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Together:
    """A quantity in all runs."""

    runs: tuple[Compared, ...]

    @property
    def name(self) -> str:
        return f"{self.runs[0].kind}: {self.runs[0].name}"

    @property
    def pulls(self) -> Floats:
        return np.concatenate([one.off / one.error for one in self.runs])

    @property
    def ratio(self) -> tuple[float, float]:
        """RMS over what is expected and its statistical error, of what the number of values is worth."""
        each = np.concatenate([one.off / one.expected for one in self.runs])
        return float(np.sqrt(np.mean(each**2))), float(np.sqrt(np.mean(each**2) / (2 * self.independent)))

    @property
    def independent(self) -> float:
        """Values that have no errors in common and tell as much, one at least of each run."""
        return sum(max(one.worth * len(one.off), 1.0) for one in self.runs)

    @property
    def rms(self) -> float:
        return float(np.sqrt(np.mean(np.concatenate([one.off for one in self.runs]) ** 2)))

    @property
    def expected(self) -> float:
        return float(np.sqrt(np.mean(np.concatenate([one.expected for one in self.runs]) ** 2)))

    @property
    def width(self) -> tuple[float, float]:
        return width_of(self.pulls, len(self.pulls))

    @property
    def claim(self) -> Limits:
        """Ten values may have an RMS of twice what many would have, so there is room for chance, one in 1000."""
        most = MOST * float(np.sqrt(chi2.isf(CHANCE, self.independent) / self.independent))
        return Limits(f"chain, {self.name}, RMS of {len(self.pulls)} over expectation", *self.ratio, 0.0, most)


def together(runs: Sequence[OneRun]) -> list[Together]:
    """By quantity, in the order of the calibrations."""
    names = dict.fromkeys((one.kind, one.name) for run in runs for one in run.compared)
    return [
        Together(tuple(one for run in runs for one in run.compared if (one.kind, one.name) == name and len(one.off)))
        for name in names
        if any(len(one.off) for run in runs for one in run.compared if (one.kind, one.name) == name)
    ]


def claims_of_chain(runs: Sequence[OneRun]) -> list[Limits]:
    """Of all quantities, of good strips that are flagged, and that every run has found every kind."""
    stale = sum(len(run.stale) for run in runs)
    every = len(runs) * len(COMPARED)
    good = [flag for run in runs for flag in run.flagged if flag.sort == GOOD]
    share = sum(flag.flagged for flag in good) / max(sum(flag.of for flag in good), 1)
    return [
        *(one.claim for one in together(runs)),
        Limits(f"chain, {GOOD}, share", share, 0.0, 0.0, FALSE),
        Limits(f"chain, kinds not found of {every}", stale, 0.0, 0.0, 0.0),
    ]
