"""The detector as it was built: by channel, chip and structure. Drawn once for a seed, whatever the run."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from calib.payload import Payload
from pipeline.experiments.ref10.alignment import alignment
from pipeline.experiments.ref10.constants import ROC_COLUMNS, ROCS
from pipeline.experiments.ref10.geometry import Geometry
from pipeline.experiments.ref10.layers import CHIP, ROC, STRIPS
from pipeline.experiments.ref10.simulate.faults import Faults, Misalignment
from pipeline.experiments.ref10.simulate.streams import Purpose, table_generator

Floats32 = NDArray[np.float32]
Bools = NDArray[np.bool_]

LEAST_GAIN = 0.5
LEAST_NOISE = 0.25
"""ADC"""


@dataclass(frozen=True)
class Electronics:
    """Pedestal, noise and gain of the channels as they were built. ADC counts, if not said otherwise."""

    pedestal: float = 100.0
    pedestal_spread: float = 10.0
    noise: float = 4.0
    noise_spread: float = 0.05
    """relative, rms over the strips"""
    common_mode: float = 2.0
    """rms, by event and chip"""
    gain_spread: float = 0.10
    """rms over the chips"""
    pixel_noise: float = 200.0
    """electrons"""

    def __post_init__(self) -> None:
        if not self.noise > 0:
            raise ValueError(f"strips must have some noise, not {self.noise}: thresholds are set in units of it")
        for name in ("pedestal_spread", "noise_spread", "common_mode", "gain_spread", "pixel_noise"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} cannot be negative, as {getattr(self, name)} is")


@dataclass(frozen=True, eq=False)
class Tables:
    """By strip channel and by chip, numbered as in constants.py; `dead_roc` by pixel module and readout chip."""

    pedestal: Floats32
    """ADC, as the DAQ's tables have it"""
    noise: Floats32
    """ADC"""
    drift: Floats32
    """ADC a run"""
    gain: Floats32
    """by chip"""
    shifted: Bools
    """by chip"""
    dead: Bools
    hot: Bools
    dead_roc: Bools
    alignment: Payload


@lru_cache(maxsize=2)
def detector(
    electronics: Electronics, faults: Faults, misalignment: Misalignment, geometry: Geometry, seed: int
) -> Tables:
    """The tables of a seed. Each has random numbers of its own: one setting changes no table but its own."""
    demand_chips(faults, geometry)
    strips = len(geometry.strip_rows) * STRIPS
    chips = _strip_chips(geometry)

    def normal(purpose: Purpose, size: int) -> Floats32:
        return table_generator(seed, purpose).standard_normal(size, np.float32)

    def share(purpose: Purpose, size: int, of: float) -> Bools:
        chosen: Bools = table_generator(seed, purpose).random(size) < of
        return chosen

    noise = electronics.noise * (1 + electronics.noise_spread * normal(Purpose.NOISE_TABLE, strips))
    gain = 1 + electronics.gain_spread * normal(Purpose.GAIN, chips)
    dead = share(Purpose.DEAD_STRIP, strips, faults.dead_strips) | _dead_chips(faults, chips, seed)
    return Tables(
        pedestal=electronics.pedestal + electronics.pedestal_spread * normal(Purpose.PEDESTAL, strips),
        noise=np.maximum(noise, np.float32(LEAST_NOISE)),
        drift=faults.pedestal_drift * normal(Purpose.DRIFT, strips),
        gain=np.maximum(gain, np.float32(LEAST_GAIN)),
        shifted=share(Purpose.SHIFTED_CHIP, chips, faults.pedestal_shift_chips),
        dead=dead,
        hot=share(Purpose.HOT_STRIP, strips, faults.hot_strips) & ~dead,
        dead_roc=_dead_rocs(faults, geometry, seed),
        alignment=_displaced(misalignment, geometry, seed),
    )


def demand_chips(faults: Faults, geometry: Geometry) -> None:
    """Raise ValueError where more chips are to be dead than a geometry has."""
    there = (
        ("dead_chips", "strip chips", _strip_chips(geometry)),
        ("dead_rocs", "pixel readout chips", _rocs(geometry).sum()),
    )
    for name, words, number in there:
        if getattr(faults, name) > number:
            raise ValueError(f"{name} is {getattr(faults, name)}, and this detector has {number} {words}")


def _strip_chips(geometry: Geometry) -> int:
    return len(geometry.strip_rows) * STRIPS // CHIP


def _rocs(geometry: Geometry) -> Bools:
    """bool[pixel modules, chips]: which chips a module has."""
    rows = geometry.rows[geometry.pixel]
    there: Bools = np.arange(ROCS) < (-(-rows // ROC[0]) * ROC_COLUMNS)[:, None]
    return there


def _dead_chips(faults: Faults, chips: int, seed: int) -> Bools:
    dead = np.zeros(chips, bool)
    dead[table_generator(seed, Purpose.DEAD_CHIP).choice(chips, faults.dead_chips, replace=False)] = True
    return np.repeat(dead, CHIP)


def _dead_rocs(faults: Faults, geometry: Geometry, seed: int) -> Bools:
    """bool[pixel modules, chips]; only chips that a module has are chosen."""
    there = _rocs(geometry)
    chosen = table_generator(seed, Purpose.DEAD_ROC).choice(np.flatnonzero(there), faults.dead_rocs, replace=False)
    dead = np.zeros(there.size, bool)
    dead[chosen] = True
    return dead.reshape(there.shape)


def _displaced(misalignment: Misalignment, geometry: Geometry, seed: int) -> Payload:
    kinds = np.where(geometry.pixel, 0, 1)
    ladder_kinds = np.zeros(int(geometry.ladder_row.max()) + 1, np.int64)
    ladder_kinds[geometry.ladder_row] = kinds
    parts = (
        (Purpose.LADDER, ladder_kinds, misalignment.ladder_um, misalignment.ladder_urad),
        (Purpose.MODULE, kinds, misalignment.module_um, misalignment.module_urad),
    )
    drawn = []
    for purpose, kind, shift, turn in parts:
        spread = np.repeat(np.stack([1e-4 * np.array(shift), 1e-6 * np.array(turn)]), 3, axis=0)[:, kind].T
        drawn.append(spread * table_generator(seed, purpose).standard_normal((len(kind), 6)))
    half_barrels = np.array(misalignment.half_barrels) * ([1e-4] * 3 + [1e-6] * 3)
    return alignment(half_barrels, *drawn)
