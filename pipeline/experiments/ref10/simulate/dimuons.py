"""Z and J/psi that decay to two muons in the acceptance.

The mass is drawn once (Breit-Wigner for the Z); the parent's motion and the isotropic decay are drawn again until both
muons are in the acceptance, so the mass spectrum is exactly what it is said to be.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.experiments.ref10.simulate.streams import Floats, Ints, Purpose, Streams

MUON_MASS = 0.1056584
"""GeV"""


@dataclass(frozen=True)
class Resonance:
    """Mass and width [GeV], the range that is drawn from, the parent's pT, and the cut on the muons' pT."""

    mass: float
    width: float
    window: tuple[float, float]
    pt_range: tuple[float, float]
    """lower edge; and upper edge of a flat spectrum, or infinite"""
    pt_slope: float
    """GeV, of a falling spectrum"""
    muon_pt: float


RESONANCES = (
    Resonance(91.1876, 2.4952, (60.0, 120.0), (0.0, np.inf), 8.0, 15.0),
    Resonance(3.0969, 0.0, (3.0969, 3.0969), (5.0, 15.0), 0.0, 1.5),
)
"""process 1 and 2"""

RAPIDITY = 1.0
MUON_ETA = 1.0
FIRST_TRIES, MORE_TRIES = 16, 8


@dataclass(frozen=True, eq=False)
class Muons:
    """[pairs, 2]: the negative and the positive muon; pT in GeV."""

    pt: Floats
    eta: Floats
    phi: Floats


def dimuons(process: Ints, streams: Streams, events: Ints) -> Muons:
    """The muons of one pair an event, of process 1 (Z) or 2 (J/psi)."""
    mass = _masses(process, streams.uniform(Purpose.MASS, events, np.ones(len(events), np.int64)))
    found = np.zeros((3, len(events), 2))
    pending, tries = np.arange(len(events)), FIRST_TRIES
    while len(pending):
        uniform = streams.uniform(Purpose.DECAY, events[pending], np.full(len(pending), 5 * tries))
        muons = _decays(process[pending], mass[pending], uniform, tries)
        pt, eta, _ = muons
        least = np.array([resonance.muon_pt for resonance in RESONANCES])[process[pending] - 1]
        good = ((pt > least[:, None, None]) & (np.abs(eta) < MUON_ETA)).all(axis=2)
        some, first = good.any(axis=1), good.argmax(axis=1)
        found[:, pending[some]] = muons[:, some, first[some]]
        # The next tries begin with the same numbers, so what is found does not depend on how many are drawn at once.
        pending, tries = pending[~some], tries * MORE_TRIES
    return Muons(*found)


def _masses(process: Ints, uniform: Floats) -> Floats:
    mass = np.empty(len(process))
    for number, resonance in enumerate(RESONANCES, start=1):
        low, high = (breit_wigner(edge, resonance) for edge in resonance.window)
        own = process == number
        mass[own] = resonance.mass + resonance.width / 2 * np.tan(np.pi * (low + (high - low) * uniform[own] - 0.5))
    return mass


def breit_wigner(mass: float, resonance: Resonance) -> float:
    """The cumulative distribution of the masses, before they are cut to the window."""
    return float(np.arctan2(2 * (mass - resonance.mass), resonance.width) / np.pi + 0.5)


def _decays(process: Ints, mass: Floats, uniform: Floats, tries: int) -> NDArray[np.float64]:
    """pT, eta and phi of both muons of each try, [3, pairs, tries, 2]; decays are isotropic in the parent's frame."""
    columns = np.ascontiguousarray(np.moveaxis(uniform.reshape(len(process), tries, 5), 2, 0))
    m = np.repeat(mass[:, None], tries, axis=1)
    pt, phi = _parent_pt(process, columns[0]), 2 * np.pi * columns[2]
    rapidity = RAPIDITY * (2 * columns[1] - 1)
    transverse_mass = np.hypot(m, pt)
    energy = transverse_mass * np.cosh(rapidity)
    parent = np.stack([pt * np.cos(phi), pt * np.sin(phi), transverse_mass * np.sinh(rapidity)])
    own = np.sqrt(m**2 / 4 - MUON_MASS**2)
    cosine, turn = 2 * columns[3] - 1, 2 * np.pi * columns[4]
    sine = np.sqrt(1 - cosine**2)
    rest = np.stack([own * sine * np.cos(turn), own * sine * np.sin(turn), own * cosine])
    along = parent[0] * rest[0] + parent[1] * rest[1] + parent[2] * rest[2]
    first = rest + parent * (along / (m * (energy + m)) + 0.5)
    both = np.stack([first, parent - first], axis=-1)
    momentum = np.hypot(both[0], both[1])
    return np.stack([momentum, np.arcsinh(both[2] / momentum), np.arctan2(both[1], both[0])])


def _parent_pt(process: Ints, uniform: Floats) -> Floats:
    flat = np.array([one.pt_slope == 0 for one in RESONANCES])[process - 1][:, None]
    low, high = np.array([one.pt_range for one in RESONANCES])[process - 1].T[:, :, None]
    slope = np.array([one.pt_slope for one in RESONANCES])[process - 1][:, None]
    span = np.where(flat, high - low, 0.0)
    pt: Floats = low + span * uniform - slope * np.log1p(-uniform)
    return pt
