"""Simulated events of REF10 from RAW to pairs of muons, and what is found beside its truth; in tables.

Tables by what a row is; lengths in cm, momenta in GeV. Of tracks: `key` (event << 16 | place of its particle, -1 of no
particle), `pt_true`, `eta`, `cov_*` and parameters as fitted, `true_<parameter>`. Of vertices of three tracks at least:
`off_*` from where most of its tracks were made. Of pairs, the two muons of a Z or J/psi: `mass`, `true_mass`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import awkward as ak
import numpy as np
from numpy.typing import NDArray

from benchmarks._ref10_tracks import Judged, judged
from calib.payload import Payload
from pipeline.experiments.collisions import Collection
from pipeline.experiments.ref10.daq import DIMUON
from pipeline.experiments.ref10.geometry import GEOMETRIES, Geometry, geometry_of
from pipeline.experiments.ref10.reconstruct.candidates import Candidates, candidates
from pipeline.experiments.ref10.reconstruct.digis import Raw
from pipeline.experiments.ref10.reconstruct.dimuons import Dimuons, dimuons
from pipeline.experiments.ref10.reconstruct.helix import PARAMETERS
from pipeline.experiments.ref10.reconstruct.placed import placed
from pipeline.experiments.ref10.reconstruct.positions import positions
from pipeline.experiments.ref10.reconstruct.stages import clustered
from pipeline.experiments.ref10.reconstruct.tracks import fit_tracks
from pipeline.experiments.ref10.reconstruct.unpack import unpack
from pipeline.experiments.ref10.reconstruct.vertices import HALF, fit_vertices
from pipeline.experiments.ref10.simulate.columns import joined as of_blocks
from pipeline.experiments.ref10.simulate.dimuons import MUON_MASS
from pipeline.experiments.ref10.simulate.events import Made, Simulated, in_columns, simulate
from pipeline.experiments.ref10.simulate.helix import CURVATURE_GEV, launched
from pipeline.experiments.ref10.simulate.scenario import Physics, Scenario, truth
from pipeline.experiments.ref10.simulate.stages import Simulation

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]
Table = dict[str, NDArray[Any]]
Tables = dict[str, Table]
Conditions = Mapping[str, Payload]
Change = Callable[[Conditions], Conditions]
"""what is believed, from what is true"""

RUN, LUMI = 1, 1
TRACKS = 4000
"""of a chunk, about"""
LEAST_TRACKS = 3
"""of a vertex that is looked at"""


def as_it_is(conditions: Conditions) -> Conditions:
    """Nothing is believed that is not so."""
    return conditions


def minimum_bias(pile_up: float) -> Scenario:
    """Minimum bias alone, no strips read out in full; `pile_up` is the mean number of vertices beside the first."""
    return Scenario(physics=Physics(pile_up=pile_up, z=0.0, jpsi=0.0, nzs=0.0))


def muon_pairs(pile_up: float = Physics.pile_up) -> Scenario:
    """Z and J/psi, half of the events each."""
    return Scenario(physics=Physics(pile_up=pile_up, z=0.5, jpsi=0.5, nzs=0.0))


@dataclass(frozen=True)
class Sample:
    """Events to be simulated; with a `pt` [GeV], all their particles have it."""

    seed: int
    events: int
    scenario: Scenario = field(default_factory=lambda: minimum_bias(1.0))
    pt: float | None = None
    geometry: str = "full"
    lumi: int = LUMI
    first: int = 1
    """the number of the first event"""

    @property
    def detector(self) -> Geometry:
        return geometry_of(GEOMETRIES[self.geometry]())

    @cached_property
    def truth(self) -> Conditions:
        """The conditions that are true."""
        return truth(self.scenario, self.detector, self.seed, RUN, self.lumi)

    def chunks(self) -> list[Ints]:
        """Numbers of the events, in parts of bounded size."""
        physics = self.scenario.physics
        size = max(int(TRACKS / ((1 + physics.pile_up) * max(physics.tracks, 1))), 1)
        return np.array_split(np.arange(self.first, self.first + self.events), -(-self.events // size))

    def made(self, numbers: Ints) -> Simulated:
        """Some of the events."""
        key = (self.seed, RUN, self.lumi)
        if self.pt is None:
            return simulate(self.scenario, self.detector, *key, numbers)
        return _of_momentum(self.pt, Simulation(self.scenario, self.detector, *key), numbers)


def _of_momentum(pt: float, simulation: Simulation, events: Ints) -> Simulated:
    collided = simulation.collide(events)
    particles = replace(collided.particles, pt=np.full(len(collided.particles.pt), pt))
    place = (getattr(collided.vertices, axis)[particles.vertex] for axis in "xyz")
    bending = particles.charge * simulation.scenario.field_tesla
    flight = launched((*place,), particles.pt, particles.eta, particles.phi, bending)
    collided = replace(collided, particles=particles, flight=flight)
    traces = simulation.trace(events, collided)
    charges = simulation.ionize(events, collided, traces)
    made = Made(collided, traces, charges, simulation.respond(events, collided, charges))
    return Simulated(*(of_blocks([part]) for part in in_columns(simulation, events, made)))


@dataclass(frozen=True, eq=False)
class Played:
    """Some events through all stages."""

    clusters: Collection
    found: Candidates
    tracks: Collection
    vertices: Collection
    both: Dimuons


def clusters_of(raw: Mapping[str, Any], conditions: Conditions) -> Collection:
    """Clusters in space of RAW, in one block."""
    hits = unpack(Raw.of(raw), conditions)
    return placed(positions(clustered(hits, conditions), conditions), conditions)


def played(raw: Mapping[str, Any], conditions: Conditions) -> Played:
    """All stages, from RAW."""
    clusters = clusters_of(raw, conditions)
    found = candidates(clusters, conditions)
    vertices, tracks = fit_vertices(fit_tracks(found, clusters, conditions), conditions)
    both = dimuons(tracks, vertices, (np.asarray(raw["trig"]) & DIMUON) > 0)
    return Played(clusters, found, tracks, vertices, both)


def seen(sample: Sample, numbers: Ints, beliefs: Mapping[str, Change]) -> dict[str, Tables]:
    """Some events of a sample, once simulated and reconstructed under each of the beliefs: tables by name of these."""
    made, real = sample.made(numbers), sample.truth
    found = {}
    for name, change in beliefs.items():
        one = played(made.raw, change(real))
        found[name] = tables(made, real, one)
    return found


def collected(
    sample: Sample, beliefs: Mapping[str, Change], each: Callable[..., Iterable[Any]] = map
) -> dict[str, Any]:
    """All events of a sample; `each` as `map`, to do chunks side by side."""
    chunks = sample.chunks()
    every = list(each(seen, [sample] * len(chunks), chunks, [beliefs] * len(chunks)))
    return {name: {kind: joined(part[name][kind] for part in every) for kind in every[0][name]} for name in beliefs}


def joined(every: Iterable[Table]) -> Table:
    """Tables of the same columns, one after the other."""
    parts = list(every)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def tables(made: Simulated, real: Conditions, one: Played) -> Tables:
    """What was found of simulated events beside the truth; `real` are the conditions that are true."""
    matched = judged(made, real, one.clusters, one.found)
    particles = _particles(made, float(real["field"]["tesla"]))
    return {
        "particles": particles | {"findable": matched.findable, "tracks": matched.tracks},
        "tracks": _tracks(one.tracks, matched, particles),
        "vertices": _vertices(made, one, matched, particles),
        "pairs": _pairs(made, one, matched, particles),
    }


def _particles(made: Simulated, tesla: float) -> Table:
    """All particles; `vertex` is the place of theirs among all."""
    names = ("pt", "eta", "phi_vertex", "charge", "pdg", "d0", "z0", "phi")
    flat = {name: np.asarray(ak.flatten(made.truth[f"Particle_{name}"])) for name in names}
    counts, vertices = (np.asarray(ak.num(made.truth[name]), np.int64) for name in ("Particle_pt", "Vertex_x"))
    event = np.repeat(np.arange(len(counts)), counts)
    place = np.arange(len(event)) - np.repeat(np.cumsum(counts) - counts, counts)
    number = np.asarray(made.truth["event"], np.int64)[event]
    flat["vertex"] = np.asarray(ak.flatten(made.truth["Particle_vertex"])) + (np.cumsum(vertices) - vertices)[event]
    curvature = CURVATURE_GEV * tesla * flat["charge"] / flat["pt"]
    return flat | {"curvature": curvature, "cot_theta": np.sinh(flat["eta"]), "key": number << 16 | place}


def _tracks(tracks: Collection, matched: Judged, particles: Table) -> Table:
    """All tracks; what is true of those without particle is that of another."""
    own = np.maximum(matched.particle, 0)
    found: Table = {f"true_{name}": particles[name][own] for name in (*PARAMETERS, "pt", "eta")}
    found["key"] = np.where(matched.particle >= 0, particles["key"][own], -1)
    return dict(tracks.flat) | found


def _vertices(made: Simulated, one: Played, matched: Judged, particles: Table) -> Table:
    tracks, vertices = one.tracks, one.vertices
    first = np.cumsum(vertices.counts) - vertices.counts
    belongs = (tracks.flat["vertex"] >= 0) & (tracks["vertex_weight"] > HALF) & (matched.particle >= 0)
    whose = (first[tracks.event] + tracks.flat["vertex"])[belongs]
    claims, number = np.unique(
        np.stack([whose, particles["vertex"][matched.particle[belongs]]]), axis=1, return_counts=True
    )
    # Written in this order, the vertex where most tracks were made stays.
    order = np.lexsort((number, claims[0]))
    true, most = np.full(len(vertices.flat["x"]), -1), np.zeros(len(vertices.flat["x"]), np.int64)
    true[claims[0][order]], most[claims[0][order]] = claims[1][order], number[order]
    used = (vertices.flat["tracks"] >= LEAST_TRACKS) & (true >= 0)
    at = {axis: np.asarray(ak.flatten(made.truth[f"Vertex_{axis}"]))[true[used]] for axis in "xyz"}
    flat = {name: values[used] for name, values in vertices.flat.items()}
    off = {f"off_{prefix}{axis}": flat[prefix + axis] - at[axis] for axis in "xyz" for prefix in ("", "constrained_")}
    return flat | off | {"true": true[used], "matched": most[used]}


def _pairs(made: Simulated, one: Played, matched: Judged, particles: Table) -> Table:
    """Pairs that are the two muons, of opposite charge, that were made together."""
    pairs, muons, tracks = one.both.pairs, one.both.muons, one.tracks
    first_track, first_muon = (np.cumsum(part.counts) - part.counts for part in (tracks, muons))
    own = []
    for which in ("first", "second"):
        muon = first_muon[pairs.event] + pairs.flat[which]
        own.append(matched.particle[first_track[pairs.event] + muons.flat["track"][muon]])
    genuine = np.logical_and(*((which >= 0) & (np.abs(particles["pdg"][which]) == 13) for which in own))
    genuine &= pairs.flat["charge"] == 0
    place = np.stack(own)[:, genuine]
    minus = particles["charge"][place] < 0
    genuine_pairs = {name: values[genuine] for name, values in pairs.flat.items()}
    both = [np.where(minus[0] == sign, place[0], place[1]) for sign in (True, False)]
    found: Table = {"true_mass": mass_of(particles, *both)}
    for name, which in zip(("minus", "plus"), both, strict=True):
        found |= {f"{part}_{name}": particles[part][which] for part in ("pt", "eta", "phi_vertex")}
    event = np.asarray(made.truth["event"], np.int64)[pairs.event[genuine]]
    return genuine_pairs | found | {"key": event}


def mass_of(particles: Table, one: Ints, other: Ints) -> Floats:
    """The mass of pairs of muons by the truth."""
    momenta = []
    for which in (one, other):
        pt, eta, phi = (particles[name][which] for name in ("pt", "eta", "phi_vertex"))
        momenta.append((np.hypot(pt * np.cosh(eta), MUON_MASS), pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)))
    energy, *momentum = (a + b for a, b in zip(*momenta, strict=True))
    found: Floats = np.sqrt(energy**2 - sum(part**2 for part in momentum))
    return found


# Figures. -------------------------------------------------------------------------------------------------------------


def width(values: Floats) -> tuple[float, float]:
    """Half of what holds the middle 68.27 %, and its error as for a Gaussian: far tails do not show. NaN of nothing."""
    if not len(values):
        return np.nan, np.nan
    low, high = np.quantile(values, [0.15865, 0.84135])
    return float((high - low) / 2), float(0.9 * (high - low) / 2 / np.sqrt(len(values)))


def share(mask: Mask) -> tuple[float, float]:
    """Of a mask, and its error; as with one more of either kind, so that none of some is not exact."""
    if not len(mask):
        return np.nan, np.nan
    number, found = len(mask), float(mask.mean())
    guess = (mask.sum() + 1) / (number + 2)
    return found, float(np.sqrt(guess * (1 - guess) / number))


def mean(values: Floats) -> tuple[float, float]:
    """And its error. NaN of nothing."""
    if not len(values):
        return np.nan, np.nan
    return float(values.mean()), float(values.std() / np.sqrt(len(values)))


def error_of(table: Table, name: str) -> Floats:
    """Of a parameter of tracks, by their covariance."""
    found: Floats = np.sqrt(table[f"cov_{name}_{name}"])
    return found


def off_of(table: Table, name: str) -> Floats:
    """What a parameter of tracks is off by; phi as the shorter way round."""
    off: Floats = table[name] - table[f"true_{name}"]
    return (off + np.pi) % (2 * np.pi) - np.pi if name == "phi" else off


def true_tracks(table: Table) -> Table:
    """Tracks that are of a particle."""
    kept = table["key"] >= 0
    return {name: values[kept] for name, values in table.items()}
