"""Candidates by the truth, where pattern recognition is not what is looked at: each crossing gets its nearest cluster.

Simulated events, reconstructed up to clusters under the conditions that are true.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import awkward as ak
import numpy as np
from numpy.typing import NDArray

from calib.payload import Payload
from pipeline.experiments.collisions import Collection
from pipeline.experiments.ref10.geometry import Geometry
from pipeline.experiments.ref10.reconstruct.candidates import Candidates
from pipeline.experiments.ref10.reconstruct.stages import reconstruct
from pipeline.experiments.ref10.simulate.columns import joined
from pipeline.experiments.ref10.simulate.events import Made, Simulated, in_columns, simulate
from pipeline.experiments.ref10.simulate.helix import CURVATURE_GEV, launched
from pipeline.experiments.ref10.simulate.scenario import Scenario, truth
from pipeline.experiments.ref10.simulate.stages import Simulation

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

NEAR = 5.0
"""errors of a cluster that its crossing may be away"""
LEAST_HITS, LEAST_PIXELS = 8, 3


@dataclass(frozen=True, eq=False)
class Assigned:
    """Tracks of simulated events with the hits that are theirs, and their truth."""

    clusters: Collection
    conditions: dict[str, Payload]
    candidates: Candidates
    truth: dict[str, Floats]
    """of each candidate's particle: curvature, phi, d0, z0, cot_theta, pt"""


def assigned(scenario: Scenario, geometry: Geometry, seed: int, events: int, pt: float | None = None) -> Assigned:
    """The particles of the first events of a run that have hits on 8 layers, 3 of them of pixels; all of one pT [GeV]
    if one is given."""
    key = (seed, 1, 1)
    numbers = np.arange(1, events + 1)
    made = (
        simulate(scenario, geometry, *key, numbers)
        if pt is None
        else _of(pt, Simulation(scenario, geometry, *key), numbers)
    )
    conditions = truth(scenario, geometry, *key)
    clusters = reconstruct(made.raw, conditions).clusters
    particles = np.asarray(ak.num(made.truth["Particle_pt"]), np.int64)
    hit = _hits(made, clusters, geometry, particles)
    enough = ((hit >= 0).sum(axis=1) >= LEAST_HITS) & ((hit[:, :4] >= 0).sum(axis=1) >= LEAST_PIXELS)
    counts = np.bincount(np.repeat(np.arange(events), particles)[enough], minlength=events).astype(np.int64)
    chosen = {name: values[enough] for name, values in _truth(made, float(conditions["field"]["tesla"])).items()}
    return Assigned(clusters, conditions, Candidates(counts, hit[enough], np.zeros(events, np.uint8)), chosen)


def _of(pt: float, simulation: Simulation, events: Ints) -> Simulated:
    """Events of the simulation, had all their particles this transverse momentum."""
    collided = simulation.collide(events)
    particles = replace(collided.particles, pt=np.full(len(collided.particles.pt), pt))
    vertices, bending = collided.vertices, particles.charge * simulation.scenario.field_tesla
    place = (getattr(vertices, axis)[particles.vertex] for axis in "xyz")
    flight = launched((*place,), particles.pt, particles.eta, particles.phi, bending)
    collided = replace(collided, particles=particles, flight=flight)
    traces = simulation.trace(events, collided)
    charges = simulation.ionize(events, collided, traces)
    made = Made(collided, traces, charges, simulation.respond(events, collided, charges))
    return Simulated(*(joined([part]) for part in in_columns(simulation, events, made)))


def _truth(made: Simulated, tesla: float) -> dict[str, Floats]:
    flat = {name: np.asarray(ak.flatten(made.truth[f"Particle_{name}"])) for name in ("pt", "charge", "eta")}
    found = {name: np.asarray(ak.flatten(made.truth[f"Particle_{name}"])) for name in ("d0", "z0", "phi")}
    bending = CURVATURE_GEV * tesla * flat["charge"] / flat["pt"]
    return found | {"curvature": bending, "cot_theta": np.sinh(flat["eta"]), "pt": flat["pt"]}


def _hits(made: Simulated, clusters: Collection, geometry: Geometry, particles: Ints) -> Ints:
    """[particles, 10]: of each layer the nearest cluster to the particle's first crossing with one near."""
    crossing = {
        name: np.asarray(ak.flatten(made.truth[f"Crossing_{name}"])) for name in ("particle", "module", "u", "v")
    }
    event = np.repeat(np.arange(len(particles)), np.asarray(ak.num(made.truth["Crossing_u"])))
    keys = clusters.event << 32 | clusters.flat["module"].astype(np.int64)
    wanted = event << 32 | crossing["module"].astype(np.int64)
    first, last = np.searchsorted(keys, wanted), np.searchsorted(keys, wanted, side="right")
    pair = np.repeat(np.arange(len(wanted)), last - first)
    place = np.arange(len(pair)) - np.repeat(np.cumsum(last - first) - (last - first), last - first) + first[pair]
    away = np.zeros(len(pair))
    for axis in "uv":
        off = (clusters[axis][place] - crossing[axis][pair]) / clusters[f"{axis}_error"][place]
        away = np.maximum(away, np.abs(off))
    order = np.lexsort((away, pair))
    order = order[away[order] < NEAR]
    pair, place = pair[order], place[order]
    nearest = np.unique(pair, return_index=True)[1]
    pair, place = pair[nearest], place[nearest]
    track = crossing["particle"][pair] + (np.cumsum(particles) - particles)[event[pair]]
    layer = (crossing["module"][pair].astype(np.int64) >> 16) - 1
    single = np.unique(track * 10 + layer, return_index=True)[1]
    hit = np.full((int(particles.sum()), 10), -1)
    hit[track[single], layer[single]] = place[single]
    return hit
