"""What comes out of the collisions: vertices, minimum bias, and Z and J/psi to two muons."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import pdtr
from scipy.stats import nbinom

from pipeline.experiments.ref10.simulate.dimuons import dimuons
from pipeline.experiments.ref10.simulate.scenario import Physics, Region
from pipeline.experiments.ref10.simulate.streams import Floats, Ints, Purpose, Streams

MINIMUM_BIAS, DIMUON, NZS = 1, 2, 4
"""trigger bits"""

BUNCHES = 3564
ORBITS = 1 << 18
"""orbits of a lumisection, 23.31 s"""
NZS_GROUPS = 16
"""group `event % 16` of the strip modules is read out without zero suppression in an NZS event"""

PION, MUON = 211, 13

ETA = 1.0
"""|pseudorapidity| of what is simulated"""
PT_LEAST = 0.3
PT_SOFT, PT_HARD, HARD_SHARE = 0.5, 2.0, 0.05
"""transverse momenta above the least fall exponentially: two slopes [GeV], and the share of the flatter"""
CLUSTERING = 2.0
"""k of the negative binomial distribution of the number of tracks"""

_HEADER = 7


@dataclass(frozen=True, eq=False)
class Header:
    """One row an event; `noise` and `pulse` are uniform numbers for how many strips of the event make noise."""

    trig: NDArray[np.uint32]
    bx: NDArray[np.uint16]
    orbit: NDArray[np.uint32]
    process: Ints
    """0 minimum bias, 1 Z, 2 J/psi"""
    vertices: Ints
    noise: Floats
    pulse: Floats

    @property
    def nzs(self) -> NDArray[np.bool_]:
        """Whether a part of the event is read out without zero suppression."""
        return (self.trig & NZS) > 0

    def without_collisions(self) -> Self:
        """The same events, had nothing collided: read out by chance."""
        trig = np.where(self.process > 0, np.uint32(MINIMUM_BIAS), self.trig)
        nothing = np.zeros_like(self.process)
        return replace(self, trig=trig, process=nothing, vertices=nothing)


@dataclass(frozen=True, eq=False)
class Vertices:
    """Flat, in the order of the events: event (its place among those asked for), and place [cm]."""

    event: Ints
    x: Floats
    y: Floats
    z: Floats


@dataclass(frozen=True, eq=False)
class Particles:
    """Flat, in the order of the events: event and vertex are places; momenta in GeV, phi where it was made."""

    event: Ints
    vertex: Ints
    pdg: NDArray[np.int32]
    charge: NDArray[np.int8]
    pt: Floats
    eta: Floats
    phi: Floats


def headers(physics: Physics, lumi: int, streams: Streams, events: Ints) -> Header:
    """What kind of event each is, and when it happened."""
    counts = np.full(len(events), _HEADER)
    process, nzs, bx, orbit, pile_up, noise, pulse = columns_of(streams.uniform(Purpose.EVENT, events, counts), _HEADER)
    kind = np.where(process < physics.z, 1, np.where(process < physics.z + physics.jpsi, 2, 0))
    trig = np.where(kind > 0, DIMUON, MINIMUM_BIAS) + NZS * ((kind == 0) & (nzs < physics.nzs))
    return Header(
        trig=trig.astype(np.uint32),
        bx=(bx * BUNCHES).astype(np.uint16),
        orbit=((max(lumi, 1) - 1) * ORBITS + (orbit * ORBITS).astype(np.int64)).astype(np.uint32),
        process=kind,
        vertices=1 + poisson(pile_up, physics.pile_up),
        noise=noise,
        pulse=pulse,
    )


def columns_of(flat: Floats, width: int) -> Floats:
    """Numbers drawn row by row, as [width, rows] with contiguous columns.

    Contiguous, as the last bit of some functions differs between contiguous arrays and others.
    """
    return np.ascontiguousarray(flat.reshape(-1, width).T)


def poisson(uniform: Floats, mean: float) -> Ints:
    """Poisson numbers from uniform ones, by the quantile function."""
    largest = int(mean + 12 * np.sqrt(mean) + 40)
    return np.searchsorted(pdtr(np.arange(largest), mean), uniform, side="right")


def collisions(
    physics: Physics, region: Region, header: Header, streams: Streams, events: Ints
) -> tuple[Vertices, Particles]:
    """Vertices in the luminous region and what leaves them; muons of a dimuon come first, from the first vertex."""
    event = np.repeat(np.arange(len(events)), header.vertices)
    places = columns_of(streams.normal(Purpose.VERTEX, events, 3 * header.vertices), 3)
    along = region.sigma_z * places[2]
    vertices = Vertices(
        event,
        region.x + region.dxdz * along + region.width_x * places[0],
        region.y + region.dydz * along + region.width_y * places[1],
        region.z + along,
    )
    tracks = _tracks(physics, header, streams, events)
    muons = _muons(header, streams, events)
    return vertices, _in_order(muons, tracks)


def _tracks(physics: Physics, header: Header, streams: Streams, events: Ints) -> Particles:
    uniform = streams.uniform(Purpose.MULTIPLICITY, events, header.vertices)
    number = _negative_binomial(uniform, physics.tracks)
    event = np.repeat(np.arange(len(events)), header.vertices)
    counts = np.bincount(event, number, len(events)).astype(np.int64)
    eta, phi, hard, pt, charge = columns_of(streams.uniform(Purpose.TRACK, events, 5 * counts), 5)
    slope = np.where(hard < HARD_SHARE, PT_HARD, PT_SOFT)
    sign = np.where(charge < 0.5, -1, 1).astype(np.int8)
    return Particles(
        event=np.repeat(event, number),
        vertex=np.repeat(np.arange(len(event)), number),
        pdg=PION * sign.astype(np.int32),
        charge=sign,
        pt=PT_LEAST - slope * np.log1p(-pt),
        eta=ETA * (2 * eta - 1),
        phi=np.pi * (2 * phi - 1),
    )


def _negative_binomial(uniform: Floats, mean: float) -> Ints:
    cumulative = nbinom.cdf(np.arange(int(30 * mean + 60)), CLUSTERING, CLUSTERING / (CLUSTERING + mean))
    return np.searchsorted(cumulative, uniform, side="right")


def _muons(header: Header, streams: Streams, events: Ints) -> Particles:
    """A negative and a positive muon for each dimuon event, in that order."""
    place = np.flatnonzero(header.process > 0)
    pair = dimuons(header.process[place], streams, events[place])
    first = np.cumsum(header.vertices) - header.vertices
    sign = np.tile(np.array([-1, 1], np.int8), len(place))
    return Particles(
        event=np.repeat(place, 2),
        vertex=np.repeat(first[place], 2),
        pdg=-MUON * sign.astype(np.int32),
        charge=sign,
        pt=pair.pt.ravel(),
        eta=pair.eta.ravel(),
        phi=pair.phi.ravel(),
    )


def _in_order(muons: Particles, tracks: Particles) -> Particles:
    order = np.argsort(np.concatenate([muons.event, tracks.event]), kind="stable")
    names = ("event", "vertex", "pdg", "charge", "pt", "eta", "phi")
    return Particles(*(np.concatenate([getattr(muons, name), getattr(tracks, name)])[order] for name in names))
